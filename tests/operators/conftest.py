"""The fixtures of the tests of ``execution/``."""

from tests.execution.conftest import (  # noqa: F401
    _enough_time_after_a_kill,
    _frequent_polls,
    _lists_that_are_not_late,
    _no_airflow,
    _no_pauses_between_retries,
    make,
)
