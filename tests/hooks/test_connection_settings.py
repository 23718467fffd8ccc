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


def error_message(**fields: Any) -> str:
    with pytest.raises(PlanasonixConfigurationError) as refused:
        settings(**fields)
    assert KEY not in "".join(traceback.format_exception(refused.value))
    assert "'planasonix_x'" in refused.value.message
    return refused.value.message


def test_only_a_key_is_needed() -> None:
    made = settings()
    assert made.web_url == "https://app.planasonix.com"
    config = made.client_config
    assert config.api_key.get_secret_value() == KEY
    assert (config.base_url, config.organization_id) == ("https://api.planasonix.com", None)
    assert (config.connect_timeout, config.read_timeout, config.verify) == (5.0, 30.0, True)
    assert config.user_agent.startswith(
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
def test_a_host_has_several_forms(fields: dict[str, Any], base_url: str) -> None:
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
def test_plain_http_to_this_machine_is_allowed(host: str) -> None:
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
def test_plain_http_to_other_machines_needs_allow_http(host: str) -> None:
    message = error_message(host=host)
    assert message.startswith(f"Airflow connection 'planasonix_x', host: got '{host}', allowed is an https:// address")
    assert '"allow_http": true' in message
    assert "allowed is an https:// address" in error_message(host=host, extra={"allow_http": False})
    schema, _, name = host.partition("://")
    assert f"host: got '{name}', allowed is an https:// address" in error_message(host=name, schema=schema)
    for value in (True, "true", "True", " yes ", "1"):
        assert settings(host=host, extra={"allow_http": value}).client_config.base_url == host


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
def test_an_invalid_host_is_refused(host: str) -> None:
    message = error_message(host=host)
    assert "host: got '" in message
    assert "allowed is a host or an http(s) address without user name, query or fragment" in message


@pytest.mark.parametrize("userinfo", ["me:hunter2", "me", ":hunter2", "hunter2", ""])
@pytest.mark.parametrize("field", ["host", "web_url"])
def test_a_user_name_in_an_address_is_refused_and_not_shown(field: str, userinfo: str) -> None:
    address = f"https://{userinfo}@api.planasonix.com"
    message = error_message(host=address) if field == "host" else error_message(extra={"web_url": address})
    assert "got 'an address with a user name'" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_an_invalid_port_is_refused(port: int) -> None:
    assert f"port: got {port}, allowed is a number from 1 to 65535" in error_message(host="localhost", port=port)


@pytest.mark.parametrize("password", [None, "", "  \n"])
def test_the_error_of_a_missing_key_explains_how_to_add_it(password: str | None) -> None:
    message = error_message(password=password)
    assert "Airflow connection 'planasonix_x' has no API key" in message
    assert "put it into the password of the Airflow connection, which its form calls 'API key'" in message


def test_white_space_around_a_key_is_removed() -> None:
    assert settings(password=f" {KEY}\r\n").client_config.api_key.get_secret_value() == KEY


@pytest.mark.parametrize("key", [f"{KEY} {KEY}", f"{KEY}\nX-Evil: 1", f"{KEY}ü", f"{KEY}\x7f"])
def test_an_invalid_key_is_refused_and_not_shown(key: str) -> None:
    assert "its API key holds a space, a line break or a character that is not ASCII" in error_message(password=key)


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
def test_a_timeout_is_a_number_or_an_object(given: Any, connect: float, read: float) -> None:
    config = settings(extra={"timeout": given}).client_config
    assert (config.connect_timeout, config.read_timeout) == (connect, read)


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
def test_verify_is_a_boolean_or_a_path(given: Any, verify: bool | str) -> None:
    assert settings(extra={"verify": given}).client_config.verify == verify


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
def test_a_web_url_is_normalized(given: str | None, web_url: str) -> None:
    assert settings(extra={"web_url": given}).web_url == web_url


#: For each field of the extra: invalid values, and the allowed ones in the error message.
INVALID: dict[str, tuple[list[Any], str]] = {
    "allow_http": (["maybe", 1, 0.0, [True]], "true or false"),
    "timeout": (
        [
            *(0, -1, "0", "-1", True, "true", "soon", "NaN", "Infinity", [30], "{"),
            *({"read": 0}, {"read": "60"}, {"write": 1}),
        ],
        'a number of seconds above 0, or {"connect": 5, "read": 30}',
    ),
    "verify": ([0, 1, ["/etc/ssl/acme.pem"], {}], "true, false, or the path of a CA bundle"),
    "web_url": (
        ["javascript:alert(1)", "javascript://app.planasonix.com/%0aalert(1)", "app.planasonix.com", "https://", "7"],
        "a host or an http(s) address without user name, query or fragment",
    ),
    "organization_id": ([7, "org_ü", "org_1\r\nX-Evil: 1", ["org_1"]], "a text of ASCII characters"),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in INVALID for value in INVALID[field][0]])
def test_an_invalid_field_of_the_extra_is_refused(field: str, value: Any) -> None:
    # Only a host with plain http needs allow_http.
    message = error_message(host="http://10.0.0.1", extra={"allow_http": True, field: value})
    assert f"extra '{field}': got {value!r}, allowed is {INVALID[field][1]}." in message


@pytest.mark.parametrize(
    ("job_id", "path"), [("job_1", "/jobs/job_1"), ("../x?y#z", "/jobs/..%2Fx%3Fy%23z"), ("a b", "/jobs/a%20b")]
)
def test_a_job_has_a_url_in_the_web_app(job_id: str, path: str) -> None:
    assert settings(extra={"web_url": "https://acme.example.com/"}).job_url(job_id) == f"https://acme.example.com{path}"


@pytest.mark.parametrize(("given", "organization"), [("org_1", "org_1"), ("", None), (None, None)])
def test_an_organization_is_optional(given: str | None, organization: str | None) -> None:
    assert settings(extra={"organization_id": given}).client_config.organization_id == organization


@pytest.mark.parametrize("extra", [[1], "text", 7])
def test_an_invalid_extra_is_refused(extra: Any) -> None:
    assert f"extra: got a {type(extra).__name__}, allowed is a JSON object" in error_message(extra=extra)


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
def test_a_connection_uri_is_parsed(connect: Connect, authority: str, base_url: str) -> None:
    extra = {
        "organization_id": "org_1",
        "timeout": "60",
        "verify": "false",
        "allow_http": "false",
        "web_url": "https://acme.example.com",
    }
    conn_id = connect(f"planasonix://:{KEY}{authority}?{urlencode(extra)}")
    made = PlanasonixHook(conn_id).settings
    config = made.client_config
    assert (config.api_key.get_secret_value(), config.base_url) == (KEY, base_url)
    assert (config.organization_id, config.read_timeout, config.verify) == ("org_1", 60.0, False)
    assert made.web_url == "https://acme.example.com"


def test_a_connection_uri_may_have_both_timeouts_and_a_scheme(connect: Connect) -> None:
    extra = urlencode({"timeout": '{"connect": 1, "read": 2}'})
    config = PlanasonixHook(connect(f"planasonix://http://:{KEY}@127.0.0.1:8099/?{extra}")).settings.client_config
    assert (config.base_url, config.connect_timeout, config.read_timeout) == ("http://127.0.0.1:8099", 1.0, 2.0)


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({}, "https://api.planasonix.com"),
        ({"host": "https://gw.example.com/planasonix/"}, "https://gw.example.com/planasonix"),
        ({"host": "127.0.0.1", "port": 8099, "schema": "http"}, "http://127.0.0.1:8099"),
        ({"host": "::1", "port": 8443}, "https://[::1]:8443"),
    ],
)
def test_a_connection_in_json_is_parsed(connect: Connect, fields: dict[str, Any], base_url: str) -> None:
    extra = {"organization_id": "org_1", "timeout": {"connect": 1, "read": 2}, "verify": False}
    config = PlanasonixHook(connect(**fields, extra=extra)).settings.client_config
    assert (config.api_key.get_secret_value(), config.base_url) == (KEY, base_url)
    assert (config.organization_id, config.connect_timeout, config.verify) == ("org_1", 1.0, False)


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
def test_an_unknown_key_of_the_extra_is_named_without_its_value(key: str, shown: str) -> None:
    assert settings(extra={key: SECRET_VALUE, "timeout": 3}).unknown_keys_warning == (
        f"The extra of Airflow connection 'planasonix_x' has {shown}: nothing reads that key. Known keys are "
        "organization_id, web_url, timeout, verify, allow_http."
    )


def test_several_unknown_keys_are_named_without_their_values() -> None:
    warning = settings(extra={"verfy": SECRET_VALUE, "tmeout": {"read": SECRET_VALUE}}).unknown_keys_warning or ""
    named = "'tmeout' (did you mean 'timeout'?), 'verfy' (did you mean 'verify'?): nothing reads these keys."
    assert f"has {named}" in warning
    assert SECRET_VALUE not in warning


@pytest.mark.parametrize(
    "extra", [None, {}, {"web_url": "https://a", "verify": "true"}, {"left_empty": "", "null": None}]
)
def test_known_and_empty_keys_are_not_named(extra: Any) -> None:
    assert settings(extra=extra).unknown_keys_warning is None
