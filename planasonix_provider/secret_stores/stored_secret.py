"""The stored form of a webhook's signing secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True)
class StoredSecret:
    """The signing secrets of one webhook.

    :param webhook_id: the webhook; ``None`` if it is unknown.
    :param signing_secret: the secret that signs its deliveries.
    :param previous: the secret before the last rotation, if it is known.
    """

    webhook_id: str | None
    signing_secret: SecretStr
    previous: SecretStr | None = None

    @property
    def secrets(self) -> list[SecretStr]:
        """All secrets that a delivery may be signed with, newest first."""
        return [self.signing_secret, *([self.previous] if self.previous else [])]

    def __getstate__(self) -> None:
        raise TypeError("A StoredSecret holds secrets, so it is not pickled.")

    def with_new_secret(self, secret: SecretStr, webhook_id: str | None) -> StoredSecret:
        """Return a copy with a newer secret. It drops the secrets of another webhook, which are useless."""
        if self.webhook_id != webhook_id:
            return StoredSecret(webhook_id, secret)
        return StoredSecret(webhook_id, secret, self.previous if secret == self.signing_secret else self.signing_secret)

    def to_json(self) -> str:
        """Return a JSON object with the secrets in clear text."""
        fields = {"webhook_id": self.webhook_id, "signing_secret": self.signing_secret.get_secret_value()}
        if self.previous:
            fields["previous_signing_secret"] = self.previous.get_secret_value()
        return json.dumps(fields, indent=2)

    @classmethod
    def from_json(cls, text: str) -> StoredSecret | None:
        """Parse the output of :meth:`to_json`; return ``None`` for any other text."""
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
    """Make Airflow replace a secret by asterisks in its logs from now on."""
    from airflow.providers.common.compat.sdk import mask_secret

    mask_secret(secret.get_secret_value())


def remove_secrets(text: str, secrets: Iterable[SecretStr]) -> str:
    """Return a text, such as a server's response, with asterisks in place of the secrets."""
    for secret in secrets:
        text = text.replace(secret.get_secret_value(), "***")
    return text
