from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.openlineage import facet
from airflow.providers.common.compat.sdk import Asset, BaseOperator
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version
from pydantic import SecretStr
from pytest_mock import MockerFixture

from planasonix_provider import validators
from planasonix_provider.api.client_config import DEFAULT_BASE_URL, ClientConfig
from planasonix_provider.assets.planasonix import (
    DEFAULT_HOST,
    MAX_URI_LENGTH,
    PlanasonixTable,
    convert_asset_to_openlineage,
    planasonix_asset,
    sanitize_uri,
)

CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
ROOT = f"planasonix://{DEFAULT_HOST}/connections/{CONNECTION}/tables"
ORDERS = PlanasonixTable(DEFAULT_HOST, CONNECTION, "public.orders")
HAS_NAMES = hasattr(Asset, "name")
#: Airflow 3 refuses a URI that its handler refuses; Airflow 2.11 only warns.
IS_STRICT = Version(version("apache-airflow")) >= Version("3")

#: All names that SQL can quote.
TABLES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60).filter(
    lambda text: bool(text.strip()) and not validators.is_templated(text)
)
IDS = st.text(st.characters(codec="utf-8", exclude_characters=' /\\?#%"{'), min_size=1, max_size=30).filter(
    lambda text: text.isprintable() and bool(text.strip(".")) and text != "None"
)
HOSTS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}(\.[a-z0-9-]{1,10}){0,3}(:[1-9][0-9]{0,3})?", fullmatch=True)


def test_the_asset_of_a_table_is_its_uri() -> None:
    asset = planasonix_asset(connection_id=CONNECTION, table="public.orders")
    assert isinstance(asset, Asset)
    assert asset.uri == f"{ROOT}/public.orders" == ORDERS.uri
    if HAS_NAMES:
        assert asset.name == asset.uri
        assert asset == Asset(asset.uri)


@pytest.mark.parametrize(
    ("table", "segment"),
    [
        ("public.orders", "public.orders"),
        ("Orders", "Orders"),
        ("a/b", "a%2Fb"),
        ("a b ", "a%20b%20"),
        ("100%", "100%25"),
        ("%2F", "%252F"),
        ("a?b#c", "a%3Fb%23c"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("gro\u0308ße", "gro%CC%88%C3%9Fe"),
        ("注文", "%E6%B3%A8%E6%96%87"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("../x", "..%2Fx"),
        ("a/", "a%2F"),
        ("/", "%2F"),
        ("a\nb", "a%0Ab"),
        ("a~-_b", "a~-_b"),
        ("context", "context"),
    ],
)
def test_a_table_is_one_segment_of_the_uri(table: str, segment: str) -> None:
    asset = planasonix_asset(connection_id=CONNECTION, table=table)
    assert asset.uri == f"{ROOT}/{segment}"
    assert PlanasonixTable.from_uri(asset.uri).table == table


@given(host=HOSTS, connection_id=IDS, table=TABLES)
@example(host="localhost:8080", connection_id="conn_1", table="..")
@example(host="h", connection_id="größe", table=" a/b ?#%2F;@:[]&=+$, ")
@example(host="h", connection_id="a@b:c", table="tables/")
@example(host="h", connection_id="c", table="\ufeffa\u2028\x85")
def test_a_table_is_parsed_from_the_uri_that_airflow_stores(host: str, connection_id: str, table: str) -> None:
    known = PlanasonixTable(host, connection_id, table)
    asset = planasonix_asset(host=host, connection_id=connection_id, table=table)
    assert asset.uri == known.uri
    assert asset.uri.isascii()
    assert PlanasonixTable.from_uri(asset.uri) == known
    assert (known.connection_id, known.table) == (connection_id, table)
    # Airflow normalizes a URI again each time that it reads it from its database.
    assert Asset(asset.uri).uri == asset.uri == asset.normalized_uri


@given(tables=st.lists(TABLES, min_size=2, max_size=2, unique=True))
@example(tables=["a/b", "a%2Fb"])
@example(tables=["a", "A"])
@example(tables=["a", "a "])
@example(tables=["..", "%2E%2E"])
def test_two_tables_are_two_assets(tables: list[str]) -> None:
    one, other = (planasonix_asset(connection_id=CONNECTION, table=table) for table in tables)
    assert one.uri != other.uri


@pytest.mark.parametrize(
    "uri",
    [
        f"planasonix://API.Planasonix.com/connections/{CONNECTION}/tables/public.orders",
        f"PLANASONIX://{DEFAULT_HOST}:443/connections/{CONNECTION}/tables/public.orders",
        f"{ROOT}/public.orders/",
        f"{ROOT}/public%2Eorders",
        f"{ROOT}/%70ublic.orders",
    ],
)
def test_all_uris_of_a_table_are_one_asset(uri: str) -> None:
    assert Asset(uri).uri == ORDERS.uri
    assert PlanasonixTable.from_uri(uri) == ORDERS


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        (f"{ROOT}/a b", f"{ROOT}/a%20b"),
        (f"{ROOT}/a%2fb", f"{ROOT}/a%2Fb"),
        (f"{ROOT}/..", f"{ROOT}/%2E%2E"),
        (f"{ROOT}/a+b", f"{ROOT}/a%2Bb"),
        (f"planasonix://[::1]:8080/connections/{CONNECTION}/tables/a", None),
        (f"planasonix://localhost:8080/connections/{CONNECTION}/tables/a", None),
    ],
)
def test_a_uri_is_normalized(given: str, uri: str | None) -> None:
    assert Asset(given).uri == (uri or given)
    assert sanitize_uri(urlsplit(given)).geturl() == (uri or given)


@pytest.mark.parametrize(
    "uri",
    [
        "planasonix://",
        f"planasonix://{DEFAULT_HOST}",
        f"planasonix://{DEFAULT_HOST}/",
        f"planasonix://{DEFAULT_HOST}/public.orders",
        f"planasonix://{DEFAULT_HOST}/connections/{CONNECTION}",
        ROOT,
        f"{ROOT}/a/b",
        f"{ROOT}//a",
        f"{ROOT}/%zz",
        f"{ROOT}/50%",
        f"{ROOT}/%FF",
        f"{ROOT}/a?b=c",
        f"planasonix://{DEFAULT_HOST}/connection/{CONNECTION}/tables/a",
        f"planasonix://{DEFAULT_HOST}/connections/{CONNECTION}/table/a",
        f"/connections/{CONNECTION}/tables/a",
        f"s3://{DEFAULT_HOST}/connections/{CONNECTION}/tables/a",
        f"planasonix://[::1/connections/{CONNECTION}/tables/a",
        "",
        7,
        None,
    ],
)
def test_an_invalid_uri_is_refused(uri: Any) -> None:
    with pytest.raises(ValueError, match=r"^uri: got .*, allowed is planasonix://<host>/connections/<connection id>/"):
        PlanasonixTable.from_uri(uri)


@pytest.mark.skipif(not IS_STRICT, reason="Airflow 2.11 only warns")
@pytest.mark.parametrize("uri", [f"{ROOT}/a/b", f"planasonix://a b/connections/{CONNECTION}/tables/a"])
def test_airflow_refuses_a_uri_that_the_handler_refuses(uri: str) -> None:
    with pytest.raises(ValueError, match=r"^(uri|host): got .*, allowed is "):
        Asset(uri)


@pytest.mark.skipif(IS_STRICT, reason="Airflow 3 raises an error")
def test_airflow_2_warns_of_a_uri_that_the_handler_refuses() -> None:
    with pytest.warns(UserWarning, match=r"not AIP-60 compliant: uri: got .*, allowed is planasonix://"):
        Asset(f"{ROOT}/a/b")


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "https://api.planasonix.com", "api.planasonix.com/", "api.planasonix.com/v1", "münchen.example"),
        *("a b", "a..b", "h:99999", "h:0", "h:x", "[::1", "h\n", "h?", "me@h", "a%20b", None, 7, b"h"),
    ],
)
def test_an_invalid_host_is_refused(host: Any) -> None:
    with pytest.raises(ValueError, match=r"^host: got .*, allowed is a host as api\.planasonix\.com"):
        planasonix_asset(connection_id=CONNECTION, table="a", host=host)


def test_a_password_in_a_host_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^host: got ") as refused:
        planasonix_asset(connection_id=CONNECTION, table="a", host="me:hunter2@h")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("table", ["", " ", "\n", None, 7, True, b"orders", ["orders"], "a\0b", "\ud800"])
def test_an_invalid_table_is_refused(table: Any) -> None:
    with pytest.raises(ValueError, match=r"^table: got .*, allowed is a text "):
        planasonix_asset(connection_id=CONNECTION, table=table)


@pytest.mark.parametrize("connection_id", ["", "a b", "a/b", "..", "a%b", "a?", None, 7])
def test_an_invalid_connection_id_is_refused(connection_id: Any) -> None:
    with pytest.raises(ValueError, match=r"^connection_id: got .*, allowed is an id as Planasonix gives it"):
        planasonix_asset(connection_id=connection_id, table="a")


@pytest.mark.parametrize("parameter", ["connection_id", "table", "host", "name"])
@pytest.mark.parametrize("value", ["{{ var.value.x }}", BaseOperator(task_id="other").output], ids=["jinja", "xcom"])
def test_a_template_is_refused(parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{parameter}: got .*, allowed is a text without a template"):
        planasonix_asset(**{"connection_id": CONNECTION, "table": "a", parameter: value})


def test_a_uri_is_at_most_as_long_as_airflow_can_store() -> None:
    room = MAX_URI_LENGTH - len(f"{ROOT}/")
    assert len(planasonix_asset(connection_id=CONNECTION, table="a" * room).uri) == 1500
    with pytest.raises(ValueError, match=r"at most 1,500 characters; this one's has 1,501\.$"):
        planasonix_asset(connection_id=CONNECTION, table="a" * (room + 1))
    with pytest.raises(ValueError, match=r"^table: got "):
        Asset(f"{ROOT}/{'%20' * room}a") if IS_STRICT else PlanasonixTable.from_uri(f"{ROOT}/{'%20' * room}a")


def test_an_asset_may_have_a_name_a_group_and_an_extra() -> None:
    asset = planasonix_asset(connection_id=CONNECTION, table="a", name="orders", group="shop", extra={"owner": "sales"})
    assert asset.uri == f"{ROOT}/a"
    assert asset.extra == {"owner": "sales"}
    if HAS_NAMES:
        assert (asset.name, asset.group) == ("orders", "shop")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("name", ""), ("name", 7), ("group", ""), ("group", None)),
        *(("extra", "x"), ("extra", {1: 2}), ("extra", {"a": object()})),
    ],
)
def test_an_invalid_name_group_or_extra_is_refused(parameter: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{parameter}: got "):
        planasonix_asset(**{"connection_id": CONNECTION, "table": "a", parameter: value})


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        (DEFAULT_BASE_URL, DEFAULT_HOST),
        ("https://Tenant.Planasonix.com", "tenant.planasonix.com"),
        ("https://tenant.planasonix.com:443", "tenant.planasonix.com"),
        ("https://tenant.planasonix.com:8443/behind/a/gateway", "tenant.planasonix.com:8443"),
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost:80", "localhost"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("https://münchen.example", "xn--mnchen-3ya.example"),
        ("https://planasonix_1.internal", "planasonix_1.internal"),
    ],
)
def test_the_host_of_an_asset_is_that_of_the_api(base_url: str, host: str) -> None:
    assert ClientConfig(SecretStr("plnx_test"), base_url=base_url).host == host
    assert PlanasonixTable(host, CONNECTION, "a").host == host


@pytest.mark.parametrize("change", [{"host": "h"}, {"connection_id": "c"}, {"table": "public.Orders"}])
def test_tables_are_compared_by_all_fields(change: dict[str, str]) -> None:
    assert PlanasonixTable("API.planasonix.com:443", CONNECTION, "public.orders") == ORDERS
    assert dataclasses.replace(ORDERS, **change) != ORDERS


@given(table=TABLES)
@example(table="a/b %2F ü")
def test_the_openlineage_name_is_not_encoded(table: str) -> None:
    known = dataclasses.replace(ORDERS, table=table)
    assert known.namespace == "planasonix://api.planasonix.com"
    assert known.name == f"connections/{CONNECTION}/tables/{table}"


def test_an_asset_becomes_an_openlineage_dataset(mocker: MockerFixture) -> None:
    # OpenLineage's client is not installed everywhere; its dataset has these two fields.
    mocker.patch.object(facet, "Dataset", dict)
    asset = planasonix_asset(connection_id=CONNECTION, table="a b/c")
    assert convert_asset_to_openlineage(asset, None) == {  # type: ignore[comparison-overlap]
        "namespace": "planasonix://api.planasonix.com",
        "name": f"connections/{CONNECTION}/tables/a b/c",
    }


def uri_handlers() -> Any:
    """Return the URI handlers that this version of Airflow has found."""
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

        return ProvidersManagerTaskRuntime().asset_uri_handlers
    except ImportError:
        from airflow.providers_manager import ProvidersManager

        manager: Any = ProvidersManager()
        return manager.asset_uri_handlers if IS_STRICT else manager.dataset_uri_handlers


def test_airflow_finds_the_handler() -> None:
    assert uri_handlers()["planasonix"] is sanitize_uri
