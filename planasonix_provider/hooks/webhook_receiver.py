"""A webhook receiver is an Airflow connection: what signs its deliveries, and which asset they are events of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pydantic import SecretStr

from planasonix_provider import airflow_compat
from planasonix_provider.api.errors import PlanasonixConfigurationError, PlanasonixError
from planasonix_provider.api.event_types import KNOWN_EVENTS, event_names
from planasonix_provider.get_provider_info import (
    RECEIVER_CONN_FIELDS,
    RECEIVER_CONNECTION_TYPE,
    RECEIVER_HOOK_NAME,
    RECEIVER_UI_FIELD_BEHAVIOUR,
)
from planasonix_provider.hooks.connection_form import connection_form_widgets, ui_field_behaviour, without_conn_id
from planasonix_provider.secret_stores import PlanasonixSecretError, StoredSecret, describe_hidden, mask, secret_store

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from airflow.providers.common.compat.sdk import Connection
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class ReceiverConfig:
    """What an Airflow connection says of a receiver.

    :param name: the connection's id.
    :param secrets: what its deliveries may be signed with; never none.
    :param asset: the name or the URI of the asset that they are events of.
    :param events: which of them count; ``None`` is all.
    """

    name: str
    secrets: tuple[SecretStr, ...]
    asset: str
    events: frozenset[str] | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Receiver holds signing secrets, so it is not pickled: read the Airflow connection again.")

    def accepts(self, event: str) -> bool:
        """Say whether an event counts.

        :param event: its name, as ``job.succeeded``.
        :return: whether it does.
        """
        return self.events is None or event in self.events


@dataclass(frozen=True)
class ReceiverNames:
    """The receivers of this Airflow that can be named without reading a secret.

    :param conn_ids: the ids of the Airflow connections of the type Planasonix Webhook, in Airflow's database and in the
        environment.
    :param has_secrets_backend: whether there is a secrets backend, which may hold more of them.
    """

    conn_ids: frozenset[str] = frozenset()
    has_secrets_backend: bool = False


class PlanasonixReceiverHook(BaseHook):
    """Reads an Airflow connection of the type Planasonix Webhook, and tests it.

    :param receiver_conn_id: the Airflow connection; default ``planasonix_webhook_default``. Its password is the signing
        secret, unless the extra's ``kept_in`` says where that is kept; ``asset`` is the name or the URI of the asset
        that it feeds; ``events`` and ``previous_signing_secret`` are optional.
    """

    conn_name_attr = "receiver_conn_id"
    default_conn_name = "planasonix_webhook_default"
    conn_type = RECEIVER_CONNECTION_TYPE
    hook_name = RECEIVER_HOOK_NAME

    def __init__(self, receiver_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.receiver_conn_id = receiver_conn_id

    def get_receiver(self) -> ReceiverConfig | None:
        """Read the Airflow connection, anew at each call.

        :return: the receiver; ``None`` where there is no such connection, or one of another type.
        :raises PlanasonixConfigurationError: if something is missing in it or makes no sense; the message names it.
        :raises PlanasonixSecretError: if the place where the secret is kept cannot be read.
        :raises Exception: of any other kind, if Airflow cannot say whether there is a connection.
        """
        return self._get_receiver(airflow_compat.secrets_backends())

    def get_receiver_from_secrets_backends(self) -> ReceiverConfig | None:
        """Read the Airflow connection from secrets backends, not from Airflow's database or the environment.

        :return: the receiver; ``None`` where no secrets backend has such a connection, or one of another type.
        :raises PlanasonixConfigurationError: if something is missing in it or makes no sense; the message names it.
        :raises PlanasonixSecretError: if the place where the secret is kept cannot be read.
        :raises Exception: of any other kind, if a secrets backend cannot say whether there is a connection.
        """
        return self._get_receiver(airflow_compat.custom_secrets_backends())

    def _get_receiver(self, backends: Sequence[Any]) -> ReceiverConfig | None:
        connection = _find_connection(self.receiver_conn_id, backends)
        if connection is None or connection.conn_type != RECEIVER_CONNECTION_TYPE:
            return None
        return parse_receiver(self.receiver_conn_id, password=connection.password, extra=connection.extra_dejson)

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection: the button "Test" in Airflow's form.

        :return: whether deliveries would count, and in words how they are checked and what they feed, or what is wrong
            and what to do.
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
            # The form's button tries what it shows under an id that it makes up.
            return False, without_conn_id(error.message, self.receiver_conn_id)
        secrets = "one secret" if len(receiver.secrets) == 1 else f"any of {len(receiver.secrets)} secrets"
        unknown = sorted(set(receiver.events or ()) - KNOWN_EVENTS)
        return True, f"Deliveries that are signed with {secrets} are events of the asset {receiver.asset!r}." + (
            f" This version of airflow-provider-planasonix does not know {', '.join(unknown)}: check the spelling."
            if unknown
            else ""
        )

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields, for Airflow before 3.2; later ones read the provider info.

        :return: what is hidden, renamed and hinted at.
        """
        return ui_field_behaviour(RECEIVER_UI_FIELD_BEHAVIOUR)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's own fields, for Airflow before 3.2; later ones read the provider info.

        :return: a form field for each thing that the extra may hold.
        """
        return connection_form_widgets(RECEIVER_CONN_FIELDS)


def parse_receiver(name: str, *, password: str | None, extra: Mapping[str, Any] | None = None) -> ReceiverConfig:
    """Read the fields of an Airflow connection.

    :param name: the connection's id.
    :param password: the signing secret, or what a keeper has put in its place; empty where ``kept_in`` says enough.
    :param extra: the connection's extra: ``asset``, ``kept_in``, ``previous_signing_secret``, ``events``.
    :return: what the connection says.
    :raises PlanasonixConfigurationError: if something is missing or makes no sense; the message names the field.
    :raises PlanasonixSecretError: if the place where the secret is kept cannot be read.
    """
    reader = _ReceiverFields(name, extra or {})
    secrets = tuple(dict.fromkeys(reader.secrets(password or "")))
    if not secrets:
        raise PlanasonixConfigurationError(
            f"Airflow connection {name!r} has no signing secret: put it into the password, or say in the extra's "
            "'kept_in' where PlanasonixWebhookOperator keeps it. There is none there before the operator has run."
        )
    for secret in secrets:
        mask(secret)
    return ReceiverConfig(name, secrets, reader.asset(), reader.events())


def find_asset(session: Session, given: str) -> AssetModel | None:
    """Find an asset that a DAG names.

    :param session: a session of Airflow's database.
    :param given: the asset's name or its URI.
    :return: the asset, that of this name rather than that of this URI; ``None`` where no DAG knows one.
    """
    from airflow.models.asset import AssetModel
    from airflow.providers.common.compat.sdk import Asset
    from sqlalchemy import or_, select

    uris = {given}
    with suppress(ValueError):
        # DAGs name it as they like, and the database has it as Airflow writes it.
        uris.add(str(Asset(uri=given).uri))
    asked = select(AssetModel).where(AssetModel.active.has(), or_(AssetModel.name == given, AssetModel.uri.in_(uris)))
    found: list[AssetModel] = sorted(session.scalars(asked), key=lambda asset: bool(asset.name != given))
    return found[0] if found else None


def unknown_asset_message(given: str) -> str:
    """Say that no DAG knows an asset, and what to do.

    :param given: the asset's name or its URI.
    :return: the text.
    """
    return (
        f"No DAG knows the asset {given!r}. Write a DAG that is scheduled on it, or names it as an inlet or outlet; or "
        "name another asset in the extra 'asset' of the Airflow connection."
    )


def list_receiver_names() -> ReceiverNames:
    """List the receivers of Airflow's database and the environment, in one query that reads and decrypts no secret.

    :return: their names, and whether a secrets backend may have more.
    """
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    asked = select(Connection.conn_id).where(Connection.conn_type == RECEIVER_CONNECTION_TYPE)
    with create_session(scoped=False) as session:
        conn_ids = frozenset(session.scalars(asked))
    return ReceiverNames(conn_ids | _list_environment_names(), bool(airflow_compat.custom_secrets_backends()))


def _list_environment_names() -> frozenset[str]:
    prefix = "AIRFLOW_CONN_"
    return frozenset(
        variable.removeprefix(prefix).lower()
        for variable, value in os.environ.items()
        if variable.startswith(prefix) and _conn_type_of(value) == RECEIVER_CONNECTION_TYPE
    )


def _conn_type_of(value: str) -> str:
    """Return the type of a connection that is written as JSON or as a URI, which has "-" where a type has "_"."""
    text = value.strip()
    if not text.startswith("{"):
        return text.partition(":")[0].lower().replace("-", "_")
    try:
        return str(json.loads(text).get("conn_type")).replace("-", "_")
    except ValueError:
        return ""


def _find_connection(conn_id: str, backends: Sequence[Any]) -> Connection | None:
    """Look where Airflow looks, without what Airflow itself does then: it logs a warning for each type with a "_"."""
    fault: Exception | None = None
    for backend in backends:
        try:
            found: Connection | None = backend.get_connection(conn_id=conn_id)
            # A connection without fields only names a receiver whose fields are in the backend that has failed.
            if found and (found.password or found.extra_dejson or not fault):
                return found
        except PermissionError:
            # A backend's way to say that no other is to be asked.
            raise
        except Exception as error:
            fault = error
    if fault:
        raise fault
    return None


class _ReceiverFields:
    """Reads one field each, and refuses it by name."""

    def __init__(self, name: str, extra: Mapping[str, Any]) -> None:
        self.name = name
        # The form sends what was left empty as an empty text.
        self.extra = {field: value for field, value in extra.items() if value is not None and str(value).strip()}

    def error(self, field: str, given: object, allowed: str) -> NoReturn:
        raise PlanasonixConfigurationError(
            f"Airflow connection {self.name!r}, extra {field!r}: got {given!r}, allowed is {allowed}."
        )

    def secrets(self, password: str) -> Iterator[SecretStr]:
        if kept := StoredSecret.from_json(password):
            yield from kept.secrets
        elif password.strip():
            yield SecretStr(password.strip())
        previous = self.extra.get("previous_signing_secret", "")
        if not isinstance(previous, str):
            self.error("previous_signing_secret", type(previous), "a text")
        if previous:
            yield SecretStr(previous.strip())
        yield from self.stored_secrets()

    def stored_secrets(self) -> list[SecretStr]:
        if (place := self.extra.get("kept_in")) is None:
            return []
        try:
            kept = secret_store(place.strip() if isinstance(place, str) else place).load()
        except ValueError:
            raise PlanasonixConfigurationError(
                f"Airflow connection {self.name!r}, extra 'kept_in': got {describe_hidden(place)}, allowed is "
                "'variable:NAME', 'connection:CONN_ID' or 'file:/absolute/path'."
            ) from None
        except PlanasonixSecretError as error:
            error.with_message(f"Airflow connection {self.name!r}, extra 'kept_in': {error.message}")
            raise
        return kept.secrets if kept else []

    def asset(self) -> str:
        value = self.extra.get("asset")
        if value is None:
            raise PlanasonixConfigurationError(
                f"Airflow connection {self.name!r}, extra 'asset': got nothing, allowed is the name or the URI of the "
                "asset that each delivery is to be an event of."
            )
        if not isinstance(value, str):
            self.error("asset", value, "the name or the URI of an asset")
        return value.strip()

    def events(self) -> frozenset[str] | None:
        value = self.extra.get("events")
        if value is None:
            return None
        try:
            return frozenset(event.strip() for event in event_names("events", _to_list(value)))
        except ValueError:
            self.error("events", value, "events with commas between them, such as job.succeeded, backfill.completed")


def _to_list(value: object) -> object:
    """Make a list of a text: JSON from a URI, or names with commas between them from the form."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else value.split(",")
