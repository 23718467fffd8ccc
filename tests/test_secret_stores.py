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
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from pydantic import SecretStr

from planasonix_provider import airflow_compat
from planasonix_provider.secret_stores import PlanasonixSecretError, SecretStore, StoredSecret, secret_store
from tests.support.error_text import error_text

FIRST, SECOND, THIRD = (SecretStr(f"whsec_{name}_9f8e7d6c5b4a") for name in ("first", "second", "third"))
VARIABLE, CONNECTION = "planasonix_test_secret", "planasonix_test"
FULL = OSError(28, "No space left on device")


@pytest.fixture
def variable(airflow_db: None) -> Iterator[Callable[[], str]]:
    """Reads an Airflow variable, which is deleted after the test."""
    from airflow.models.variable import Variable

    yield lambda: Variable.get(VARIABLE, None)
    Variable.delete(VARIABLE)


@pytest.fixture
def connection(airflow_db: None) -> Iterator[Callable[..., dict[str, Any]]]:
    """Changes and reads an Airflow connection, which is deleted after the test."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    def row(session: Any) -> Any:
        return session.scalar(select(Connection).where(Connection.conn_id == CONNECTION))

    def fields(**changes: Any) -> dict[str, Any]:
        with create_session() as session:
            for name, value in changes.items():
                setattr(row(session), name, value)
            return {"password": row(session).password, "extra": row(session).extra_dejson, "host": row(session).host}

    with create_session() as session:
        session.add(Connection(conn_id=CONNECTION, conn_type="generic", host="kept.example.com", extra='{"mine": 1}'))
    yield fields
    with create_session() as session:
        session.delete(row(session))


@pytest.fixture
def task_without_database(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    variable_class = airflow_compat.variable_class()
    monkeypatch.setattr(airflow_compat, "is_task_without_database", lambda: True)
    # In Airflow 3.0, the class for tasks needs the connection of a real task to its supervisor.
    monkeypatch.setattr(airflow_compat, "variable_class", lambda: variable_class)
    monkeypatch.setattr(airflow_compat, "secrets_backends", list)


@pytest.fixture(params=["variable", "connection", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SecretStore:
    """One store of each kind that can be read, empty."""
    if request.param == "file":
        return secret_store(f"file:{tmp_path / 'secret.json'}")
    request.getfixturevalue(request.param)
    return secret_store(f"variable:{VARIABLE}" if request.param == "variable" else f"connection:{CONNECTION}")


def shows_no_secret(text: str) -> bool:
    return not any(secret.get_secret_value() in text for secret in (FIRST, SECOND, THIRD))


def assert_unusable(store: SecretStore, message: str, *, is_readable: bool = False) -> None:
    """Check that every operation on a store fails, and that no error shows the content."""
    for call in (store.check_writable, lambda: store.save(FIRST), *([] if is_readable else [store.load])):
        with pytest.raises(PlanasonixSecretError, match=message) as refused:
            call()
        assert "precious" not in error_text(refused.value)


def raiser(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


class TestAnyStore:
    def test_keeps_the_newest_secret_and_the_previous_one(self, store: SecretStore) -> None:
        store.check_writable()
        assert store.load() is None
        for secret in (FIRST, SECOND, THIRD, THIRD):
            store.save(secret, webhook_id="wh_1")
        assert store.load() == StoredSecret("wh_1", THIRD, SECOND)
        assert store.load().secrets == [THIRD, SECOND]  # type: ignore[union-attr]
        store.check_writable()

    def test_drops_the_secrets_of_a_deleted_webhook(self, store: SecretStore) -> None:
        store.save(FIRST, webhook_id="wh_1")
        store.save(SECOND, webhook_id="wh_1")
        store.save(THIRD, webhook_id="wh_2", instead_of="wh_1")
        assert store.load() == StoredSecret("wh_2", THIRD)

    @pytest.mark.parametrize("deleted", [None, "wh_3"])
    def test_does_not_overwrite_the_secret_of_another_webhook(self, store: SecretStore, deleted: str | None) -> None:
        store.save(FIRST, webhook_id="wh_1")
        for webhook_id in ("wh_2", None):
            with pytest.raises(PlanasonixSecretError, match="it holds the secret of webhook wh_1, which would be lost"):
                store.save(SECOND, webhook_id=webhook_id, instead_of=deleted)
        assert store.load() == StoredSecret("wh_1", FIRST)

    def test_works_without_a_webhook_id(self, store: SecretStore) -> None:
        store.save(FIRST)
        store.save(SECOND)
        assert store.load() == StoredSecret(None, SECOND, FIRST)

    def test_makes_airflow_mask_the_secret(self, store: SecretStore) -> None:
        from airflow.providers.common.compat.sdk import redact

        secret = f"whsec_masked_{type(store).__name__}"
        assert redact(f"a line with {secret}") == f"a line with {secret}"
        store.save(SecretStr(secret))
        assert redact(f"a line with {secret}") == "a line with ***"

    def test_shows_no_secret(self, store: SecretStore, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        store.check_writable()
        store.save(FIRST, webhook_id="wh_1")
        store.save(SECOND, webhook_id="wh_1")
        assert shows_no_secret(caplog.text + repr(store) + str(store) + repr(store.load()) + store.description)

    def test_names_the_system_error_of_a_failed_write(
        self, store: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.save(FIRST, webhook_id="wh_1")
        monkeypatch.setattr(store, "_write", raiser(OSError(28, f"No space left for {SECOND.get_secret_value()}")))
        message = rf"Cannot write {re.escape(store.description)} \(OSError: No space left on device\)"
        with pytest.raises(PlanasonixSecretError, match=message) as failed:
            store.save(SECOND, webhook_id="wh_1")
        assert shows_no_secret(error_text(failed.value))
        assert store.load() == StoredSecret("wh_1", FIRST)

    @pytest.mark.parametrize(
        "fault",
        [
            ValueError,
            OSError,
            lambda text: OSError(text, text),
            # SQLAlchemy quotes the end of a long parameter.
            lambda text: RuntimeError(f"parameters: '... {text[-50:]}'"),
        ],
        ids=["ValueError", "OSError", "OSError with an odd number", "end of the text"],
    )
    def test_shows_no_part_of_a_secret_that_an_error_quotes(
        self, store: SecretStore, monkeypatch: pytest.MonkeyPatch, fault: Callable[[str], Exception]
    ) -> None:
        def fail(stored: StoredSecret) -> None:
            raise fault(stored.to_json())

        secret = SecretStr('of "mine": \u00e4\n' + "x" * 40)
        monkeypatch.setattr(store, "_write", fail)
        with pytest.raises(PlanasonixSecretError, match="whose text is not shown, since it may hold") as failed:
            store.save(secret)
        assert not re.search("mine|xxx", error_text(failed.value))


class TestAVariable:
    def test_is_a_json_object(self, variable: Callable[[], str]) -> None:
        # Airflow hides the values of the keys that contain "secret".
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
    def test_that_holds_something_else_is_left_alone(self, variable: Callable[[], str], text: str) -> None:
        from airflow.models.variable import Variable

        Variable.set(VARIABLE, text)
        message = f"'{VARIABLE}': it holds something other than a stored signing secret"
        assert_unusable(secret_store(f"variable:{VARIABLE}"), message)
        assert variable() == text

    def test_that_a_secrets_backend_overrides_is_refused(
        self, variable: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Vault:
            def get_variable(self, key: str) -> str | None:
                return {VARIABLE: "precious"}.get(key)

        class Sealed:
            get_variable = raiser(ConnectionError("sealed"))

        store = secret_store(f"variable:{VARIABLE}")
        # A backend that fails is skipped.
        monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [Sealed()])
        store.check_writable()
        monkeypatch.setattr(airflow_compat, "secrets_backends", lambda: [Sealed(), Vault()])
        with pytest.raises(PlanasonixSecretError, match="the secrets backend Vault has a variable of this name") as one:
            store.check_writable()
        assert "precious" not in error_text(one.value)

    def test_that_airflow_2_shows_logs_a_warning(self, airflow_db: None, caplog: pytest.LogCaptureFixture) -> None:
        secret_store(f"variable:{VARIABLE}").check_writable()
        assert not caplog.records
        secret_store("variable:planasonix_hook").check_writable()
        warning = "Airflow 2 shows the value of Airflow variable 'planasonix_hook' in the UI"
        assert (warning in caplog.text) is not AIRFLOW_V_3_0_PLUS

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
            *(
                ("NAMESPACE_LEVELS", value, None)
                for value in ("", "supervisor=INFO", "botocore=DEBUG air=DEBUG supervisors=DEBUG", "supervisor")
            ),
        ],
    )
    def test_is_refused_in_a_task_whose_messages_airflow_3_logs(
        self,
        airflow_db: None,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        option: str,
        value: str,
        words: str | None,
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW__LOGGING__{option}", value)
        monkeypatch.setattr(airflow_compat, "is_every_message_logged", lambda: False)
        store = secret_store(f"variable:{VARIABLE}")
        store.check_writable()
        request.getfixturevalue("task_without_database")
        if words is None:
            store.check_writable()
        else:
            with pytest.raises(PlanasonixSecretError, match=re.escape(f"while [logging] {words}, Airflow 3 writes")):
                store.check_writable()

    def test_is_refused_in_a_task_whose_messages_are_always_logged(
        self, variable: Callable[[], str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(airflow_compat, "is_every_message_logged", lambda: True)
        store = secret_store(f"variable:{VARIABLE}")
        store.save(FIRST, webhook_id="wh_1")
        before = variable()
        request.getfixturevalue("task_without_database")
        for act in (store.check_writable, lambda: store.save(SECOND, webhook_id="wh_1")):
            with pytest.raises(PlanasonixSecretError, match="log what a task puts into a variable"):
                act()
        assert variable() == before

    def test_messages_are_always_logged_in_airflow_3_0(self) -> None:
        assert airflow_compat.is_every_message_logged() is version("apache-airflow").startswith("3.0.")


class TestAConnection:
    def test_gets_a_new_password_and_no_other_change(self, connection: Callable[..., dict[str, Any]]) -> None:
        store = secret_store(f"connection:{CONNECTION}")
        store.save(FIRST, webhook_id="wh_1")
        store.save(SECOND, webhook_id="wh_1")
        after = connection()
        assert json.loads(after.pop("password")) == {
            "webhook_id": "wh_1",
            "signing_secret": SECOND.get_secret_value(),
            "previous_signing_secret": FIRST.get_secret_value(),
        }
        # Airflow 2 shows the extra to all users who may edit the connection.
        assert after == {"extra": {"mine": 1}, "host": "kept.example.com"}

    def test_that_does_not_exist_is_refused(self, airflow_db: None) -> None:
        with pytest.raises(PlanasonixSecretError, match=r"no such connection\. Make it with: airflow connections add"):
            secret_store("connection:planasonix_nowhere").check_writable()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"password": "precious"}, "it holds something other than a stored signing secret"),
            ({"conn_type": "planasonix", "password": "precious"}, "its password is an API key"),
            ({"conn_type": "planasonix"}, "its password is an API key"),
        ],
    )
    def test_that_holds_something_else_is_left_alone(
        self, connection: Callable[..., dict[str, Any]], changes: dict[str, str], message: str
    ) -> None:
        before = connection(**changes)
        assert_unusable(secret_store(f"connection:{CONNECTION}"), message)
        assert connection() == before

    @pytest.mark.parametrize(
        ("is_logged", "places"),
        [(False, "Use 'variable:NAME', 'file:/absolute/path' or"), (True, "Use 'file:/absolute/path' or")],
    )
    def test_is_refused_in_a_task_that_has_no_database(
        self,
        connection: Callable[..., dict[str, Any]],
        task_without_database: None,
        monkeypatch: pytest.MonkeyPatch,
        is_logged: bool,
        places: str,
    ) -> None:
        monkeypatch.setattr(airflow_compat, "is_every_message_logged", lambda: is_logged)
        message = f"a task of Airflow 3 cannot write connections. {places}"
        assert_unusable(secret_store(f"connection:{CONNECTION}"), message)


@pytest.mark.parametrize(
    ("to", "environment", "message"),
    [
        (f"variable:{VARIABLE}", f"AIRFLOW_VAR_{VARIABLE}", "a variable of this name"),
        (f"connection:{CONNECTION}", f"AIRFLOW_CONN_{CONNECTION}", "a connection of this id"),
    ],
)
def test_a_store_that_the_environment_overrides_is_refused(
    airflow_db: None, monkeypatch: pytest.MonkeyPatch, to: str, environment: str, message: str
) -> None:
    monkeypatch.setenv(environment.upper(), "precious://x")
    with pytest.raises(PlanasonixSecretError, match=f"the environment has {message}") as refused:
        secret_store(to).check_writable()
    assert "precious" not in error_text(refused.value)


class TestAFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "folder" / "secret.json"

    @pytest.fixture
    def store(self, path: Path) -> SecretStore:
        path.parent.mkdir()
        return secret_store(f"file:{path}")

    def test_is_readable_by_its_owner_alone_from_the_first_byte(
        self, store: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes: list[int] = []
        sync = os.fsync
        monkeypatch.setattr(
            os, "fsync", lambda descriptor: (modes.append(os.fstat(descriptor).st_mode), sync(descriptor))
        )
        before = os.umask(0)
        try:
            store.check_writable()
            store.save(FIRST, webhook_id="wh_1")
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert {stat.S_IMODE(mode) for mode in modes if stat.S_ISREG(mode)} == {0o600}
        # The folder was synced as well, and contains only the secret.
        assert stat.S_ISDIR(modes[-1])
        assert list(path.parent.iterdir()) == [path]
        assert json.loads(path.read_text()) == {"webhook_id": "wh_1", "signing_secret": FIRST.get_secret_value()}

    def test_is_locked_from_the_read_to_the_write(
        self, store: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch
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
        read, replace = store._read, Path.replace
        monkeypatch.setattr(store, "_read", lambda: (seen.append(is_locked()), read())[1])
        monkeypatch.setattr(Path, "replace", lambda *paths: (seen.append(is_locked()), replace(*paths))[1])
        store.save(FIRST, webhook_id="wh_1")
        assert seen == [True, True]
        assert not is_locked()

    def test_is_written_if_folders_cannot_be_locked(self, store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fcntl, "flock", raiser(OSError(9, "Bad file descriptor")))
        store.save(FIRST, webhook_id="wh_1")
        assert store.load() == StoredSecret("wh_1", FIRST)

    def test_that_others_can_read_is_closed_to_them(self, store: SecretStore, path: Path) -> None:
        path.touch(0o644)
        store.check_writable()
        store.save(FIRST)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
    @pytest.mark.parametrize("content", ["", StoredSecret("wh_1", THIRD).to_json()], ids=["empty", "a secret"])
    def test_of_another_user_gets_no_secret_from_root(self, store: SecretStore, path: Path, content: str) -> None:
        path.write_text(content)
        os.chown(path, 1234, 1235)
        assert_unusable(store, r"it belongs to another user \(uid 1234; this runs as uid 0")
        assert path.read_text() == content
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("is_there", [True, False], ids=["existing", "new, on a file system that changes owners"])
    def test_of_another_user_is_refused(
        self, store: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
    ) -> None:
        if is_there:
            path.touch()
        monkeypatch.setattr(os, "geteuid", lambda: path.parent.stat().st_uid + 1)
        with pytest.raises(PlanasonixSecretError, match="it belongs to another user"):
            store._read() if is_there else store.check_writable()
        assert list(path.parent.iterdir()) == [path] * is_there

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_that_others_can_write_is_refused(self, store: SecretStore, path: Path, mode: int) -> None:
        store.save(THIRD, webhook_id="wh_1")
        path.chmod(mode)
        advice = f"others may write it (mode {mode:04o}). Check what is in it, then close it: `chmod 600 {path}`"
        assert_unusable(store, re.escape(advice))
        path.chmod(0o600)
        assert store.load() == StoredSecret("wh_1", THIRD)

    @pytest.mark.parametrize("planted", ["a link", "a file that others can write"])
    def test_that_is_replaced_between_check_and_read_is_refused(
        self, store: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
    ) -> None:
        store.save(FIRST, webhook_id="wh_1")
        (other := path.with_name("other")).write_text(StoredSecret("wh_1", THIRD).to_json())
        other.chmod(0o666)
        real_open = os.open

        def open_(file: Any, *arguments: Any, **options: Any) -> int:
            if file == path:
                path.unlink()
                path.symlink_to(other) if planted == "a link" else other.rename(path)
            return real_open(file, *arguments, **options)

        monkeypatch.setattr(os, "open", open_)
        with pytest.raises(PlanasonixSecretError) as refused:
            store.load()
        assert shows_no_secret(error_text(refused.value))

    def test_that_is_a_link_is_not_followed(self, store: SecretStore, path: Path, tmp_path: Path) -> None:
        (target := tmp_path / "target").write_text("precious")
        path.symlink_to(target)
        assert_unusable(store, "it is a link, a folder or a device")
        assert target.read_text() == "precious"
        assert path.is_symlink()

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
    def test_that_is_a_folder_or_a_pipe_is_refused(
        self, store: SecretStore, path: Path, make: Callable[[Path], None]
    ) -> None:
        make(path)
        assert_unusable(store, "it is a link, a folder or a device")

    def test_that_holds_something_else_is_left_alone(self, store: SecretStore, path: Path) -> None:
        path.write_text("precious")
        assert_unusable(store, "it holds something other than a stored signing secret")
        assert path.read_text() == "precious"

    def test_needs_a_writable_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PlanasonixSecretError, match=f"there is no folder {tmp_path}/nowhere. Make it"):
            secret_store(f"file:{tmp_path}/nowhere/x").check_writable()
        with pytest.raises(PlanasonixSecretError, match=r"Cannot use file /proc/x \((Permission|FileNotFound)Error"):
            secret_store("file:/proc/x").check_writable()

    @pytest.mark.parametrize(("owner", "function"), [(os, "fsync"), (Path, "replace")])
    def test_is_unchanged_after_a_failed_write(
        self, store: SecretStore, path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, function: str
    ) -> None:
        store.save(FIRST, webhook_id="wh_1")
        monkeypatch.setattr(owner, function, raiser(FULL))
        with pytest.raises(PlanasonixSecretError, match="No space left on device"):
            store.save(SECOND, webhook_id="wh_1")
        monkeypatch.undo()
        assert list(path.parent.iterdir()) == [path]
        assert store.load() == StoredSecret("wh_1", FIRST)


class TestAFunction:
    def test_receives_the_secret(self) -> None:
        received: list[SecretStr] = []
        store = secret_store(received.append)
        store.check_writable()
        store.save(FIRST, webhook_id="wh_1")
        assert received == [FIRST]
        assert (store.is_readable, store.load()) == (False, None)

    def test_whose_error_contains_the_secret_is_not_quoted(self) -> None:
        def refuse(secret: SecretStr) -> None:
            raise ValueError(f"bad: {secret.get_secret_value()}")

        with pytest.raises(PlanasonixSecretError, match=r"Cannot write .* \(ValueError, whose text") as failed:
            secret_store(refuse).save(FIRST)
        assert shows_no_secret(error_text(failed.value))

    @pytest.mark.filterwarnings(
        "error:coroutine .* was never awaited:RuntimeWarning", "error::pytest.PytestUnraisableExceptionWarning"
    )
    def test_that_has_not_stored_the_secret_when_it_returns_is_an_error(self) -> None:
        async def put(secret: SecretStr) -> None: ...

        def generate(secret: SecretStr) -> Iterator[SecretStr]:
            yield secret

        for function, kind in ((lambda secret: put(secret), "coroutine"), (generate, "generator")):
            with pytest.raises(PlanasonixSecretError, match=f"it returned a {kind}, which is not run"):
                secret_store(function).save(FIRST)
        gc.collect()

    def test_is_described_by_its_name_alone(self) -> None:
        class Vault:
            def __repr__(self) -> str:
                return "token=precious"

            def put(self, path: str, secret: SecretStr) -> None: ...

            def __call__(self, secret: SecretStr) -> None: ...

        partial = functools.partial(Vault().put, "precious")
        for function in (partial, Vault(), partial.__call__):
            assert "precious" not in secret_store(function).description + repr(secret_store(function))
        assert secret_store(Vault()).description == f"function {Vault.__qualname__}"


class TestADestination:
    def test_may_be_a_store(self) -> None:
        store = secret_store("variable:x")
        assert secret_store(store) is store

    @pytest.mark.parametrize(
        ("to", "description"),
        [
            ("variable:x", "Airflow variable 'x'"),
            ("connection:x", "Airflow connection 'x'"),
            ("file:/a/x", "file /a/x"),
            (print, "function print"),
        ],
    )
    def test_describes_itself(self, to: Any, description: str) -> None:
        assert secret_store(to).description == description

    @pytest.mark.parametrize(
        "to",
        ["", "x", "variable:", "variable: x", "variable:a\nb", "env:X", "VARIABLE:x", ":x", None, 7, ["variable:x"],
         lambda: None, lambda a, b: None],
    )  # fmt: skip
    def test_that_is_invalid_is_refused(self, to: Any) -> None:
        with pytest.raises(ValueError, match=r"secret_to: got .*, allowed is 'variable:NAME', 'connection:CONN_ID'"):
            secret_store(to)

    def test_is_no_coroutine_function(self) -> None:
        async def put(secret: SecretStr) -> None: ...

        class Vault:
            async def __call__(self, secret: SecretStr) -> None: ...

        for function in (put, Vault()):
            with pytest.raises(ValueError, match="a function \\(not async\\) that takes the secret"):
                secret_store(function)

    def test_that_takes_other_arguments_is_refused_by_its_name(self) -> None:
        def put(token: str, path: str, secret: SecretStr) -> None: ...

        bound = functools.partial(put, "hvs.precious", path="x")
        with pytest.raises(ValueError, match="secret_to: got 'function partial', allowed is") as refused:
            secret_store(bound)
        assert "precious" not in error_text(refused.value)

    @pytest.mark.parametrize("path", ["x", "./x", "~/x"])
    def test_is_no_relative_path(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"secret_to: got 'file:' and a text .*, allowed is an absolute path"):
            secret_store(f"file:{path}")

    @pytest.mark.parametrize(
        "secret", ["s3cr3t", "whsec_1", "p:s3cr3t", "file:s3cr3t", " s3cr3t", ["s3cr3t"], {"s3cr3t": 1}]
    )
    def test_is_not_quoted_because_it_may_be_the_secret(self, secret: Any) -> None:
        with pytest.raises(ValueError, match=r"secret_to: got .*, allowed is") as refused:
            secret_store(secret)
        assert not re.search("s3cr3t|whsec_", error_text(refused.value))


def test_a_stored_secret_shows_no_secret() -> None:
    stored = StoredSecret("wh_1", SECOND, FIRST)
    assert shows_no_secret(f"{stored} {stored!r}")
    with pytest.raises(TypeError, match="holds secrets, so it is not pickled"):
        pickle.dumps(stored)
