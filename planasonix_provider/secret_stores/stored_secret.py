"""What is kept of a webhook's signing secrets, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True)
class StoredSecret:
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

    def with_new_secret(self, secret: SecretStr, webhook_id: str | None) -> StoredSecret:
        """Put a newer secret before these; those of another subscription are of no use any more.

        :param secret: the newer secret.
        :param webhook_id: the subscription that it is for; ``None`` where nobody said.
        :return: what is to be kept then.
        """
        if self.webhook_id != webhook_id:
            return StoredSecret(webhook_id, secret)
        return StoredSecret(webhook_id, secret, self.previous if secret == self.signing_secret else self.signing_secret)

    def to_json(self) -> str:
        """Write it down, as a JSON object.

        :return: the text, with the secrets in the clear.
        """
        fields = {"webhook_id": self.webhook_id, "signing_secret": self.signing_secret.get_secret_value()}
        if self.previous:
            fields["previous_signing_secret"] = self.previous.get_secret_value()
        return json.dumps(fields, indent=2)

    @classmethod
    def from_json(cls, text: str) -> StoredSecret | None:
        """Read what was written down.

        :param text: the text.
        :return: what it says; ``None`` if it is something else.
        """
        from pydantic import SecretStr

        try:
            fields = json.loads(text)
            webhook_id, secret = fields["webhook_id"], fields["signing_secret"]
            previous = fields.get("previous_signing_secret")
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        if not secret or not all(isinstance(value, str) for value in (webhook_id or "", secret, previous or "")):
            return None
        return cls(webhook_id, SecretStr(secret), SecretStr(previous) if previous else None)


def mask(secret: SecretStr) -> None:
    """Let Airflow replace a secret by asterisks in all that it logs from now on.

    :param secret: the secret.
    """
    from airflow.providers.common.compat.sdk import mask_secret

    mask_secret(secret.get_secret_value())


def remove_secrets(text: str, secrets: Iterable[SecretStr]) -> str:
    """Take secrets out of a text that came from elsewhere.

    :param text: what is to be shown.
    :param secrets: what must not be shown.
    :return: the text, with asterisks where they were.
    """
    for secret in secrets:
        text = text.replace(secret.get_secret_value(), "***")
    return text
