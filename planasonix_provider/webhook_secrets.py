"""Hands a webhook's signing secret, which Planasonix shows once, to whatever is to keep it, and to nothing else."""

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

#: How often it is tried to keep a secret, and to rotate one.
MAX_TRIES = 3
#: Seconds before the second of these tries; twice as many before the third.
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class RotationResult:
    """A secret was rotated.

    :param webhook_id: whose.
    :param rotated_at: when, where the API said so.
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
    """Create a webhook subscription, and have its signing secret kept.

    Not to be repeated without a look: each call creates another subscription.

    :param hook: calls the API.
    :param url: where deliveries go: https, or http to this very machine.
    :param events: the events, as ``job.succeeded``.
    :param to: where the secret goes: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or a function
        that takes it, and is called again if it raises.
    :param secret: what deliveries are to be signed with; default: one is made up. What the API answers counts.
    :param sleep: waits for a number of seconds.
    :return: the subscription, without its secret.
    :raises ValueError: if a parameter makes no sense.
    :raises PlanasonixSecretError: if the secret cannot be kept; nothing was created then, or it was deleted again.
    :raises PlanasonixLostTrackError: if nobody knows whether the subscription was created.
    :raises PlanasonixError: of another kind, if it was not.
    """
    place = secret_store(to)
    place.check_writable()
    gone = check_unused(hook, place)
    created = create_without_storing(hook, url, events=events, secret=secret)
    store_or_delete(hook, created, place, instead_of=gone, sleep=sleep)
    return _without_secret(created)


def check_unused(hook: PlanasonixHook | Client, place: SecretStore, *, by_other_than: str | None = None) -> str | None:
    """Refuse a place that holds the secret of another subscription, which would be lost.

    :param hook: calls the API.
    :param place: keeps secrets.
    :param by_other_than: the subscription whose secret may be replaced; ``None`` is none.
    :return: another subscription whose secret is there, and may be replaced, as it is gone; ``None`` where there is
        none.
    :raises PlanasonixSecretError: if there is a subscription whose secret is there.
    :raises PlanasonixError: of another kind, if that cannot be found out.
    """
    kept = place.load()
    if kept is None or kept.webhook_id in (None, by_other_than):
        return None
    try:
        hook.get_webhook(kept.webhook_id)
    except PlanasonixNotFoundError:
        return kept.webhook_id
    raise place.taken_error(kept.webhook_id)


def create_without_storing(
    hook: PlanasonixHook | Client, url: str, *, events: Sequence[str], secret: SecretStr | None = None
) -> NewWebhook:
    """Create a webhook subscription with a secret that was made up here.

    The reference leaves it open whether a server makes one up, so it gets one in any case.

    :param hook: calls the API.
    :param url: where deliveries go.
    :param events: the events.
    :param secret: what deliveries are to be signed with; default: one is made up.
    :return: the subscription with its secret: that of the answer, whatever was asked for.
    :raises PlanasonixLostTrackError: if nobody knows whether it was created.
    :raises PlanasonixError: of another kind, if it was not.
    """
    from pydantic import SecretStr

    from planasonix_provider.api.retry import has_unknown_effect

    asked = secret or SecretStr(f"whsec_{secrets.token_urlsafe(32)}")
    mask(asked)
    try:
        created = hook.create_webhook(url, events=events, secret=asked)
    except PlanasonixError as error:
        # A server that refuses what it was sent may send it back.
        error.with_message(remove_secrets(error.message, [asked]))
        if has_unknown_effect(error):
            raise PlanasonixLostTrackError(
                f"{error.message} Nobody knows whether the webhook was created. List the webhooks: if there is a new "
                "one for this url, rotate its secret, or delete it before you create another."
            ) from error
        raise
    mask(created.signing_secret)
    return created


def store_or_delete(
    hook: PlanasonixHook | Client,
    created: NewWebhook,
    place: SecretStore,
    *,
    instead_of: str | None = None,
    sleep: Callable[[float], None] = clock.sleep,
) -> None:
    """Have the secret of a new subscription kept, or delete the subscription: without its secret it is of no use.

    :param hook: calls the API.
    :param created: the subscription.
    :param place: keeps the secret.
    :param instead_of: another subscription whose secret may be replaced, as :func:`check_unused` gave it.
    :param sleep: waits for a number of seconds.
    :raises PlanasonixSecretError: if the secret could not be kept.
    """
    try:
        _save(place, created.signing_secret, created.id, instead_of, sleep)
    except PlanasonixSecretError as failure:
        try:
            delete_if_exists(hook, created.id)
        except PlanasonixError as error:
            failure.with_message(
                f"{failure.message} Nobody knows the secret of the new webhook {created.id}, and it could not be "
                f"deleted ({error.message}): delete it, or rotate its secret."
            )
        else:
            failure.with_message(
                f"{failure.message} The new webhook {created.id} was deleted again: nothing was created."
            )
        raise


def delete_if_exists(hook: PlanasonixHook | Client, webhook_id: str) -> None:
    """Delete a webhook subscription, if it is still there.

    :param hook: calls the API.
    :param webhook_id: the subscription.
    :raises PlanasonixError: if it could not be deleted.
    """
    # Somebody else may be quicker; and a deletion is repeated where its answer was lost, and finds that it was done.
    with suppress(PlanasonixNotFoundError):
        hook.delete_webhook(webhook_id)


def rotate_secret(
    hook: PlanasonixHook | Client,
    webhook_id: str,
    *,
    to: Destination,
    sleep: Callable[[float], None] = clock.sleep,
) -> RotationResult:
    """Get a new signing secret for a webhook subscription, and have it kept beside the one before.

    Whoever checks deliveries should accept both for a while, see :meth:`.Keeper.kept`. Where nobody knows whether the
    secret was changed, it is rotated again: the last answer holds the one that counts.

    :param hook: calls the API.
    :param webhook_id: the subscription.
    :param to: where the secret goes: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or a function
        that takes it, and is called again if it raises.
    :param sleep: waits for a number of seconds.
    :return: which subscription it was, and when.
    :raises ValueError: if a parameter makes no sense.
    :raises PlanasonixSecretError: if the secret cannot be kept: nothing was changed then, or the new one is lost; the
        message says which.
    :raises PlanasonixLostTrackError: if nobody knows whether the secret was changed.
    :raises PlanasonixError: of another kind, if it was not.
    """
    place = secret_store(to)
    place.check_writable()
    gone = check_unused(hook, place, by_other_than=webhook_id)
    rotated = _rotate(hook, webhook_id, sleep)
    try:
        _save(place, rotated.signing_secret, webhook_id, gone, sleep)
    except PlanasonixSecretError as failure:
        failure.with_message(
            f"{failure.message} The new secret of webhook {webhook_id} is lost, and deliveries are signed with it from "
            "now on: rotate it again, once the secret can be kept."
        )
        raise
    return RotationResult(webhook_id, rotated.rotated_at)


def _rotate(hook: PlanasonixHook | Client, webhook_id: str, sleep: Callable[[float], None]) -> RotatedSecret:
    from planasonix_provider.api.retry import has_unknown_effect

    doubts: list[BaseException] = []

    def may_have_rotated(error: BaseException) -> bool:
        if has_unknown_effect(error):
            doubts.append(error)
        return error in doubts

    try:
        rotated = _retry(lambda: hook.rotate_webhook_secret(webhook_id), may_have_rotated, sleep)
    except PlanasonixError as error:
        if doubts:
            raise PlanasonixLostTrackError(
                f"{error.message} Nobody knows whether the secret of webhook {webhook_id} was changed; if it was, the "
                "new one is lost: rotate it again."
            ) from error
        raise
    mask(rotated.signing_secret)
    return rotated


def _save(
    place: SecretStore, secret: SecretStr, webhook_id: str, instead_of: str | None, sleep: Callable[[float], None]
) -> None:
    _retry(
        lambda: place.save(secret, webhook_id=webhook_id, instead_of=instead_of),
        lambda error: isinstance(error, PlanasonixSecretError),
        sleep,
    )


def _retry(act: Callable[[], T], may_pass: Callable[[BaseException], bool], sleep: Callable[[float], None]) -> T:
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    return Retrying(
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(MAX_TRIES),
        wait=wait_exponential(multiplier=RETRY_SECONDS),
        sleep=sleep,
        reraise=True,
    )(act)


def _without_secret(created: NewWebhook) -> Webhook:
    from planasonix_provider.api.models import Webhook

    return Webhook.model_validate(created.model_dump(exclude={"signing_secret"}, exclude_unset=True))
