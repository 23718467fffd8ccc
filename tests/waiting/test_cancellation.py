from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from planasonix_provider.api.errors import PlanasonixError, PlanasonixPermissionError, PlanasonixTransportError
from planasonix_provider.api.models import Backfill, Job
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.cancellation import CANCEL_TIMEOUT_SECONDS, cancel
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, WaitTarget
from tests.support.api_errors import api_error
from tests.support.memory_api import MemoryApi, fail_always, fail_once

DOWN = api_error(503)
FORBIDDEN = api_error(403)


@dataclass
class Api(MemoryApi):
    """An API with a backfill that is over when its jobs are over; each poll creates one job of ``coming``.

    :param shows_jobs: whether the backfill contains the ids of its jobs.
    """

    coming: list[str] = field(default_factory=list)
    shows_jobs: bool = True
    ends: bool = True

    def get_backfill(self, backfill_id: str) -> Backfill:
        if self.coming:
            self.jobs.insert(0, Job(id=self.coming.pop(0), status="running"))
            over = False
        else:
            over = self.ends and all(job.is_over for job in self.jobs)
        return Backfill(id=backfill_id, status="cancelled" if over else "running", job_ids=self.ids)

    @property
    def ids(self) -> list[str] | None:
        """The ids of all jobs, oldest first."""
        return [job.id for job in reversed(self.jobs)] if self.shows_jobs else None

    @property
    def cancels(self) -> list[str]:
        return [asked.removeprefix("cancel ") for asked in self.requests if asked.startswith("cancel")]

    @property
    def states(self) -> set[str]:
        return {job.status for job in self.jobs}


def api(*states: str, **fields: Any) -> Api:
    """Return an API with a backfill whose jobs have these states, oldest first."""
    return Api([Job(id=f"job_{number}", status=status) for number, status in enumerate(states)][::-1], **fields)


def cancel_backfill(there: Api, job_ids: Sequence[str] = (), **arguments: Any) -> tuple[Any, float]:
    """Cancel the backfill; return the result, and the seconds that it took."""

    async def main() -> tuple[Any, float]:
        work: Any
        try:
            work = await cancel(there.send_async, BackfillTarget("bf_1"), job_ids, **arguments)
        except PlanasonixError as error:
            work = error
        return work, asyncio.get_running_loop().time()

    return TravelledClock().run(main())


class TestAJob:
    def cancel(self, there: MemoryApi) -> Any:
        return TravelledClock().run(cancel(there.send_async, JobTarget("job_1")))

    def test_takes_one_request_if_it_is_cancelling(self) -> None:
        there = MemoryApi([Job(id="job_1", status="running")])
        there.cancel_job = lambda job_id: there.set_status(job_id, "cancelling")
        assert self.cancel(there).status == "cancelling"
        assert there.requests == ["cancel job_1"]

    def test_that_is_over_is_returned_with_all_fields(self) -> None:
        whole = Job(id="job_1", status="failed", error={"code": "source_unreachable"})
        there = MemoryApi([whole])
        there.cancel_job = lambda job_id: Job(id=job_id, status="failed")
        assert self.cancel(there) == whole

    def test_that_cannot_be_cancelled_is_an_error(self) -> None:
        with pytest.raises(PlanasonixPermissionError):
            self.cancel(MemoryApi([Job(id="job_1", status="running")], get_error=fail_always("cancel", FORBIDDEN)))


def test_the_jobs_of_a_backfill_are_cancelled_until_it_is_over() -> None:
    there = api("succeeded", "running", "queued")
    backfill, seconds = cancel_backfill(there)
    assert backfill.status == "cancelled"
    assert there.states == {"succeeded", "cancelled"}
    assert seconds < 3


def test_known_jobs_are_cancelled_before_the_first_poll() -> None:
    there = api("running", "running", "running")
    cancel_backfill(there, ["job_0", "job_1"])
    assert set(there.requests[:2]) == {"cancel job_0", "cancel job_1"}
    assert there.requests[2:] == ["get bf_1", "cancel job_2", "get bf_1"]


def test_jobs_that_appear_later_are_cancelled_and_no_job_twice() -> None:
    there = api("running", coming=["late_1", "late_2", "late_3"])
    backfill, _ = cancel_backfill(there, ["job_0"])
    assert backfill.is_over
    assert there.cancels == ["job_0", "late_1", "late_2", "late_3"]


def test_a_finished_backfill_is_only_polled() -> None:
    there = api("succeeded", "succeeded")
    backfill, seconds = cancel_backfill(there)
    assert backfill.is_over
    assert there.requests == ["get bf_1"]
    assert seconds < 1


def test_a_failed_cancel_does_not_matter_if_the_backfill_is_over() -> None:
    there = api("succeeded", get_error=fail_always("cancel", DOWN))
    backfill, _ = cancel_backfill(there, ["job_0"])
    assert backfill.is_over


def test_the_newest_jobs_are_cancelled_first() -> None:
    there = api(*["running"] * 60)
    cancel_backfill(there)
    numbers = [int(job_id.removeprefix("job_")) for job_id in there.cancels]
    assert sorted(numbers) == list(range(60))
    assert numbers == sorted(numbers, reverse=True)


def test_five_jobs_are_cancelled_at_a_time() -> None:
    there = api(*["running"] * 60)
    _, seconds = cancel_backfill(there, max_seconds=0)
    assert there.most_in_flight == 5
    assert seconds == pytest.approx(12 * 0.01 + 0.01 + 2 * 0.01), "the cancels, a poll, and two lists of active jobs"


@pytest.mark.parametrize("known", [False, True])
def test_finished_jobs_among_thousands_are_not_requested(known: bool) -> None:
    there = api(*["succeeded", "failed"] * 2_490, *["running"] * 20)
    backfill, _ = cancel_backfill(there, (there.ids or []) if known else [])
    assert backfill.is_over
    assert there.states == {"succeeded", "failed", "cancelled"}
    assert len(there.requests) < 60


@pytest.mark.heavy
def test_no_job_is_cancelled_twice_while_a_backfill_does_not_end() -> None:
    there = api(*["succeeded"] * 5_000, ends=False)
    cancel_backfill(there, max_seconds=20)
    assert len(there.cancels) == len(set(there.cancels)) <= 11 * 25


def test_a_running_job_is_found_after_many_finished_ones() -> None:
    there = api("running", *["succeeded"] * 100)
    backfill, seconds = cancel_backfill(there)
    assert backfill.is_over
    assert there.states == {"succeeded", "cancelled"}
    assert seconds < 3


def test_jobs_that_were_cancelled_before_do_not_hide_a_running_one() -> None:
    there = api("running", *["cancelled"] * 100)
    cancel_backfill(there, max_seconds=0)
    assert there.states == {"cancelled"}


@pytest.mark.heavy
def test_thousands_of_queued_jobs_are_cancelled_in_one_pass() -> None:
    there = api(*["queued"] * 5_000)
    # The default searches the whole list for each of the five thousand jobs, which is slow.
    index = {job.id: position for position, job in enumerate(there.jobs)}

    def cancel_fast(job_id: str) -> Job:
        there.jobs[index[job_id]] = Job(id=job_id, status="cancelled")
        return there.jobs[index[job_id]]

    there.cancel_job = cancel_fast
    _, seconds = cancel_backfill(there, max_seconds=0)
    assert there.states == {"cancelled"}
    assert seconds < 11


def test_a_cancel_with_a_transient_error_is_repeated_with_the_next_poll() -> None:
    there = api("running", "running", get_error=fail_once("cancel job_0", DOWN))
    backfill, seconds = cancel_backfill(there)
    assert backfill.is_over
    assert there.cancels == ["job_1", "job_0", "job_0"]
    assert seconds < 5


def test_a_cancel_with_a_transient_error_does_not_delay_the_others() -> None:
    there = api(*["running"] * 100, get_error=fail_always("cancel job_99", DOWN))
    cancel_backfill(there, max_seconds=0)
    assert [job.id for job in there.jobs if job.status == "running"] == ["job_99"]


def test_a_failed_cancel_is_repeated_for_a_job_that_the_backfill_does_not_list() -> None:
    there = api("running", shows_jobs=False, get_error=fail_once("cancel job_0", DOWN))
    backfill, _ = cancel_backfill(there, ["job_0"])
    assert backfill.is_over
    assert there.states == {"cancelled"}


@pytest.mark.parametrize("patience", [0, 30])
@pytest.mark.parametrize("shows_jobs", [True, False])
def test_a_cancel_that_keeps_failing_raises_its_error_after_max_seconds(patience: float, shows_jobs: bool) -> None:
    there = api("running", "running", shows_jobs=shows_jobs, get_error=fail_always("cancel job_0", DOWN))
    error, seconds = cancel_backfill(there, ["job_0", "job_1"], max_seconds=patience)
    assert error is DOWN
    assert seconds == pytest.approx(patience, abs=3)


def test_an_error_that_went_away_is_not_raised_after_max_seconds() -> None:
    there = api("running", ends=False, get_error=fail_once("cancel job_0", DOWN))
    backfill, _ = cancel_backfill(there, max_seconds=10)
    assert backfill.status == "running"


class TestAnOutage:
    """Each request is one try here, because the retries of a single request are not part of these tests."""

    @staticmethod
    def cancel(
        subject: WaitTarget, *, until: float, error: PlanasonixError = DOWN, **how: Any
    ) -> tuple[Any, float, int]:
        """Cancel during an outage; return the result, the seconds that it took, and the number of warnings."""
        warnings: list[PlanasonixError] = []
        there = api("running")

        async def main() -> tuple[Any, float]:
            loop = asyncio.get_running_loop()
            there.get_error = lambda _: error if loop.time() < until else None
            work: Any
            try:
                work = await cancel(there.send_async, subject, ["job_0"], warn=warnings.append, **how)
            except PlanasonixError as end:
                work = end
            return work, loop.time()

        work, seconds = TravelledClock().run(main())
        return work, seconds, len(warnings)

    @pytest.fixture(params=[JobTarget("job_0"), BackfillTarget("bf_1")], ids=["job", "backfill"])
    def subject(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    def test_is_waited_out_with_warnings(self, subject: WaitTarget) -> None:
        work, seconds, warnings = self.cancel(subject, until=300)
        assert work.status == "cancelled"
        assert seconds == pytest.approx(300, abs=15)
        assert warnings == pytest.approx(5, abs=1)

    def test_is_waited_out_for_ten_minutes(self, subject: WaitTarget) -> None:
        error, seconds, _ = self.cancel(subject, until=3_600)
        assert error is DOWN
        assert seconds == pytest.approx(CANCEL_TIMEOUT_SECONDS, abs=15)

    @pytest.mark.parametrize("patience", [0, 4])
    def test_is_not_waited_out_with_a_short_time_limit(self, subject: WaitTarget, patience: float) -> None:
        error, seconds, warnings = self.cancel(subject, until=3_600, max_seconds=patience)
        assert error is DOWN
        assert seconds < 1
        assert warnings == 0

    @pytest.mark.parametrize("status", [401, 404])
    @pytest.mark.parametrize("seconds", [50, 80])
    def test_of_refusals_by_the_api_is_waited_out_for_a_minute(
        self, subject: WaitTarget, status: int, seconds: float
    ) -> None:
        refused = api_error(status)
        work, took, _ = self.cancel(subject, until=seconds, error=refused)
        assert (work is refused) == (seconds == 80)
        assert took == pytest.approx(60, abs=11)

    @pytest.mark.parametrize("patience", [0, 4])
    def test_of_a_refused_key_is_not_waited_out_with_a_short_time_limit(
        self, subject: WaitTarget, patience: float
    ) -> None:
        refused = api_error(401)
        work, seconds, _ = self.cancel(subject, until=5, error=refused, max_seconds=patience)
        assert work is refused
        assert seconds < 1

    def test_with_a_long_retry_after_gets_one_more_cancel_before_the_time_limit(self, subject: WaitTarget) -> None:
        silence = api_error(429, retry_after=900)
        work, seconds, _ = self.cancel(subject, until=500, error=silence)
        assert work.status == "cancelled"
        assert seconds == pytest.approx(CANCEL_TIMEOUT_SECONDS, abs=15)
        error, seconds, _ = self.cancel(subject, until=3_600, error=silence)
        assert error is silence
        assert seconds == pytest.approx(CANCEL_TIMEOUT_SECONDS, abs=15)


def test_failed_cancels_are_logged_once_a_minute_while_polls_succeed() -> None:
    warnings: list[PlanasonixError] = []
    cancel_backfill(api("running", get_error=fail_always("cancel", DOWN)), max_seconds=240, warn=warnings.append)
    assert len(warnings) == pytest.approx(4, abs=1)


def test_an_outage_is_not_waited_out_for_each_of_thousands_of_jobs() -> None:
    there = api(*["running"] * 5_000, get_error=lambda _: PlanasonixTransportError("refused", sent=False))
    error, _ = cancel_backfill(there, there.ids or [])
    assert isinstance(error, PlanasonixTransportError)
    assert len(there.requests) < 100


@pytest.mark.parametrize(("patience", "cancels", "took"), [(0, 5, 0), (CANCEL_TIMEOUT_SECONDS, 7 * 5, 60)])
def test_a_key_that_may_not_cancel_raises_an_error_after_at_most_a_minute(
    patience: float, cancels: int, took: float
) -> None:
    there = api(*["running"] * 100, get_error=fail_always("cancel", FORBIDDEN))
    error, seconds = cancel_backfill(there, max_seconds=patience)
    assert error is FORBIDDEN
    assert len(there.cancels) <= cancels
    assert seconds == pytest.approx(took, abs=1 if took == 0 else 11)


def test_a_failed_poll_raises_an_error() -> None:
    there = api("running", get_error=fail_always("get bf_1", DOWN))
    error, _ = cancel_backfill(there, ["job_0"])
    assert error is DOWN
    assert there.states == {"cancelled"}


def test_there_is_one_pass_with_max_seconds_zero() -> None:
    there = api("running", coming=["late_1", "late_2"])
    backfill, seconds = cancel_backfill(there, max_seconds=0)
    assert backfill.status == "running"
    assert there.requests == ["get bf_1", "cancel late_1", "cancel job_0"]
    assert seconds < 1


@pytest.mark.heavy
@pytest.mark.parametrize("patience", [4, CANCEL_TIMEOUT_SECONDS])
def test_a_backfill_that_never_ends_is_returned_after_max_seconds(patience: float) -> None:
    there = api("running", ends=False)
    backfill, seconds = cancel_backfill(there, max_seconds=patience)
    assert backfill.status == "running"
    assert seconds == pytest.approx(patience, abs=3)
    assert len(there.requests) <= patience / 2 + 12


def test_polls_are_more_frequent_with_a_short_time_limit() -> None:
    there = api("running", coming=["late_1", "late_2"])
    backfill, seconds = cancel_backfill(there, max_seconds=4)
    assert backfill.is_over
    assert seconds < 2


@pytest.mark.parametrize("job_ids", [(), ["job_0"]])
def test_a_backfill_that_lists_no_jobs_is_waited_for(job_ids: Sequence[str]) -> None:
    there = api("running", shows_jobs=False, ends=False)
    backfill, seconds = cancel_backfill(there, job_ids, max_seconds=10)
    assert backfill.status == "running"
    assert there.cancels == list(job_ids)
    assert seconds == pytest.approx(10, abs=3)


def test_it_uses_the_given_sleep() -> None:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(seconds)

    cancel_backfill(api("running", ends=False), sleep=sleep, max_seconds=20)
    assert set(naps) == {2.0}
