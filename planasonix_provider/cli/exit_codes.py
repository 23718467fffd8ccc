"""The exit codes of the shell."""

from __future__ import annotations

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixLostTrackError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)

#: What was asked is done; with ``--wait``, the work has succeeded.
EXIT_OK = 0
#: Planasonix refused, or could not be reached, or Airflow's connection is wrong.
REFUSED = 1
#: The command line makes no sense.
MISUSED = 2
#: The work that was waited for has failed.
WORK_FAILED = 3
#: The work that was waited for was cancelled.
WORK_CANCELLED = 4
#: The work was not over in time.
OUT_OF_TIME = 5
#: Nobody knows whether the work was started, or what became of it: look before you start it again.
LOST_TRACK = 6
#: To which the number of a signal is added, as shells do: 130 for Ctrl-C, 143 for a SIGTERM.
SIGNALLED = 128
#: Nobody reads the answer any more; what the shell says of a process that a pipe has ended.
BROKEN_PIPE = SIGNALLED + 13

_CODES: dict[type[PlanasonixError], int] = {
    PlanasonixJobFailedError: WORK_FAILED,
    PlanasonixJobCancelledError: WORK_CANCELLED,
    PlanasonixTimeoutError: OUT_OF_TIME,
    PlanasonixLostTrackError: LOST_TRACK,
    PlanasonixOutageError: LOST_TRACK,
}


def code_of(error: PlanasonixError) -> int:
    """Say with which code a command ends.

    :param error: what it ends with.
    :return: the exit code.
    """
    return _CODES.get(type(error), REFUSED)
