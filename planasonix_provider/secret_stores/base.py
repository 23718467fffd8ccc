"""What all places that keep a signing secret have in common: look first, lose nothing, show nothing."""

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
    """A signing secret cannot be, or was not, put where it is to be kept."""

    kind = "secret"


class SecretStore(ABC):
    """Keeps a secret in one place.

    :param describe: the place, for messages: "Airflow variable 'x'".
    """

    #: Whether it can be asked what it keeps.
    is_readable: ClassVar[bool] = True

    def __init__(self, describe: str) -> None:
        self.description = describe

    def __repr__(self) -> str:
        return f"<{self.description}>"

    # Airflow asks for it where it shows a task's parameters.
    serialize = __repr__

    def check_writable(self) -> None:
        """Refuse, before anything is asked of Planasonix, what surely could not be kept, or would destroy something.

        :raises PlanasonixSecretError: if the place does not exist, cannot be written from here, holds something else
            than a signing secret, or if what is written there would not be read.
        """
        self._call("cannot be used", self._check_location, shown=_full_text)
        self.load()

    def load(self) -> StoredSecret | None:
        """Read what is kept.

        :return: the secrets, and the subscription that they are for; ``None`` where there is nothing yet.
        :raises PlanasonixSecretError: if it cannot be read, or is something else.
        """
        kept = self._call("cannot be read", self._read, shown=_full_text)
        for secret in kept.secrets if kept else ():
            mask(secret)
        return kept

    def save(self, secret: SecretStr, *, webhook_id: str | None = None, instead_of: str | None = None) -> None:
        """Put a secret there, before the one that is there for the same subscription.

        :param secret: the secret.
        :param webhook_id: the subscription that it is for.
        :param instead_of: another subscription whose secret may be lost, as it is gone; default: none.
        :raises PlanasonixSecretError: if that fails, or if the secret of another subscription has come there in the
            meantime; what was there before is there still.
        """
        mask(secret)
        self._call(
            "cannot be written",
            lambda: self._merge_and_write(secret, webhook_id, instead_of),
            shown=_text_without_secrets,
        )

    def _merge_and_write(self, secret: SecretStr, webhook_id: str | None, instead_of: str | None) -> None:
        with self._locked():
            before = self.load()
            if before and before.webhook_id not in (None, webhook_id, instead_of):
                raise self.taken_error(before.webhook_id)
            self._write(before.with_new_secret(secret, webhook_id) if before else StoredSecret(webhook_id, secret))

    def _locked(self) -> AbstractContextManager[None]:
        """Let nobody else keep anything there, where the place can do that."""
        return nullcontext()

    @abstractmethod
    def _check_location(self) -> None:
        """Refuse the place if nothing could be kept there."""

    @abstractmethod
    def _read(self) -> StoredSecret | None:
        """Read what is kept; refuse what is something else."""

    @abstractmethod
    def _write(self, kept: StoredSecret) -> None:
        """Put it there: all of it, or nothing."""

    def error(self, why: str) -> PlanasonixSecretError:
        """Say why the place will not do.

        :param why: what is wrong with it, and what to do.
        :return: the error, to be raised.
        """
        return PlanasonixSecretError(f"No signing secret can be kept in {self.description}: {why}")

    def taken_error(self, by: str) -> PlanasonixSecretError:
        """Say that the place holds what must not be lost.

        :param by: the subscription whose secret is there.
        :return: the error, to be raised.
        """
        return self.error(
            f"it holds the secret of webhook {by}, which would be lost. Name another place, or delete that webhook "
            "first."
        )

    def _parse(self, text: str) -> StoredSecret:
        if kept := StoredSecret.from_json(text):
            return kept
        raise self.error(
            "what is there is not a signing secret that was kept before, and would be lost. Name another place."
        )

    def _call(self, failure: str, act: Callable[[], T], *, shown: Callable[[Exception], str]) -> T:
        """Do something whose errors a person could make nothing of, or must not see."""
        try:
            return act()
        except PlanasonixSecretError:
            raise
        except Exception as fault:
            problem = shown(fault)
        # Not raised while the fault is handled: it would be shown beside the error.
        raise PlanasonixSecretError(f"{capital(self.description)} {failure} ({problem}).")


def capital(text: str) -> str:
    """Begin a sentence.

    :param text: its text.
    :return: the text with a capital letter.
    """
    return text[:1].upper() + text[1:]


def _full_text(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"


def _text_without_secrets(fault: Exception) -> str:
    """Say what went wrong while secrets were written: a text may hold them in whatever form, or a part of them."""
    number = fault.errno if isinstance(fault, OSError) else None
    if isinstance(number, int) and number in errorcode:
        return f"{type(fault).__name__}: {os.strerror(number)}"
    return f"{type(fault).__name__}, whose text is not shown, since it may hold the secret"
