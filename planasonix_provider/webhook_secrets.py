"""Creates and rotates webhook signing secrets, and stores them. Planasonix shows a secret only once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from planasonix_provider import clock
from planasonix_provider.api.errors import PlanasonixError, PlanasonixLostTrackError, PlanasonixNotFoundError
from planasonix_provider.secret_stores import (
    Destination,
    PlanasonixSecretError,
    SecretStore,
    mask,
    remove_secrets,
    secret_store,
)

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr

    from planasonix_provider.api.client import Client
    from planasonix_provider.api.models import NewWebhook, RotatedSecret, Webhook
    from planasonix_provider.hooks.planasonix import PlanasonixHook

__all__ = [
    "PlanasonixSecretError",
    "RotationResult",
    "SecretStore",
    "check_unused",
    "create_webhook",
    "create_without_storing",
    "delete_if_exists",
    "rotate_secret",
    "secret_store",
    "store_or_delete",
]

T = TypeVar("T")

#: For storing a secret, and for rotating one.
MAX_TRIES = 3
#: Seconds before the second try; twice as many before the third.
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class RotationResult:
    """The result of a rotation.

    :param webhook_id: the webhook whose secret was rotated.
    :param rotated_at: the time of the rotation, if the API returned it.
    """

    webhook_id: str
    rotated_at: datetime | None


def create_webhook(
    hook: PlanasonixHook | Client,
    url: str,
    *,
    events: Sequence[str],
    to: Destination,
    secret: SecretStr | None = None,
    sleep: Callable[[float], None] = clock.sleep,
) -> Webhook:
    """Create a webhook and store its signing secret.

    Each call creates another webhook, so check for an existing one before you call it again.

    :param hook: sends the requests.
    :param url: the https URL that deliveries go to; http is allowed for this machine.
    :param events: the event names, such as ``job.succeeded``.
    :param to: where to store the secret: ``variable:NAME`` (not in a task of Airflow 3.0), ``connection:CONN_ID`` (not
        in a task of Airflow 3), ``file:/absolute/path``, or a function that takes it and is called again if it raises
        an exception.
    :param secret: the secret to request; default: a random one. The secret in the API's response is stored.
    :param sleep: waits the given number of seconds.
    :return: the webhook, without its secret.
    :raises ValueError: if a parameter is invalid.
    :raises PlanasonixSecretError: if the secret cannot be stored. No webhook exists then: none was created, or it was
        deleted again.
    :raises PlanasonixLostTrackError: if it is unknown whether the webhook was created.
    :raises PlanasonixError: of another kind, if the webhook was not created.
    """
    from planasonix_provider.api.models import Webhook

    store = secret_store(to)
    store.check_writable()
    deleted_id = check_unused(hook, store)
    created = create_without_storing(hook, url, events=events, secret=secret)
    store_or_delete(hook, created, store, instead_of=deleted_id, sleep=sleep)
    return Webhook.model_validate(created.model_dump(exclude={"signing_secret"}, exclude_unset=True))


def check_unused(hook: PlanasonixHook | Client, store: SecretStore, *, by_other_than: str | None = None) -> str | None:
    """Raise an error if the store holds the secret of another existing webhook, which would be overwritten.

    :param hook: sends the requests.
    :param store: the secret store.
    :param by_other_than: the webhook whose secret may be overwritten; ``None`` for none.
    :return: a deleted webhook whose secret is in the store and may be overwritten; ``None`` if there is none.
    :raises PlanasonixSecretError: if the store holds the secret of another existing webhook.
    :raises PlanasonixError: of another kind, if that is unknown because the request failed.
    """
    stored = store.load()
    if stored is None or stored.webhook_id in (None, by_other_than):
        return None
    try:
        hook.get_webhook(stored.webhook_id)
    except PlanasonixNotFoundError:
        return stored.webhook_id
    raise store.taken_error(stored.webhook_id)


def create_without_storing(
    hook: PlanasonixHook | Client, url: str, *, events: Sequence[str], secret: SecretStr | None = None
) -> NewWebhook:
    """Create a webhook with a given or a random secret.

    The API reference does not say whether the server would create a secret, so the request always contains one.

    :param hook: sends the request.
    :param url: the URL that deliveries go to.
    :param events: the event names.
    :param secret: the secret to request; default: a random one.
    :return: the webhook with the secret in the API's response, which may differ from the requested one.
    :raises PlanasonixLostTrackError: if it is unknown whether the webhook was created.
    :raises PlanasonixError: of another kind, if the webhook was not created.
    """
    from pydantic import SecretStr

    from planasonix_provider.api.retry import has_unknown_effect

    requested = secret or SecretStr(f"whsec_{secrets.token_urlsafe(32)}")
    mask(requested)
    try:
        created = hook.create_webhook(url, events=events, secret=requested)
    except PlanasonixError as error:
        # The error may quote a response that repeats the request.
        error.set_message(remove_secrets(error.message, [requested]))
        if has_unknown_effect(error):
            raise PlanasonixLostTrackError(
                f"{error.message} It is unknown whether the webhook was created. List the webhooks: if there is a new "
                "one for this url, rotate its secret, or delete it before you create another."
            ) from error
        raise
    mask(created.signing_secret)
    return created


def store_or_delete(
    hook: PlanasonixHook | Client,
    created: NewWebhook,
    store: SecretStore,
    *,
    instead_of: str | None = None,
    sleep: Callable[[float], None] = clock.sleep,
) -> None:
    """Store the secret of a new webhook. If that fails, delete the webhook, which is useless without its secret.

    :param hook: sends the requests.
    :param created: the new webhook.
    :param store: the secret store.
    :param instead_of: a deleted webhook whose secret may be overwritten, as :func:`check_unused` returns it.
    :param sleep: waits the given number of seconds.
    :raises PlanasonixSecretError: if the secret was not stored.
    """
    try:
        _save(store, created.signing_secret, created.id, instead_of, sleep)
    except PlanasonixSecretError as failure:
        try:
            delete_if_exists(hook, created.id)
        except PlanasonixError as error:
            failure.set_message(
                f"{failure.message} The secret of the new webhook {created.id} is lost, and the webhook could not be "
                f"deleted ({error.message}): delete it, or rotate its secret."
            )
        else:
            failure.set_message(
                f"{failure.message} The new webhook {created.id} was deleted again: nothing was created."
            )
        raise


def delete_if_exists(hook: PlanasonixHook | Client, webhook_id: str) -> None:
    """Delete a webhook, if it exists.

    :param hook: sends the request.
    :param webhook_id: the webhook.
    :raises PlanasonixError: if it could not be deleted.
    """
    # 404: already deleted, perhaps by a first request whose response was lost.
    with suppress(PlanasonixNotFoundError):
        hook.delete_webhook(webhook_id)


def rotate_secret(
    hook: PlanasonixHook | Client,
    webhook_id: str,
    *,
    to: Destination,
    sleep: Callable[[float], None] = clock.sleep,
) -> RotationResult:
    """Rotate a webhook's signing secret and store the new one. The store keeps the old one as the previous secret.

    Receivers should accept both for a while, see :meth:`.SecretStore.load`. If it is unknown whether a request rotated
    the secret, it is rotated again, because the last response contains the valid secret.

    :param hook: sends the requests.
    :param webhook_id: the webhook.
    :param to: where to store the secret: ``variable:NAME`` (not in a task of Airflow 3.0), ``connection:CONN_ID`` (not
        in a task of Airflow 3), ``file:/absolute/path``, or a function that takes it and is called again if it raises
        an exception.
    :param sleep: waits the given number of seconds.
    :return: the webhook's id and the time of the rotation.
    :raises ValueError: if a parameter is invalid.
    :raises PlanasonixSecretError: if the secret cannot be stored. The message says whether it was rotated.
    :raises PlanasonixLostTrackError: if it is unknown whether the secret was rotated.
    :raises PlanasonixError: of another kind, if it was not.
    """
    store = secret_store(to)
    store.check_writable()
    deleted_id = check_unused(hook, store, by_other_than=webhook_id)
    rotated = _rotate(hook, webhook_id, sleep)
    try:
        _save(store, rotated.signing_secret, webhook_id, deleted_id, sleep)
    except PlanasonixSecretError as failure:
        failure.set_message(
            f"{failure.message} The new secret of webhook {webhook_id} is lost, and deliveries are signed with it from "
            "now on: rotate it again, once the secret can be kept."
        )
        raise
    return RotationResult(webhook_id, rotated.rotated_at)


def _rotate(hook: PlanasonixHook | Client, webhook_id: str, sleep: Callable[[float], None]) -> RotatedSecret:
    from planasonix_provider.api.retry import has_unknown_effect

    unknown_effects: list[BaseException] = []

    def should_retry(error: BaseException) -> bool:
        if has_unknown_effect(error):
            unknown_effects.append(error)
        return error in unknown_effects

    try:
        rotated = _retry(lambda: hook.rotate_webhook_secret(webhook_id), should_retry, sleep)
    except PlanasonixError as error:
        if unknown_effects:
            raise PlanasonixLostTrackError(
                f"{error.message} It is unknown whether the secret of webhook {webhook_id} was changed; if it was, the "
                "new one is lost: rotate it again."
            ) from error
        raise
    mask(rotated.signing_secret)
    return rotated


def _save(
    store: SecretStore, secret: SecretStr, webhook_id: str, instead_of: str | None, sleep: Callable[[float], None]
) -> None:
    _retry(
        lambda: store.save(secret, webhook_id=webhook_id, instead_of=instead_of),
        lambda error: isinstance(error, PlanasonixSecretError),
        sleep,
    )


def _retry(
    function: Callable[[], T], should_retry: Callable[[BaseException], bool], sleep: Callable[[float], None]
) -> T:
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    return Retrying(
        retry=retry_if_exception(should_retry),
        stop=stop_after_attempt(MAX_TRIES),
        wait=wait_exponential(multiplier=RETRY_SECONDS),
        sleep=sleep,
        reraise=True,
    )(function)
