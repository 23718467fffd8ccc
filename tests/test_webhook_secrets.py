from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from planasonix_provider import webhook_secrets
from planasonix_provider.api import client
from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixNotFoundError,
    PlanasonixPermissionError,
    PlanasonixServerError,
)
from planasonix_provider.api.models import NewWebhook, NewWebhookEnvelope, RotatedSecret, Webhook, WebhookBody
from planasonix_provider.api.retry import RetryPolicy
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.secret_stores import PlanasonixSecretError, StoredSecret, secret_store
from planasonix_provider.simulator import Simulator
from planasonix_provider.webhook_secrets import create_webhook, rotate_secret

URL = "https://hooks.example.com/planasonix"
EVENTS = ["job.succeeded", "job.failed"]
OWN = SecretStr("whsec_of_my_own_1234567890")


def secrets_of(simulator: Simulator) -> list[str]:
    """The signing secrets of all subscriptions, deleted ones too, as they are now."""
    return [one.secret.get_secret_value() for one in simulator.workspace.webhooks._subscriptions.newest_first()]


def whole(error: BaseException) -> str:
    """All that a log could show of an error, and of what is chained to it."""
    text = "".join(traceback.format_exception(error))
    while next_one := error.__cause__ or error.__context__:
        error = next_one
        text += repr(error)
    return text


class Receiver:
    """A function that keeps a secret, or does not."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.taken: list[str] = []
        self.calls = 0

    def __call__(self, secret: SecretStr) -> None:
        self.calls += 1
        if self.calls <= self.fails:
            raise OSError(28, f"No space left for {secret.get_secret_value()}")
        self.taken.append(secret.get_secret_value())


@pytest.fixture(autouse=True)
def _no_time_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture
def hook(simulator: Simulator) -> Iterator[PlanasonixHook]:
    with PlanasonixHook() as hook:
        yield hook


@pytest.fixture
def pauses() -> list[float]:
    return []


def routes_asked(simulator: Simulator) -> list[str]:
    return [request.route for request in simulator.requests]


class TestCreating:
    def test_keeps_the_secret_and_gives_the_rest(
        self, hook: PlanasonixHook, simulator: Simulator, tmp_path: Path
    ) -> None:
        to = f"file:{tmp_path / 'secret'}"
        webhook = create_webhook(hook, URL, events=EVENTS, to=to)
        assert (type(webhook), webhook.url, webhook.events) == (Webhook, URL, EVENTS)
        kept = secret_store(to).load()
        assert kept is not None
        assert (kept.webhook_id, [kept.signing_secret.get_secret_value()]) == (webhook.id, secrets_of(simulator))

    def test_makes_up_another_secret_each_time(self, hook: PlanasonixHook) -> None:
        receiver = Receiver()
        for _ in range(2):
            create_webhook(hook, URL, events=EVENTS, to=receiver)
        assert len(set(receiver.taken)) == 2
        assert all(secret.startswith("whsec_") and len(secret) > 40 for secret in receiver.taken)

    def test_takes_a_secret_of_the_callers(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        receiver = Receiver()
        create_webhook(hook, URL, events=EVENTS, to=receiver, secret=OWN)
        assert receiver.taken == secrets_of(simulator) == [OWN.get_secret_value()]

    def test_keeps_what_the_api_answers_whatever_was_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stubborn:
            def create_webhook(self, url: str, *, events: list[str], secret: SecretStr) -> NewWebhook:
                answer = {"id": "wh_1", "url": url, "events": events, "signing_secret": "whsec_the_servers_own"}
                return NewWebhook.model_validate({**answer, "secret": secret.get_secret_value()})

        receiver = Receiver()
        webhook = create_webhook(Stubborn(), URL, events=EVENTS, to=receiver, secret=OWN)  # type: ignore[arg-type]
        assert receiver.taken == ["whsec_the_servers_own"]
        assert webhook.model_dump(exclude_unset=True) == {"id": "wh_1", "url": URL, "events": EVENTS}

    @pytest.mark.parametrize(
        ("to", "error"),
        [("file:/nowhere/secret", PlanasonixSecretError), ("vault:x", ValueError), ("file:x", ValueError)],
    )
    def test_asks_nothing_of_the_api_where_the_secret_surely_cannot_be_kept(
        self, hook: PlanasonixHook, simulator: Simulator, to: str, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            create_webhook(hook, URL, events=EVENTS, to=to)
        with pytest.raises(error):
            rotate_secret(hook, "wh_1", to=to)
        assert simulator.requests == []

    def test_does_not_push_out_the_secret_of_another_subscription(
        self, hook: PlanasonixHook, simulator: Simulator, tmp_path: Path
    ) -> None:
        place = secret_store(f"file:{tmp_path / 'secret'}")
        first = create_webhook(hook, URL, events=EVENTS, to=place)
        other = simulator.subscribe(f"{URL}/other", EVENTS)
        before = place.load()
        with pytest.raises(PlanasonixSecretError, match=f"it holds the secret of webhook {first.id}"):
            create_webhook(hook, URL, events=EVENTS, to=place)
        with pytest.raises(PlanasonixSecretError, match=f"it holds the secret of webhook {first.id}"):
            rotate_secret(hook, other.id, to=place)
        assert place.load() == before
        assert len(simulator.workspace.webhooks.all()) == 2
        hook.delete_webhook(first.id)
        rotate_secret(hook, other.id, to=place)
        assert (kept := place.load()) is not None
        assert (kept.webhook_id, kept.previous) == (other.id, None)

    def test_does_not_push_out_the_secret_of_one_that_came_at_the_same_moment(
        self, hook: PlanasonixHook, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = secret_store(f"file:{tmp_path / 'secret'}")
        gone = create_webhook(hook, URL, events=EVENTS, to=place)
        hook.delete_webhook(gone.id)
        made: list[Webhook] = []
        create = webhook_secrets.create_without_storing

        def create_after_another(*arguments: Any, **parameters: Any) -> NewWebhook:
            monkeypatch.setattr(webhook_secrets, "create_without_storing", create)
            made.append(create_webhook(hook, f"{URL}/other", events=EVENTS, to=place))
            return create(*arguments, **parameters)

        monkeypatch.setattr(webhook_secrets, "create_without_storing", create_after_another)
        with pytest.raises(PlanasonixSecretError, match=r"holds the secret of webhook .* was deleted again: nothing"):
            create_webhook(hook, URL, events=EVENTS, to=place, sleep=lambda _: None)
        assert [webhook.id for webhook in simulator.workspace.webhooks.all()] == [made[0].id]
        assert (kept := place.load()) is not None
        assert kept.webhook_id == made[0].id

    def test_creates_nothing_for_a_function_that_only_begins_to_keep_it(
        self, hook: PlanasonixHook, simulator: Simulator
    ) -> None:
        async def put(secret: SecretStr) -> None: ...

        with pytest.raises(PlanasonixSecretError, match=r"gave back a coroutine.*deleted again: nothing was created"):
            create_webhook(hook, URL, events=EVENTS, to=lambda secret: put(secret), sleep=lambda _: None)
        assert simulator.workspace.webhooks.all() == []

    def test_tries_to_keep_it_three_times(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float]
    ) -> None:
        receiver = Receiver(fails=2)
        create_webhook(hook, URL, events=EVENTS, to=receiver, sleep=pauses.append)
        assert receiver.taken == secrets_of(simulator)
        assert pauses == [1.0, 2.0]

    def test_deletes_again_what_it_cannot_keep_the_secret_of(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float]
    ) -> None:
        with pytest.raises(PlanasonixSecretError, match=r"No space left on device.*deleted again: nothing was created"):
            create_webhook(hook, URL, events=EVENTS, to=Receiver(fails=9), sleep=pauses.append)
        assert simulator.workspace.webhooks.all() == []

    def test_deletes_it_though_the_answer_to_that_is_lost(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float]
    ) -> None:
        simulator.fail("reset", route="delete_webhook", when="after")
        with pytest.raises(PlanasonixSecretError, match="deleted again: nothing was created"):
            create_webhook(hook, URL, events=EVENTS, to=Receiver(fails=9), sleep=pauses.append)
        assert simulator.workspace.webhooks.all() == []

    def test_names_what_it_could_not_delete_again(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float]
    ) -> None:
        simulator.fail("status", route="delete_webhook", status=403, times=None)
        with pytest.raises(PlanasonixSecretError) as failed:
            create_webhook(hook, URL, events=EVENTS, to=Receiver(fails=9), sleep=pauses.append)
        (webhook,) = simulator.workspace.webhooks.all()
        assert f"Nobody knows the secret of the new webhook {webhook.id}" in str(failed.value)
        assert "answered 403" in str(failed.value)
        assert "delete it, or rotate its secret" in str(failed.value)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(("kind", "status"), [("reset", None), ("cut", None), ("html", 502), ("status", 500)])
    def test_is_not_repeated_where_nobody_knows(
        self, hook: PlanasonixHook, simulator: Simulator, kind: Any, status: int | None, when: Any
    ) -> None:
        simulator.fail(kind, route="create_webhook", status=status, when=when)
        receiver = Receiver()
        with pytest.raises(PlanasonixLostTrackError, match="Nobody knows whether the webhook was created"):
            create_webhook(hook, URL, events=EVENTS, to=receiver)
        assert routes_asked(simulator) == ["create_webhook"]
        assert receiver.calls == 0

    def test_is_repeated_where_it_surely_created_nothing(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        simulator.fail("status", route="create_webhook", status=503, headers={"Retry-After": "0"})
        create_webhook(hook, URL, events=EVENTS, to=Receiver())
        assert len(simulator.workspace.webhooks.all()) == 1

    def test_says_what_the_api_refuses(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        simulator.fail("status", route="create_webhook", status=403)
        with pytest.raises(PlanasonixPermissionError):
            create_webhook(hook, URL, events=EVENTS, to=Receiver())

    def test_a_server_that_sends_the_secret_back_with_its_refusal_is_quoted_without(self) -> None:
        class Echo:
            def create_webhook(self, url: str, *, events: list[str], secret: SecretStr) -> NewWebhook:
                raise PlanasonixServerError(f"answered 400 (secret {secret.get_secret_value()})", status=501)

        with pytest.raises(PlanasonixServerError, match=r"secret \*\*\*") as refused:
            create_webhook(Echo(), URL, events=EVENTS, to=Receiver(), secret=OWN)  # type: ignore[arg-type]
        assert OWN.get_secret_value() not in whole(refused.value)


class TestRotating:
    @pytest.fixture
    def webhook(self, simulator: Simulator) -> NewWebhook:
        return simulator.subscribe(URL, EVENTS)

    def test_keeps_the_new_secret_beside_the_old_one(
        self, hook: PlanasonixHook, simulator: Simulator, tmp_path: Path, webhook: NewWebhook
    ) -> None:
        place = secret_store(f"file:{tmp_path / 'secret'}")
        place.save(webhook.signing_secret, webhook_id=webhook.id)
        rotation = rotate_secret(hook, webhook.id, to=place)
        (new,) = secrets_of(simulator)
        assert place.load() == StoredSecret(webhook.id, SecretStr(new), webhook.signing_secret)
        assert rotation.webhook_id == webhook.id
        assert rotation.rotated_at is not None
        assert new not in repr(rotation)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(("kind", "status"), [("reset", None), ("cut", None), ("html", 502)])
    def test_is_repeated_where_nobody_knows_for_the_last_answer_counts(
        self,
        hook: PlanasonixHook,
        simulator: Simulator,
        webhook: NewWebhook,
        pauses: list[float],
        kind: Any,
        status: int | None,
        when: Any,
    ) -> None:
        simulator.fail(kind, route="rotate_webhook_secret", status=status, when=when, times=2)
        receiver = Receiver()
        rotate_secret(hook, webhook.id, to=receiver, sleep=pauses.append)
        assert receiver.taken == secrets_of(simulator)
        assert routes_asked(simulator).count("rotate_webhook_secret") == 3

    @pytest.mark.parametrize("last", ["reset", "status"])
    def test_says_what_nobody_knows(
        self, hook: PlanasonixHook, simulator: Simulator, webhook: NewWebhook, pauses: list[float], last: Any
    ) -> None:
        simulator.fail("reset", route="rotate_webhook_secret", when="after", times=2)
        # A refusal says nothing of what the requests before it did.
        simulator.fail(last, route="rotate_webhook_secret", status=403 if last == "status" else None)
        with pytest.raises(
            PlanasonixLostTrackError, match=r"Nobody knows whether the secret of webhook .* rotate it again"
        ):
            rotate_secret(hook, webhook.id, to=Receiver(), sleep=pauses.append)

    def test_says_that_the_new_secret_is_lost(
        self, hook: PlanasonixHook, simulator: Simulator, webhook: NewWebhook, pauses: list[float]
    ) -> None:
        with pytest.raises(PlanasonixSecretError, match=r"The new secret of webhook .* is lost") as failed:
            rotate_secret(hook, webhook.id, to=Receiver(fails=9), sleep=pauses.append)
        assert "rotate it again, once the secret can be kept" in str(failed.value)
        assert not any(secret in whole(failed.value) for secret in secrets_of(simulator))

    def test_of_what_is_not_there_is_refused_at_once(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        with pytest.raises(PlanasonixNotFoundError):
            rotate_secret(hook, "wh_unknown", to=Receiver())
        assert routes_asked(simulator) == ["rotate_webhook_secret"]


def test_no_secret_is_in_a_log_or_an_error_whatever_goes_wrong(
    hook: PlanasonixHook, simulator: Simulator, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: set[str] = set()
    said = ""
    for fault in (None, "reset", "cut", "html", "empty"):
        for route in ("create_webhook", "rotate_webhook_secret", "delete_webhook"):
            for fails in (0, 1, 9):
                if fault:
                    simulator.fail(fault, route=route, when="after")
                receiver = Receiver(fails=fails)
                try:
                    webhook = create_webhook(hook, URL, events=EVENTS, to=receiver, sleep=lambda _: None)
                    seen |= set(secrets_of(simulator))
                    said += repr(webhook)
                    said += repr(rotate_secret(hook, webhook.id, to=receiver, sleep=lambda _: None))
                except PlanasonixError as error:
                    said += whole(error)
                seen |= {*secrets_of(simulator), *receiver.taken}
                simulator.faults.clear()
    assert len(seen) > 20
    assert not [secret for secret in seen if secret in said + caplog.text]


class TestTheModels:
    SECRET = "whsec_of_a_model_1234567890"

    @pytest.mark.parametrize("model", [NewWebhook, RotatedSecret])
    def test_show_their_secret_to_nobody(self, model: type[NewWebhook | RotatedSecret]) -> None:
        fields = {"id": "wh_1", "url": URL, "events": EVENTS, "signing_secret": self.SECRET}
        one = model.model_validate({**fields, "secret": self.SECRET, "other": 1})
        assert one.signing_secret.get_secret_value() == self.SECRET
        dumps = [one.model_dump(), one.model_dump(mode="json"), one.model_dump_json(), dict(one)]
        assert self.SECRET not in f"{one!r} {one} {dumps}"
        assert one.model_dump(mode="json", exclude_unset=True)["other"] == 1
        with pytest.raises(TypeError, match="holds a secret, so it is not pickled"):
            pickle.dumps(one)
        assert one.model_copy(deep=True) == one

    def test_forget_one_that_nobody_asked_for(self) -> None:
        webhook = Webhook.model_validate(
            {"id": "wh_1", "url": URL, "signing_secret": self.SECRET, "secret": self.SECRET, "other": 1}
        )
        assert webhook.model_dump(exclude_unset=True) == {"id": "wh_1", "url": URL, "other": 1}

    @pytest.mark.parametrize(
        ("model", "fields"),
        [
            (NewWebhook, {"signing_secret": SECRET}),
            (RotatedSecret, {"signing_secret": SECRET}),
            (Webhook, {"signing_secret": SECRET}),
            (NewWebhookEnvelope, {"data": {"signing_secret": SECRET}}),
            (WebhookBody, {"secret": SECRET}),
        ],
    )
    def test_complain_without_it(self, model: Any, fields: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as refused:
            model.model_validate(fields)
        assert self.SECRET not in whole(refused.value)

    def test_a_body_does_not_show_it_either(self) -> None:
        assert self.SECRET not in repr(WebhookBody(url=URL, events=EVENTS, secret=self.SECRET))

    def test_airflow_keeps_it_out_of_an_xcom(self) -> None:
        from airflow.models.xcom import XCom

        one = NewWebhook.model_validate({"id": "wh_1", "url": URL, "events": EVENTS, "signing_secret": self.SECRET})
        try:
            stored = repr(XCom.serialize_value(one))
        except TypeError as refused:
            # Airflow 2 takes no pydantic models.
            stored = str(refused)
        except AttributeError:
            from airflow.sdk.bases.xcom import BaseXCom

            stored = repr(BaseXCom.serialize_value(one))
        assert self.SECRET not in stored
        assert "NewWebhook" in stored
