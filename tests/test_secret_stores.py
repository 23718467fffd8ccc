from __future__ import annotations

import fcntl
import functools
import gc
import json
import logging
import os
import pickle
import re
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pydantic import SecretStr

from planasonix_provider import airflow_compat
from planasonix_provider.secret_stores import PlanasonixSecretError, SecretStore, StoredSecret, secret_store

FIRST, SECOND, THIRD = (SecretStr(f"whsec_{name}_9f8e7d6c5b4a") for name in ("first", "second", "third"))
ALL = (FIRST, SECOND, THIRD)
VARIABLE, CONNECTION = "planasonix_test_secret", "planasonix_test"


@pytest.fixture
def variable(airflow_db: None) -> Iterator[Callable[[], str | None]]:
    """Reads an Airflow variable that is gone when the test is over."""
    from airflow.models.variable import Variable

    yield lambda: Variable.get(VARIABLE, None)
    Variable.delete(VARIABLE)


def connection_row(session: Any) -> Any:
    from airflow.models.connection import Connection
    from sqlalchemy import select

    return session.scalar(select(Connection).where(Connection.conn_id == CONNECTION))


@pytest.fixture
def connection(airflow_db: None) -> Iterator[Callable[..., dict[str, Any]]]:
    """Changes and reads an Airflow connection that is gone when the test is over."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    def fields(**changes: Any) -> dict[str, Any]:
        with create_session() as session:
            row = connection_row(session)
            for name, value in changes.items():
                setattr(row, name, value)
            return {"password": row.password, "extra": row.extra_dejson, "host": row.host}

    with create_session() as session:
        session.add(Connection(conn_id=CONNECTION, conn_type="generic", host="kept.example.com", extra='{"mine": 1}'))
    yield fields
    with create_session() as session:
        session.delete(connection_row(session))


@pytest.fixture(params=["variable", "connection", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> SecretStore:
    """One of each place that can be asked what it keeps, with nothing in it."""
    if request.param != "file":
        request.getfixturevalue(request.param)
    return secret_store(
        {"variable": f"variable:{VARIABLE}", "connection": f"connection:{CONNECTION}"}.get(
            request.param, f"file:{tmp_path / 'secret.json'}"
        )
    )


def shows_none(text: str) -> bool:
    return not any(secret.get_secret_value() in text for secret in ALL)


def whole(error: BaseException) -> str:
    """All that a log could show of an error, and of what is chained to it."""
    chain: list[str] = ["".join(traceback.format_exception(error)), repr(error)]
    while error.__context__ or error.__cause__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
        chain.append(repr(error))
    return "\n".join(chain)


def partial_of(text: str) -> Exception:
    """An error that quotes the end of what it was given, as SQLAlchemy does with what is long."""
    return RuntimeError(f"parameters: '... {text[-50:]}'")


class TestAnyPlace:
    def test_keeps_the_newest_and_the_one_before(self, place: SecretStore) -> None:
        place.check_writable()
        assert place.load() is None
        for secret in ALL:
            place.save(secret, webhook_id="wh_1")
        assert place.load() == StoredSecret("wh_1", THIRD, SECOND)
        assert place.load().secrets == [THIRD, SECOND]  # type: ignore[union-attr]
        place.check_writable()

    def test_keeps_a_secret_once_however_often_it_comes(self, place: SecretStore) -> None:
        for secret in (FIRST, SECOND, SECOND):
            place.save(secret, webhook_id="wh_1")
        assert place.load() == StoredSecret("wh_1", SECOND, FIRST)

    def test_forgets_the_secrets_of_a_subscription_that_is_gone(self, place: SecretStore) -> None:
        place.save(FIRST, webhook_id="wh_1")
        place.save(SECOND, webhook_id="wh_1")
        place.save(THIRD, webhook_id="wh_2", instead_of="wh_1")
        assert place.load() == StoredSecret("wh_2", THIRD)

    @pytest.mark.parametrize("gone", [None, "wh_3"])
    def test_does_not_lose_the_secret_of_another_subscription(self, place: SecretStore, gone: str | None) -> None:
        place.save(FIRST, webhook_id="wh_1")
        for webhook_id in ("wh_2", None):
            with pytest.raises(PlanasonixSecretError, match="it holds the secret of webhook wh_1, which would be lost"):
                place.save(SECOND, webhook_id=webhook_id, instead_of=gone)
        assert place.load() == StoredSecret("wh_1", FIRST)

    def test_need_not_be_told_the_subscription(self, place: SecretStore) -> None:
        place.save(FIRST)
        place.save(SECOND)
        assert place.load() == StoredSecret(None, SECOND, FIRST)

    def test_lets_airflow_mask_what_it_keeps(self, place: SecretStore) -> None:
        from airflow.providers.common.compat.sdk import redact

        odd = SecretStr(f"whsec_masked_{type(place).__name__}")
        assert redact(f"a line with {odd.get_secret_value()}") == f"a line with {odd.get_secret_value()}"
        place.save(odd)
        assert redact(f"a line with {odd.get_secret_value()}") == "a line with ***"

    def test_shows_no_secret(self, place: SecretStore, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        place.check_writable()
        place.save(FIRST, webhook_id="wh_1")
        place.save(SECOND, webhook_id="wh_1")
        assert shows_none(caplog.text + repr(place) + str(place) + repr(place.load()) + place.description)

    def test_says_why_it_could_not_be_written(self, place: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
        place.save(FIRST, webhook_id="wh_1")

        def full(kept: StoredSecret) -> None:
            raise OSError(28, f"No space left for {kept.signing_secret.get_secret_value()}")

        monkeypatch.setattr(place, "_write", full)
        with pytest.raises(
            PlanasonixSecretError, match=r"cannot be written \(OSError: No space left on device\)"
        ) as failed:
            place.save(SECOND, webhook_id="wh_1")
        assert shows_none(whole(failed.value))
        assert place.load() == StoredSecret("wh_1", FIRST)

    @pytest.mark.parametrize("fault", [ValueError, OSError, lambda text: OSError(text, text), partial_of])
    def test_shows_no_secret_however_an_error_writes_it(
        self, place: SecretStore, monkeypatch: pytest.MonkeyPatch, fault: Callable[[str], Exception]
    ) -> None:
        odd = SecretStr('of "mine": \u00e4\n' + "x" * 40)

        def fail(kept: StoredSecret) -> None:
            raise fault(kept.to_json())

        monkeypatch.setattr(place, "_write", fail)
        with pytest.raises(PlanasonixSecretError, match="whose text is not shown, since it may hold") as failed:
            place.save(odd)
        assert "mine" not in whole(failed.value)
        assert "xxx" not in whole(failed.value)


class TestAVariable:
    def test_is_a_json_object_whose_secrets_airflow_hides(self, variable: Callable[[], str]) -> None:
        secret_store(f"variable:{VARIABLE}").save(FIRST, webhook_id="wh_1")
        assert json.loads(variable()) == {"webhook_id": "wh_1", "signing_secret": FIRST.get_secret_value()}

    @pytest.mark.parametrize(
        "text",
        [
            '{"a": 1}',
            '{"webhook_id": "wh_1", "signing_secret": 5}',
            '{"webhook_id": 5, "signing_secret": "x"}',
            "precious",
            "[1]",
            '"x"',
            '{"webhook_id": "wh_1", "signing_secret": ""',
        ],
    )
    def test_that_holds_something_else_is_left_as_it_is(self, variable: Callable[[], str], text: str) -> None:
        from airflow.models.variable import Variable

        Variable.set(VARIABLE, text)
        place = secret_store(f"variable:{VARIABLE}")
        for act in (place.check_writable, lambda: place.save(FIRST)):
            with pytest.raises(PlanasonixSecretError, match=f"'{VARIABLE}': what is there is not a signing secret"):
                act()
        assert variable() == text

    def test_that_the_environment_would_hide_is_refused(
        self, variable: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", "precious")
        with pytest.raises(PlanasonixSecretError, match="the environment has a variable of this name") as refused:
            secret_store(f"variable:{VARIABLE}").check_writable()
        assert "precious" not in whole(refused.value)

    def test_that_a_secrets_backend_would_hide_is_refused(
        self, variable: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Vault:
            def get_variable(self, key: str) -> str | None:
                return {VARIABLE: "precious"}.get(key)

        class Sealed:
            def get_variable(self, key: str) -> str | None:
                raise ConnectionError("sealed")

        monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [Sealed(), Vault()])
        with pytest.raises(PlanasonixSecretError, match="the secrets backend Vault has a variable of this name"):
            secret_store(f"variable:{VARIABLE}").check_writable()
        monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [Sealed()])
        secret_store(f"variable:{VARIABLE}").check_writable()

    def test_whose_value_airflow_2_would_show_is_warned_of(
        self, airflow_db: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret_store(f"variable:{VARIABLE}").check_writable()
        assert not caplog.records
        secret_store("variable:planasonix_hook").check_writable()
        assert ("Airflow 2 shows its value" in caplog.text) is not AIRFLOW_V_3_0_PLUS

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("LOGGING_LEVEL", "DEBUG", "logging_level is DEBUG"),
            ("LOGGING_LEVEL", "notset", "logging_level is NOTSET"),
            ("NAMESPACE_LEVELS", "supervisor=DEBUG", "namespace_levels has supervisor=DEBUG"),
            ("NAMESPACE_LEVELS", "botocore=INFO, supervisor=debug", "namespace_levels has supervisor=debug"),
            ("NAMESPACE_LEVELS", "airflow=DEBUG", "namespace_levels has airflow=DEBUG"),
            (
                "NAMESPACE_LEVELS",
                "task=INFO airflow.sdk.execution_time.supervisor=NOTSET",
                "namespace_levels has airflow.sdk.execution_time.supervisor=NOTSET",
            ),
        ],
    )
    def test_is_refused_where_airflow_3_logs_what_a_task_sets(
        self, airflow_db: None, monkeypatch: pytest.MonkeyPatch, option: str, value: str, words: str
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW__LOGGING__{option}", value)
        secret_store(f"variable:{VARIABLE}").check_writable()
        monkeypatch.setattr(airflow_compat, "is_task_without_database", lambda: True)
        monkeypatch.setattr(airflow_compat, "secrets_backends", list)
        with pytest.raises(PlanasonixSecretError, match=re.escape(f"while [logging] {words}, Airflow 3 writes")):
            secret_store(f"variable:{VARIABLE}").check_writable()

    @pytest.mark.parametrize(
        "levels", ["", "supervisor=INFO", "botocore=DEBUG air=DEBUG supervisors=DEBUG", "supervisor"]
    )
    def test_is_taken_where_airflow_logs_something_else_only(
        self, airflow_db: None, monkeypatch: pytest.MonkeyPatch, levels: str
    ) -> None:
        monkeypatch.setenv("AIRFLOW__LOGGING__NAMESPACE_LEVELS", levels)
        monkeypatch.setattr(airflow_compat, "is_task_without_database", lambda: True)
        monkeypatch.setattr(airflow_compat, "secrets_backends", list)
        secret_store(f"variable:{VARIABLE}").check_writable()


class TestAConnection:
    def test_gets_a_password_and_keeps_all_else(self, connection: Callable[..., dict[str, Any]]) -> None:
        place = secret_store(f"connection:{CONNECTION}")
        place.save(FIRST, webhook_id="wh_1")
        place.save(SECOND, webhook_id="wh_1")
        after = connection()
        assert json.loads(after.pop("password")) == {
            "webhook_id": "wh_1",
            "signing_secret": SECOND.get_secret_value(),
            "previous_signing_secret": FIRST.get_secret_value(),
        }
        # Airflow 2 shows the extra to whoever may edit the connection.
        assert after == {"extra": {"mine": 1}, "host": "kept.example.com"}

    def test_that_does_not_exist_is_refused(self, airflow_db: None) -> None:
        with pytest.raises(PlanasonixSecretError, match=r"no such connection\. Make it with: airflow connections add"):
            secret_store("connection:planasonix_nowhere").check_writable()

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"password": "precious"}, "what is there is not a signing secret"),
            ({"conn_type": "planasonix", "password": "precious"}, "its password is an API key"),
            ({"conn_type": "planasonix"}, "its password is an API key"),
        ],
    )
    def test_that_holds_something_else_is_left_as_it_is(
        self, connection: Callable[..., dict[str, Any]], changes: dict[str, str], words: str
    ) -> None:
        before = connection(**changes)
        place = secret_store(f"connection:{CONNECTION}")
        for act in (place.check_writable, lambda: place.save(FIRST)):
            with pytest.raises(PlanasonixSecretError, match=words) as refused:
                act()
            assert "precious" not in whole(refused.value)
        assert connection() == before

    def test_that_the_environment_would_hide_is_refused(
        self, connection: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", "generic://x")
        with pytest.raises(PlanasonixSecretError, match="the environment has a connection of this id"):
            secret_store(f"connection:{CONNECTION}").check_writable()

    def test_is_refused_in_a_task_that_has_no_database(
        self, connection: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(airflow_compat, "is_task_without_database", lambda: True)
        place = secret_store(f"connection:{CONNECTION}")
        for act in (place.check_writable, place.load, lambda: place.save(FIRST)):
            with pytest.raises(PlanasonixSecretError, match="a task of Airflow 3 cannot write connections"):
                act()


class TestAFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "folder" / "secret.json"

    @pytest.fixture
    def place(self, path: Path) -> SecretStore:
        path.parent.mkdir()
        return secret_store(f"file:{path}")

    def test_is_for_its_owner_alone_from_the_first_byte(
        self, place: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes: list[int] = []
        sync = os.fsync
        monkeypatch.setattr(
            os, "fsync", lambda descriptor: (modes.append(os.fstat(descriptor).st_mode), sync(descriptor))
        )
        before = os.umask(0)
        try:
            place.check_writable()
            place.save(FIRST, webhook_id="wh_1")
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert {stat.S_IMODE(mode) for mode in modes if stat.S_ISREG(mode)} == {0o600}
        # The folder was brought to the disk as well, and nothing but the secret is left in it.
        assert stat.S_ISDIR(modes[-1])
        assert list(path.parent.iterdir()) == [path]
        assert json.loads(path.read_text()) == {"webhook_id": "wh_1", "signing_secret": FIRST.get_secret_value()}

    def test_is_kept_by_one_at_a_time_from_the_look_on(
        self, place: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def is_locked() -> bool:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(folder)
            return False

        seen: list[bool] = []
        read, replace = place._read, Path.replace
        monkeypatch.setattr(place, "_read", lambda: (seen.append(is_locked()), read())[1])
        monkeypatch.setattr(Path, "replace", lambda *paths: (seen.append(is_locked()), replace(*paths))[1])
        place.save(FIRST, webhook_id="wh_1")
        assert seen == [True, True]
        assert not is_locked()

    def test_is_kept_where_folders_cannot_be_locked(self, place: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def flock(*_: object) -> None:
            raise OSError(9, "Bad file descriptor")

        monkeypatch.setattr(fcntl, "flock", flock)
        place.save(FIRST, webhook_id="wh_1")
        assert place.load() == StoredSecret("wh_1", FIRST)

    def test_that_others_could_read_is_closed_to_them(self, place: SecretStore, path: Path) -> None:
        path.touch(0o644)
        place.check_writable()
        place.save(FIRST)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
    @pytest.mark.parametrize("content", ["", StoredSecret("wh_1", THIRD).to_json()], ids=["empty", "a secret"])
    def test_that_another_user_has_planted_gets_no_secret_from_root(
        self, place: SecretStore, path: Path, content: str
    ) -> None:
        path.write_text(content)
        os.chown(path, 1234, 1235)
        for act in (place.check_writable, place.load, lambda: place.save(FIRST, webhook_id="wh_1")):
            with pytest.raises(
                PlanasonixSecretError, match=r"it belongs to another user \(uid 1234; this runs as uid 0"
            ):
                act()
        assert path.read_text() == content
        assert list(path.parent.iterdir()) == [path]

    def test_of_another_user_is_refused(self, place: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.touch()
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        with pytest.raises(PlanasonixSecretError, match="it belongs to another user"):
            place._read()

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_that_others_could_write_is_refused(self, place: SecretStore, path: Path, mode: int) -> None:
        place.save(THIRD, webhook_id="wh_1")
        path.chmod(mode)
        words = re.escape(
            f"others may write it (mode {mode:04o}). Check what is in it, then close it: `chmod 600 {path}`"
        )
        for act in (place.check_writable, place.load, lambda: place.save(FIRST, webhook_id="wh_1")):
            with pytest.raises(PlanasonixSecretError, match=words):
                act()
        path.chmod(0o600)
        assert place.load() == StoredSecret("wh_1", THIRD)

    @pytest.mark.parametrize("planted", ["a link", "a file that others may write"])
    def test_that_was_exchanged_between_look_and_read_is_refused(
        self, place: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
    ) -> None:
        place.save(FIRST, webhook_id="wh_1")
        (other := path.with_name("other")).write_text(StoredSecret("wh_1", THIRD).to_json())
        other.chmod(0o666)
        really_open = os.open

        def open_(file: Any, *arguments: Any, **more: Any) -> int:
            if file == path:
                path.unlink()
                path.symlink_to(other) if planted == "a link" else other.rename(path)
            return really_open(file, *arguments, **more)

        monkeypatch.setattr(os, "open", open_)
        with pytest.raises(PlanasonixSecretError) as refused:
            place.load()
        assert shows_none(whole(refused.value))

    def test_is_refused_where_a_file_system_gives_it_to_another_user(
        self, place: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: path.parent.stat().st_uid + 1)
        with pytest.raises(PlanasonixSecretError, match="it belongs to another user"):
            place.check_writable()
        assert list(path.parent.iterdir()) == []

    def test_that_is_a_link_is_not_followed(self, place: SecretStore, path: Path, tmp_path: Path) -> None:
        (target := tmp_path / "target").write_text("precious")
        path.symlink_to(target)
        for act in (place.check_writable, place.load, lambda: place.save(FIRST)):
            with pytest.raises(PlanasonixSecretError, match="it is a link, a folder or a device"):
                act()
        assert target.read_text() == "precious"
        assert path.is_symlink()

    def test_that_is_a_folder_or_a_pipe_is_refused(self, place: SecretStore, path: Path) -> None:
        path.mkdir()
        with pytest.raises(PlanasonixSecretError, match="it is a link, a folder or a device"):
            place.check_writable()
        path.rmdir()
        os.mkfifo(path)
        with pytest.raises(PlanasonixSecretError, match="it is a link, a folder or a device"):
            place.check_writable()

    def test_that_holds_something_else_is_left_as_it_is(self, place: SecretStore, path: Path) -> None:
        path.write_text("precious")
        for act in (place.check_writable, lambda: place.save(FIRST)):
            with pytest.raises(PlanasonixSecretError, match="not a signing secret that was kept before"):
                act()
        assert path.read_text() == "precious"

    def test_whose_folder_is_missing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PlanasonixSecretError, match=f"there is no folder {tmp_path}/nowhere. Make it"):
            secret_store(f"file:{tmp_path}/nowhere/x").check_writable()

    def test_whose_folder_cannot_be_written_is_refused(self) -> None:
        with pytest.raises(
            PlanasonixSecretError, match=r"File /proc/x cannot be used \((Permission|FileNotFound)Error"
        ):
            secret_store("file:/proc/x").check_writable()

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_is_left_as_it_was_where_it_cannot_be_written(
        self, place: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        place.save(FIRST, webhook_id="wh_1")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
        with pytest.raises(PlanasonixSecretError, match="No space left on device"):
            place.save(SECOND, webhook_id="wh_1")
        monkeypatch.undo()
        assert list(path.parent.iterdir()) == [path]
        assert place.load() == StoredSecret("wh_1", FIRST)


class TestAFunction:
    def test_is_given_the_secret(self) -> None:
        taken: list[SecretStr] = []
        place = secret_store(taken.append)
        place.check_writable()
        place.save(FIRST, webhook_id="wh_1")
        assert taken == [FIRST]
        assert (place.is_readable, place.load()) == (False, None)

    def test_whose_error_holds_the_secret_is_not_quoted(self) -> None:
        def refuse(secret: SecretStr) -> None:
            raise ValueError(f"bad: {secret.get_secret_value()}")

        with pytest.raises(PlanasonixSecretError, match=r"cannot be written \(ValueError, whose text") as failed:
            secret_store(refuse).save(FIRST)
        assert shows_none(whole(failed.value))

    @pytest.mark.filterwarnings("error")
    def test_that_only_begins_to_keep_the_secret_is_an_error(self) -> None:
        class Vault:
            async def __call__(self, secret: SecretStr) -> None: ...

        def little_by_little(secret: SecretStr) -> Iterator[SecretStr]:
            yield secret

        for function, what in ((lambda secret: Vault()(secret), "coroutine"), (little_by_little, "generator")):
            with pytest.raises(PlanasonixSecretError, match=f"it gave back a {what}, which nobody runs here"):
                secret_store(function).save(FIRST)
        gc.collect()

    def test_is_called_by_its_name_alone(self) -> None:
        class Vault:
            def __repr__(self) -> str:
                return "token=precious"

            def put(self, path: str, secret: SecretStr) -> None: ...

            def __call__(self, secret: SecretStr) -> None: ...

        for function in (
            functools.partial(Vault().put, "precious"),
            Vault(),
            functools.partial(Vault().put, "x").__call__,
        ):
            assert "precious" not in secret_store(function).description + repr(secret_store(function))
        assert (
            secret_store(Vault()).description
            == "function TestAFunction.test_is_called_by_its_name_alone.<locals>.Vault"
        )


class TestTheForms:
    def test_a_keeper_is_one_already(self) -> None:
        place = secret_store("variable:x")
        assert secret_store(place) is place

    def test_say_what_they_are(self) -> None:
        assert secret_store("variable:x").description == "Airflow variable 'x'"
        assert secret_store("connection:x").description == "Airflow connection 'x'"
        assert secret_store("file:/a/x").description == "file /a/x"
        assert secret_store(print).description == "function print"

    @pytest.mark.parametrize(
        "to",
        ["", "x", "variable:", "variable: x", "variable:a\nb", "env:X", "VARIABLE:x", ":x", None, 7, ["variable:x"],
         lambda: None, lambda a, b: None],
    )  # fmt: skip
    def test_that_are_none_are_refused(self, to: Any) -> None:
        with pytest.raises(ValueError, match=r"secret_to: got .*, allowed is 'variable:NAME', 'connection:CONN_ID'"):
            secret_store(to)

    async def test_what_would_have_to_be_awaited_is_refused(self) -> None:
        async def put(secret: SecretStr) -> None: ...

        class Vault:
            async def __call__(self, secret: SecretStr) -> None: ...

        for function in (put, Vault()):
            with pytest.raises(ValueError, match="a function \\(not async\\) that takes the secret"):
                secret_store(function)

    def test_a_function_that_takes_something_else_is_called_by_its_name(self) -> None:
        def put(token: str, path: str, secret: SecretStr) -> None: ...

        bound = functools.partial(put, "hvs.precious", path="x")
        with pytest.raises(ValueError, match="secret_to: got 'function partial', allowed is") as refused:
            secret_store(bound)
        assert "precious" not in whole(refused.value)

    @pytest.mark.parametrize("path", ["x", "./x", "~/x"])
    def test_a_file_is_named_by_its_whole_path(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"secret_to: got 'file:' and a text .*, allowed is an absolute path"):
            secret_store(f"file:{path}")

    @pytest.mark.parametrize(
        "secret", ["s3cr3t", "whsec_1", "p:s3cr3t", "file:s3cr3t", " s3cr3t", ["s3cr3t"], {"s3cr3t": 1}]
    )
    def test_a_secret_in_the_wrong_place_is_not_repeated(self, secret: Any) -> None:
        with pytest.raises(ValueError, match=r"secret_to: got .*, allowed is") as refused:
            secret_store(secret)
        assert "s3cr3t" not in whole(refused.value)
        assert "whsec_" not in whole(refused.value)


def test_what_is_kept_is_shown_to_nobody() -> None:
    kept = StoredSecret("wh_1", SECOND, FIRST)
    assert shows_none(f"{kept} {kept!r}")
    with pytest.raises(TypeError, match="holds secrets, so it is not pickled"):
        pickle.dumps(kept)
