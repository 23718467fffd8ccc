"""Calls an action for the records of each Airflow connection, for all connections at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.hooks.connection_lookup import public_message
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.waiting.shared_client import SharedClient

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

NO_ANSWER = "Planasonix does not answer in time."


async def for_each_connection(
    items: Sequence[T],
    conn_id_of: Callable[[T], str],
    action: Callable[[SharedClient, Sequence[T]], Awaitable[R]],
) -> list[tuple[Sequence[T], R | str]]:
    """Call an action for the items of each Airflow connection. Return its result, or the message of its error."""
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[conn_id_of(item)].append(item)

    async def act(conn_id: str, some: Sequence[T]) -> tuple[Sequence[T], R | str]:
        try:
            async with SharedClient(PlanasonixHook(conn_id).async_client) as client:
                return some, await action(client, some)
        except PlanasonixError as error:
            return some, public_message(error)
        except TimeoutError:
            return some, NO_ANSWER
        except Exception as error:
            # Airflow's database may be away. That must not hide what the other connections have done.
            log.warning("The records of Airflow connection %r cannot be handled.", conn_id, exc_info=True)
            return some, f"{type(error).__name__}, see the log."

    return await asyncio.gather(*(act(conn_id, some) for conn_id, some in groups.items()))
