"""Airflow assets for the tables that Planasonix loads: the factory, the URI handler, the OpenLineage converter."""

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
#: The API's host, except for dedicated tenants.
DEFAULT_HOST = "api.planasonix.com"
#: In characters. Airflow 3 stores URIs and names of this length; Airflow 2.11 stores longer ones.
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
    """The identity of a table. Equal tables are one asset. The API identifies a table by its name alone.

    :param host: the host of the API's base URL. It is normalized to lower case, without the port 443.
    :param connection_id: the Planasonix connection that loads the table.
    :param table: the table's name, as in the results of a job: not encoded, and case-sensitive.
    :raises ValueError: if a value is invalid, or if the URI would be longer than Airflow can store.
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
        """The normalized URI of the table's asset."""
        return f"{self.namespace}/connections/{_segment(self.connection_id)}/tables/{_segment(self.table)}"

    @property
    def namespace(self) -> str:
        """The namespace of the table's OpenLineage dataset."""
        return f"{SCHEME}://{self.host}"

    @property
    def name(self) -> str:
        """The name of the table's OpenLineage dataset, not encoded."""
        return f"connections/{self.connection_id}/tables/{self.table}"

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Parse the URI of an asset.

        :param uri: the URI; it need not be normalized.
        :return: the table.
        :raises ValueError: if it is not the URI of a Planasonix table.
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
        """Parse the parts of an asset's URI, which Airflow passes to URI handlers.

        :param parts: the URI's parts.
        :return: the table.
        :raises ValueError: if it is not the URI of a Planasonix table.
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
    group: str = "asset",
    extra: Mapping[str, Any] | None = None,
) -> Asset:
    """Return the asset of a table that Planasonix loads, for a task's ``outlets`` or a DAG's ``schedule``.

    .. code-block:: python

        orders = planasonix_asset(connection_id="conn_01jq8k2m3n4p5q6r7s8t9u0v1", table="public.orders")

        with DAG("report", schedule=[orders]): ...

    :param connection_id: the Planasonix connection that loads the table.
    :param table: the table's name, as in the results of a job (API reference: "Get a job's results").
    :param host: the API's host, with its port if there is one, as in the Airflow connection. Only needed for dedicated
        tenants; default: ``api.planasonix.com``.
    :param name: the asset's name in Airflow 3; default: its URI. In Airflow 3 assets with different names are different
        assets, so use the same name for a table everywhere. Airflow 2.11 ignores the name.
    :param group: the group in which Airflow 3 shows the asset; default ``asset``, Airflow's own. Use the same
        group for a table everywhere. Airflow 2.11 ignores the group.
    :param extra: the asset's extra, a JSON object; default: none.
    :return: the asset; on Airflow 2.11, the dataset.
    :raises ValueError: if a value is invalid or is a template: Airflow reads assets when it parses the DAG.
    """
    for parameter, value in (
        *(("connection_id", connection_id), ("table", table), ("host", host)),
        *(("name", name), ("group", group)),
    ):
        if validators.is_templated(value):
            raise validators.invalid_parameter(
                parameter, value, "a text without a template: Airflow knows assets before tasks run"
            )
    uri = PlanasonixTable(host=host, connection_id=connection_id, table=table).uri
    name = validators.optional(validators.text)("name", name)
    group = validators.text("group", group)
    extra = None if extra is None else validators.metadata("extra", extra)
    if not hasattr(Asset, "name"):
        return Asset(uri=uri, extra=extra)
    return Asset(name=uri if name is None else name, uri=uri, group=group, extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Normalize the URI of a Planasonix asset; Airflow calls this function for each one.

    :param uri: the URI's parts.
    :return: the normalized parts: the host in lower case, no default port, the path percent-encoded.
    :raises ValueError: if it is not the URI of a Planasonix table.
    """
    return urlsplit(PlanasonixTable.from_parts(uri).uri)


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:
    """Return the OpenLineage dataset of an asset; Airflow's OpenLineage provider calls this function.

    :param asset: the asset.
    :param lineage_context: not used.
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
    """Validate a table's name. It may contain all that SQL can quote, white space and line breaks included."""
    validators.text(name, value)
    try:
        is_valid = b"\0" not in value.encode()
    except UnicodeEncodeError:
        is_valid = False
    if not is_valid:
        raise validators.invalid_parameter(name, value, "a text that UTF-8 can hold, without a NUL")


def _segment(text: str) -> str:
    """Encode a text as one segment of a path, which no parser reads as several segments or as a parent folder."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")
