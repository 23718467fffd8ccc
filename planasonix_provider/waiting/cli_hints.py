"""Shell commands that messages contain, for work that only a person can end any more."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planasonix_provider.waiting.targets import WorkTarget

#: Works on every version of Airflow, unlike ``airflow planasonix``.
PROGRAM = "python -m planasonix_provider"


def command(*words: str, conn_id: str) -> str:
    """Return a command in backquotes, quoted for a shell."""
    return f"`{PROGRAM} {shlex.join([*words, '--conn-id', conn_id])}`"


def cancel_command(target: WorkTarget, conn_id: str) -> str:
    """Return the command that cancels a job, or a backfill with the jobs that it creates meanwhile."""
    if target.kind == "backfill":
        return command("cancel", "--backfill", target.id, "--wait", conn_id=conn_id)
    return command("cancel", target.id, conn_id=conn_id)


def list_command(kind: str, connection_id: str, conn_id: str) -> str:
    """Return the command that lists the jobs or backfills of a connection."""
    return command(f"{kind}s", "--connection-id", connection_id, conn_id=conn_id)
