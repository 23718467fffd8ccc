"""Reads and tests Airflow connections of the type Planasonix Webhook. Each of them configures a webhook receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pydantic import SecretStr

from planasonix_provider import airflow_compat, windows
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError
from planasonix_provider.api.event_types import KNOWN_EVENTS, event_names
from planasonix_provider.clock import utcnow
from planasonix_provider.get_provider_info import (
    RECEIVER_CONN_FIELDS,
    RECEIVER_CONNECTION_TYPE,
    RECEIVER_HOOK_NAME,
    RECEIVER_UI_FIELD_BEHAVIOUR,
)
from planasonix_provider.hooks.connection_fields import ConnectionFields
from planasonix_provider.hooks.connection_form import connection_form_widgets, ui_field_behaviour, without_conn_id
from planasonix_provider.hooks.connection_lookup import list_conn_ids
from planasonix_provider.secret_stores import PlanasonixSecretError, StoredSecret, describe_hidden, mask, secret_store
from planasonix_provider.validators import Check, one_of, optional

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.models.asset import AssetModel
    from airflow.providers.common.compat.sdk import Connection
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class ReceiverConfig:
    """The configuration of a webhook receiver.

    :param name: the connection's id.
    :param secrets: the secrets that a delivery may be signed with; at least one.
    :param asset: the name or the URI of the asset whose events the deliveries are.
    :param events: the accepted event names; ``None`` for all.
    :param partition_by: the length of the partitions, such as ``day``; ``None`` for events without a partition key.
    :param partition_timezone: the zone in which partitions start and end.
    :param partition_key_format: the format of the keys; ``None`` for the default.
    """

    name: str
    secrets: tuple[SecretStr, ...]
    asset: str
    events: frozenset[str] | None = None
    partition_by: str | None = None
    partition_timezone: str = "UTC"
    partition_key_format: str | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("A ReceiverConfig holds signing secrets, so it is not pickled: read the connection again.")

    def accepts(self, event: str) -> bool:
        """Return whether the receiver accepts an event.

        :param event: the event's name, such as ``job.succeeded``.
        """
        return self.events is None or event in self.events

    def partition_key(self, moment: datetime) -> str | None:
        """Return the key of the partition that contains a time; ``None`` without ``partition_by``.

        :param moment: the time at which the job has ended.
        """
        if self.partition_by is None:
            return None
        return windows.partition_key(
            moment, every=self.partition_by, timezone=self.partition_timezone, key_format=self.partition_key_format
        )


@dataclass(frozen=True)
class ReceiverNames:
    """The receivers that can be listed without reading a secret.

    :param conn_ids: the connection ids of the receivers in Airflow's database and in the environment.
    :param has_secrets_backend: whether there is a secrets backend, which may contain more receivers.
    """

    conn_ids: frozenset[str] = frozenset()
    has_secrets_backend: bool = False


@dataclass(frozen=True)
class ReceiverInspection:
    """The known fields of a webhook receiver, even if it does not work.

    :param asset: the name or the URI of its asset; ``None`` if it has none.
    :param has_secret: whether it has a signing secret that can be read.
    :param problem: why it does not work; ``None`` if it does.
    """

    asset: str | None = None
    has_secret: bool = False
    problem: str | None = None


class PlanasonixReceiverHook(BaseHook):
    """Reads and tests an Airflow connection of the type Planasonix Webhook.

    :param receiver_conn_id: the Airflow connection; default ``planasonix_webhook_default``. Its password is the signing
        secret, unless the extra's ``kept_in`` names a secret store. The extra's ``asset`` is the name or the URI of the
        asset; ``events``, ``previous_signing_secret``, ``partition_by``,
        ``partition_timezone`` and ``partition_key_format`` are optional.
    """

    conn_name_attr = "receiver_conn_id"
    default_conn_name = "planasonix_webhook_default"
    conn_type = RECEIVER_CONNECTION_TYPE
    hook_name = RECEIVER_HOOK_NAME

    def __init__(self, receiver_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.receiver_conn_id = receiver_conn_id

    def get_receiver(self) -> ReceiverConfig | None:
        """Return the receiver. Each call reads the Airflow connection.

        :return: the receiver; ``None`` if there is no such connection, or if it has another type.
        :raises PlanasonixConfigurationError: if a field is missing or invalid; the message names the field.
        :raises PlanasonixSecretError: if the secret store cannot be read.
        :raises Exception: of any other type, if Airflow's connections cannot be read.
        """
        return self._get_receiver(airflow_compat.secrets_backends())

    def get_receiver_from_secrets_backends(self) -> ReceiverConfig | None:
        """Return the receiver, as :meth:`get_receiver`, but do not search Airflow's database and the environment.

        :return: the receiver; ``None`` if no secrets backend has such a connection, or if it has another type.
        """
        return self._get_receiver(airflow_compat.custom_secrets_backends())

    def inspect(self) -> ReceiverInspection:
        """Return what is known of the receiver. Each call reads the Airflow connection.

        :return: its asset, whether it has a secret, and why it does not work.
        """
        asset, has_secret = None, False
        try:
            connection = _find_connection(self.receiver_conn_id, airflow_compat.secrets_backends())
            if connection is None or connection.conn_type != RECEIVER_CONNECTION_TYPE:
                return ReceiverInspection(problem=f"There is no such Airflow connection of type {RECEIVER_HOOK_NAME}.")
            fields = _ReceiverFields(self.receiver_conn_id, connection.extra_dejson)
            with suppress(PlanasonixConfigurationError):
                asset = fields.asset()
            has_secret = any(fields.secrets(connection.password or ""))
            parse_receiver(self.receiver_conn_id, password=connection.password, extra=connection.extra_dejson)
        except PlanasonixError as error:
            return ReceiverInspection(asset, has_secret, error.message)
        except Exception as fault:
            return ReceiverInspection(
                asset, has_secret, f"The Airflow connection cannot be read ({type(fault).__name__})."
            )
        return ReceiverInspection(asset, has_secret)

    def _get_receiver(self, backends: Sequence[Any]) -> ReceiverConfig | None:
        connection = _find_connection(self.receiver_conn_id, backends)
        if connection is None or connection.conn_type != RECEIVER_CONNECTION_TYPE:
            return None
        return parse_receiver(self.receiver_conn_id, password=connection.password, extra=connection.extra_dejson)

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection: the button "Test" in Airflow's form.

        :return: whether deliveries would be accepted; and how they are verified and which asset they update, or what
            is wrong and what to do.
        """
        if not AIRFLOW_V_3_0_PLUS:
            return (
                False,
                "The receiver of webhooks needs Airflow 3.0 or later; on this version nothing is delivered to it.",
            )
        from airflow.utils.session import create_session

        try:
            receiver = self.get_receiver()
            if receiver is None:
                return False, f"The Airflow connection is not of the type {RECEIVER_HOOK_NAME}: choose that type."
            with create_session() as session:
                if find_asset(session, receiver.asset) is None:
                    return False, unknown_asset_message(receiver.asset)
        except PlanasonixError as error:
            return False, without_conn_id(error.message, self.receiver_conn_id)
        return True, " ".join(_describe(receiver))

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the changes to the form's standard fields, for Airflow before 3.2."""
        return ui_field_behaviour(RECEIVER_UI_FIELD_BEHAVIOUR)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for the extra, for Airflow before 3.2."""
        return connection_form_widgets(RECEIVER_CONN_FIELDS)


def _describe(receiver: ReceiverConfig) -> Iterator[str]:
    secrets = "one secret" if len(receiver.secrets) == 1 else f"any of {len(receiver.secrets)} secrets"
    yield f"Deliveries that are signed with {secrets} are events of the asset {receiver.asset!r}."
    if receiver.partition_by and not airflow_compat.has_partitions():
        yield airflow_compat.NO_PARTITIONS_WARNING
    elif receiver.partition_by:
        yield (
            f"Events of ended jobs have the partition key of the {receiver.partition_by} in which the job has ended, "
            f"such as {receiver.partition_key(utcnow())}. They start only DAGs whose schedule is partitioned."
        )
    if unknown := sorted(set(receiver.events or ()) - KNOWN_EVENTS):
        yield f"This version of airflow-provider-planasonix does not know {', '.join(unknown)}: check the spelling."


def parse_receiver(name: str, *, password: str | None, extra: Mapping[str, Any] | None = None) -> ReceiverConfig:
    """Parse the fields of an Airflow connection.

    :param name: the connection's id.
    :param password: the signing secret, or the JSON object that a secret store wrote; may be empty with ``kept_in``.
    :param extra: ``asset``, ``kept_in``, ``previous_signing_secret``, ``events``, ``partition_by``,
        ``partition_timezone``, ``partition_key_format``.
    :return: the receiver.
    :raises PlanasonixConfigurationError: if a field is missing or invalid; the message names the field.
    :raises PlanasonixSecretError: if the secret store cannot be read.
    """
    fields = _ReceiverFields(name, extra)
    secrets = tuple(dict.fromkeys(fields.secrets(password or "")))
    if not secrets:
        raise PlanasonixConfigurationError(
            f"Airflow connection {name!r} has no signing secret: put it into the password, or say in the extra's "
            "'kept_in' where PlanasonixWebhookOperator keeps it. There is none there before the operator has run."
        )
    for secret in secrets:
        mask(secret)
    return ReceiverConfig(name, secrets, fields.asset(), fields.events(), *fields.partitions())


def find_asset(session: Session, name_or_uri: str) -> AssetModel | None:
    """Return the active asset with this name, or else with this URI; ``None`` if there is none.

    :param session: a session of Airflow's database.
    :param name_or_uri: the asset's name or its URI.
    """
    from airflow.models.asset import AssetModel
    from airflow.providers.common.compat.sdk import Asset
    from sqlalchemy import or_, select

    uris = {name_or_uri}
    with suppress(ValueError):
        # Airflow's database contains the normalized form of the URI that the DAG uses.
        uris.add(str(Asset(uri=name_or_uri).uri))
    query = select(AssetModel).where(
        AssetModel.active.has(), or_(AssetModel.name == name_or_uri, AssetModel.uri.in_(uris))
    )
    found: list[AssetModel] = sorted(session.scalars(query), key=lambda asset: bool(asset.name != name_or_uri))
    return found[0] if found else None


def unknown_asset_message(name_or_uri: str) -> str:
    """Return the message that no DAG uses an asset, and what to do.

    :param name_or_uri: the asset's name or its URI.
    """
    return (
        f"No DAG knows the asset {name_or_uri!r}. Write a DAG that is scheduled on it, or names it as an inlet or "
        "outlet; or name another asset in the extra 'asset' of the Airflow connection."
    )


def list_receiver_names() -> ReceiverNames:
    """List the receivers in Airflow's database and the environment: one query, which reads and decrypts no secret.

    :return: their names, and whether a secrets backend may contain more.
    """
    return ReceiverNames(list_conn_ids(RECEIVER_CONNECTION_TYPE), bool(airflow_compat.custom_secrets_backends()))


def _find_connection(conn_id: str, backends: Sequence[Any]) -> Connection | None:
    """Search the backends as Airflow does; Airflow's own function logs a warning for each type that contains "_"."""
    fault: Exception | None = None
    for backend in backends:
        try:
            found: Connection | None = backend.get_connection(conn_id=conn_id)
            # A connection without fields may only list a receiver; its fields may be in the backend that failed.
            if found and (found.password or found.extra_dejson or not fault):
                return found
        except PermissionError:
            # With this exception, a backend forbids asking the others.
            raise
        except Exception as error:
            fault = error
    if fault:
        raise fault
    return None


class _ReceiverFields(ConnectionFields):
    def secrets(self, password: str) -> Iterator[SecretStr]:
        if stored := StoredSecret.from_json(password):
            yield from stored.secrets
        elif password.strip():
            yield SecretStr(password.strip())
        previous = self.extra.get("previous_signing_secret", "")
        if not isinstance(previous, str):
            self.extra_error("previous_signing_secret", type(previous), "a text")
        if previous:
            yield SecretStr(previous.strip())
        yield from self.stored_secrets()

    def stored_secrets(self) -> list[SecretStr]:
        if (to := self.extra.get("kept_in")) is None:
            return []
        try:
            stored = secret_store(to.strip() if isinstance(to, str) else to).load()
        except ValueError:
            self.error_with_text(
                "extra 'kept_in'",
                describe_hidden(to),
                "'variable:NAME', 'connection:CONN_ID' or 'file:/absolute/path'",
            )
        except PlanasonixSecretError as error:
            error.set_message(f"Airflow connection {self.conn_id!r}, extra 'kept_in': {error.message}")
            raise
        return stored.secrets if stored else []

    def asset(self) -> str:
        value = self.extra.get("asset")
        if value is None:
            allowed = "the name or the URI of the asset that the deliveries are events of"
            self.error_with_text("extra 'asset'", "nothing", allowed)
        if not isinstance(value, str):
            self.extra_error("asset", value, "the name or the URI of an asset")
        return value.strip()

    def events(self) -> frozenset[str] | None:
        value = self.extra.get("events")
        if value is None:
            return None
        try:
            return frozenset(event.strip() for event in event_names("events", _to_list(value)))
        except ValueError:
            allowed = "events with commas between them, such as job.succeeded, backfill.completed"
            self.extra_error("events", value, allowed)

    def partitions(self) -> tuple[str | None, str, str | None]:
        every = self._checked("partition_by", optional(one_of(*windows.UNITS)))
        timezone = self._checked("partition_timezone", windows.time_zone, default="UTC").key
        check = windows.distinct_key_format(every, timezone) if every else windows.partition_key_format
        return every, timezone, self._checked("partition_key_format", check)

    def _checked(self, name: str, check: Check, default: Any = None) -> Any:
        value = self.extra.get(name, default)
        try:
            return check(self.field(f"extra {name!r}"), value.strip() if isinstance(value, str) else value)
        except ValueError as error:
            raise PlanasonixConfigurationError(str(error)) from None


def _to_list(value: object) -> object:
    """Convert a text to a list: JSON from a URI, or comma-separated names from the form."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else value.split(",")
