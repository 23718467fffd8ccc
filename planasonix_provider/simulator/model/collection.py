"""Jobs, backfills, webhooks or deliveries in the order in which they were added, by id and in pages."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from planasonix_provider.simulator.model.api_errors import ApiError


class Positioned(Protocol):
    """An item with an id and a position: how many items were added before it."""

    @property
    def id(self) -> str: ...

    @property
    def position(self) -> int: ...


T = TypeVar("T", bound=Positioned)


class Collection(Generic[T]):
    """Items of one kind. An item keeps its position when others are removed, so cursors stay valid.

    :param kind: the name of an item in error messages, such as ``job``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._by_id: dict[str, T] = {}
        self._by_position: dict[int, T] = {}
        self._positions: list[int] = []
        self.next_position = 0

    def add(self, item: T) -> None:
        """Add an item whose position is :attr:`next_position`."""
        self._put(item)
        self._positions.append(item.position)
        self.next_position += 1

    def remove(self, item: T) -> None:
        del self._by_id[item.id], self._by_position[item.position]
        del self._positions[bisect_left(self._positions, item.position)]

    def get(self, item_id: str) -> T:
        """Return an item, or raise ``not_found``."""
        item = self._by_id.get(item_id)
        if item is None:
            raise ApiError("not_found", f"no {self._kind} {item_id!r}")
        return item

    def newest_first(self, before: int | None = None) -> Iterator[T]:
        """Return the items, newest first; with ``before`` only those below this position."""
        return self._newest_first(self._positions, before)

    def page(
        self, matches: Callable[[T], bool], *, limit: int, before: int | None = None
    ) -> tuple[list[T], int | None]:
        """Return the next page of the items that match, as :func:`take_page`."""
        return take_page(filter(matches, self.newest_first(before)), limit)

    def _put(self, item: T) -> None:
        self._by_id[item.id] = self._by_position[item.position] = item

    def _newest_first(self, positions: Sequence[int], before: int | None) -> Iterator[T]:
        end = len(positions) if before is None else bisect_left(positions, before)
        return (self._by_position[positions[index]] for index in range(end - 1, -1, -1))


def take_page(items: Iterator[T], limit: int) -> tuple[list[T], int | None]:
    """Return up to ``limit`` items and the position of the last one, or ``None`` if no more follow."""
    found = list(islice(items, limit + 1))
    page = found[:limit]
    return page, page[-1].position if len(found) > limit else None
