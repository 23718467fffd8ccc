from __future__ import annotations

import functools
import json
import logging
import re
import runpy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from pydantic import SecretStr

from planasonix_provider import webhook_secrets
from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixConflictError,
    PlanasonixError,
    PlanasonixServerError,
)
from planasonix_provider.api.models import NewWebhook, Webhook
from planasonix_provider.execution import webhook_task as road
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator
from planasonix_provider.secret_stores import PlanasonixSecretError, SecretStore, secret_store
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.webhooks.subscriptions import WebhookPatchRequestBody
from tests.conftest import API_KEY, DAGS_FOLDER
from tests.support.scenarios import routes_asked
from tests.support.task_runs import Run, context, record

URL = "https://hooks.example.com/planasonix"
EVENTS = ["job.succeeded", "job.failed"]


@pytest.fixture(autouse=True)
def _no_time_between_two_tries_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_secrets, "RETRY_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.fixture
def place(path: Path) -> SecretStore:
    return secret_store(f"file:{path}")


@pytest.fixture
def run(path: Path) -> Callable[..., Run]:
    """Runs the task, whose secret goes to a file, to its end; each first try is of another run of its DAG."""
    runs: list[Run] = []

    def pull(*, task_ids: str, key: str, map_indexes: int, include_prior_dates: bool) -> Any:
        assert (task_ids, map_indexes, include_prior_dates) == ("load", -1, True)
        return next((one.xcoms[key] for one in reversed(runs) if key in one.xcoms), None)

    def run(*, try_number: int = 1, **parameters: Any) -> Run:
        if try_number > 1:
            # Airflow forgets what the try before has pushed.
            runs[-1].xcoms.clear()
        ended = Run()
        runs.append(ended)
        told = context(ended, try_number=try_number)
        told["ti"].xcom_pull = pull
        operator = subscribe(**{"secret_to": f"file:{path}", **parameters})
        record(operator, ended.log)
        try:
            ended.result = operator.execute(told)
        except Exception as error:
            ended.error = error
        return ended

    return run


def subscribe(**parameters: Any) -> PlanasonixWebhookOperator:
    return PlanasonixWebhookOperator(
        **{"task_id": "subscribe", "url": URL, "events": EVENTS, "secret_to": "variable:x", **parameters}
    )


def the_one(simulator: Simulator) -> Webhook:
    (only,) = simulator.world.webhooks.all()
    return only


def secrets_of(simulator: Simulator) -> dict[str, str]:
    """The signing secret of each subscription, deleted ones too, as it is now."""
    return {one.id: one.secret.get_secret_value() for one in simulator.world.webhooks._subscriptions.newest_first()}


def has_its_secret(place: SecretStore, simulator: Simulator) -> bool:
    kept, webhook = place.load(), the_one(simulator)
    assert kept is not None
    return (kept.webhook_id, kept.signing_secret.get_secret_value()) == (webhook.id, secrets_of(simulator)[webhook.id])


class TestASubscription:
    def test_is_created_and_its_secret_kept(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        ended = run()
        assert ended.error is None
        webhook = the_one(simulator)
        assert ended.result == {
            "webhook_id": webhook.id,
            "url": URL,
            "events": EVENTS,
            "enabled": True,
            "action": "created",
            "secret_is_new": True,
        }
        assert has_its_secret(place, simulator)
        assert ended.log.lines == [f"Webhook {webhook.id} was created; its secret is in {place.description}."]

    def test_that_is_as_it_should_be_stays(self, simulator: Simulator, run: Callable[..., Run], path: Path) -> None:
        run()
        before = path.read_text()
        for try_number, events in ((1, EVENTS), (2, EVENTS[::-1])):
            again = run(try_number=try_number, events=events)
            assert (again.result["action"], again.result["secret_is_new"]) == ("unchanged", False)
        assert path.read_text() == before
        assert routes_asked(simulator) == ["list_webhooks", "create_webhook", "list_webhooks"] + ["list_webhooks"] * 2

    def test_is_told_apart_by_its_url_alone(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        simulator.subscribe("https://hooks.example.com/other", EVENTS)
        assert run().result["action"] == "created"
        assert len(simulator.world.webhooks.all()) == 2

    @pytest.mark.parametrize(
        ("there", "wanted"),
        [
            ("https://HOOKS.example.com:443/a?b=1", "https://hooks.example.com/a?b=1"),
            ("https://hooks.example.com/", "https://hooks.example.com"),
        ],
    )
    def test_is_found_however_its_url_is_written(
        self, simulator: Simulator, run: Callable[..., Run], there: str, wanted: str
    ) -> None:
        simulator.subscribe(there, EVENTS)
        assert run(url=wanted).result["action"] == "unchanged"
        assert len(simulator.world.webhooks.all()) == 1

    def test_gets_other_events(self, simulator: Simulator, run: Callable[..., Run], place: SecretStore) -> None:
        run()
        ended = run(events=["backfill.completed"])
        assert (ended.result["action"], ended.result["events"]) == ("updated", ["backfill.completed"])
        assert the_one(simulator).events == ["backfill.completed"]
        assert ended.log.lines[0].endswith(
            f" was enabled, for {', '.join(EVENTS)}; from now on it is enabled, for backfill.completed."
        )
        assert has_its_secret(place, simulator)

    def test_is_enabled_again(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        run()
        simulator.world.webhooks.update(the_one(simulator).id, WebhookPatchRequestBody(enabled=False))
        ended = run()
        assert (ended.result["action"], ended.result["enabled"]) == ("updated", True)
        assert the_one(simulator).enabled

    def test_is_found_behind_the_first_page(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        simulator.subscribe(URL, EVENTS)
        for number in range(100):
            simulator.subscribe(f"https://hooks.example.com/{number}", EVENTS)
        assert run().result["action"] == "unchanged"

    def test_that_is_there_twice_is_an_error_that_names_both(
        self, simulator: Simulator, run: Callable[..., Run]
    ) -> None:
        ids = [simulator.subscribe(URL, EVENTS).id for _ in range(2)]
        ended = run()
        assert isinstance(ended.error, PlanasonixConflictError)
        assert all(webhook_id in str(ended.error) for webhook_id in ids)
        assert "Delete all but one" in str(ended.error)
        assert routes_asked(simulator) == ["list_webhooks"]

    def test_may_be_told_of_events_that_nobody_knows(
        self, simulator: Simulator, run: Callable[..., Run], caplog: pytest.LogCaptureFixture
    ) -> None:
        assert run(events=["job.paused"]).result["events"] == ["job.paused"]
        assert "does not know job.paused, which may never come." in caplog.text


class TestItsSecret:
    def test_is_rotated_where_it_is_not_there(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        theirs = simulator.subscribe(URL, EVENTS)
        ended = run()
        assert (ended.result["action"], ended.result["secret_is_new"]) == ("unchanged", True)
        assert has_its_secret(place, simulator)
        assert secrets_of(simulator)[theirs.id] != theirs.signing_secret.get_secret_value()
        assert "so it was rotated; the new one is there" in ended.log.lines[0]

    def test_is_rotated_where_another_subscriptions_is_there(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        run()
        simulator.world.webhooks.delete(the_one(simulator).id)
        simulator.subscribe(URL, EVENTS)
        assert run().result["secret_is_new"]
        assert has_its_secret(place, simulator)

    @pytest.mark.parametrize("is_there", [False, True])
    def test_does_not_push_out_that_of_another_url(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, is_there: bool
    ) -> None:
        run()
        if is_there:
            simulator.subscribe("https://hooks.example.com/other", EVENTS)
        ended = run(url="https://hooks.example.com/other")
        assert isinstance(ended.error, PlanasonixSecretError)
        assert "it holds the secret of webhook wh_" in str(ended.error)
        assert len(simulator.world.webhooks.all()) == (2 if is_there else 1)
        assert "rotate_webhook_secret" not in routes_asked(simulator)
        assert run().result["secret_is_new"] is False

    def test_is_there_before_anything_is_delivered(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        webhook = simulator.subscribe(URL, EVENTS)
        simulator.world.webhooks.update(webhook.id, WebhookPatchRequestBody(enabled=False))
        run()
        assert routes_asked(simulator) == ["list_webhooks", "rotate_webhook_secret", "update_webhook"]

    def test_goes_to_a_function_once(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        taken: list[SecretStr] = []
        run(secret_to=taken.append)
        run(secret_to=taken.append)
        assert [secret.get_secret_value() for secret in taken] == list(secrets_of(simulator).values())

    def test_of_what_is_there_is_rotated_for_a_function_that_never_got_it(
        self, simulator: Simulator, run: Callable[..., Run]
    ) -> None:
        theirs = simulator.subscribe(URL, EVENTS)
        taken: list[SecretStr] = []
        ended = run(secret_to=taken.append)
        assert (ended.result["action"], ended.result["secret_is_new"]) == ("unchanged", True)
        assert [secret.get_secret_value() for secret in taken] == [secrets_of(simulator)[theirs.id]]
        assert ended.log.lines[0].startswith(f"The secret of webhook {theirs.id} may never have reached function")
        assert run(secret_to=taken.append).result["secret_is_new"] is False

    def test_is_rotated_for_another_function(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        taken: list[SecretStr] = []

        def put(secret: SecretStr) -> None:
            taken.append(secret)

        run(secret_to=print)
        assert run(secret_to=put).result["secret_is_new"]
        assert [secret.get_secret_value() for secret in taken] == list(secrets_of(simulator).values())

    def test_is_rotated_for_a_function_after_a_run_whose_last_try_died(
        self, simulator: Simulator, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        taken: list[SecretStr] = []
        run(secret_to=taken.append)
        for try_number in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(PlanasonixHook, "list_webhooks" if try_number == 1 else "rotate_webhook_secret", die)
                with pytest.raises(KeyboardInterrupt):
                    run(secret_to=taken.append, try_number=try_number)
        assert run(secret_to=taken.append).result["secret_is_new"]
        assert taken[-1].get_secret_value() == secrets_of(simulator)[the_one(simulator).id]

    def test_handed_to_a_function_leaves_a_note_that_holds_none(
        self, simulator: Simulator, run: Callable[..., Run]
    ) -> None:
        ended = run(secret_to=print)
        note = {"webhook_id": the_one(simulator).id, "to": "function print"}
        assert ended.xcoms == {"planasonix_secret_handed_over": note}
        assert run().xcoms == {}

    def test_is_rotated_for_a_function_by_a_retry(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        taken: list[SecretStr] = []
        simulator.fail("reset", route="list_webhooks", skip=1, times=8)
        first = run(secret_to=taken.append)
        assert isinstance(first.error, PlanasonixError)
        assert len(taken) == 1, "the secret that was in hand is not lost with the look that failed"
        second = run(secret_to=taken.append, try_number=2)
        assert (second.result["action"], second.result["secret_is_new"]) == ("unchanged", True)
        assert taken[-1].get_secret_value() == secrets_of(simulator)[the_one(simulator).id]

    def test_that_surely_cannot_be_kept_is_not_asked_for(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        ended = run(secret_to="file:/nowhere/secret")
        assert isinstance(ended.error, PlanasonixSecretError)
        assert "there is no folder /nowhere" in str(ended.error)
        assert simulator.requests == []

    def test_that_could_not_be_kept_leaves_nothing_behind(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            ended = run()
        assert isinstance(ended.error, PlanasonixSecretError)
        assert "deleted again: nothing was created" in str(ended.error)
        assert simulator.world.webhooks.all() == []
        assert run(try_number=2).result["action"] == "created"
        assert has_its_secret(place, simulator)


class TestItsEnd:
    def test_takes_it_away_once_and_only_for_its_url(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        created = run().result
        simulator.subscribe(f"{URL}/other", events=EVENTS)
        ended = run(ensure="absent", events=None, secret_to=None)
        assert ended.error is None
        assert ended.result == created | {"enabled": False, "action": "deleted", "secret_is_new": False}
        assert the_one(simulator).url == f"{URL}/other"
        again = run(ensure="absent", events=None, secret_to=None)
        assert (again.result["action"], again.result["webhook_id"]) == ("unchanged", None)
        assert set(again.result) == set(created)
        assert again.log.lines == ["There is no webhook for the url of this task; there is nothing to delete."]

    def test_takes_away_all_that_are_there(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        for _ in range(3):
            simulator.subscribe(URL, events=EVENTS)
        assert run(ensure="absent").result["action"] == "deleted"
        assert simulator.world.webhooks.all() == []

    def test_is_no_error_where_the_answer_to_it_is_lost(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        run()
        simulator.fail("reset", route="delete_webhook", when="after")
        assert run(ensure="absent").error is None
        assert simulator.world.webhooks.all() == []

    def test_lets_another_subscription_have_the_place_of_its_secret(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        run()
        run(ensure="absent")
        assert run().result["action"] == "created"
        assert has_its_secret(place, simulator)


class TestALostAnswer:
    @pytest.mark.parametrize(("kind", "status"), [("reset", None), ("cut", None), ("html", 502), ("empty", None)])
    def test_leaves_one_subscription_whose_secret_is_kept(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, kind: Any, status: int | None
    ) -> None:
        simulator.fail(kind, route="create_webhook", status=status, when="after")
        ended = run()
        assert ended.error is None
        assert (ended.result["action"], ended.result["secret_is_new"]) == ("unchanged", True)
        assert has_its_secret(place, simulator)
        assert routes_asked(simulator).count("create_webhook") == 1

    def test_does_not_leave_a_function_without_the_secret(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        taken: list[SecretStr] = []
        simulator.fail("reset", route="create_webhook", when="after")
        assert run(secret_to=taken.append).result["secret_is_new"]
        assert [secret.get_secret_value() for secret in taken] == list(secrets_of(simulator).values())

    def test_of_what_created_nothing_is_left_to_the_retry(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        simulator.fail("reset", route="create_webhook", when="before")
        ended = run()
        assert isinstance(ended.error, PlanasonixError)
        assert not isinstance(ended.error, AirflowFailException)
        assert "A retry of the task looks first, and goes on" in str(ended.error)
        assert run(try_number=2).result["action"] == "created"
        assert has_its_secret(place, simulator)

    def test_and_no_look_are_mended_by_the_retry(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        simulator.fail("reset", route="create_webhook", when="after")
        simulator.fail("reset", route="list_webhooks", skip=1, times=8)
        assert isinstance(run().error, PlanasonixError)
        assert place.load() is None
        assert run(try_number=2).result["secret_is_new"]
        assert has_its_secret(place, simulator)

    def test_to_a_rotation_is_mended_by_another(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore
    ) -> None:
        simulator.subscribe(URL, EVENTS)
        simulator.fail("reset", route="rotate_webhook_secret", when="after", times=3)
        first = run()
        assert not isinstance(first.error, AirflowFailException)
        assert "Nobody knows whether the secret" in str(first.error)
        assert run(try_number=2).result["secret_is_new"]
        assert has_its_secret(place, simulator)

    def test_and_a_process_that_dies_are_mended_by_the_retry(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(road, "store_or_delete", die)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert place.load() is None
        assert run(try_number=2).result["webhook_id"] == the_one(simulator).id
        assert has_its_secret(place, simulator)


class TestTwoTasksAtOnce:
    @pytest.fixture
    def meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Lets something happen just before, or after, the task creates its subscription."""

        def order(act: Callable[[], object], *, before: bool) -> None:
            once = [act]

            def create(*arguments: Any, **parameters: Any) -> NewWebhook:
                if before and once:
                    once.pop()()
                created = webhook_secrets.create_without_storing(*arguments, **parameters)
                if once:
                    once.pop()()
                return created

            monkeypatch.setattr(road, "create_without_storing", create)

        return order

    def test_leave_the_older_subscription(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, meanwhile: Callable[..., None]
    ) -> None:
        others: list[Run] = []
        meanwhile(lambda: others.append(run()), before=True)
        ended = run()
        assert (others[0].result["action"], ended.result["action"]) == ("created", "unchanged")
        assert ended.result["webhook_id"] == others[0].result["webhook_id"] == the_one(simulator).id
        assert has_its_secret(place, simulator)
        assert "Another task made a webhook for the same url at the same moment" in ended.log.lines[0]

    def test_leave_the_secret_alone_that_the_other_is_about_to_keep(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, meanwhile: Callable[..., None]
    ) -> None:
        theirs: list[NewWebhook] = []
        meanwhile(lambda: theirs.append(simulator.subscribe(URL, EVENTS)), before=True)
        ended = run()
        assert isinstance(ended.error, PlanasonixConflictError)
        assert "the secret of the other one is not there yet. Try again" in str(ended.error)
        assert the_one(simulator).id == theirs[0].id
        assert "rotate_webhook_secret" not in routes_asked(simulator)
        place.save(theirs[0].signing_secret, webhook_id=theirs[0].id)
        assert run(try_number=2).result["action"] == "unchanged"

    def test_leave_ours_where_it_is_the_older(
        self, simulator: Simulator, run: Callable[..., Run], place: SecretStore, meanwhile: Callable[..., None]
    ) -> None:
        others: list[Run] = []
        meanwhile(lambda: others.append(run()), before=False)
        ended = run()
        # The other one looked first, and found ours, whose secret was not there yet.
        assert ended.result["action"] == "created"
        assert ended.result["webhook_id"] == the_one(simulator).id
        kept = place.load()
        assert kept is not None
        assert secrets_of(simulator)[the_one(simulator).id] in {s.get_secret_value() for s in kept.secrets}

    def test_both_yield_where_nobody_can_tell_which_is_older(self) -> None:
        def webhook(created_at: str | None) -> Webhook:
            return Webhook.model_validate({"id": "wh", "url": URL, "created_at": created_at})

        early, late = webhook("2025-03-27T15:00:00Z"), webhook("2025-03-27T15:00:01Z")
        assert road._is_older(early, late)  # type: ignore[arg-type]
        assert not road._is_older(late, early)  # type: ignore[arg-type]
        for one, other in ((early, early), (webhook(None), early), (early, webhook(None))):
            assert road._is_older(one, other)  # type: ignore[arg-type]


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameter", "value", "words"),
        [
            ("url", "http://hooks.example.com/x", "url: got 'http://hooks.example.com', allowed is an https URL"),
            ("url", "", "url: got 'no URL'"),
            ("url", None, "url: got <class 'NoneType'>"),
            ("url", "https://[x", "url: got 'no URL'"),
            ("url", "ftp://127.0.0.1/x", "url: got 'ftp://127.0.0.1'"),
            ("events", [], "events: got [], allowed is a list of events, such as ['job.succeeded', 'job.failed']"),
            ("events", "job.succeeded", "events: got 'job.succeeded'"),
            ("events", ["job.succeeded", " "], "events: got ['job.succeeded', ' ']"),
            (
                "secret_to",
                "vault:x",
                "secret_to: got a text that is not shown, because it may be the secret",
            ),
            ("secret_to", None, "secret_to: got None, which is allowed only with ensure='absent'"),
            ("events", None, "events: got None, which is allowed only with ensure='absent'"),
            ("ensure", "deleted", "ensure: got 'deleted', allowed is present, absent"),
            ("ensure", None, "ensure: got None, allowed is present, absent"),
            ("planasonix_conn_id", "", "planasonix_conn_id: got ''"),
        ],
    )
    def test_is_refused_when_the_dag_is_parsed(self, parameter: str, value: Any, words: str) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            subscribe(**{parameter: value})

    @pytest.mark.parametrize(
        ("parameter", "rendered", "words"),
        [
            ("url", "http://hooks.example.com", "url: got"),
            ("url", "https://hooks.example.com/a b", "url: got"),
            ("events", "job.succeeded", "events: got"),
            ("secret_to", "vault:x", "secret_to: got"),
        ],
    )
    def test_of_a_template_is_refused_before_the_first_request(
        self, simulator: Simulator, parameter: str, rendered: str, words: str
    ) -> None:
        operator = subscribe(**{parameter: "{{ params.x }}"})
        setattr(operator, parameter, rendered)
        with pytest.raises(AirflowFailException, match=words):
            operator.execute(context(Run()))
        assert simulator.requests == []

    def test_a_url_is_refused_without_what_lets_one_send_there(self) -> None:
        with pytest.raises(ValueError, match="url: got") as refused:
            subscribe(url="http://me:precious@hooks.example.com/precious?token=precious")
        assert "precious" not in str(refused.value)

    @pytest.mark.parametrize("url", ["http://localhost:8080/x", "http://127.0.0.2/x", "http://[::1]/x"])
    def test_this_machine_may_be_told_over_plain_http(self, url: str) -> None:
        assert subscribe(url=url).url == url

    def test_a_missing_connection_says_which(self, run: Callable[..., Run]) -> None:
        ended = run(planasonix_conn_id="planasonix_nowhere")
        assert isinstance(ended.error, PlanasonixConfigurationError)
        assert "'planasonix_nowhere'" in str(ended.error)

    @pytest.mark.parametrize("route", ["list_webhooks", "create_webhook"])
    def test_what_may_not_be_asked_fails_without_a_retry(
        self, simulator: Simulator, run: Callable[..., Run], route: str
    ) -> None:
        simulator.fail("status", route=route, status=403)
        assert isinstance(run().error, AirflowFailException)

    def test_an_outage_is_left_to_the_retries(self, simulator: Simulator, run: Callable[..., Run]) -> None:
        simulator.fail("status", route="list_webhooks", status=500, times=8)
        assert isinstance(run().error, PlanasonixServerError)
        assert run(try_number=2).result["action"] == "created"


class TestItsParameters:
    def test_may_be_templates(self) -> None:
        operator = subscribe(url="{{ params.url }}", events="{{ params.events }}", secret_to="variable:{{ params.v }}")
        assert set(operator.template_fields) == {"url", "events", "secret_to", "ensure", "planasonix_conn_id"}
        rendered = {"url": URL, "v": "planasonix_secret"}
        operator.events = EVENTS
        operator.render_template_fields({"params": rendered})
        assert (operator.url, operator.secret_to) == (URL, "variable:planasonix_secret")

    def test_show_of_a_function_no_more_than_its_name(self) -> None:
        from airflow.serialization.helpers import serialize_template_field

        def put(token: str, secret: SecretStr) -> None: ...

        operator = subscribe(secret_to=functools.partial(put, "precious"))
        shown = serialize_template_field(operator.secret_to, "secret_to")
        assert "precious" not in json.dumps(shown)
        assert " at 0x" not in json.dumps(shown)
        operator.render_template_fields({})


def test_no_secret_and_no_key_is_in_anything_that_a_person_can_read(
    simulator: Simulator, run: Callable[..., Run], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: set[str] = set()
    said = ""
    routes = ("list_webhooks", "create_webhook", "rotate_webhook_secret", "delete_webhook")
    for there in (False, True):
        for fault in (None, "reset", "html", "empty"):
            for route in routes:
                for secret_to in (f"file:{path}", print_and_fail):
                    simulator.reset()
                    path.unlink(missing_ok=True)
                    if there:
                        simulator.subscribe(URL, ["job.queued"])
                    if fault:
                        simulator.fail(fault, route=route, when="after")
                    ended = run(secret_to=secret_to)
                    seen |= set(secrets_of(simulator).values())
                    said += ended.said + ("".join(traceback.format_exception(ended.error)) if ended.error else "")
    assert len(seen) > 50
    assert "created" in said
    assert not [secret for secret in seen if secret in said + caplog.text]
    assert API_KEY not in said + caplog.text


def print_and_fail(secret: SecretStr) -> None:
    raise ValueError(f"I will not take {secret.get_secret_value()} or {secret!r}")


@pytest.mark.usefixtures("airflow_db")
def test_airflow_remembers_from_run_to_run_what_a_function_was_handed(simulator: Simulator, tmp_path: Path) -> None:
    simulator.subscribe(URL, EVENTS)
    taken = tmp_path / "taken"
    # Airflow runs what it finds in the folder of its DAGs.
    file = DAGS_FOLDER / "planasonix_subscribes_a_function.py"
    file.write_text(A_FUNCTION_S_DAG.format(url=URL, events=EVENTS, taken=str(taken)))
    try:
        for _ in range(3):
            run: Any = runpy.run_path(str(file))["dag"].test()
            assert str(getattr(run.state, "value", run.state)) == "success"
    finally:
        file.unlink()
    assert taken.read_text().split() == list(secrets_of(simulator).values())


A_FUNCTION_S_DAG = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from planasonix_provider.operators.planasonix import PlanasonixWebhookOperator


def put(secret):
    with open({taken!r}, "a") as file:
        print(secret.get_secret_value(), file=file)


with DAG(dag_id="planasonix_subscribes_a_function", start_date=datetime(2025, 1, 1, tzinfo=UTC), schedule=None) as dag:
    PlanasonixWebhookOperator(task_id="subscribe", url={url!r}, events={events!r}, secret_to=put)
"""
