"""Where a webhook's signing secret is kept: an Airflow variable or connection, a file, or wherever a callable puts it.

What is kept says which subscription it is for, and holds the secret before the last one too: deliveries that are under
way while a secret is rotated may be signed with either. Light on purpose: a DAG file that names a webhook operator
imports this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from planasonix_provider.secret_stores.base import PlanasonixSecretError, SecretStore
from planasonix_provider.secret_stores.stored_secret import StoredSecret, mask, remove_secrets
from planasonix_provider.secret_stores.stores import (
    CallableSecretStore,
    ConnectionSecretStore,
    FileSecretStore,
    VariableSecretStore,
    describe_function,
    describe_hidden,
)

if TYPE_CHECKING:
    from pydantic import SecretStr

__all__ = [
    "Destination",
    "PlanasonixSecretError",
    "SecretStore",
    "StoredSecret",
    "describe_hidden",
    "mask",
    "remove_secrets",
    "secret_store",
]

#: Where a secret is to go: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or what takes it.
Destination: TypeAlias = "str | Callable[[SecretStr], object] | SecretStore"

ALLOWED = (
    "'variable:NAME', 'connection:CONN_ID', 'file:/absolute/path', or a function (not async) that takes the secret as "
    "its one argument"
)
_STORES: dict[str, type[VariableSecretStore | ConnectionSecretStore | FileSecretStore]] = {
    "variable": VariableSecretStore,
    "connection": ConnectionSecretStore,
    "file": FileSecretStore,
}


def secret_store(to: Destination) -> SecretStore:
    """Make what keeps a secret.

    :param to: where it is to go: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or a function that
        takes the secret.
    :return: what keeps it there.
    :raises ValueError: if it is none of these.
    """
    if isinstance(to, SecretStore):
        return to
    if isinstance(to, str):
        form, _, name = to.partition(":")
        if form in _STORES and name and name == name.strip() and name.isprintable():
            return _STORES[form](name)
    elif _accepts_secret(to):
        return CallableSecretStore(to)
    raise ValueError(f"secret_to: got {_describe_destination(to)}, allowed is {ALLOWED}.")


def _accepts_secret(to: object) -> bool:
    """Say whether something can be called with a secret, and has kept it when it returns."""
    if not callable(to) or inspect.iscoroutinefunction(to) or inspect.iscoroutinefunction(type(to).__call__):
        return False
    try:
        inspect.signature(to).bind("secret")
    except TypeError:
        return False
    except ValueError:
        # Not everything that is built in tells what it takes.
        pass
    return True


def _describe_destination(to: object) -> str:
    return repr(describe_function(to)) if callable(to) else describe_hidden(to)
