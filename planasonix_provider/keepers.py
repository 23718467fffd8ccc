"""Where a webhook's signing secret is kept: an Airflow variable or connection, a file, or wherever a callable puts it.

What is kept says which subscription it is for, and holds the secret before the last one too: deliveries that are under
way while a secret is rotated may be signed with either. Light on purpose: a DAG file that names a webhook operator
imports this.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.parameters import refusal

if TYPE_CHECKING:
    from pydantic import SecretStr

T = TypeVar("T")

#: Where a secret is to go: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or what takes it.
Destination: TypeAlias = "str | Callable[[SecretStr], object] | Keeper"

ALLOWED = (
    "'variable:NAME', 'connection:CONN_ID', 'file:/absolute/path', or a function (not async) that takes the secret as "
    "its one argument"
)
_DESCRIPTION = "The signing secret of a Planasonix webhook; written by the Planasonix provider."

log = logging.getLogger(__name__)


class PlanasonixSecretError(PlanasonixError):
    """A signing secret cannot be, or was not, put where it is to be kept."""

    kind = "secret"


@dataclass(frozen=True)
class Kept:
    """What is kept.

    :param webhook_id: the subscription that the secret is for; ``None`` where nobody said.
    :param signing_secret: what its deliveries are signed with.
    :param previous: what they were signed with before that, where that is known.
    """

    webhook_id: str | None
    signing_secret: SecretStr
    previous: SecretStr | None = None

    @property
    def secrets(self) -> list[SecretStr]:
        """All secrets that a delivery may be signed with, the newest first."""
        return [self.signing_secret, *([self.previous] if self.previous else [])]

    def __getstate__(self) -> None:
        raise TypeError("What is kept holds secrets, so it is not pickled.")

    def followed_by(self, secret: SecretStr, webhook_id: str | None) -> Kept:
        """Put a newer secret before these; those of another subscription are of no use any more."""
        if self.webhook_id != webhook_id:
            return Kept(webhook_id, secret)
        return Kept(webhook_id, secret, self.previous if secret == self.signing_secret else self.signing_secret)


def keeper(to: Destination) -> Keeper:
    """Make what keeps a secret.

    :param to: where it is to go: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or a function that
        takes the secret.
    :return: what keeps it there.
    :raises ValueError: if it is none of these.
    """
    if isinstance(to, Keeper):
        return to
    if isinstance(to, str):
        form, _, name = to.partition(":")
        if form in _FORMS and name and name == name.strip() and name.isprintable():
            return _FORMS[form](name)
    elif _takes_a_secret(to):
        return CallableKeeper(to)
    # Somebody may have put the secret itself here.
    shown = "what looks like a secret" if isinstance(to, str) and "whsec_" in to else to
    raise refusal("secret_to", shown, ALLOWED)


class Keeper(ABC):
    """Keeps a secret in one place.

    :param describe: the place, for messages: "Airflow variable 'x'".
    """

    #: Whether it can be asked what it keeps.
    is_readable: ClassVar[bool] = True

    def __init__(self, describe: str) -> None:
        self.describe = describe

    def __repr__(self) -> str:
        return f"<{self.describe}>"

    # Airflow asks for it where it shows a task's parameters.
    serialize = __repr__

    def check(self) -> None:
        """Refuse, before anything is asked of Planasonix, what surely could not be kept, or would destroy something.

        :raises PlanasonixSecretError: if the place does not exist, cannot be written from here, holds something else
            than a signing secret, or if what is written there would not be read.
        """
        self._attempt("cannot be used", self._check_place)
        self.kept()

    def kept(self) -> Kept | None:
        """Read what is kept.

        :return: the secrets, and the subscription that they are for; ``None`` where there is nothing yet.
        :raises PlanasonixSecretError: if it cannot be read, or is something else.
        """
        kept = self._attempt("cannot be read", self._read)
        for secret in kept.secrets if kept else ():
            mask(secret)
        return kept

    def keep(self, secret: SecretStr, *, webhook_id: str | None = None) -> None:
        """Put a secret there, before the one that is there for the same subscription.

        :param secret: the secret.
        :param webhook_id: the subscription that it is for.
        :raises PlanasonixSecretError: if that fails; what was there before is there still.
        """
        mask(secret)
        before = self.kept()
        now = before.followed_by(secret, webhook_id) if before else Kept(webhook_id, secret)
        self._attempt("cannot be written", lambda: self._write(now), secrets=now.secrets)

    @abstractmethod
    def _check_place(self) -> None:
        """Refuse the place if nothing could be kept there."""

    @abstractmethod
    def _read(self) -> Kept | None:
        """Read what is kept; refuse what is something else."""

    @abstractmethod
    def _write(self, kept: Kept) -> None:
        """Put it there: all of it, or nothing."""

    def refuse(self, why: str) -> PlanasonixSecretError:
        """Say why the place will not do.

        :param why: what is wrong with it, and what to do.
        :return: the error, to be raised.
        """
        return PlanasonixSecretError(f"No signing secret can be kept in {self.describe}: {why}")

    def _attempt(self, failure: str, act: Callable[[], T], *, secrets: Iterable[SecretStr] = ()) -> T:
        """Do something whose errors may hold a secret, or nothing that a person could make use of."""
        try:
            return act()
        except PlanasonixSecretError:
            raise
        except Exception as fault:
            problem = without_secrets(f"{type(fault).__name__}: {fault}", secrets)
        # Not raised while the fault is handled: it would be shown beside the error.
        raise PlanasonixSecretError(f"{_capital(self.describe)} {failure} ({problem}).")


class VariableKeeper(Keeper):
    """Keeps a secret in an Airflow variable, as a JSON object.

    From Airflow 3 on, the UI and the REST API hide what stands in such an object as ``signing_secret``; Airflow 2 hides
    a variable only by its own name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"Airflow variable {name!r}")
        self.name = name

    def _check_place(self) -> None:
        if shadow := _shadow(lambda backend: backend.get_variable(key=self.name)):
            raise self.refuse(f"{shadow} has a variable of this name, which would be read in its stead. Name another.")
        if _is_task_without_database() and _logs_all():
            raise self.refuse(
                "while [logging] logging_level is DEBUG, Airflow 3 writes what a task puts into a variable to a log of "
                "its own. Take 'file:/absolute/path' or a function, or raise the level."
            )
        if _shows(self.name):
            log.warning(
                "%s: Airflow 2 shows what is in it, since its name holds no word such as 'secret'. Name another.",
                _capital(self.describe),
            )

    def _read(self) -> Kept | None:
        text = _variables().get(self.name, None)
        return None if text is None else _parsed(self, text)

    def _write(self, kept: Kept) -> None:
        _variables().set(self.name, _written(kept), description=_DESCRIPTION)


class ConnectionKeeper(Keeper):
    """Keeps a secret as the password of an Airflow connection that exists.

    The subscription and the secret before stand in its extra, as ``webhook_id`` and ``previous_signing_secret``.
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__(f"Airflow connection {conn_id!r}")
        self.conn_id = conn_id

    def _check_place(self) -> None:
        self._refuse_where_there_is_no_database()
        if shadow := _shadow(lambda backend: backend.get_conn_value(conn_id=self.conn_id)):
            raise self.refuse(f"{shadow} has a connection of this id, which would be read in its stead. Name another.")

    def _refuse_where_there_is_no_database(self) -> None:
        if _is_task_without_database():
            raise self.refuse(
                "a task of Airflow 3 cannot write connections. Take 'variable:NAME', 'file:/absolute/path' or a "
                "function, or do it outside of a task."
            )

    def _read(self) -> Kept | None:
        from airflow.utils.session import create_session
        from pydantic import SecretStr

        self._refuse_where_there_is_no_database()
        with create_session() as session:
            row = self._row(session)
            if row.conn_type == "planasonix":
                raise self.refuse("its password is an API key. Make a connection for the secret, of the type generic.")
            if not row.password:
                return None
            extra = row.extra_dejson
            if "webhook_id" not in extra:
                raise self.refuse("it has a password that is no signing secret, and would be lost. Name another.")
            previous = extra.get("previous_signing_secret")
            return Kept(extra["webhook_id"], SecretStr(row.password), SecretStr(previous) if previous else None)

    def _write(self, kept: Kept) -> None:
        from airflow.utils.session import create_session

        with create_session() as session:
            row = self._row(session)
            extra = {**row.extra_dejson, "webhook_id": kept.webhook_id}
            extra.pop("previous_signing_secret", None)
            if kept.previous:
                extra["previous_signing_secret"] = kept.previous.get_secret_value()
            row.password = kept.signing_secret.get_secret_value()
            row.extra = json.dumps(extra)

    def _row(self, session: Any) -> Any:
        from airflow.models.connection import Connection
        from sqlalchemy import select

        row = session.scalar(select(Connection).where(Connection.conn_id == self.conn_id))
        if row is None:
            raise self.refuse(
                f"there is no such connection. Make it with: airflow connections add {self.conn_id} --conn-type generic"
            )
        return row


class FileKeeper(Keeper):
    """Keeps a secret in a file, as a JSON object, that only its owner may read."""

    def __init__(self, path: str) -> None:
        if not os.path.isabs(path):  # noqa: PTH117 - a Path would swallow what is odd about it
            raise refusal("secret_to", f"file:{path}", "an absolute path behind 'file:'")
        super().__init__(f"file {path}")
        self.path = Path(path)

    def _check_place(self) -> None:
        if not self.path.parent.is_dir():
            raise self.refuse(f"there is no folder {self.path.parent}. Make it, for its owner alone (mode 0700).")
        self._temporary(b"").unlink()

    def _read(self) -> Kept | None:
        if (state := self._state()) is None:
            return None
        if not stat.S_ISREG(state.st_mode):
            raise self.refuse("it is a link, a folder or a device. Name the file itself.")
        if os.geteuid() not in (0, state.st_uid):
            raise self.refuse("it belongs to another user.")
        with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            text = file.read()
        return _parsed(self, text) if text.strip() else None

    def _write(self, kept: Kept) -> None:
        temporary = self._temporary(_written(kept).encode() + b"\n")
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

    def _state(self) -> os.stat_result | None:
        try:
            return self.path.lstat()
        except FileNotFoundError:
            return None

    def _temporary(self, content: bytes) -> Path:
        """Write a new file beside the real one, which nobody else could read at any moment."""
        path = self.path.with_name(f".{self.path.name}.{token_hex(4)}")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if (state := self._state()) and state.st_uid != os.geteuid():
                    os.fchown(descriptor, state.st_uid, state.st_gid)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            path.unlink()
            raise
        return path


class CallableKeeper(Keeper):
    """Hands a secret to a function, which is called again if it raises."""

    is_readable = False

    def __init__(self, take: Callable[[SecretStr], object]) -> None:
        # By its name alone: a repr may show what the function was bound to.
        name = getattr(take, "__qualname__", None) or type(take).__qualname__
        super().__init__(f"function {name}")
        self._take = take

    def _check_place(self) -> None:
        """What a function does is not known before it is called."""

    def _read(self) -> None:
        return None

    def _write(self, kept: Kept) -> None:
        self._take(kept.signing_secret)


_FORMS: dict[str, type[VariableKeeper | ConnectionKeeper | FileKeeper]] = {
    "variable": VariableKeeper,
    "connection": ConnectionKeeper,
    "file": FileKeeper,
}


def mask(secret: SecretStr) -> None:
    """Let Airflow replace a secret by asterisks in all that it logs from now on.

    :param secret: the secret.
    """
    from airflow.providers.common.compat.sdk import mask_secret

    mask_secret(secret.get_secret_value())


def without_secrets(text: str, secrets: Iterable[SecretStr]) -> str:
    """Take secrets out of a text that came from elsewhere.

    :param text: what is to be shown.
    :param secrets: what must not be shown.
    :return: the text, with asterisks where they were.
    """
    for secret in secrets:
        text = text.replace(secret.get_secret_value(), "***")
    return text


def _written(kept: Kept) -> str:
    fields = {"webhook_id": kept.webhook_id, "signing_secret": kept.signing_secret.get_secret_value()}
    if kept.previous:
        fields["previous_signing_secret"] = kept.previous.get_secret_value()
    return json.dumps(fields, indent=2)


def _parsed(place: Keeper, text: str) -> Kept:
    from pydantic import SecretStr

    try:
        fields = json.loads(text)
        webhook_id, secret = fields["webhook_id"], fields["signing_secret"]
        previous = fields.get("previous_signing_secret")
    except (ValueError, TypeError, KeyError, AttributeError):
        secret = None
    if secret and all(isinstance(value, str) for value in (webhook_id or "", secret, previous or "")):
        return Kept(webhook_id, SecretStr(secret), SecretStr(previous) if previous else None)
    raise place.refuse("what is there is no signing secret that was kept before, and would be lost. Name another.")


def _takes_a_secret(to: object) -> bool:
    """Say whether something can be called with a secret, and has kept it when it returns."""
    if not callable(to) or inspect.iscoroutinefunction(to):
        return False
    try:
        inspect.signature(to).bind("secret")
    except TypeError:
        return False
    except ValueError:
        # Not everything that is built in tells what it takes.
        pass
    return True


def _is_task_without_database() -> bool:
    """Say whether this is a task of Airflow 3, in the way that Airflow itself tells it."""
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _variables() -> Any:
    """Give the variables as they are reached from here: a task of Airflow 3 asks its API, all else the database."""
    if _is_task_without_database():
        from airflow.providers.common.compat.sdk import Variable
    else:
        from airflow.models.variable import Variable
    return Variable


def _shadow(find: Callable[[Any], Any]) -> str | None:
    """Name what Airflow asks before its own database, and what has an answer."""
    for backend in _secrets_backends():
        name = type(backend).__name__
        if name not in ("MetastoreBackend", "ExecutionAPISecretsBackend") and _answers(find, backend):
            is_environment = name == "EnvironmentVariablesBackend"
            return "the environment" if is_environment else f"the secrets backend {name}"
    return None


def _secrets_backends() -> Sequence[Any]:
    if _is_task_without_database():
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        return ensure_secrets_backend_loaded()
    from airflow.configuration import ensure_secrets_loaded

    return ensure_secrets_loaded()


def _answers(find: Callable[[Any], Any], backend: Any) -> bool:
    try:
        return find(backend) is not None
    except Exception:
        # As Airflow itself does: what cannot be asked now is passed over.
        log.info("The secrets backend %s gave no answer.", type(backend).__name__)
        return False


def _logs_all() -> bool:
    from airflow.providers.common.compat.sdk import conf

    return bool(conf.get("logging", "logging_level", fallback="INFO").upper() == "DEBUG")


def _shows(name: str) -> bool:
    """Say whether Airflow shows a variable by this name that holds a JSON object with a secret in it."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return False
    masker = import_module("airflow.utils.log.secrets_masker")
    return not masker.should_hide_value_for_key(name)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
