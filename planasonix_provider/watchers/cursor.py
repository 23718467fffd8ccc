"""What one watcher knows of the jobs, or of the backfills: which of them it has told of, and which may still end.

It outlives the process that keeps it. Whatever of it is lost is told twice, and nothing is passed over. No I/O.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.waiting.targets import Work

#: How late a list may show what was created.
LATE = timedelta(minutes=5)
#: How many of what has ended, and of what has not, are kept for another process. What a store holds is to stay small:
#: Airflow's own complains from 64 kB on.
MOST_TOLD = 2_500
MOST_OPEN = 250


class CursorModel(BaseModel):
    """A ledger as it is kept.

    :param since: of what was created before, nothing is to be told but what is ``open``.
    :param open: when what may still end was created, by id.
    :param told: the marks of what was told of, by the whole seconds from ``since`` to when it was created.
    :param begins: of a watcher that had not looked through the lists yet, when it began.
    """

    model_config = ConfigDict(extra="forbid")

    watermark: AwareDatetime
    pending: dict[str, AwareDatetime]
    reported: dict[int, list[str]]
    baseline: AwareDatetime | None = None


class Cursor:
    """What a watcher knows.

    :param since: of what was created before, nothing is to be told but what is ``open``.
    :param opened: when what may still end was created, by id.
    :param told: when what was told of was created, by the marks of the ids.
    :param begins: of a new watcher, when it began: what had ended by then is none of its news. ``None`` once it has
        looked through the lists.
    :param needs_active: whether what has not ended is still to be added.
    """

    def __init__(
        self,
        since: datetime,
        opened: dict[str, datetime] | None = None,
        told: dict[str, datetime] | None = None,
        begins: datetime | None = None,
        needs_active: bool = False,
    ) -> None:
        self.watermark = since
        self.pending = opened or {}
        self.reported = told or {}
        self.baseline = begins
        self.needs_active = needs_active

    @classmethod
    def new(cls, begins: datetime, since: datetime, active: Iterable[Work]) -> Self:
        """Begin with what has not ended yet.

        :param begins: what was over and created before is past.
        :param since: from when on the lists are to be looked through.
        :param active: what has not ended.
        :return: the ledger.
        """
        return cls(since, {work.id: work.created_at or since for work in active}, begins=begins)

    def is_news(self, work: Work) -> bool:
        """Say whether something is still to be told of, now or once it has ended.

        :param work: what a list or a look has shown.
        :return: whether it is.
        """
        if work.id in self.pending:
            return True
        is_of_before = work.created_at is not None and work.created_at < self.watermark
        return not is_of_before and _mark(work.id) not in self.reported

    def has_told(self, work_id: str) -> bool:
        """Return whether a job or backfill was reported, or is not wanted.

        :param work_id: its id.
        :return: whether it was.
        """
        return _mark(work_id) in self.reported

    def is_past(self, work: Work) -> bool:
        """Say whether something had ended when the watcher began.

        :param work: what has ended, and is news by :meth:`is_news`.
        :return: whether it is none of the watcher's.
        """
        if self.baseline is None or work.id in self.pending:
            return False
        return work.created_at is None or work.created_at < self.baseline

    def add_pending(self, work: Work, now: datetime) -> None:
        """Take down what is to be told of once it has ended.

        :param work: what has not.
        :param now: the time, by the API's clock; stands for when it was created where nobody says.
        """
        self.pending.setdefault(work.id, work.created_at or now)

    def mark_reported(self, work: Work, now: datetime) -> None:
        """Take down what has ended, and was told of or is not wanted.

        :param work: what has ended.
        :param now: the time, by the API's clock.
        """
        expected = self.pending.pop(work.id, None)
        # When it was expected says nothing of how long lists show it.
        created = now if work.created_at is None else expected or work.created_at
        if created >= self.watermark:
            self.reported[_mark(work.id)] = created

    def forget(self, work_id: str) -> None:
        """Expect something no longer.

        :param work_id: its id.
        """
        self.pending.pop(work_id, None)

    def advance(self, until: datetime, listed: Mapping[str, datetime] | None = None) -> None:
        """Move on, once the lists have been looked through to their end.

        What is open and left behind costs a look by itself from then on, and what is not has the lists asked for all
        that came after it, whether anybody wants it or not: whatever takes fewer requests.

        :param until: when that was, by the API's clock.
        :param listed: when what the lists have shown was created, by id; default: what was told of.
        """
        self.baseline = None
        last = until - LATE
        shown = (
            self.reported if listed is None else {name: at for name, at in listed.items() if name not in self.pending}
        )
        entries = [(created, False) for created in shown.values() if created >= self.watermark]
        entries += [(created, True) for created in self.pending.values() if created >= self.watermark]
        entries.sort()
        bound, looks = min([last, *(created for created, _ in entries[:1])]), 0
        for number, (created, is_open) in enumerate(entries, 1):
            if created >= last:
                break
            looks += is_open
            if number >= PAGE_SIZE * looks:
                bound = min([last, *(created for created, _ in entries[number : number + 1])])
        self.watermark = max(self.watermark, bound, self._room_for_marks(last))
        self.reported = {mark: created for mark, created in self.reported.items() if created >= self.watermark}

    def _room_for_marks(self, last: datetime) -> datetime:
        """Say from when on there are no more marks than are kept: what has none there is told twice by who reads it."""
        marks = sorted(self.reported.values())
        first = bisect_right(marks, marks[-MOST_TOLD - 1]) if len(marks) > MOST_TOLD else 0
        bound = min([last, *marks[first : first + 1]]) if first else self.watermark
        leftover_note = sum(created < bound for created in self.pending.values())
        return bound if leftover_note <= MOST_OPEN else self.watermark

    def rewind(self, until: datetime) -> None:
        """Begin earlier, where the API's clock was set back.

        :param until: what it says now.
        """
        self.watermark = min(self.watermark, until - LATE)

    def to_json(self) -> dict[str, Any]:
        """Write it down.

        :return: the ledger in JSON types.
        """
        opened = sorted(self.pending.items(), key=lambda pair: pair[1])
        # What has no room is found in the lists again, by whoever reads this.
        since = min([self.watermark, *(created for _, created in opened[MOST_OPEN:])])
        told: defaultdict[int, list[str]] = defaultdict(list)
        for mark, created in sorted(self.reported.items(), key=lambda pair: pair[1])[-MOST_TOLD:]:
            told[int((created - since).total_seconds())].append(mark)
        kept = CursorModel(watermark=since, pending=dict(opened[:MOST_OPEN]), reported=told, baseline=self.baseline)
        return kept.model_dump(mode="json")

    @classmethod
    def from_json(cls, kept: Any) -> Self:
        """Read what was written down.

        :param kept: as :meth:`keep` has given it.
        :return: the ledger.
        :raises ValueError: if it is none.
        """
        known = CursorModel.model_validate(kept)
        try:
            # To the second, and late rather than early: a mark that stays for too long does no harm.
            told = {
                mark: known.watermark + timedelta(seconds=seconds + 1)
                for seconds, marks in known.reported.items()
                for mark in marks
            }
        except OverflowError as error:
            raise ValueError(f"told: {error}") from None
        return cls(known.watermark, dict(known.pending), told, known.baseline)


@lru_cache(maxsize=10_000)
def _mark(work_id: str) -> str:
    """Write an id short: that a further one has the mark of one of ten thousand has a chance of 1 in 10^15."""
    digest = hashlib.blake2b(work_id.encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
