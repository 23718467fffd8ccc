"""What was started, in the order in which it came: each thing by its id, and all of them in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

from planasonix_provider.simulator.refusals import Refused


class Placed(Protocol):
    """What has an id and a place."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def position(self) -> int:
        """How many things came before it."""


T = TypeVar("T", bound=Placed)


class Shelf(Generic[T]):
    """Things of one kind.

    :param kind: what they are, as ``job``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._things: list[T] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        """How many things there are, which is the position of the next one."""
        return len(self._things)

    def add(self, thing: T) -> None:
        """Put a thing behind all others.

        :param thing: the thing.
        """
        self._places[thing.id] = len(self._things)
        self._things.append(thing)

    def replace(self, thing: T) -> None:
        """Put a thing in the place of the one with the same id.

        :param thing: the thing.
        """
        self._things[self._places[thing.id]] = thing

    def get(self, thing_id: str) -> T:
        """Find a thing.

        :param thing_id: its id.
        :return: the thing.
        :raises Refused: as ``not_found``, if there is none.
        """
        place = self._places.get(thing_id)
        if place is None:
            raise Refused("not_found", f"no {self._kind} {thing_id!r}")
        return self._things[place]

    def newest_first(self, before: int | None = None) -> Iterator[T]:
        """Give the things one by one.

        :param before: only those that came before this position; ``None`` is all.
        :return: the things, newest first.
        """
        newest = len(self._things) if before is None else min(before, len(self._things))
        return (self._things[place] for place in range(newest - 1, -1, -1))

    def page(self, wanted: Callable[[T], bool], *, limit: int, before: int | None = None) -> tuple[list[T], int | None]:
        """Give some of the things, newest first.

        :param wanted: whether a thing belongs to the list.
        :param limit: how many things a page holds.
        :param before: where the page before this one ended; ``None`` begins with the newest thing.
        :return: the things, and where the page ends, which is ``None`` if no more follow.
        """
        found = list(islice(filter(wanted, self.newest_first(before)), limit + 1))
        shown = found[:limit]
        return shown, shown[-1].position if len(found) > limit else None
