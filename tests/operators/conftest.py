"""The fixtures of the tests of ``execution/``."""

from tests.execution.conftest import *  # noqa: F403
