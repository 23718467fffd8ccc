"""Planasonix's tables as Airflow assets: their identity, the factory, the URI handler, the name in OpenLineage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow.providers.common.compat.sdk import Asset

from planasonix_provider import validators

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

SCHEME = "planasonix"
#: Where the API is for all who have no tenant of their own.
DEFAULT_HOST = "api.planasonix.com"
#: What Airflow 3 stores of a URI, and of a name. (Airflow 2.11 stores more, and is left some day.)
MAX_URI_LENGTH = 1500

_DEFAULT_PORT = 443
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_URI_FORMAT = (
    f"{SCHEME}://<host>/connections/<connection id>/tables/<table>, the table percent-encoded in UTF-8 as one segment "
    "(a / in it is %2F); planasonix_asset() writes it"
)


@dataclass(frozen=True)
class PlanasonixTable:
    """What a table is known by: two that are equal are one asset. The API knows a table by its name alone.

    :param host: the host of the API's base URL; upper case and the port 443 are the same to it.
    :param connection_id: Planasonix's connection, which loads the table.
    :param table: the table's name, as the results of a job give it: in clear text, and case matters.
    :raises ValueError: if one of them can be none, or the URI would be longer than Airflow stores.
    """

    host: str
    connection_id: str
    table: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", _host("host", self.host))
        validators.identifier("connection_id", self.connection_id)
        _table("table", self.table)
        if len(self.uri) > MAX_URI_LENGTH:
            raise validators.invalid_parameter(
                "table",
                self.table,
                f"a name whose asset URI has at most {MAX_URI_LENGTH:,} characters; this one's has {len(self.uri):,}",
            )

    @property
    def uri(self) -> str:
        """The URI of the table's asset, in the one form that Airflow compares."""
        return f"{self.namespace}/connections/{_segment(self.connection_id)}/tables/{_segment(self.table)}"

    @property
    def namespace(self) -> str:
        """The namespace of the table's OpenLineage dataset."""
        return f"{SCHEME}://{self.host}"

    @property
    def name(self) -> str:
        """The name of the table's OpenLineage dataset, in clear text."""
        return f"connections/{self.connection_id}/tables/{self.table}"

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Read the URI of an asset.

        :param uri: the URI, in whatever form Airflow takes.
        :return: the table.
        :raises ValueError: if it is the URI of no Planasonix table.
        """
        try:
            parts = urlsplit(uri) if isinstance(uri, str) else None
        except ValueError:
            parts = None
        if parts is None:
            raise validators.invalid_parameter("uri", uri, _URI_FORMAT)
        return cls.from_parts(parts)

    @classmethod
    def from_parts(cls, parts: SplitResult) -> Self:
        """Read the URI of an asset that is split already, as Airflow hands it to a handler.

        :param parts: the URI's parts.
        :return: the table.
        :raises ValueError: if it is the URI of no Planasonix table.
        """
        is_plain = parts.scheme == SCHEME and not (parts.query or parts.fragment or _BAD_ESCAPE.search(parts.path))
        match parts.path.rstrip("/").split("/"):
            case ["", "connections", connection_id, "tables", table] if is_plain:
                with suppress(UnicodeDecodeError):
                    connection_id, table = (unquote(segment, errors="strict") for segment in (connection_id, table))
                    return cls(host=parts.netloc, connection_id=connection_id, table=table)
        raise validators.invalid_parameter("uri", parts.geturl(), _URI_FORMAT)


def planasonix_asset(
    *,
    connection_id: str,
    table: str,
    host: str = DEFAULT_HOST,
    name: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Asset:
    """Name a table that Planasonix loads, for a task's ``outlets`` or a DAG's ``schedule``.

    .. code-block:: python

        orders = planasonix_asset(connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1", table="public.orders")

        with DAG("report", schedule=[orders]): ...

    :param connection_id: Planasonix's connection.
    :param table: the table's name, as the results of a job give it (reference: "Get a job's results").
    :param host: the host of the API, as the Airflow connection has it, with a port if that has one; only for dedicated
        tenants. Default: ``api.planasonix.com``.
    :param name: what Airflow 3 calls the asset; default: its URI. To Airflow 3, an asset with another name is another
        one, so the name is to be the same wherever the table is named. Airflow 2.11 has no names.
    :param extra: what Airflow is to keep with the asset, as a JSON object; default: nothing.
    :return: the asset; on Airflow 2.11, the dataset.
    :raises ValueError: if one of these makes no sense, or is a template: an asset is known when its DAG is parsed.
    """
    for parameter, value in (("connection_id", connection_id), ("table", table), ("host", host), ("name", name)):
        if validators.is_templated(value):
            raise validators.invalid_parameter(
                parameter, value, "a text without a template: Airflow knows assets before tasks run"
            )
    uri = PlanasonixTable(host=host, connection_id=connection_id, table=table).uri
    name = validators.optional(validators.text)("name", name)
    kept = None if extra is None else validators.metadata("extra", extra)
    if not hasattr(Asset, "name"):
        return Asset(uri=uri, extra=kept)
    return Asset(name=uri if name is None else name, uri=uri, extra=kept)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Put the URI of a Planasonix asset into the one form that is compared; Airflow calls this for each.

    :param uri: the URI's parts.
    :return: the same in lower case where case does not matter, without the default port, encoded where need be.
    :raises ValueError: if it is the URI of no Planasonix table.
    """
    return urlsplit(PlanasonixTable.from_parts(uri).uri)


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:
    """Name an asset as OpenLineage does; Airflow's OpenLineage provider calls this.

    :param asset: the asset.
    :param lineage_context: who asks; it does not matter here.
    :return: the dataset.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    table = PlanasonixTable.from_uri(asset.uri)
    return Dataset(namespace=table.namespace, name=table.name)


def _host(name: str, value: Any) -> str:
    try:
        parts = urlsplit(f"//{value}") if isinstance(value, str) else SplitResult("", "", "", "", "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", 0
    if not _HOST.fullmatch(host) or port == 0 or parts.netloc != value or "@" in value:
        raise validators.invalid_parameter(
            name,
            value if isinstance(value, str) and "@" not in value else type(value),
            f"a host as {DEFAULT_HOST}, in ASCII, with a port where the API has one: no scheme, user name or path",
        )
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port in (None, _DEFAULT_PORT) else f"{bracketed}:{port}"


def _table(name: str, value: Any) -> None:
    """Refuse what is no table's name. Whatever can be quoted in SQL is one, white space and line breaks included."""
    validators.text(name, value)
    try:
        sound = b"\0" not in value.encode()
    except UnicodeEncodeError:
        sound = False
    if not sound:
        raise validators.invalid_parameter(name, value, "a text that UTF-8 can hold, without a NUL")


def _segment(text: str) -> str:
    """Encode a text as one segment of a path: nobody takes it for several, or for a way up."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")
