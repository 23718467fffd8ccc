from __future__ import annotations

import traceback
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from airflow import __version__ as airflow_version

from planasonix_provider import __version__
from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.hooks.connection_settings import ConnectionSettings, parse_connection
from planasonix_provider.hooks.planasonix import PlanasonixHook
from tests.hooks.conftest import KEY, Connect


def settings(**fields: Any) -> ConnectionSettings:
    return parse_connection("planasonix_x", **{"password": KEY, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(PlanasonixConfigurationError) as refused:
        settings(**fields)
    assert KEY not in "".join(traceback.format_exception(refused.value))
    assert "'planasonix_x'" in refused.value.message
    return refused.value.message


def test_only_a_key_is_needed() -> None:
    made = settings()
    assert made.web_url == "https://app.planasonix.com"
    account = made.client_config
    assert account.api_key.get_secret_value() == KEY
    assert (account.base_url, account.organization_id) == ("https://api.planasonix.com", None)
    assert (account.connect_timeout, account.read_timeout, account.verify) == (5.0, 30.0, True)
    assert account.user_agent.startswith(
        f"airflow-provider-planasonix/{__version__} Airflow/{airflow_version} Python/3."
    )
    assert KEY not in repr(made)


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": None}, "https://api.planasonix.com"),
        ({"host": ""}, "https://api.planasonix.com"),
        ({"host": " "}, "https://api.planasonix.com"),
        ({"host": "", "port": 8443}, "https://api.planasonix.com"),
        ({"host": "acme.planasonixapis.com"}, "https://acme.planasonixapis.com"),
        ({"host": " acme.planasonixapis.com\n"}, "https://acme.planasonixapis.com"),
        ({"host": "https://acme.planasonixapis.com"}, "https://acme.planasonixapis.com"),
        ({"host": "https://acme.planasonixapis.com/"}, "https://acme.planasonixapis.com"),
        ({"host": "https://acme.planasonixapis.com///"}, "https://acme.planasonixapis.com"),
        ({"host": "acme.planasonixapis.com/api/v1"}, "https://acme.planasonixapis.com"),
        ({"host": "https://acme.planasonixapis.com/api/v1/"}, "https://acme.planasonixapis.com"),
        ({"host": "https://gw.example.com/planasonix/"}, "https://gw.example.com/planasonix"),
        ({"host": "https://gw.example.com/planasonix/api/v1"}, "https://gw.example.com/planasonix"),
        ({"host": "https://acme.planasonixapis.com:8443"}, "https://acme.planasonixapis.com:8443"),
        ({"host": "acme.planasonixapis.com:8443"}, "https://acme.planasonixapis.com:8443"),
        ({"host": "acme.planasonixapis.com", "port": 8443}, "https://acme.planasonixapis.com:8443"),
        ({"host": "https://gw.example.com/planasonix", "port": 8443}, "https://gw.example.com:8443/planasonix"),
        ({"host": "https://acme.planasonixapis.com:8443", "port": 9}, "https://acme.planasonixapis.com:8443"),
        ({"host": "acme.planasonixapis.com", "schema": "https"}, "https://acme.planasonixapis.com"),
        ({"host": "localhost", "port": 8099, "schema": "http"}, "http://localhost:8099"),
        ({"host": "https://localhost", "schema": "http"}, "https://localhost"),
        ({"host": "[2001:db8::1]"}, "https://[2001:db8::1]"),
        ({"host": "2001:db8::1"}, "https://[2001:db8::1]"),
        ({"host": "2001:db8::1", "port": 8443}, "https://[2001:db8::1]:8443"),
        ({"host": "https://[2001:db8::1]:8443/api/v1"}, "https://[2001:db8::1]:8443"),
    ],
)
def test_a_host_may_be_written_in_many_ways(fields: dict[str, Any], base_url: str) -> None:
    assert settings(**fields).client_config.base_url == base_url


@pytest.mark.parametrize(
    "host",
    [
        "http://127.0.0.1:8099",
        "http://127.8.9.10",
        "http://localhost:8099",
        "http://planasonix.localhost",
        "http://[::1]:8099",
        "HTTP://LOCALHOST:8099",
    ],
)
def test_plain_http_goes_to_this_machine(host: str) -> None:
    assert settings(host=host).client_config.base_url == host


@pytest.mark.parametrize(
    "host",
    [
        "http://10.0.0.1",
        "http://0.0.0.0:8099",
        "http://192.168.0.7:8099",
        "http://api.planasonix.com",
        "HTTP://api.planasonix.com",
        "http://evil-localhost.com",
        "http://localhost.evil.com",
        "http://evillocalhost",
        "http://127.0.0.1.evil.com",
        "http://[2001:db8::1]",
        "http://[::ffff:10.0.0.1]",
    ],
)
def test_plain_http_goes_elsewhere_only_if_that_is_meant(host: str) -> None:
    message = refusal(host=host)
    assert message.startswith(f"Airflow connection 'planasonix_x', host: got '{host}', allowed is an https:// address")
    assert '"allow_http": true' in message
    assert "allowed is an https:// address" in refusal(host=host, extra={"allow_http": False})
    for meant in (True, "true", "True", " yes ", "1"):
        assert settings(host=host, extra={"allow_http": meant}).client_config.base_url == host


def test_a_scheme_of_the_connection_counts_as_one_of_the_host() -> None:
    assert "host: got '10.0.0.1', allowed is an https:// address" in refusal(host="10.0.0.1", schema="http")


@pytest.mark.parametrize("value", ["maybe", 1, 0.0, [True]])
def test_allow_http_is_true_or_false(value: Any) -> None:
    message = refusal(host="http://10.0.0.1", extra={"allow_http": value})
    assert f"extra 'allow_http': got {value!r}, allowed is true or false" in message


@pytest.mark.parametrize(
    "host",
    [
        "ftp://api.planasonix.com",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://api.planasonix.com:port",
        "https://api.planasonix.com:99999",
        "https://api.planasonix.com:0",
        "https://[::1",
        "https://api.planasonix.com?x=1",
        "https://api.planasonix.com?",
        "https://api.planasonix.com/#",
        "https://api.planasonix.com#x",
        "api planasonix.com",
        "api.planasonix.com/\nX-Evil: 1",
        "api.planasonix.com\x00",
    ],
)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    message = refusal(host=host)
    assert "host: got '" in message
    assert "allowed is a host or an http(s) address without user name, query or fragment" in message


@pytest.mark.parametrize("userinfo", ["me:hunter2", "me", ":hunter2", "hunter2", ""])
@pytest.mark.parametrize("field", ["host", "web_url"])
def test_a_user_name_in_an_address_is_refused_and_not_shown(field: str, userinfo: str) -> None:
    address = f"https://{userinfo}@api.planasonix.com"
    message = refusal(host=address) if field == "host" else refusal(extra={"web_url": address})
    assert "got 'an address with a user name'" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    assert f"port: got {port}, allowed is a number from 1 to 65535" in refusal(host="localhost", port=port)


@pytest.mark.parametrize("password", [None, "", "  \n"])
def test_a_missing_key_is_told_with_the_way_to_add_it(password: str | None) -> None:
    message = refusal(password=password)
    assert "Airflow connection 'planasonix_x' has no API key" in message
    assert "put it into the password of the Airflow connection, which its form calls 'API key'" in message


def test_a_key_that_was_copied_with_white_space_is_taken() -> None:
    assert settings(password=f" {KEY}\r\n").client_config.api_key.get_secret_value() == KEY


@pytest.mark.parametrize("key", [f"{KEY} {KEY}", f"{KEY}\nX-Evil: 1", f"{KEY}ü", f"{KEY}\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    assert "its API key holds a space, a line break or a character that is not ASCII" in refusal(password=key)


@pytest.mark.parametrize(
    ("given", "connect", "read"),
    [
        (None, 5.0, 30.0),
        ("", 5.0, 30.0),
        (" ", 5.0, 30.0),
        (60, 5.0, 60.0),
        (0.5, 5.0, 0.5),
        ("60", 5.0, 60.0),
        ({"connect": 2, "read": 60}, 2.0, 60.0),
        ({"read": 60}, 5.0, 60.0),
        ({"connect": 2}, 2.0, 30.0),
        ('{"connect": 2, "read": 60}', 2.0, 60.0),
    ],
)
def test_a_timeout_is_seconds_to_read_or_both(given: Any, connect: float, read: float) -> None:
    account = settings(extra={"timeout": given}).client_config
    assert (account.connect_timeout, account.read_timeout) == (connect, read)


@pytest.mark.parametrize(
    "given",
    [0, -1, "0", "-1", True, "true", "soon", "NaN", "Infinity", [30], {"read": 0}, {"read": "60"}, {"write": 1}, "{"],
)
def test_a_timeout_that_is_none_is_refused(given: Any) -> None:
    message = refusal(extra={"timeout": given})
    assert f"extra 'timeout': got {given!r}, allowed is a number of seconds above 0" in message
    assert '{"connect": 5, "read": 30}' in message


@pytest.mark.parametrize(
    ("given", "verify"),
    [
        (None, True),
        ("", True),
        ("  ", True),
        (True, True),
        (False, False),
        ("true", True),
        (" False ", False),
        ("no", False),
        ("0", False),
        ("/etc/ssl/acme.pem", "/etc/ssl/acme.pem"),
        (" /etc/ssl/acme.pem\n", "/etc/ssl/acme.pem"),
    ],
)
def test_verify_is_a_truth_or_a_path(given: Any, verify: bool | str) -> None:
    assert settings(extra={"verify": given}).client_config.verify == verify


@pytest.mark.parametrize("given", [0, 1, ["/etc/ssl/acme.pem"], {}])
def test_a_verify_that_is_neither_is_refused(given: Any) -> None:
    message = refusal(extra={"verify": given})
    assert f"extra 'verify': got {given!r}, allowed is true, false, or the path of a CA bundle" in message


@pytest.mark.parametrize(
    ("given", "web_url"),
    [
        (None, "https://app.planasonix.com"),
        ("", "https://app.planasonix.com"),
        ("https://acme.planasonix.com/", "https://acme.planasonix.com"),
        (" https://acme.example.com/planasonix ", "https://acme.example.com/planasonix"),
        ("http://intranet:8080", "http://intranet:8080"),
    ],
)
def test_a_web_url_is_an_address(given: str | None, web_url: str) -> None:
    assert settings(extra={"web_url": given}).web_url == web_url


@pytest.mark.parametrize(
    "given", ["javascript:alert(1)", "javascript://app.planasonix.com/%0aalert(1)", "app.planasonix.com", "https://", 7]
)
def test_a_web_url_that_would_be_no_link_is_refused(given: Any) -> None:
    message = refusal(extra={"web_url": given})
    assert f"extra 'web_url': got '{given}', allowed is a host or an http(s) address" in message


@pytest.mark.parametrize(
    ("job_id", "path"), [("job_1", "/jobs/job_1"), ("../x?y#z", "/jobs/..%2Fx%3Fy%23z"), ("a b", "/jobs/a%20b")]
)
def test_a_jobs_page_is_in_the_web_app(job_id: str, path: str) -> None:
    assert settings(extra={"web_url": "https://acme.example.com/"}).job_url(job_id) == f"https://acme.example.com{path}"


@pytest.mark.parametrize(("given", "organization"), [("org_1", "org_1"), ("", None), (None, None)])
def test_an_organization_is_optional(given: str | None, organization: str | None) -> None:
    assert settings(extra={"organization_id": given}).client_config.organization_id == organization


@pytest.mark.parametrize("given", [7, "org_ü", "org_1\r\nX-Evil: 1", ["org_1"]])
def test_an_organization_that_no_header_can_hold_is_refused(given: Any) -> None:
    message = refusal(extra={"organization_id": given})
    assert f"extra 'organization_id': got {given!r}, allowed is a text of ASCII characters" in message


@pytest.mark.parametrize("extra", [[1], "text", 7])
def test_an_extra_that_is_no_object_is_refused(extra: Any) -> None:
    assert f"extra: got {extra!r}, allowed is a JSON object" in refusal(extra=extra)


@pytest.mark.parametrize(
    ("authority", "base_url"),
    [
        ("@", "https://api.planasonix.com"),
        ("@acme.planasonixapis.com", "https://acme.planasonixapis.com"),
        ("@acme.planasonixapis.com:8443", "https://acme.planasonixapis.com:8443"),
        ("@127.0.0.1:8099/http", "http://127.0.0.1:8099"),
        ("@[::1]:8099/http", "http://[::1]:8099"),
        (f"@{quote('http://localhost:8099/api/v1', safe='')}", "http://localhost:8099"),
    ],
)
def test_a_connection_uri_says_the_same(connect: Connect, authority: str, base_url: str) -> None:
    extra = {
        "organization_id": "org_1",
        "timeout": "60",
        "verify": "false",
        "allow_http": "false",
        "web_url": "https://acme.example.com",
    }
    conn_id = connect(f"planasonix://:{KEY}{authority}?{urlencode(extra)}")
    made = PlanasonixHook(conn_id).settings
    account = made.client_config
    assert (account.api_key.get_secret_value(), account.base_url) == (KEY, base_url)
    assert (account.organization_id, account.read_timeout, account.verify) == ("org_1", 60.0, False)
    assert made.web_url == "https://acme.example.com"


def test_a_connection_uri_may_hold_both_timeouts_and_a_scheme_before_its_host(connect: Connect) -> None:
    extra = urlencode({"timeout": '{"connect": 1, "read": 2}'})
    account = PlanasonixHook(connect(f"planasonix://http://:{KEY}@127.0.0.1:8099/?{extra}")).settings.client_config
    assert (account.base_url, account.connect_timeout, account.read_timeout) == ("http://127.0.0.1:8099", 1.0, 2.0)


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({}, "https://api.planasonix.com"),
        ({"host": "https://gw.example.com/planasonix/"}, "https://gw.example.com/planasonix"),
        ({"host": "127.0.0.1", "port": 8099, "schema": "http"}, "http://127.0.0.1:8099"),
        ({"host": "::1", "port": 8443}, "https://[::1]:8443"),
    ],
)
def test_a_connection_as_json_says_the_same(connect: Connect, fields: dict[str, Any], base_url: str) -> None:
    extra = {"organization_id": "org_1", "timeout": {"connect": 1, "read": 2}, "verify": False}
    account = PlanasonixHook(connect(**fields, extra=extra)).settings.client_config
    assert (account.api_key.get_secret_value(), account.base_url) == (KEY, base_url)
    assert (account.organization_id, account.connect_timeout, account.verify) == ("org_1", 1.0, False)


SECRET_VALUE = "a1b2c3d4e5f6"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("web_ulr", "'web_ulr' (did you mean 'web_url'?)"),
        ("Organisation-ID", "'Organisation-ID' (did you mean 'organization_id'?)"),
        ("allow-http", "'allow-http' (did you mean 'allow_http'?)"),
        ("poll", "'poll'"),
        ("k" * 41, "a key of 41 characters"),
    ],
)
def test_a_key_of_the_extra_that_nothing_reads_is_named_without_its_value(key: str, shown: str) -> None:
    assert settings(extra={key: SECRET_VALUE, "timeout": 3}).unknown_keys_warning == (
        f"The extra of Airflow connection 'planasonix_x' has {shown}: nothing reads that key. Known keys are "
        "organization_id, web_url, timeout, verify, allow_http."
    )


def test_so_are_several() -> None:
    ignored = settings(extra={"verfy": SECRET_VALUE, "tmeout": {"read": SECRET_VALUE}}).unknown_keys_warning or ""
    assert (
        "has 'tmeout' (did you mean 'timeout'?), 'verfy' (did you mean 'verify'?): nothing reads these keys." in ignored
    )
    assert SECRET_VALUE not in ignored


@pytest.mark.parametrize(
    "extra", [None, {}, {"web_url": "https://a", "verify": "true"}, {"left_empty": "", "null": None}]
)
def test_what_is_known_or_empty_is_not_named(extra: Any) -> None:
    assert settings(extra=extra).unknown_keys_warning is None
