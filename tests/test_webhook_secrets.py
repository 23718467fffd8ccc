from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from functools import partial
from itertools import product
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
from planasonix_provider.secret_stores import PlanasonixSecretError, SecretStore, StoredSecret, secret_store
from planasonix_provider.simulator import Simulator
from planasonix_provider.webhook_secrets import create_webhook, rotate_secret
from tests.support.error_text import error_text

URL = "https://hooks.example.com/planasonix"
EVENTS = ["job.succeeded", "job.failed"]
OWN = SecretStr("whsec_of_my_own_1234567890")


def secrets_of(simulator: Simulator) -> list[str]:
    """Return the current signing secrets of all webhooks, deleted ones included."""
    return [one.secret.get_secret_value() for one in simulator.workspace.webhooks._subscriptions.newest_first()]


class Receiver:
    """A function that stores secrets, after a number of failures."""

    def __init__(self, *, failures: int = 0) -> None:
        self.failures = failures
        self.stored: list[str] = []
        self.calls = 0

    def __call__(self, secret: SecretStr) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(28, f"No space left for {secret.get_secret_value()}")
        self.stored.append(secret.get_secret_value())


@pytest.fixture(autouse=True)
def _no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RetryPolicy", partial(RetryPolicy, uniform=lambda low, high: 0.0))


@pytest.fixture
def hook(simulator: Simulator) -> Iterator[PlanasonixHook]:
    with PlanasonixHook() as hook:
        yield hook


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return secret_store(f"file:{tmp_path / 'secret'}")


def requested_routes(simulator: Simulator) -> list[str]:
    return [request.route for request in simulator.requests]


def stored_in(store: SecretStore) -> StoredSecret:
    stored = store.load()
    assert stored is not None
    return stored


class TestCreating:
    def test_stores_the_secret_and_returns_the_webhook(
        self, hook: PlanasonixHook, simulator: Simulator, store: SecretStore
    ) -> None:
        webhook = create_webhook(hook, URL, events=EVENTS, to=store)
        assert (type(webhook), webhook.url, webhook.events) == (Webhook, URL, EVENTS)
        stored = stored_in(store)
        assert (stored.webhook_id, [stored.signing_secret.get_secret_value()]) == (webhook.id, secrets_of(simulator))

    def test_creates_a_random_secret(self, hook: PlanasonixHook) -> None:
        receiver = Receiver()
        for _ in range(2):
            create_webhook(hook, URL, events=EVENTS, to=receiver)
        assert len(set(receiver.stored)) == 2
        assert all(secret.startswith("whsec_") and len(secret) > 40 for secret in receiver.stored)

    def test_uses_the_secret_of_the_caller(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        receiver = Receiver()
        create_webhook(hook, URL, events=EVENTS, to=receiver, secret=OWN)
        assert receiver.stored == secrets_of(simulator) == [OWN.get_secret_value()]

    def test_stores_the_secret_of_the_response(self) -> None:
        class OwnSecret:
            def create_webhook(self, url: str, *, events: list[str], secret: SecretStr) -> NewWebhook:
                response = {"id": "wh_1", "url": url, "events": events, "signing_secret": "whsec_the_servers_own"}
                return NewWebhook.model_validate({**response, "secret": secret.get_secret_value()})

        receiver = Receiver()
        webhook = create_webhook(OwnSecret(), URL, events=EVENTS, to=receiver, secret=OWN)  # type: ignore[arg-type]
        assert receiver.stored == ["whsec_the_servers_own"]
        assert webhook.model_dump(exclude_unset=True) == {"id": "wh_1", "url": URL, "events": EVENTS}

    @pytest.mark.parametrize(
        ("to", "error"),
        [("file:/nowhere/secret", PlanasonixSecretError), ("vault:x", ValueError), ("file:x", ValueError)],
    )
    def test_sends_no_request_if_the_secret_cannot_be_stored(
        self, hook: PlanasonixHook, simulator: Simulator, to: str, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            create_webhook(hook, URL, events=EVENTS, to=to)
        with pytest.raises(error):
            rotate_secret(hook, "wh_1", to=to)
        assert simulator.requests == []

    def test_does_not_overwrite_the_secret_of_another_webhook(
        self, hook: PlanasonixHook, simulator: Simulator, store: SecretStore
    ) -> None:
        first = create_webhook(hook, URL, events=EVENTS, to=store)
        other = simulator.subscribe(f"{URL}/other", EVENTS)
        before = store.load()
        with pytest.raises(PlanasonixSecretError, match=f"it holds the secret of webhook {first.id}"):
            create_webhook(hook, URL, events=EVENTS, to=store)
        with pytest.raises(PlanasonixSecretError, match=f"it holds the secret of webhook {first.id}"):
            rotate_secret(hook, other.id, to=store)
        assert store.load() == before
        assert len(simulator.workspace.webhooks.all()) == 2
        hook.delete_webhook(first.id)
        rotate_secret(hook, other.id, to=store)
        assert (stored_in(store).webhook_id, stored_in(store).previous) == (other.id, None)

    def test_does_not_overwrite_the_secret_of_a_webhook_created_at_the_same_time(
        self, hook: PlanasonixHook, simulator: Simulator, store: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deleted = create_webhook(hook, URL, events=EVENTS, to=store)
        hook.delete_webhook(deleted.id)
        others: list[Webhook] = []
        create = webhook_secrets.create_without_storing

        def create_after_another(*arguments: Any, **parameters: Any) -> NewWebhook:
            monkeypatch.setattr(webhook_secrets, "create_without_storing", create)
            others.append(create_webhook(hook, f"{URL}/other", events=EVENTS, to=store))
            return create(*arguments, **parameters)

        monkeypatch.setattr(webhook_secrets, "create_without_storing", create_after_another)
        with pytest.raises(PlanasonixSecretError, match=r"holds the secret of webhook .* was deleted again: nothing"):
            create_webhook(hook, URL, events=EVENTS, to=store, sleep=lambda _: None)
        assert [webhook.id for webhook in simulator.workspace.webhooks.all()] == [others[0].id]
        assert stored_in(store).webhook_id == others[0].id

    def test_creates_nothing_for_a_function_that_returns_a_coroutine(
        self, hook: PlanasonixHook, simulator: Simulator
    ) -> None:
        async def put(secret: SecretStr) -> None: ...

        with pytest.raises(PlanasonixSecretError, match=r"returned a coroutine.*deleted again: nothing was created"):
            create_webhook(hook, URL, events=EVENTS, to=lambda secret: put(secret), sleep=lambda _: None)
        assert simulator.workspace.webhooks.all() == []

    def test_tries_three_times_to_store_the_secret(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float]
    ) -> None:
        receiver = Receiver(failures=2)
        create_webhook(hook, URL, events=EVENTS, to=receiver, sleep=pauses.append)
        assert receiver.stored == secrets_of(simulator)
        assert pauses == [1.0, 2.0]

    @pytest.mark.parametrize("is_response_lost", [False, True])
    def test_deletes_a_webhook_whose_secret_cannot_be_stored(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float], is_response_lost: bool
    ) -> None:
        if is_response_lost:
            simulator.fail("reset", route="delete_webhook", when="after")
        with pytest.raises(PlanasonixSecretError, match=r"No space left on device.*deleted again: nothing was created"):
            create_webhook(hook, URL, events=EVENTS, to=Receiver(failures=9), sleep=pauses.append)
        assert simulator.workspace.webhooks.all() == []

    def test_names_a_webhook_that_it_could_not_delete(
        self, hook: PlanasonixHook, simulator: Simulator, pauses: list[float]
    ) -> None:
        simulator.fail("status", route="delete_webhook", status=403, times=None)
        with pytest.raises(PlanasonixSecretError) as failed:
            create_webhook(hook, URL, events=EVENTS, to=Receiver(failures=9), sleep=pauses.append)
        (webhook,) = simulator.workspace.webhooks.all()
        assert f"The secret of the new webhook {webhook.id} is lost" in str(failed.value)
        assert "answered 403" in str(failed.value)
        assert "delete it, or rotate its secret" in str(failed.value)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(("kind", "status"), [("reset", None), ("cut", None), ("html", 502), ("status", 500)])
    def test_is_not_repeated_if_the_effect_is_unknown(
        self, hook: PlanasonixHook, simulator: Simulator, kind: Any, status: int | None, when: Any
    ) -> None:
        simulator.fail(kind, route="create_webhook", status=status, when=when)
        receiver = Receiver()
        with pytest.raises(PlanasonixLostTrackError, match="It is unknown whether the webhook was created"):
            create_webhook(hook, URL, events=EVENTS, to=receiver)
        assert requested_routes(simulator) == ["create_webhook"]
        assert receiver.calls == 0

    def test_is_repeated_if_nothing_was_created(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        simulator.fail("status", route="create_webhook", status=503, headers={"Retry-After": "0"})
        create_webhook(hook, URL, events=EVENTS, to=Receiver())
        assert len(simulator.workspace.webhooks.all()) == 1

    def test_raises_the_error_of_the_api(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        simulator.fail("status", route="create_webhook", status=403)
        with pytest.raises(PlanasonixPermissionError):
            create_webhook(hook, URL, events=EVENTS, to=Receiver())

    def test_removes_the_secret_from_an_error_that_repeats_it(self) -> None:
        class Echo:
            def create_webhook(self, url: str, *, events: list[str], secret: SecretStr) -> NewWebhook:
                raise PlanasonixServerError(f"answered 400 (secret {secret.get_secret_value()})", status=501)

        with pytest.raises(PlanasonixServerError, match=r"secret \*\*\*") as refused:
            create_webhook(Echo(), URL, events=EVENTS, to=Receiver(), secret=OWN)  # type: ignore[arg-type]
        assert OWN.get_secret_value() not in error_text(refused.value)


class TestRotating:
    @pytest.fixture
    def webhook(self, simulator: Simulator) -> NewWebhook:
        return simulator.subscribe(URL, EVENTS)

    def test_stores_the_new_and_the_previous_secret(
        self, hook: PlanasonixHook, simulator: Simulator, store: SecretStore, webhook: NewWebhook
    ) -> None:
        store.save(webhook.signing_secret, webhook_id=webhook.id)
        rotation = rotate_secret(hook, webhook.id, to=store)
        (new,) = secrets_of(simulator)
        assert store.load() == StoredSecret(webhook.id, SecretStr(new), webhook.signing_secret)
        assert rotation.webhook_id == webhook.id
        assert rotation.rotated_at is not None
        assert new not in repr(rotation)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(("kind", "status"), [("reset", None), ("cut", None), ("html", 502)])
    def test_is_repeated_if_the_effect_is_unknown(
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
        assert receiver.stored == secrets_of(simulator)
        assert requested_routes(simulator).count("rotate_webhook_secret") == 3

    @pytest.mark.parametrize("last", ["reset", "status"])
    def test_raises_an_error_if_the_effect_stays_unknown(
        self, hook: PlanasonixHook, simulator: Simulator, webhook: NewWebhook, pauses: list[float], last: Any
    ) -> None:
        simulator.fail("reset", route="rotate_webhook_secret", when="after", times=2)
        # An error response does not show the effect of the requests before it.
        simulator.fail(last, route="rotate_webhook_secret", status=403 if last == "status" else None)
        with pytest.raises(
            PlanasonixLostTrackError, match=r"It is unknown whether the secret of webhook .* rotate it again"
        ):
            rotate_secret(hook, webhook.id, to=Receiver(), sleep=pauses.append)

    def test_reports_that_the_new_secret_is_lost(
        self, hook: PlanasonixHook, simulator: Simulator, webhook: NewWebhook, pauses: list[float]
    ) -> None:
        with pytest.raises(PlanasonixSecretError, match=r"The new secret of webhook .* is lost") as failed:
            rotate_secret(hook, webhook.id, to=Receiver(failures=9), sleep=pauses.append)
        assert "rotate it again, once the secret can be kept" in str(failed.value)
        assert not any(secret in error_text(failed.value) for secret in secrets_of(simulator))

    def test_of_an_unknown_webhook_is_not_repeated(self, hook: PlanasonixHook, simulator: Simulator) -> None:
        with pytest.raises(PlanasonixNotFoundError):
            rotate_secret(hook, "wh_unknown", to=Receiver())
        assert requested_routes(simulator) == ["rotate_webhook_secret"]


def test_no_secret_is_in_a_log_or_an_error(
    hook: PlanasonixHook, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: set[str] = set()
    shown = ""
    for fault, route, failures in product(
        (None, "reset", "cut", "html", "empty"),
        ("create_webhook", "rotate_webhook_secret", "delete_webhook"),
        (0, 1, 9),
    ):
        if fault:
            simulator.fail(fault, route=route, when="after")
        receiver = Receiver(failures=failures)
        try:
            webhook = create_webhook(hook, URL, events=EVENTS, to=receiver, sleep=lambda _: None)
            seen |= set(secrets_of(simulator))
            shown += repr(webhook)
            shown += repr(rotate_secret(hook, webhook.id, to=receiver, sleep=lambda _: None))
        except PlanasonixError as error:
            shown += error_text(error)
        seen |= {*secrets_of(simulator), *receiver.stored}
        simulator.faults.clear()
    assert len(seen) > 20
    assert not [secret for secret in seen if secret in shown + caplog.text]


class TestTheModels:
    SECRET = "whsec_of_a_model_1234567890"

    @pytest.mark.parametrize("model", [NewWebhook, RotatedSecret])
    def test_do_not_show_their_secret(self, model: type[NewWebhook | RotatedSecret]) -> None:
        fields = {"id": "wh_1", "url": URL, "events": EVENTS, "signing_secret": self.SECRET}
        one = model.model_validate({**fields, "secret": self.SECRET, "other": 1})
        assert one.signing_secret.get_secret_value() == self.SECRET
        dumps = [one.model_dump(), one.model_dump(mode="json"), one.model_dump_json(), dict(one)]
        assert self.SECRET not in f"{one!r} {one} {dumps}"
        assert one.model_dump(mode="json", exclude_unset=True)["other"] == 1
        with pytest.raises(TypeError, match="holds a secret, so it is not pickled"):
            pickle.dumps(one)
        assert one.model_copy(deep=True) == one

    def test_drop_a_secret_that_was_not_requested(self) -> None:
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
    def test_do_not_quote_it_in_an_error(self, model: Any, fields: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as refused:
            model.model_validate(fields)
        assert self.SECRET not in error_text(refused.value)

    def test_do_not_show_the_secret_of_a_request(self) -> None:
        assert self.SECRET not in repr(WebhookBody(url=URL, events=EVENTS, secret=self.SECRET))

    def test_are_stored_in_no_xcom_with_their_secret(self) -> None:
        from airflow.models.xcom import XCom

        one = NewWebhook.model_validate({"id": "wh_1", "url": URL, "events": EVENTS, "signing_secret": self.SECRET})
        try:
            stored = repr(XCom.serialize_value(one))
        except TypeError as refused:
            # Airflow 2 cannot serialize pydantic models.
            stored = str(refused)
        except AttributeError:
            from airflow.sdk.bases.xcom import BaseXCom

            stored = repr(BaseXCom.serialize_value(one))
        assert self.SECRET not in stored
        assert "NewWebhook" in stored
