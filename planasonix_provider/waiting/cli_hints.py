"""Commands of the shell that a message names, for a person to type: what nobody else ends any more."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planasonix_provider.waiting.targets import WorkTarget

#: How the shell is called where Airflow itself has no ``airflow planasonix``, which is everywhere.
PROGRAM = "python -m planasonix_provider"


def command(*words: str, conn_id: str) -> str:
    """Write a command.

    :param words: the command, and what it is told.
    :param conn_id: the Airflow connection.
    :return: the command as a shell takes it, in backquotes.
    """
    return f"`{PROGRAM} {shlex.join([*words, '--conn-id', conn_id])}`"


def cancel_command(subject: WorkTarget, conn_id: str) -> str:
    """Write the command that ends work.

    :param subject: the job or backfill.
    :param conn_id: the Airflow connection.
    :return: the command; for a backfill, one that also ends what it makes meanwhile.
    """
    if subject.kind == "backfill":
        return command("cancel", "--backfill", subject.id, "--wait", conn_id=conn_id)
    return command("cancel", subject.id, conn_id=conn_id)


def list_command(kind: str, connection_id: str, conn_id: str) -> str:
    """Write the command that lists what runs on a connection.

    :param kind: ``job`` or ``backfill``.
    :param connection_id: Planasonix's connection.
    :param conn_id: the Airflow connection.
    :return: the command.
    """
    return command(f"{kind}s", "--connection-id", connection_id, conn_id=conn_id)
