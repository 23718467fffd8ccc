"""The state of one watcher for one kind of work: reported and pending items. No I/O.

The cursor outlives the process that saves it. Work whose mark is lost is reported twice; no work is skipped.
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

from pydantic import AwareDatetime, BaseModel

from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.waiting.targets import Work

#: How late a list may show new work.
MAX_LISTING_DELAY = timedelta(minutes=5)
#: How many reported and pending items are saved. A saved cursor must stay small: Airflow's asset state store logs a
#: warning above 64 kB.
MAX_REPORTED = 2_500
MAX_PENDING = 250


class CursorModel(BaseModel):
    """A saved cursor; ``reported`` has marks by the whole seconds from ``watermark`` to the creation time."""

    watermark: AwareDatetime
    pending: dict[str, AwareDatetime]
    reported: dict[int, list[str]]
    baseline: AwareDatetime | None = None


class Cursor:
    """The work that a watcher has reported, and has yet to report.

    :param watermark: work that was created earlier is not reported, unless it is pending.
    :param pending: creation times of work that may still end, by id.
    :param reported: creation times of reported work, by mark (a short hash of the id).
    :param baseline: when a new watcher started; work that had ended before is not reported. ``None`` once the watcher
        has scanned the lists.
    :param needs_active: whether the work that runs now must still be added to ``pending``.
    """

    def __init__(
        self,
        watermark: datetime,
        pending: dict[str, datetime] | None = None,
        reported: dict[str, datetime] | None = None,
        baseline: datetime | None = None,
        needs_active: bool = False,
    ) -> None:
        self.watermark = watermark
        self.pending = pending or {}
        self.reported = reported or {}
        self.baseline = baseline
        self.needs_active = needs_active

    @classmethod
    def new(cls, baseline: datetime, watermark: datetime, active: Iterable[Work]) -> Self:
        """Return the cursor of a new watcher, with the active work as pending."""
        return cls(watermark, {work.id: work.created_at or watermark for work in active}, baseline=baseline)

    def needs_report(self, work: Work) -> bool:
        """Return whether work must be reported, now or when it ends."""
        if work.id in self.pending:
            return True
        is_below_watermark = work.created_at is not None and work.created_at < self.watermark
        return not is_below_watermark and not self.is_reported(work.id)

    def is_reported(self, work_id: str) -> bool:
        """Return whether work was reported, or rejected by the filter."""
        return _mark(work_id) in self.reported

    def ended_before_baseline(self, work: Work) -> bool:
        """Return whether finished work had ended before the watcher started."""
        if self.baseline is None or work.id in self.pending:
            return False
        return work.created_at is None or work.created_at < self.baseline

    def add_pending(self, work: Work, now: datetime) -> None:
        """Record work to report when it ends; ``now`` is by the API's clock, and replaces an unknown creation time."""
        self.pending.setdefault(work.id, work.created_at or now)

    def mark_reported(self, work: Work, now: datetime) -> None:
        """Record finished work as reported or rejected; ``now`` as in :meth:`add_pending`."""
        pending_since = self.pending.pop(work.id, None)
        # Without created_at, lists may show the work for ever, so pending_since must not decide how old the mark is.
        created = now if work.created_at is None else pending_since or work.created_at
        if created >= self.watermark:
            self.reported[_mark(work.id)] = created

    def discard(self, work_id: str) -> None:
        """Remove pending work that will not be reported."""
        self.pending.pop(work_id, None)

    def advance(self, until: datetime, listed: Mapping[str, datetime] | None = None) -> None:
        """Move the watermark forward after a complete scan.

        Moving the watermark past pending work costs one request per item and poll. Not moving it makes every poll list
        everything that was created since. This picks whichever needs fewer requests.

        :param until: when the scan started, by the API's clock.
        :param listed: creation times of the work in the lists, by id; default: of the reported work.
        """
        self.baseline = None
        last = until - MAX_LISTING_DELAY
        shown = (
            self.reported if listed is None else {name: at for name, at in listed.items() if name not in self.pending}
        )
        entries = [(created, False) for created in shown.values() if created >= self.watermark]
        entries += [(created, True) for created in self.pending.values() if created >= self.watermark]
        entries.sort()
        bound, pending_count = min([last, *(created for created, _ in entries[:1])]), 0
        for number, (created, is_pending) in enumerate(entries, 1):
            if created >= last:
                break
            pending_count += is_pending
            if number >= PAGE_SIZE * pending_count:
                bound = min([last, *(created for created, _ in entries[number : number + 1])])
        self.watermark = max(self.watermark, bound, self._watermark_for_max_reported(last))
        self.reported = {mark: created for mark, created in self.reported.items() if created >= self.watermark}

    def _watermark_for_max_reported(self, last: datetime) -> datetime:
        """Return the earliest watermark that leaves at most ``MAX_REPORTED`` marks: more would not be saved."""
        marks = sorted(self.reported.values())
        first = bisect_right(marks, marks[-MAX_REPORTED - 1]) if len(marks) > MAX_REPORTED else 0
        bound = min([last, *marks[first : first + 1]]) if first else self.watermark
        pending_count = sum(created < bound for created in self.pending.values())
        return bound if pending_count <= MAX_PENDING else self.watermark

    def rewind(self, until: datetime) -> None:
        """Move the watermark back, because the API's clock was set back to ``until``."""
        self.watermark = min(self.watermark, until - MAX_LISTING_DELAY)

    def to_json(self) -> dict[str, Any]:
        """Return the cursor in JSON types."""
        pending = sorted(self.pending.items(), key=lambda pair: pair[1])
        # With an earlier watermark, the lists contain the pending work that is not saved.
        watermark = min([self.watermark, *(created for _, created in pending[MAX_PENDING:])])
        reported: defaultdict[int, list[str]] = defaultdict(list)
        for mark, created in sorted(self.reported.items(), key=lambda pair: pair[1])[-MAX_REPORTED:]:
            reported[int((created - watermark).total_seconds())].append(mark)
        model = CursorModel(
            watermark=watermark, pending=dict(pending[:MAX_PENDING]), reported=reported, baseline=self.baseline
        )
        return model.model_dump(mode="json")

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        """Return the cursor that :meth:`to_json` has saved.

        :raises ValueError: if it is damaged.
        """
        model = CursorModel.model_validate(saved)
        try:
            # Rounded up to the next second: a mark that stays for too long does no harm.
            reported = {
                mark: model.watermark + timedelta(seconds=seconds + 1)
                for seconds, marks in model.reported.items()
                for mark in marks
            }
        except OverflowError as error:
            raise ValueError(f"reported: {error}") from None
        return cls(model.watermark, dict(model.pending), reported, model.baseline)


@lru_cache(maxsize=10_000)
def _mark(work_id: str) -> str:
    """Return a short hash of an id; the chance that a new id collides with one of ten thousand is 1 in 10^15."""
    digest = hashlib.blake2b(work_id.encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
