"""Stores for webhook signing secrets: an Airflow variable, an Airflow connection, a file, or a function of yours.

A store also keeps the previous secret, because deliveries that are in flight during a rotation may be signed with
either. DAG files that use the webhook operator import this package, so importing it must stay light.
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

#: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, a function that takes the secret, or a store.
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
    """Return the store for a destination.

    :param to: ``variable:NAME``, ``connection:CONN_ID``, ``file:/absolute/path``, or a function that takes the secret.
    :return: the store; a store is returned unchanged.
    :raises ValueError: if the destination is invalid.
    """
    if isinstance(to, SecretStore):
        return to
    if isinstance(to, str):
        kind, _, name = to.partition(":")
        if kind in _STORES and name and name == name.strip() and name.isprintable():
            return _STORES[kind](name)
    elif _accepts_secret(to):
        return CallableSecretStore(to)
    shown = repr(describe_function(to)) if callable(to) else describe_hidden(to)
    raise ValueError(f"secret_to: got {shown}, allowed is {ALLOWED}.")


def _accepts_secret(to: object) -> bool:
    """Return whether an object can be called with one argument and is not asynchronous."""
    if not callable(to) or inspect.iscoroutinefunction(to) or inspect.iscoroutinefunction(type(to).__call__):
        return False
    try:
        inspect.signature(to).bind("secret")
    except TypeError:
        return False
    except ValueError:
        # Some built-in functions have no signature.
        pass
    return True
