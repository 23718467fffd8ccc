from __future__ import annotations

import shlex

import pytest

from planasonix_provider.cli.parser import new_parser
from planasonix_provider.waiting import cli_hints
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget


def parse(command: str) -> dict[str, object]:
    """Parse a command in backquotes as a shell and the CLI do."""
    words = shlex.split(command.strip("`"))
    assert words[:3] == ["python", "-m", "planasonix_provider"]
    return vars(new_parser().parse_args(words[3:]))


@pytest.mark.parametrize(
    "conn_id", ["planasonix_default", "planasonix eu", "a'b\"c", "$(reboot)", "x;y", "a\\b", "#1!"]
)
def test_are_valid_in_a_shell_for_any_name_of_the_airflow_connection(conn_id: str) -> None:
    job = parse(cli_hints.cancel_command(JobTarget("job_1"), conn_id))
    assert (job["act"], job["id"], job["backfill"], job["conn_id"]) == ("jobs.cancel", "job_1", False, conn_id)
    backfill = parse(cli_hints.cancel_command(BackfillTarget("bf_1"), conn_id))
    assert (backfill["id"], backfill["backfill"], backfill["wait"]) == ("bf_1", True, True)
    assert backfill["conn_id"] == conn_id


@pytest.mark.parametrize(("kind", "act"), [("job", "jobs.jobs"), ("backfill", "jobs.backfills")])
def test_list_the_work_of_a_connection(kind: str, act: str) -> None:
    listing = parse(cli_hints.list_command(kind, "conn_1", "eu"))
    assert (listing["act"], listing["connection_id"], listing["conn_id"]) == (act, "conn_1", "eu")
