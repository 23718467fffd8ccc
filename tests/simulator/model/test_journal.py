"""A killed simulator continues from its file. Copying the file simulates a kill at that moment: nothing is closed."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.webhooks.subscriptions import WebhookPatchRequestBody, WebhookRequestBody
from planasonix_provider.simulator.workspace import API_KEY, Workspace
from tests.simulator.conftest import Clock
from tests.support.webhook_target import until

CONNECTION = "conn_demo_01"
MONTH = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-02-01T00:00:00Z"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "planasonix.jsonl"


@pytest.fixture
def workspace(state: Path, clock: Clock) -> Workspace:
    return Workspace(clock=clock, state=state)


def killed_and_restarted(state: Path, clock: Clock, **options: Any) -> Workspace:
    copy = state.with_suffix(f".{random.random()}")
    shutil.copy(state, copy)
    return Workspace(clock=clock, state=copy, **options)


def lines(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in state.read_text().splitlines()]


def visible_state(workspace: Workspace) -> dict[str, Any]:
    """Return everything that a caller can see."""
    return {
        "jobs": workspace.jobs(),
        "backfills": workspace.backfills(),
        "results": [workspace.results(job.id) for job in workspace.jobs() if job.is_over],
        "connections": workspace.connections,
        "settings": workspace.settings,
        "webhooks": workspace.webhooks.all(),
        "deliveries": workspace.webhooks.outbox.all(),
    }


def ends_of_work(workspace: Workspace) -> list[object]:
    """Return the states and ends of all jobs and backfills, without ids, because those of new jobs are random."""
    jobs = [(job.status, job.finished_at, job.error, job.metrics) for job in workspace.jobs()]
    return [*jobs, *(backfill.status for backfill in workspace.backfills())]


class TestKilledSimulator:
    def test_jobs_and_backfills_continue(self, workspace, state, clock):
        workspace.plan(CONNECTION, running_seconds=100, tables={"a": 7})
        job_id = workspace.start_sync(CONNECTION, SyncBody(metadata={"dag_id": "d"})).id
        backfill_id = workspace.start_backfill(CONNECTION, BackfillBody(**MONTH)).id
        clock.move(30)
        again = killed_and_restarted(state, clock)
        assert again.job(job_id) == workspace.job(job_id)
        assert again.job(job_id).status == "running"
        clock.move(80)
        assert again.backfill(backfill_id).status == workspace.backfill(backfill_id).status == "completed"
        assert again.results(job_id) == workspace.results(job_id)

    def test_keeps_idempotency_keys(self, workspace, state, clock):
        body = SyncBody(metadata={"a": 1})
        job = workspace.start_sync(CONNECTION, body, idempotency_key="k")
        again = killed_and_restarted(state, clock)
        assert again.start_sync(CONNECTION, body, idempotency_key="k").id == job.id
        with pytest.raises(ApiError, match="was used for another"):
            again.start_sync(CONNECTION, SyncBody(), idempotency_key="k")

    def test_still_rejects_a_second_sync(self, workspace, state, clock):
        job = workspace.start_sync(CONNECTION)
        with pytest.raises(ApiError) as refused:
            killed_and_restarted(state, clock).start_sync(CONNECTION)
        assert refused.value.existing_job_id == job.id

    def test_keeps_keys_plans_settings_and_connections(self, workspace, state, clock):
        workspace.keys.add("plnx_new", scopes=["jobs:read"])
        made_up = workspace.keys.add().value
        workspace.keys.revoke(API_KEY)
        workspace.add_connection("conn_mine")
        workspace.configure(show_metadata=True, speed=2)
        workspace.plan("conn_mine", times=2, outcome="failed", warnings=[{"code": "c", "message": "m"}])
        workspace.plan_backfill("conn_mine", times=None, jobs=5)
        workspace.start_sync("conn_mine")
        again = killed_and_restarted(state, clock)
        assert again.keys.authenticate("Bearer plnx_new").scopes == {"jobs:read"}
        again.keys.authenticate(f"Bearer {made_up}")
        with pytest.raises(ApiError):
            again.keys.authenticate(f"Bearer {API_KEY}")
        assert again.settings == workspace.settings
        assert again.connections == workspace.connections
        clock.move(60)
        outcomes = []
        for _ in range(2):
            job_id = again.start_sync("conn_mine").id
            clock.move(60)
            outcomes.append(again.job(job_id).status)
        assert outcomes == ["failed", "succeeded"]
        backfill = again.start_backfill("conn_mine", BackfillBody(**MONTH))
        clock.move(1000)
        assert len(again.backfill(backfill.id).job_ids) == 5

    def test_sends_pending_deliveries(self, workspace, state, clock):
        order = WebhookRequestBody(url="https://a.example/hook", events=["job.queued", "job.succeeded"])
        webhook = workspace.webhooks.create(order, idempotency_key="w")
        other = workspace.webhooks.create(order)
        workspace.webhooks.update(other.id, WebhookPatchRequestBody(enabled=False))
        gone = workspace.webhooks.create(order)
        workspace.webhooks.delete(gone.id)
        workspace.start_sync(CONNECTION)
        clock.move(1)
        outbox = workspace.webhooks.outbox
        workspace.advance()
        (queued,) = outbox.due()
        outbox.record_attempt(queued, 204)
        clock.move(60)
        workspace.advance()
        (succeeded,) = outbox.due()
        outbox.record_attempt(succeeded, None, "refused")
        again = killed_and_restarted(state, clock)
        assert again.webhooks.outbox.all() == outbox.all()
        assert [delivery.status for delivery in again.webhooks.outbox.all()] == ["pending", "delivered"]
        assert again.webhooks.all() == workspace.webhooks.all()
        once_more = again.webhooks.create(order, idempotency_key="w")
        assert once_more.signing_secret == webhook.signing_secret
        rotated = again.webhooks.rotate(webhook.id).signing_secret
        assert rotated != webhook.signing_secret

    def test_can_be_restarted_repeatedly(self, workspace, state, clock):
        workspaces = [workspace]
        path = state
        for number in range(4):
            workspaces[-1].start_sync(f"conn_demo_0{number + 1}")
            clock.move(3)
            copy = state.with_suffix(f".{number}")
            shutil.copy(path, copy)
            path = copy
            workspaces.append(Workspace(clock=clock, state=path))
        assert [job.connection_id for job in workspaces[-1].jobs()] == [
            f"conn_demo_0{number}" for number in (4, 3, 2, 1)
        ]

    @pytest.mark.heavy
    @pytest.mark.parametrize("seed", range(20))
    def test_equals_a_simulator_that_was_not_killed(self, state, clock, seed):
        chance = random.Random(seed)
        workspace = Workspace(clock=clock, state=state, keep=chance.choice([5, 10_000]))
        workspace.webhooks.create(
            WebhookRequestBody(
                url="https://a.example/hook", events=["job.succeeded", "job.failed", "backfill.completed"]
            )
        )
        workspace.configure(conflict="allowed", webhook_delivery=chance.choice(["once", "twice", "shuffled"]))
        acts = [
            lambda: workspace.start_sync(
                chance.choice(workspace.connections), idempotency_key=chance.choice(["k", None])
            ),
            lambda: workspace.plan(chance.choice(workspace.connections), outcome="failed"),
            lambda: workspace.plan_backfill(
                CONNECTION, jobs=chance.randint(1, 9), jobs_after_cancel=2, queued_seconds=0
            ),
            lambda: workspace.start_backfill(CONNECTION, BackfillBody(**MONTH)),
            lambda: workspace.cancel(chance.choice(workspace.jobs()).id),
            lambda: workspace.fail_job(chance.choice(workspace.jobs()).id, code=chance.choice(["disk_full", None])),
            lambda: workspace.slow_job(chance.choice(workspace.jobs()).id, chance.random() * 15),
            lambda: [workspace.webhooks.outbox.record_attempt(one, 204) for one in workspace.webhooks.outbox.due()],
            lambda: clock.move(chance.random() * 15),
        ]
        for _ in range(60):
            with suppress(ApiError, IndexError):
                chance.choice(acts)()
        workspace.advance()  # objects that are created later have other ids
        again = killed_and_restarted(state, clock, keep=workspace._keep)
        assert visible_state(again) == visible_state(workspace)
        for seconds in (5, 500):
            clock.move(seconds)
            assert ends_of_work(again) == ends_of_work(workspace)


class TestFile:
    def test_is_readable_by_its_owner_only(self, workspace, state):
        assert stat.S_IMODE(state.stat().st_mode) == 0o600

    def test_existing_file_becomes_readable_by_its_owner_only(self, state, clock):
        state.touch(0o644)
        Workspace(clock=clock, state=state)
        assert stat.S_IMODE(state.stat().st_mode) == 0o600

    def test_is_read_with_a_buffer(self, workspace, state, clock, monkeypatch):
        workspace.start_sync(CONNECTION)
        reads = []

        class Counted(io.FileIO):
            def readinto(self, buffer):
                reads.append(len(buffer))
                return super().readinto(buffer)

            def read(self, size=-1):
                reads.append(size)
                return super().read(size)

        monkeypatch.setattr(os, "fdopen", lambda descriptor, mode, **_: Counted(descriptor, mode))
        killed_and_restarted(state, clock)
        assert len(reads) < 10

    def test_contains_each_start_and_end_once(self, workspace, state, clock):
        job = workspace.start_sync(CONNECTION, SyncBody(metadata={"dag_id": "d"}), idempotency_key="k")
        workspace.start_sync(CONNECTION, SyncBody(metadata={"dag_id": "d"}), idempotency_key="k")
        with pytest.raises(ApiError):
            workspace.start_sync(CONNECTION)
        backfill = workspace.start_backfill(CONNECTION, BackfillBody(**MONTH))
        clock.move(2)
        workspace.advance()
        workspace.cancel(job.id)
        workspace.cancel(job.id)
        clock.move(60)
        workspace.advance()
        told = lines(state)
        starts = [
            (line["method"], line["arguments"], line["ids"][0]) for line in told if line["method"].startswith("start_")
        ]
        given = {"connection_id": CONNECTION, "body": {"metadata": {"dag_id": "d"}}, "idempotency_key": "k"}
        assert starts[0] == ("start_sync", given, job.id)
        assert [(start[0], start[2]) for start in starts[1:]] == [("start_backfill", backfill.id)]
        assert [line["arguments"] for line in told if line["method"] == "cancel"] == [{"job_id": job.id}]
        happened = [event for line in told for event in line["state_changes"]]
        jobs = [(event["type"], event.get("backfill_id")) for event in happened if event["id"].startswith("job_")]
        assert sorted(jobs, key=str) == sorted(
            [
                ("job.queued", None),
                *[("job.queued", backfill.id)] * 3,
                ("job.cancelled", None),
                *[("job.succeeded", backfill.id)] * 3,
            ],
            key=str,
        )
        assert [event["type"] for event in happened if event["id"] == backfill.id] == ["backfill.completed"]

    def test_is_written_before_the_response(self, workspace, state, clock):
        for do in (
            lambda: workspace.start_sync(CONNECTION),
            lambda: workspace.slow_job(workspace.jobs()[0].id, 5),
            lambda: workspace.cancel(workspace.jobs()[0].id),
            lambda: workspace.fail_job(workspace.start_sync("conn_demo_02").id),
        ):
            before = len(lines(state))
            do()
            assert len(lines(state)) > before

    def test_contains_no_rejected_calls(self, workspace, state):
        job_id = workspace.start_sync(CONNECTION).id
        with pytest.raises(ValueError, match="seconds"):
            workspace.slow_job(job_id, 0)
        workspace.fail_job(job_id)
        for refused in (lambda: workspace.fail_job(job_id), lambda: workspace.slow_job(job_id, 5)):
            with pytest.raises(ApiError):
                refused()
        assert [line["method"] for line in lines(state)].count("fail_job") == 1
        assert "slow_job" not in state.read_text()

    def test_ignores_a_truncated_last_line(self, workspace, state, clock):
        job = workspace.start_sync(CONNECTION)
        workspace.start_sync("conn_demo_02")
        whole = state.read_bytes()
        state.write_bytes(whole[:-20])
        again = killed_and_restarted(state, clock)
        assert [one.id for one in again.jobs()] == [job.id]
        again.start_sync("conn_demo_02")
        assert len(killed_and_restarted(again._journal._path, clock).jobs()) == 2

    @pytest.mark.parametrize(
        "damage", ['{"at": "2025-01-01T00:00:00Z", "method": "keys.add", "arguments": {"value": "plnx_secret x"}}', "x"]
    )
    def test_error_for_a_damaged_line_does_not_contain_it(self, workspace, state, clock, damage):
        workspace.start_sync(CONNECTION)
        with state.open("a") as file:
            file.write(f"{damage}\n")
        with pytest.raises(
            ValueError, match=r"state: line 3 of \S+ cannot be read by a simulator of this version"
        ) as refused:
            killed_and_restarted(state, clock)
        assert "plnx_secret" not in str(refused.value)
        assert refused.value.__cause__ is None

    @pytest.mark.parametrize(
        ("method", "arguments"),
        [
            ("_journal.open", {"workspace": None, "settings": {}}),
            ("_journal._path.unlink", {}),
            ("_journal._path.rename", {"target": "/nonexistent/file"}),
            ("keys._journal._path.write_text", {"data": "plnx_secret"}),
            ("reset", {}),
            ("close", {}),
            ("webhooks.on_subscribed", {}),
            ("webhooks.outbox.record_attempt", {}),
            ("__class__", {}),
            ("", {}),
        ],
    )
    def test_cannot_call_other_methods(self, workspace, state, clock, method, arguments):
        workspace.start_sync(CONNECTION)
        line = {"at": "2025-01-01T00:00:00Z", "method": method, "arguments": arguments}
        whole = f"{state.read_text()}{json.dumps(line)}\n"
        state.write_text(whole)
        copy = state.with_name("copy")
        copy.write_text(whole)
        with pytest.raises(ValueError, match=r"state: line 3 of \S+ calls a method that a simulator") as refused:
            Workspace(clock=clock, state=copy)
        assert "plnx_secret" not in str(refused.value)
        assert copy.read_text() == whole

    @pytest.mark.parametrize("method", ["plan", "plan_backfill"])
    @pytest.mark.parametrize("times", [10_001, 10**30])
    def test_limits_the_number_of_plans(self, workspace, state, clock, method, times):
        line = {
            "at": "2025-01-01T00:00:00Z",
            "method": method,
            "arguments": {"connection_id": CONNECTION, "times": times},
        }
        state.with_name("copy").write_text(f"{state.read_text()}{json.dumps(line)}\n")
        with pytest.raises(ValueError, match=r"state: line 2 of \S+ cannot be read by a simulator of this version"):
            Workspace(clock=clock, state=state.with_name("copy"))

    def test_unknown_method_cannot_be_written(self, workspace):
        with pytest.raises(LookupError, match=r"webhooks\.forget is not in METHODS"):
            workspace._journal.write("webhooks.forget")

    @pytest.mark.parametrize("text", ["Mine.\n", "Mine."])
    def test_of_another_program_is_not_changed(self, tmp_path, clock, text):
        notes = tmp_path / "notes.txt"
        notes.write_text(text)
        notes.chmod(0o644)
        with pytest.raises(ValueError, match="line 1"):
            Workspace(clock=clock, state=notes)
        assert notes.read_text() == text
        assert stat.S_IMODE(notes.stat().st_mode) == 0o644

    @pytest.mark.parametrize("length", [1, 5, 40])
    def test_with_a_truncated_first_line_starts_over(self, workspace, state, clock, length):
        state.write_bytes(state.read_bytes()[:length])
        assert killed_and_restarted(state, clock).jobs() == []

    def test_error_names_the_different_options(self, workspace, state, clock):
        with pytest.raises(ValueError, match="was written with different connections and keep, or by another version"):
            killed_and_restarted(state, clock, keep=5, connections=["conn_x"])

    def test_can_be_used_by_one_simulator_only(self, workspace, state, clock):
        with pytest.raises(ValueError, match="another simulator writes to"):
            Workspace(clock=clock, state=state)
        workspace.close()
        Workspace(clock=clock, state=state)

    def test_is_empty_after_a_reset(self, workspace, state, clock):
        workspace.start_sync(CONNECTION)
        workspace.keys.add("plnx_other")
        workspace.reset()
        again = killed_and_restarted(state, clock)
        assert again.jobs() == []
        with pytest.raises(ApiError):
            again.keys.authenticate("Bearer plnx_other")


@contextmanager
def process(state: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    command = [sys.executable, "-m", "planasonix_provider.simulator", "--port", "0", "--state", str(state), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        try:
            assert simulator.stdout
            url = simulator.stdout.readline().split()[-1]
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=60) as client:
                yield simulator, client
        finally:
            simulator.kill()


@pytest.mark.slow("starts processes")
def test_start_survives_kill_before_the_response(state):
    start = {"url": f"/api/v1/connections/{CONNECTION}/sync", "headers": {"Idempotency-Key": "k"}}
    with process(state) as (simulator, client):
        client.post("/_simulator/faults", json={"kind": "hang", "when": "after", "seconds": 600})
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(client.post, **start)
            until(lambda: client.get("/_simulator/state").json()["data"]["jobs"])
            os.kill(simulator.pid, signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                answer.result()
        simulator.wait()
    with process(state) as (_, client):
        jobs = client.get("/api/v1/jobs").json()["data"]
        answer = client.post(**start).json()
    assert [job["id"] for job in jobs] == [answer["data"]["job"]["id"]]


@pytest.mark.slow("starts processes")
def test_ids_of_requests_are_not_stored(state):
    with process(state) as (_, client):
        client.get("/api/v1/jobs").raise_for_status()
        job = client.post(f"/api/v1/connections/{CONNECTION}/sync").json()["data"]["job"]
    assert lines(state)[1]["ids"] == [job["id"]]
    with process(state) as (_, client):
        assert [again["id"] for again in client.get("/api/v1/jobs").json()["data"]] == [job["id"]]


def test_unwritable_file_is_reported_at_start(tmp_path, capsys):
    from planasonix_provider.simulator.__main__ import main

    assert main(["--port", "0", "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"Cannot use {tmp_path}: Is a directory. Name another file with --state.\n"


def test_with_block_closes_the_file(state):
    for count in (1, 2):
        with Simulator(state=state) as simulator:
            simulator.workspace.start_sync(f"conn_demo_0{count}")
            assert len(simulator.jobs()) == count
