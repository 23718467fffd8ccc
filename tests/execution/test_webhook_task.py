from __future__ import annotations

import functools
import json
import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from pydantic import SecretStr

from planasonix_provider import airflow_compat, state_store, webhook_secrets
from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixServerError,
)
from planasonix_provider.api.models import NewWebhook, Webhook
from planasonix_provider.execution import webhook_task
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator
from planasonix_provider.secret_stores import PlanasonixSecretError, SecretStore, secret_store
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.webhooks.subscriptions import WebhookPatchRequestBody
from tests.conftest import API_KEY
from tests.support.dags_folder import load_dags, run_dag
from tests.support.scenarios import Killed, routes_asked
from tests.support.task_runs import Run, context, record

URL = "https://hooks.example.com/planasonix"
EVENTS = ["job.succeeded", "job.failed"]

Subscribe = Callable[..., Run]


@pytest.fixture(autouse=True)
def _no_pause_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_secrets, "RETRY_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.fixture
def destination(path: Path) -> SecretStore:
    return secret_store(f"file:{path}")


@pytest.fixture
def run(path: Path) -> Subscribe:
    """Run one try of the task, which stores its secret in a file."""

    def run(*, try_number: int = 1, clear_number: int = 0, **parameters: Any) -> Run:
        ended = Run()
        task = operator(**{"secret_to": f"file:{path}", **parameters})
        record(task, ended.log)
        try:
            ended.result = task.execute(context(ended, try_number=try_number, clear_number=clear_number))
        except Exception as error:
            ended.error = error
        return ended

    return run


def operator(**parameters: Any) -> PlanasonixWebhookOperator:
    return PlanasonixWebhookOperator(
        **{"task_id": "subscribe", "url": URL, "events": EVENTS, "secret_to": "variable:x", **parameters}
    )


def only_webhook(simulator: Simulator) -> Webhook:
    (webhook,) = simulator.workspace.webhooks.all()
    return webhook


def secrets_of(simulator: Simulator) -> dict[str, str]:
    """Return the current secret of each subscription, including deleted ones."""
    return {one.id: one.secret.get_secret_value() for one in simulator.workspace.webhooks._subscriptions.newest_first()}


def has_current_secret(destination: SecretStore, simulator: Simulator) -> bool:
    stored, webhook = destination.load(), only_webhook(simulator)
    assert stored is not None
    secret = stored.signing_secret.get_secret_value()
    return (stored.webhook_id, secret) == (webhook.id, secrets_of(simulator)[webhook.id])


def die(*_: object, **__: object) -> None:
    raise Killed


class TestASubscription:
    def test_is_created_and_its_secret_stored(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        ended = run()
        assert ended.error is None
        webhook = only_webhook(simulator)
        assert ended.result == {
            "webhook_id": webhook.id,
            "url": URL,
            "events": EVENTS,
            "enabled": True,
            "action": "created",
            "secret_is_new": True,
        }
        assert has_current_secret(destination, simulator)
        assert ended.log.lines == [f"Webhook {webhook.id} was created; its secret is in {destination.description}."]

    def test_that_is_correct_stays_unchanged(self, simulator: Simulator, run: Subscribe, path: Path) -> None:
        run()
        before = path.read_text()
        for try_number, events in ((1, EVENTS), (2, EVENTS[::-1])):
            again = run(try_number=try_number, events=events)
            assert (again.result["action"], again.result["secret_is_new"]) == ("unchanged", False)
        assert path.read_text() == before
        assert routes_asked(simulator) == ["list_webhooks", "create_webhook", "list_webhooks"] + ["list_webhooks"] * 2

    def test_of_another_url_does_not_count(self, simulator: Simulator, run: Subscribe) -> None:
        simulator.subscribe("https://hooks.example.com/other", EVENTS)
        assert run().result["action"] == "created"
        assert len(simulator.workspace.webhooks.all()) == 2

    @pytest.mark.parametrize(
        ("stored", "given"),
        [
            ("https://HOOKS.example.com:443/a?b=1", "https://hooks.example.com/a?b=1"),
            ("https://hooks.example.com/", "https://hooks.example.com"),
        ],
    )
    def test_is_found_if_its_url_is_written_differently(
        self, simulator: Simulator, run: Subscribe, stored: str, given: str
    ) -> None:
        simulator.subscribe(stored, EVENTS)
        assert run(url=given).result["action"] == "unchanged"
        assert len(simulator.workspace.webhooks.all()) == 1

    def test_gets_other_events(self, simulator: Simulator, run: Subscribe, destination: SecretStore) -> None:
        run()
        ended = run(events=["backfill.completed"])
        assert (ended.result["action"], ended.result["events"]) == ("updated", ["backfill.completed"])
        assert only_webhook(simulator).events == ["backfill.completed"]
        assert ended.log.lines[0].endswith(
            f" was enabled, for {', '.join(EVENTS)}; from now on it is enabled, for backfill.completed."
        )
        assert has_current_secret(destination, simulator)

    def test_is_enabled_again(self, simulator: Simulator, run: Subscribe) -> None:
        run()
        simulator.workspace.webhooks.update(only_webhook(simulator).id, WebhookPatchRequestBody(enabled=False))
        ended = run()
        assert (ended.result["action"], ended.result["enabled"]) == ("updated", True)
        assert only_webhook(simulator).enabled

    def test_is_found_behind_the_first_page(self, simulator: Simulator, run: Subscribe) -> None:
        simulator.subscribe(URL, EVENTS)
        for number in range(100):
            simulator.subscribe(f"https://hooks.example.com/{number}", EVENTS)
        assert run().result["action"] == "unchanged"

    def test_that_exists_twice_is_an_error_that_names_both(self, simulator: Simulator, run: Subscribe) -> None:
        ids = [simulator.subscribe(URL, EVENTS).id for _ in range(2)]
        ended = run()
        assert isinstance(ended.error, PlanasonixConflictError)
        assert all(webhook_id in str(ended.error) for webhook_id in ids)
        assert "Delete all but one" in str(ended.error)
        assert routes_asked(simulator) == ["list_webhooks"]

    def test_to_an_unknown_event_logs_a_warning(
        self, simulator: Simulator, run: Subscribe, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert run(events=["job.paused"]).result["events"] == ["job.paused"]
        assert "does not know job.paused, which may never come." in caplog.text
        caplog.clear()
        assert run(events=["job.paused"]).result["action"] == "unchanged"
        assert "does not know job.paused, which may never come." in caplog.text


class TestItsSecret:
    def test_is_rotated_if_it_is_not_stored(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        theirs = simulator.subscribe(URL, EVENTS)
        ended = run()
        assert (ended.result["action"], ended.result["secret_is_new"]) == ("unchanged", True)
        assert has_current_secret(destination, simulator)
        assert secrets_of(simulator)[theirs.id] != theirs.signing_secret.get_secret_value()
        assert "so it was rotated; the new one is there" in ended.log.lines[0]

    def test_is_rotated_if_that_of_a_deleted_subscription_is_stored(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        run()
        simulator.workspace.webhooks.delete(only_webhook(simulator).id)
        simulator.subscribe(URL, EVENTS)
        assert run().result["secret_is_new"]
        assert has_current_secret(destination, simulator)

    @pytest.mark.parametrize("exists", [False, True])
    def test_never_replaces_that_of_another_url(self, simulator: Simulator, run: Subscribe, exists: bool) -> None:
        run()
        if exists:
            simulator.subscribe("https://hooks.example.com/other", EVENTS)
        ended = run(url="https://hooks.example.com/other")
        assert isinstance(ended.error, PlanasonixSecretError)
        assert "it holds the secret of webhook wh_" in str(ended.error)
        assert len(simulator.workspace.webhooks.all()) == (2 if exists else 1)
        assert "rotate_webhook_secret" not in routes_asked(simulator)
        assert run().result["secret_is_new"] is False

    def test_is_stored_before_anything_is_delivered(self, simulator: Simulator, run: Subscribe) -> None:
        webhook = simulator.subscribe(URL, EVENTS)
        simulator.workspace.webhooks.update(webhook.id, WebhookPatchRequestBody(enabled=False))
        run()
        assert routes_asked(simulator) == ["list_webhooks", "rotate_webhook_secret", "update_webhook"]

    def test_is_not_requested_if_it_cannot_be_stored(self, simulator: Simulator, run: Subscribe) -> None:
        ended = run(secret_to="file:/nowhere/secret")
        assert isinstance(ended.error, PlanasonixSecretError)
        assert "there is no folder /nowhere" in str(ended.error)
        assert simulator.requests == []

    def test_that_could_not_be_stored_leaves_no_subscription(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            ended = run()
        assert isinstance(ended.error, PlanasonixSecretError)
        assert "deleted again: nothing was created" in str(ended.error)
        assert simulator.workspace.webhooks.all() == []
        assert run(try_number=2).result["action"] == "created"
        assert has_current_secret(destination, simulator)


class TestASecretForAFunction:
    @pytest.fixture
    def taken(self) -> list[SecretStr]:
        return []

    @staticmethod
    def revealed(taken: list[SecretStr]) -> list[str]:
        return [secret.get_secret_value() for secret in taken]

    def test_is_handed_over_once(self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]) -> None:
        run(secret_to=taken.append)
        run(secret_to=taken.append)
        assert self.revealed(taken) == list(secrets_of(simulator).values())

    def test_is_rotated_if_the_function_never_got_it(
        self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]
    ) -> None:
        theirs = simulator.subscribe(URL, EVENTS)
        ended = run(secret_to=taken.append)
        assert (ended.result["action"], ended.result["secret_is_new"]) == ("unchanged", True)
        assert self.revealed(taken) == [secrets_of(simulator)[theirs.id]]
        assert ended.log.lines[0].startswith(f"The secret of webhook {theirs.id} may never have reached function")
        assert run(secret_to=taken.append).result["secret_is_new"] is False

    def test_is_rotated_if_another_function_got_it(
        self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]
    ) -> None:
        run(secret_to=print)
        assert run(secret_to=taken.append).result["secret_is_new"]
        assert self.revealed(taken) == list(secrets_of(simulator).values())

    def test_is_rotated_after_a_try_that_died(
        self, simulator: Simulator, run: Subscribe, taken: list[SecretStr], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(secret_to=taken.append)
        for try_number, method in ((1, "list_webhooks"), (2, "rotate_webhook_secret")):
            with monkeypatch.context() as patch:
                patch.setattr(PlanasonixHook, method, die)
                with pytest.raises(Killed):
                    run(secret_to=taken.append, try_number=try_number)
        assert run(secret_to=taken.append).result["secret_is_new"]
        assert self.revealed(taken)[-1] == secrets_of(simulator)[only_webhook(simulator).id]

    def test_is_rotated_by_a_retry(self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]) -> None:
        simulator.fail("reset", route="list_webhooks", skip=1, times=8)
        first = run(secret_to=taken.append)
        assert isinstance(first.error, PlanasonixError)
        assert len(taken) == 1, "the function gets the secret although the list failed"
        second = run(secret_to=taken.append, try_number=2)
        assert (second.result["action"], second.result["secret_is_new"]) == ("unchanged", True)
        assert self.revealed(taken)[-1] == secrets_of(simulator)[only_webhook(simulator).id]

    def test_is_not_rotated_after_a_failed_update(
        self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]
    ) -> None:
        run(secret_to=taken.append)
        simulator.fail("status", route="update_webhook", status=500, times=8)
        failed = run(secret_to=taken.append, events=["backfill.completed"])
        assert isinstance(failed.error, PlanasonixServerError)
        retried = run(secret_to=taken.append, events=["backfill.completed"], try_number=2)
        assert (retried.result["action"], retried.result["secret_is_new"]) == ("updated", False)
        assert self.revealed(taken) == list(secrets_of(simulator).values())

    def test_is_not_rotated_after_a_clear_of_the_task(
        self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]
    ) -> None:
        run(secret_to=taken.append)
        cleared = run(secret_to=taken.append, try_number=2, clear_number=1)
        assert (cleared.result["action"], cleared.result["secret_is_new"]) == ("unchanged", False)
        assert self.revealed(taken) == list(secrets_of(simulator).values())

    def test_is_rotated_after_a_lost_response(
        self, simulator: Simulator, run: Subscribe, taken: list[SecretStr]
    ) -> None:
        simulator.fail("reset", route="create_webhook", when="after")
        assert run(secret_to=taken.append).result["secret_is_new"]
        assert self.revealed(taken) == list(secrets_of(simulator).values())


class TestEnsureAbsent:
    def test_deletes_the_subscription_of_its_url_only(self, simulator: Simulator, run: Subscribe) -> None:
        created = run().result
        simulator.subscribe(f"{URL}/other", events=EVENTS)
        ended = run(ensure="absent", events=None, secret_to=None)
        assert ended.error is None
        assert ended.result == created | {"enabled": False, "action": "deleted", "secret_is_new": False}
        assert only_webhook(simulator).url == f"{URL}/other"
        again = run(ensure="absent", events=None, secret_to=None)
        assert (again.result["action"], again.result["webhook_id"]) == ("unchanged", None)
        assert set(again.result) == set(created)
        assert again.log.lines == ["There is no webhook for the url of this task; there is nothing to delete."]

    def test_deletes_all_of_its_url(self, simulator: Simulator, run: Subscribe) -> None:
        for _ in range(3):
            simulator.subscribe(URL, events=EVENTS)
        assert run(ensure="absent").result["action"] == "deleted"
        assert simulator.workspace.webhooks.all() == []

    def test_succeeds_if_the_response_is_lost(self, simulator: Simulator, run: Subscribe) -> None:
        run()
        simulator.fail("reset", route="delete_webhook", when="after")
        assert run(ensure="absent").error is None
        assert simulator.workspace.webhooks.all() == []

    def test_frees_the_place_of_the_secret(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        run()
        run(ensure="absent")
        assert run().result["action"] == "created"
        assert has_current_secret(destination, simulator)


class TestALostResponse:
    @pytest.mark.parametrize(("kind", "status"), [("reset", None), ("cut", None), ("html", 502), ("empty", None)])
    def test_leaves_one_subscription_with_a_stored_secret(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore, kind: Any, status: int | None
    ) -> None:
        simulator.fail(kind, route="create_webhook", status=status, when="after")
        ended = run()
        assert ended.error is None
        assert (ended.result["action"], ended.result["secret_is_new"]) == ("unchanged", True)
        assert has_current_secret(destination, simulator)
        assert routes_asked(simulator).count("create_webhook") == 1

    def test_is_left_to_the_retry_if_nothing_was_created(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        simulator.fail("reset", route="create_webhook", when="before")
        ended = run()
        assert isinstance(ended.error, PlanasonixError)
        assert not isinstance(ended.error, AirflowFailException)
        assert "A retry of the task checks that first, and continues" in str(ended.error)
        assert run(try_number=2).result["action"] == "created"
        assert has_current_secret(destination, simulator)

    def test_and_a_failed_list_are_repaired_by_the_retry(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        simulator.fail("reset", route="create_webhook", when="after")
        simulator.fail("reset", route="list_webhooks", skip=1, times=8)
        assert isinstance(run().error, PlanasonixError)
        assert destination.load() is None
        assert run(try_number=2).result["secret_is_new"]
        assert has_current_secret(destination, simulator)

    def test_of_a_rotation_is_repaired_by_another_rotation(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore
    ) -> None:
        simulator.subscribe(URL, EVENTS)
        simulator.fail("reset", route="rotate_webhook_secret", when="after", times=3)
        first = run()
        assert not isinstance(first.error, AirflowFailException)
        assert "It is unknown whether the secret" in str(first.error)
        assert run(try_number=2).result["secret_is_new"]
        assert has_current_secret(destination, simulator)

    def test_and_a_process_that_dies_are_repaired_by_the_retry(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(webhook_task, "store_or_delete", die)
            with pytest.raises(Killed):
                run()
        assert destination.load() is None
        assert run(try_number=2).result["webhook_id"] == only_webhook(simulator).id
        assert has_current_secret(destination, simulator)


class TestTwoTasksAtOnce:
    @pytest.fixture
    def while_creating(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """A function that schedules an action just before, or after, the task creates its subscription."""

        def schedule(act: Callable[[], object], *, before: bool) -> None:
            left = [act]

            def create(*arguments: Any, **parameters: Any) -> NewWebhook:
                if before and left:
                    left.pop()()
                created = webhook_secrets.create_without_storing(*arguments, **parameters)
                if left:
                    left.pop()()
                return created

            monkeypatch.setattr(webhook_task, "create_without_storing", create)

        return schedule

    def test_keep_the_older_subscription(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore, while_creating: Callable[..., None]
    ) -> None:
        others: list[Run] = []
        while_creating(lambda: others.append(run()), before=True)
        ended = run()
        assert (others[0].result["action"], ended.result["action"]) == ("created", "unchanged")
        assert ended.result["webhook_id"] == others[0].result["webhook_id"] == only_webhook(simulator).id
        assert has_current_secret(destination, simulator)
        assert "Another task made a webhook for the same url at the same moment" in ended.log.lines[0]

    def test_do_not_rotate_a_secret_that_the_other_is_about_to_store(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore, while_creating: Callable[..., None]
    ) -> None:
        theirs: list[NewWebhook] = []
        while_creating(lambda: theirs.append(simulator.subscribe(URL, EVENTS)), before=True)
        ended = run()
        assert isinstance(ended.error, PlanasonixConflictError)
        assert "the secret of the other one is not there yet. Try again" in str(ended.error)
        assert only_webhook(simulator).id == theirs[0].id
        assert "rotate_webhook_secret" not in routes_asked(simulator)
        destination.save(theirs[0].signing_secret, webhook_id=theirs[0].id)
        assert run(try_number=2).result["action"] == "unchanged"

    def test_keep_their_own_subscription_if_it_is_older(
        self, simulator: Simulator, run: Subscribe, destination: SecretStore, while_creating: Callable[..., None]
    ) -> None:
        while_creating(run, before=False)
        ended = run()
        # The other task found this subscription before its secret was stored, and rotated it.
        assert ended.result["action"] == "created"
        assert ended.result["webhook_id"] == only_webhook(simulator).id
        stored = destination.load()
        assert stored is not None
        assert secrets_of(simulator)[only_webhook(simulator).id] in {s.get_secret_value() for s in stored.secrets}

    @pytest.mark.parametrize(
        ("theirs", "ours", "is_older"),
        [
            ("2025-03-27T15:00:00Z", "2025-03-27T15:00:01Z", True),
            ("2025-03-27T15:00:01Z", "2025-03-27T15:00:00Z", False),
            ("2025-03-27T15:00:00Z", "2025-03-27T15:00:00Z", True),
            (None, "2025-03-27T15:00:00Z", True),
            ("2025-03-27T15:00:00Z", None, True),
        ],
    )
    def test_both_delete_theirs_if_neither_is_older(self, theirs: str | None, ours: str | None, is_older: bool) -> None:
        webhook = Webhook.model_validate({"id": "wh", "url": URL, "created_at": theirs})
        created = NewWebhook.model_validate({"id": "wh", "url": URL, "created_at": ours, "signing_secret": "x"})
        assert webhook_task._is_older(webhook, created) is is_older


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameter", "value", "words"),
        [
            ("url", "http://hooks.example.com/x", "url: got 'http://hooks.example.com/…', allowed is an https URL"),
            ("url", "http://127.example.com/x", "url: got 'http://127.example.com/…', allowed is an https URL"),
            ("url", "https://hooks.example.com/a b", "url: got 'https://hooks.example.com/…', allowed is an https URL"),
            ("url", "", "url: got ''"),
            ("url", None, "url: got <class 'NoneType'>"),
            ("url", "https://[x", "url: got 'https://[x'"),
            ("url", "ftp://127.0.0.1/x", "url: got 'ftp://127.0.0.1/…'"),
            ("events", [], "events: got [], allowed is a list of events, such as ['job.succeeded', 'job.failed']"),
            ("events", "job.succeeded", "events: got 'job.succeeded'"),
            ("events", ["job.succeeded", " "], "events: got ['job.succeeded', ' ']"),
            ("secret_to", "vault:x", "secret_to: got a text that is not shown, because it may be the secret"),
            ("secret_to", None, "secret_to: got None, which is allowed only with ensure='absent'"),
            ("events", None, "events: got None, which is allowed only with ensure='absent'"),
            ("ensure", "deleted", "ensure: got 'deleted', allowed is present, absent"),
            ("ensure", None, "ensure: got None, allowed is present, absent"),
            ("planasonix_conn_id", "", "planasonix_conn_id: got ''"),
        ],
    )
    def test_is_refused_when_the_dag_is_parsed(self, parameter: str, value: Any, words: str) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            operator(**{parameter: value})

    @pytest.mark.parametrize(
        ("parameter", "rendered"),
        [("url", "http://hooks.example.com"), ("events", "job.succeeded"), ("secret_to", "vault:x")],
    )
    def test_from_a_template_is_refused_before_the_first_request(
        self, simulator: Simulator, parameter: str, rendered: str
    ) -> None:
        task = operator(**{parameter: "{{ params.x }}"})
        setattr(task, parameter, rendered)
        with pytest.raises(AirflowFailException, match=f"{parameter}: got"):
            task.execute(context(Run()))
        assert simulator.requests == []

    def test_error_hides_the_secrets_in_a_url(self) -> None:
        with pytest.raises(ValueError, match="url: got") as refused:
            operator(url="http://me:precious@hooks.example.com/precious?token=precious")
        assert "precious" not in str(refused.value)

    @pytest.mark.parametrize("url", ["http://localhost:8080/x", "http://127.0.0.2/x", "http://[::1]/x"])
    def test_does_not_include_plain_http_to_this_machine(self, url: str) -> None:
        assert operator(url=url).url == url


class TestAnError:
    def test_of_the_airflow_connection_names_it(self, run: Subscribe) -> None:
        ended = run(planasonix_conn_id="planasonix_nowhere")
        assert isinstance(ended.error, PlanasonixConfigurationError)
        assert "'planasonix_nowhere'" in str(ended.error)

    @pytest.mark.parametrize("route", ["list_webhooks", "create_webhook"])
    def test_403_fails_without_a_retry(self, simulator: Simulator, run: Subscribe, route: str) -> None:
        simulator.fail("status", route=route, status=403)
        assert isinstance(run().error, AirflowFailException)

    def test_500_is_left_to_the_retries(self, simulator: Simulator, run: Subscribe) -> None:
        simulator.fail("status", route="list_webhooks", status=500, times=8)
        assert isinstance(run().error, PlanasonixServerError)
        assert run(try_number=2).result["action"] == "created"


def test_parameters_may_be_templates() -> None:
    task = operator(url="{{ params.url }}", events="{{ params.events }}", secret_to="variable:{{ params.v }}")
    assert set(task.template_fields) == {"url", "events", "secret_to", "ensure", "planasonix_conn_id"}
    task.events = EVENTS
    task.render_template_fields({"params": {"url": URL, "v": "planasonix_secret"}})
    assert (task.url, task.secret_to) == (URL, "variable:planasonix_secret")


def test_airflow_shows_only_the_name_of_a_function() -> None:
    from airflow.serialization.helpers import serialize_template_field

    def put(token: str, secret: SecretStr) -> None: ...

    task = operator(secret_to=functools.partial(put, "precious"))
    shown = json.dumps(serialize_template_field(task.secret_to, "secret_to"))
    assert "precious" not in shown
    assert " at 0x" not in shown
    task.render_template_fields({})


def test_no_secret_and_no_key_appears_in_logs_results_or_errors(
    simulator: Simulator, run: Subscribe, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets: set[str] = set()
    output = ""
    routes = ("list_webhooks", "create_webhook", "rotate_webhook_secret", "delete_webhook")
    for exists in (False, True):
        for fault in (None, "reset", "html", "empty"):
            for route in routes:
                for secret_to in (f"file:{path}", print_and_fail):
                    simulator.reset()
                    path.unlink(missing_ok=True)
                    if exists:
                        simulator.subscribe(URL, ["job.queued"])
                    if fault:
                        simulator.fail(fault, route=route, when="after")
                    ended = run(secret_to=secret_to)
                    secrets |= set(secrets_of(simulator).values())
                    output += ended.said + ("".join(traceback.format_exception(ended.error)) if ended.error else "")
    assert len(secrets) > 50
    assert "created" in output
    assert not [secret for secret in secrets if secret in output + caplog.text]
    assert API_KEY not in output + caplog.text


def print_and_fail(secret: SecretStr) -> None:
    raise ValueError(f"I will not take {secret.get_secret_value()} or {secret!r}")


@pytest.mark.slow("runs whole DAGs")
@pytest.mark.dag
@pytest.mark.usefixtures("dags_folder")
def test_a_function_gets_a_secret_once_over_several_dag_runs(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow's own variables instead of the fake ones of this folder's conftest.
    monkeypatch.setattr(state_store, "variable_class", airflow_compat.variable_class)
    simulator.subscribe(URL, EVENTS)
    taken = tmp_path / "taken"
    source = DAG_WITH_A_FUNCTION.format(url=URL, events=EVENTS, taken=str(taken))
    for _ in range(3):
        assert run_dag(load_dags("planasonix_subscribes_a_function", source)["dag"]) == "success"
    assert taken.read_text().split() == list(secrets_of(simulator).values())


DAG_WITH_A_FUNCTION = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator


def put(secret):
    with open({taken!r}, "a") as file:
        print(secret.get_secret_value(), file=file)


with DAG(dag_id="planasonix_subscribes_a_function", start_date=datetime(2025, 1, 1, tzinfo=UTC), schedule=None) as dag:
    PlanasonixWebhookOperator(task_id="subscribe", url={url!r}, events={events!r}, secret_to=put)
"""
