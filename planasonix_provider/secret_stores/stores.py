"""The secret stores: Airflow variable, Airflow connection, file, function."""

from __future__ import annotations

import fcntl
import inspect
import logging
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from planasonix_provider import airflow_compat
from planasonix_provider.secret_stores.base import SecretStore
from planasonix_provider.secret_stores.stored_secret import StoredSecret

if TYPE_CHECKING:
    from pydantic import SecretStr

_DESCRIPTION = "The signing secret of a Planasonix webhook; written by the Planasonix provider."

log = logging.getLogger(__name__)


class VariableSecretStore(SecretStore):
    """Stores a secret in an Airflow variable, as a JSON object.

    Airflow 3 hides the value of ``signing_secret`` in the UI and the REST API. Airflow 2 hides a variable only if its
    name contains a word such as ``secret``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"Airflow variable {name!r}")
        self.name = name

    def _check_location(self) -> None:
        if backend := airflow_compat.find_overriding_backend(lambda backend: backend.get_variable(key=self.name)):
            raise self.error(f"{backend} has a variable of this name, which would be read instead. Name another.")
        self._check_message_log()
        if airflow_compat.is_variable_visible(self.name):
            log.warning(
                "Airflow 2 shows the value of %s in the UI, since its name holds no word such as 'secret'. Name "
                "another.",
                self.description,
            )

    def _check_message_log(self) -> None:
        """Raise an error if Airflow logs the message with which a task sets a variable."""
        if not airflow_compat.is_task_without_database():
            return
        if airflow_compat.is_every_message_logged():
            raise self.error(
                "executors of Airflow 3.0 log what a task puts into a variable. "
                "Use 'file:/absolute/path' or a function, or upgrade to Airflow 3.1 or later."
            )
        if setting := airflow_compat.find_debug_log_setting():
            raise self.error(
                f"while [logging] {setting}, Airflow 3 writes what a task puts into a variable to a log of its own. "
                "Use 'file:/absolute/path' or a function, or raise the level."
            )

    def _read(self) -> StoredSecret | None:
        text = airflow_compat.variable_class().get(self.name, None)
        return None if text is None else self._parse(text)

    def _write(self, stored: StoredSecret) -> None:
        self._check_message_log()
        airflow_compat.variable_class().set(self.name, stored.to_json(), description=_DESCRIPTION)


class ConnectionSecretStore(SecretStore):
    """Stores a secret in the password of an existing Airflow connection, as a JSON object.

    Nothing is stored in the extra: Airflow 2 shows it to all users who may edit the connection.
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__(f"Airflow connection {conn_id!r}")
        self.conn_id = conn_id

    def _check_location(self) -> None:
        self._require_database()
        if backend := airflow_compat.find_overriding_backend(
            lambda backend: backend.get_conn_value(conn_id=self.conn_id)
        ):
            raise self.error(f"{backend} has a connection of this id, which would be read instead. Name another.")

    def _require_database(self) -> None:
        if airflow_compat.is_task_without_database():
            is_logged = airflow_compat.is_every_message_logged() or airflow_compat.find_debug_log_setting()
            places = "'file:/absolute/path'" if is_logged else "'variable:NAME', 'file:/absolute/path'"
            raise self.error(
                f"a task of Airflow 3 cannot write connections. Use {places} or a function, or do it outside of a task."
            )

    def _read(self) -> StoredSecret | None:
        from airflow.utils.session import create_session

        self._require_database()
        with create_session() as session:
            row = self._row(session)
            if row.conn_type == "planasonix":
                raise self.error("its password is an API key. Make a connection for the secret, of the type generic.")
            return self._parse(row.password) if row.password else None

    def _write(self, stored: StoredSecret) -> None:
        from airflow.utils.session import create_session

        with create_session() as session:
            self._row(session).password = stored.to_json()

    def _row(self, session: Any) -> Any:
        from airflow.models.connection import Connection
        from sqlalchemy import select

        row = session.scalar(select(Connection).where(Connection.conn_id == self.conn_id))
        if row is None:
            raise self.error(
                f"there is no such connection. Make it with: airflow connections add {self.conn_id} --conn-type generic"
            )
        return row


class FileSecretStore(SecretStore):
    """Stores a secret in a file, as a JSON object. Only the file's owner can read it.

    :raises ValueError: if the path is not absolute.
    """

    def __init__(self, path: str) -> None:
        if not os.path.isabs(path):  # noqa: PTH117 - a Path would normalize the text first
            raise ValueError(
                f"secret_to: got 'file:' and {describe_hidden(path)}, allowed is an absolute path behind 'file:'."
            )
        super().__init__(f"file {path}")
        self.path = Path(path)

    def _check_location(self) -> None:
        if not self.path.parent.is_dir():
            raise self.error(f"there is no folder {self.path.parent}. Make it, for its owner alone (mode 0700).")
        temporary = self._write_temporary(b"")
        try:
            # Some network file systems assign files of root to another user; the secret could not be read again.
            self._check_owner_and_mode(temporary.lstat())
        finally:
            temporary.unlink()

    def _read(self) -> StoredSecret | None:
        try:
            # Before opening the file: opening a device may have side effects.
            self._check_owner_and_mode(self.path.lstat())
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor) as file:
            # The file may have been replaced since the first check.
            self._check_owner_and_mode(os.fstat(descriptor))
            text = file.read()
        return self._parse(text) if text.strip() else None

    def _check_owner_and_mode(self, state: os.stat_result) -> None:
        """Raise an error if another user could have created the file or could change it, even if this user is root."""
        if not stat.S_ISREG(state.st_mode):
            raise self.error("it is a link, a folder or a device. Name the file itself.")
        if state.st_uid != os.geteuid():
            raise self.error(
                f"it belongs to another user (uid {state.st_uid}; this runs as uid {os.geteuid()}). Name a file of the "
                "user that this runs as, or one that does not exist yet."
            )
        if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise self.error(
                f"others may write it (mode {stat.S_IMODE(state.st_mode):04o}). Check what is in it, then close it: "
                f"`chmod 600 {shlex.quote(str(self.path))}`"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Locks the folder, because _write replaces the file.
        with self._open_folder() as folder:
            # Some network file systems cannot lock folders.
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _open_folder(self) -> Iterator[int]:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield folder
        finally:
            os.close(folder)

    def _write(self, stored: StoredSecret) -> None:
        temporary = self._write_temporary(stored.to_json().encode() + b"\n")
        try:
            # Atomic: readers see the old content or the new one.
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink()
            raise
        with self._open_folder() as folder:
            os.fsync(folder)

    def _write_temporary(self, content: bytes) -> Path:
        """Write a new file in the same folder; only its owner can read it, from the first byte on."""
        path = self.path.with_name(f".{self.path.name}.{token_hex(4)}")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            path.unlink()
            raise
        return path


class CallableSecretStore(SecretStore):
    """Passes a secret to a function, which is called again if it raises an exception."""

    is_readable = False

    def __init__(self, function: Callable[[SecretStr], object]) -> None:
        super().__init__(describe_function(function))
        self._function = function

    def _check_location(self) -> None:
        """Check nothing: only a call shows whether the function works."""

    def _read(self) -> None:
        return None

    def _write(self, stored: StoredSecret) -> None:
        result = self._function(stored.signing_secret)
        if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
            if inspect.iscoroutine(result):
                # Python warns of coroutines that are neither awaited nor closed.
                result.close()
            raise self.error(
                f"it returned a {type(result).__name__}, which is not run, so the secret is not stored. Use a function "
                "that has stored the secret when it returns."
            )


def describe_function(function: Callable[..., object]) -> str:
    """Return a function's name for messages. Its repr may show bound arguments, which may be secrets."""
    return f"function {getattr(function, '__qualname__', None) or type(function).__qualname__}"


def describe_hidden(value: object) -> str:
    """Describe a value without showing it: users may pass the secret itself instead of its destination."""
    if isinstance(value, str):
        return "a text that is not shown, because it may be the secret" if value else "an empty text"
    return f"a value of the type {type(value).__name__}"
