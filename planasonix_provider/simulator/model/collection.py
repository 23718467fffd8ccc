"""What was started, in the order in which it came: each thing by its id, and all of them in pages."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from planasonix_provider.simulator.model.api_errors import ApiError


class Positioned(Protocol):
    """What has an id and a place."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def position(self) -> int:
        """How many things came before it."""


T = TypeVar("T", bound=Positioned)


class Collection(Generic[T]):
    """Things of one kind. A thing keeps its position when others are removed, so a page ends where it ended.

    :param kind: what they are, as ``job``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._by_id: dict[str, T] = {}
        self._by_position: dict[int, T] = {}
        self._positions: list[int] = []
        #: The position of the thing that comes next.
        self.next_position = 0

    def add(self, thing: T) -> None:
        """Put a thing behind all others.

        :param thing: the thing, whose position is :attr:`next_position`.
        """
        self._put(thing)
        self._positions.append(thing.position)
        self.next_position += 1

    def remove(self, thing: T) -> None:
        """Take a thing away.

        :param thing: the thing.
        """
        del self._by_id[thing.id], self._by_position[thing.position]
        del self._positions[bisect_left(self._positions, thing.position)]

    def get(self, thing_id: str) -> T:
        """Find a thing.

        :param thing_id: its id.
        :return: the thing.
        :raises Refused: as ``not_found``, if there is none.
        """
        thing = self._by_id.get(thing_id)
        if thing is None:
            raise ApiError("not_found", f"no {self._kind} {thing_id!r}")
        return thing

    def newest_first(self, before: int | None = None) -> Iterator[T]:
        """Give the things one by one.

        :param before: only those that came before this position; ``None`` is all.
        :return: the things, newest first.
        """
        return self._newest_first(self._positions, before)

    def page(self, wanted: Callable[[T], bool], *, limit: int, before: int | None = None) -> tuple[list[T], int | None]:
        """Give some of the things, newest first.

        :param wanted: whether a thing belongs to the list.
        :param limit: how many things a page holds.
        :param before: where the page before this one ended; ``None`` begins with the newest thing.
        :return: the things, and where the page ends, which is ``None`` if no more follow.
        """
        return page_of(filter(wanted, self.newest_first(before)), limit)

    def _put(self, thing: T) -> None:
        self._by_id[thing.id] = self._by_position[thing.position] = thing

    def _newest_first(self, positions: Sequence[int], before: int | None) -> Iterator[T]:
        newest = len(positions) if before is None else bisect_left(positions, before)
        return (self._by_position[positions[place]] for place in range(newest - 1, -1, -1))


def page_of(things: Iterator[T], limit: int) -> tuple[list[T], int | None]:
    """Give the first of some things.

    :param things: the things, newest first.
    :param limit: how many things a page holds.
    :return: the page, and where it ends, which is ``None`` if no more follow.
    """
    found = list(islice(things, limit + 1))
    shown = found[:limit]
    return shown, shown[-1].position if len(found) > limit else None
