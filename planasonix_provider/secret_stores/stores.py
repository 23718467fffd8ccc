"""The places that keep a signing secret."""

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
from planasonix_provider.secret_stores.base import SecretStore, capital
from planasonix_provider.secret_stores.stored_secret import StoredSecret

if TYPE_CHECKING:
    from pydantic import SecretStr

_DESCRIPTION = "The signing secret of a Planasonix webhook; written by the Planasonix provider."

log = logging.getLogger(__name__)


class VariableSecretStore(SecretStore):
    """Keeps a secret in an Airflow variable, as a JSON object.

    From Airflow 3 on, the UI and the REST API hide what stands in such an object as ``signing_secret``; Airflow 2 hides
    a variable only by its own name.

    :param name: the variable's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"Airflow variable {name!r}")
        self.name = name

    def _check_location(self) -> None:
        if shadow := airflow_compat.find_overriding_backend(lambda backend: backend.get_variable(key=self.name)):
            raise self.error(f"{shadow} has a variable of this name, which would be read instead. Name another.")
        if airflow_compat.is_task_without_database() and (setting := airflow_compat.find_debug_log_setting()):
            raise self.error(
                f"while [logging] {setting}, Airflow 3 writes what a task puts into a variable to a log of its own. "
                "Take 'file:/absolute/path' or a function, or raise the level."
            )
        if airflow_compat.is_variable_visible(self.name):
            log.warning(
                "%s: Airflow 2 shows its value in the UI, since its name holds no word such as 'secret'. Name another.",
                capital(self.description),
            )

    def _read(self) -> StoredSecret | None:
        text = airflow_compat.variable_class().get(self.name, None)
        return None if text is None else self._parse(text)

    def _write(self, kept: StoredSecret) -> None:
        airflow_compat.variable_class().set(self.name, kept.to_json(), description=_DESCRIPTION)


class ConnectionSecretStore(SecretStore):
    """Keeps a secret in the password of an Airflow connection that exists, as a JSON object.

    Nothing of it is in the extra, which Airflow 2 shows to whoever may edit the connection.

    :param conn_id: the Airflow connection.
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__(f"Airflow connection {conn_id!r}")
        self.conn_id = conn_id

    def _check_location(self) -> None:
        self._require_database()
        if shadow := airflow_compat.find_overriding_backend(
            lambda backend: backend.get_conn_value(conn_id=self.conn_id)
        ):
            raise self.error(f"{shadow} has a connection of this id, which would be read instead. Name another.")

    def _require_database(self) -> None:
        if airflow_compat.is_task_without_database():
            raise self.error(
                "a task of Airflow 3 cannot write connections. Take 'variable:NAME', 'file:/absolute/path' or a "
                "function, or do it outside of a task."
            )

    def _read(self) -> StoredSecret | None:
        from airflow.utils.session import create_session

        self._require_database()
        with create_session() as session:
            row = self._row(session)
            if row.conn_type == "planasonix":
                raise self.error("its password is an API key. Make a connection for the secret, of the type generic.")
            return self._parse(row.password) if row.password else None

    def _write(self, kept: StoredSecret) -> None:
        from airflow.utils.session import create_session

        with create_session() as session:
            self._row(session).password = kept.to_json()

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
    """Keeps a secret in a file, as a JSON object, that only its owner may read.

    :param path: the file; its folder exists.
    :raises ValueError: if the path is not absolute.
    """

    def __init__(self, path: str) -> None:
        if not os.path.isabs(path):  # noqa: PTH117 - a Path would swallow what is odd about it
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
            # Some network file systems give files of root to another user, and the secret could not be read again.
            self._check_owner_and_mode(temporary.lstat())
        finally:
            temporary.unlink()

    def _read(self) -> StoredSecret | None:
        try:
            # First, because opening a device may do something.
            self._check_owner_and_mode(self.path.lstat())
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor) as file:
            # Another file may have come there in between.
            self._check_owner_and_mode(os.fstat(descriptor))
            text = file.read()
        return self._parse(text) if text.strip() else None

    def _check_owner_and_mode(self, state: os.stat_result) -> None:
        """Refuse a file that another user may have put there, even if this runs as root and could use it."""
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
        # The folder, for the file itself is replaced by another one.
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Some network file systems lock no folders.
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, kept: StoredSecret) -> None:
        temporary = self._write_temporary(kept.to_json().encode() + b"\n")
        try:
            # Whoever reads finds the old secrets or the new ones, and never a part of them.
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink()
            raise
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write_temporary(self, content: bytes) -> Path:
        """Write a new file beside the real one, which nobody else could read at any moment."""
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
    """Hands a secret to a function, which is called again if it raises.

    :param take: the function.
    """

    is_readable = False

    def __init__(self, take: Callable[[SecretStr], object]) -> None:
        super().__init__(describe_function(take))
        self._take = take

    def _check_location(self) -> None:
        """What a function does is not known before it is called."""

    def _read(self) -> None:
        return None

    def _write(self, kept: StoredSecret) -> None:
        result = self._take(kept.signing_secret)
        if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
            if inspect.iscoroutine(result):
                # Python complains of one that is neither awaited nor closed.
                result.close()
            raise self.error(
                f"it gave back a {type(result).__name__}, which nobody runs here, so the secret is not kept. Give a "
                "function that has kept it when it returns."
            )


def describe_function(take: Callable[..., object]) -> str:
    """Name a function, for messages: a repr may show what it was bound to.

    :param take: the function, or what is called like one.
    :return: what it is, in words.
    """
    return f"function {getattr(take, '__qualname__', None) or type(take).__qualname__}"


def describe_hidden(given: object) -> str:
    """Describe a value without showing it, because a user may have given the secret instead of its place.

    :param given: the value.
    :return: its kind, in words.
    """
    if isinstance(given, str):
        return "a text that is not shown, because it may be the secret" if given else "an empty text"
    return f"a value of the type {type(given).__name__}"
