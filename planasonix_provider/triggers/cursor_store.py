"""Where a watcher's cursor outlives the triggerer: in the state of its assets, and before Airflow 3.3 in a variable."""

from __future__ import annotations

import json
from typing import Any, Protocol

from airflow.providers.common.compat.sdk import AirflowException
from asgiref.sync import sync_to_async

from planasonix_provider.airflow_compat import variables
from planasonix_provider.hooks.shield import shielded

_DESCRIPTION = "Up to where a watcher of the Planasonix provider has told what has ended. Delete it to start anew."


class CursorStore(Protocol):
    """What outlives a triggerer."""

    async def read(self) -> list[Any]:
        """Give what is kept, in each place that has something."""

    async def write(self, value: Any) -> None:
        """Keep it; it is there when this returns."""


class AssetCursorStore:
    """The state of the assets that a watcher feeds, from Airflow 3.3 on. Each of them has all that is needed.

    :param store: gives the state of each asset; Airflow hands it to the trigger.
    :param key: what the cursor is called among the state of an asset.
    """

    def __init__(self, store: Any, key: str) -> None:
        # By itself it serves a single asset only, and whoever shares a watcher is not named otherwise.
        by_name = {**getattr(store, "_by_name", {}), **getattr(store, "_by_uri", {})}
        #: The names of the assets, or their URIs, as far as Airflow gives them.
        self.names = list(by_name)
        self._assets = list(by_name.values()) or [store]
        self._key = key

    async def read(self) -> list[Any]:
        """Read the state of each asset.

        :return: what is there.
        """
        kept = [await asset.aget(self._key, None) for asset in self._assets]
        return [value for value in kept if value is not None]

    async def write(self, value: Any) -> None:
        """Write the state of each asset.

        :param value: in JSON types.
        """
        for asset in self._assets:
            await asset.aset(self._key, value)


class VariableCursorStore:
    """An Airflow variable. Its writer asks twice before, so that a triggerer has stored what it was handed before.

    :param name: what the variable is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    async def read(self) -> list[Any]:
        """Read the variable.

        :return: what is there; a damaged one as its text.
        """
        text = await self._get()
        if text is None:
            return []
        try:
            return [json.loads(text)]
        except ValueError:
            return [text]

    async def write(self, value: Any) -> None:
        """Write the variable.

        :param value: in JSON types.
        :raises AirflowException: if it is not there afterwards; Airflow 3 only logs why.
        """
        text = json.dumps(value)
        await self._get()
        await shielded(sync_to_async(variables().set)(self._name, text, description=_DESCRIPTION))
        if await self._get() != text:
            raise AirflowException(
                f"Airflow variable {self._name!r} could not be written. If it stays, look at the health of Airflow's "
                "API server and database."
            )

    async def _get(self) -> str | None:
        text: str | None = await shielded(sync_to_async(variables().get)(self._name, None))
        return text
