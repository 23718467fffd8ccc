"""The fixtures of the tests of ``execution/``: a task without waits between its requests."""

from tests.execution.conftest import *  # noqa: F403
