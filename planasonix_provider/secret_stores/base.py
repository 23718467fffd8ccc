"""The base class of all secret stores. It never overwrites the secret of another webhook and never shows a secret."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from errno import errorcode
from typing import TYPE_CHECKING, ClassVar, TypeVar

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.secret_stores.stored_secret import StoredSecret, mask

if TYPE_CHECKING:
    from pydantic import SecretStr

T = TypeVar("T")


class PlanasonixSecretError(PlanasonixError):
    """A signing secret cannot be stored, or was not stored."""

    kind = "secret"


class SecretStore(ABC):
    """Stores the signing secret of one webhook.

    :param description: names the store in messages: "Airflow variable 'x'".
    """

    #: Whether the stored secret can be read again.
    is_readable: ClassVar[bool] = True

    def __init__(self, description: str) -> None:
        self.description = description

    def __repr__(self) -> str:
        return f"<{self.description}>"

    # Airflow calls this method when it shows a task's parameters.
    serialize = __repr__

    def check_writable(self) -> None:
        """Raise an error if a secret cannot be stored here, or would overwrite something else. Sends no request.

        :raises PlanasonixSecretError: if the location does not exist, cannot be written, holds something other than a
            signing secret, is overridden by another source, or if Airflow would log the secret.
        """
        self._call("use", self._check_location, describe=_full_text)
        self.load()

    def load(self) -> StoredSecret | None:
        """Return the stored secrets and the webhook that they belong to; ``None`` if nothing is stored yet.

        :return: the stored secrets.
        :raises PlanasonixSecretError: if the location cannot be read, or holds something else.
        """
        stored = self._call("read", self._read, describe=_full_text)
        for secret in stored.secrets if stored else ():
            mask(secret)
        return stored

    def save(self, secret: SecretStr, *, webhook_id: str | None = None, instead_of: str | None = None) -> None:
        """Store a secret. The stored secret of the same webhook becomes the previous one.

        :param secret: the secret.
        :param webhook_id: the webhook that it belongs to.
        :param instead_of: a deleted webhook whose secret may be overwritten; default: none.
        :raises PlanasonixSecretError: if that fails, if the secret of another webhook was stored here in the
            meantime, or if Airflow would log the secret. The stored secrets are unchanged then.
        """
        mask(secret)
        write = self._merge_and_write
        self._call("write", lambda: write(secret, webhook_id, instead_of), describe=_text_without_secrets)

    def _merge_and_write(self, secret: SecretStr, webhook_id: str | None, instead_of: str | None) -> None:
        with self._locked():
            stored = self.load()
            if stored and stored.webhook_id not in (None, webhook_id, instead_of):
                raise self.taken_error(stored.webhook_id)
            self._write(stored.with_new_secret(secret, webhook_id) if stored else StoredSecret(webhook_id, secret))

    def _locked(self) -> AbstractContextManager[None]:
        """Lock the location, if it supports locks."""
        return nullcontext()

    @abstractmethod
    def _check_location(self) -> None:
        """Raise an error if no secret can be stored in this location."""

    @abstractmethod
    def _read(self) -> StoredSecret | None:
        """Return the stored secrets; raise an error if the location holds something else."""

    @abstractmethod
    def _write(self, stored: StoredSecret) -> None:
        """Store all of it or nothing."""

    def error(self, why: str) -> PlanasonixSecretError:
        """Return an error that says why no secret can be stored here.

        :param why: the reason, and what to do.
        :return: the error, to be raised.
        """
        return PlanasonixSecretError(f"No signing secret can be kept in {self.description}: {why}")

    def taken_error(self, webhook_id: str) -> PlanasonixSecretError:
        """Return an error that says that the secret of another webhook is stored here.

        :param webhook_id: the other webhook.
        :return: the error, to be raised.
        """
        return self.error(
            f"it holds the secret of webhook {webhook_id}, which would be lost. Name another place, or delete that "
            "webhook first."
        )

    def _parse(self, text: str) -> StoredSecret:
        if stored := StoredSecret.from_json(text):
            return stored
        raise self.error(
            "it holds something other than a stored signing secret, which would be lost. Name another place."
        )

    def _call(self, verb: str, function: Callable[[], T], *, describe: Callable[[Exception], str]) -> T:
        """Call a function, and replace its exceptions by one that names the store."""
        try:
            return function()
        except PlanasonixSecretError:
            raise
        except Exception as fault:
            problem = describe(fault)
        # Raised outside of the except block: a traceback would show the original exception too.
        raise PlanasonixSecretError(f"Cannot {verb} {self.description} ({problem}).")


def _full_text(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"


def _text_without_secrets(fault: Exception) -> str:
    """Describe an exception without its own text, which may contain the secret, escaped or in part."""
    number = fault.errno if isinstance(fault, OSError) else None
    if isinstance(number, int) and number in errorcode:
        return f"{type(fault).__name__}: {os.strerror(number)}"
    return f"{type(fault).__name__}, whose text is not shown, since it may hold the secret"
