from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
    error_for_status,
)
from planasonix_provider.waiting.outages import Contact, OutagePolicy, OutageTracker, Verdict

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
NEVER, MINUTE, TWO_MINUTES, HOUR = (timedelta(minutes=minutes) for minutes in (0, 1, 2, 60))
UNREACHABLE = PlanasonixTransportError("no such host", sent=False, is_unreachable=True)
BROKEN = PlanasonixTransportError("the connection broke")


def refusal(status: int, *, has_envelope: bool = True) -> PlanasonixError:
    return error_for_status(status, has_envelope=has_envelope)(str(status), status=status, has_envelope=has_envelope)


@pytest.mark.parametrize(
    ("error", "limits"),
    [
        (UNREACHABLE, (TWO_MINUTES, HOUR, HOUR)),
        (BROKEN, (HOUR, HOUR, HOUR)),
        (PlanasonixUnreadableError("HTML"), (HOUR, HOUR, HOUR)),
        (refusal(503), (HOUR, HOUR, HOUR)),
        (refusal(429), (HOUR, HOUR, HOUR)),
        (refusal(408), (HOUR, HOUR, HOUR)),
        (refusal(425, has_envelope=False), (HOUR, HOUR, HOUR)),
        (refusal(302, has_envelope=False), (NEVER, HOUR, HOUR)),
        (refusal(403, has_envelope=False), (NEVER, HOUR, HOUR)),
        (refusal(404, has_envelope=False), (NEVER, HOUR, HOUR)),
        (refusal(401, has_envelope=False), (MINUTE, HOUR, HOUR)),
        (refusal(401), (MINUTE, MINUTE, MINUTE)),
        (refusal(400), (NEVER, NEVER, MINUTE)),
        (refusal(403), (NEVER, NEVER, MINUTE)),
        (refusal(404), (NEVER, NEVER, MINUTE)),
        (refusal(409), (NEVER, NEVER, MINUTE)),
        (PlanasonixConfigurationError("no Airflow connection"), (NEVER, NEVER, MINUTE)),
        (PlanasonixLostTrackError("a bug"), (NEVER, NEVER, NEVER)),
    ],
    ids=str,
)
def test_an_error_is_tolerated_by_what_has_answered_before(
    error: PlanasonixError, limits: tuple[timedelta, timedelta, timedelta]
) -> None:
    assert tuple(OutagePolicy().limit(error, contact) for contact in Contact) == limits


class TestATracker:
    def test_ends_a_first_contact_before_a_request_that_would_come_too_late(self) -> None:
        tracker = OutageTracker(contact=Contact.NONE)
        assert tracker.fail(UNREACHABLE, BEGAN) is Verdict.TOLERATED
        later = BEGAN + timedelta(seconds=115)
        assert tracker.fail(UNREACHABLE, later) is Verdict.TOLERATED
        assert tracker.fail(UNREACHABLE, later, timedelta(seconds=10)) is Verdict.NO_CONTACT

    def test_has_contact_from_the_first_response_on(self) -> None:
        tracker = OutageTracker(contact=Contact.NONE)
        tracker.fail(UNREACHABLE, BEGAN)
        tracker.succeed(Contact.API)
        assert tracker.fail(UNREACHABLE, BEGAN + 3 * MINUTE) is Verdict.TOLERATED
        assert tracker.fail(UNREACHABLE, BEGAN + 30 * MINUTE) is Verdict.TOLERATED
        assert tracker.fail(refusal(404), BEGAN + 31 * MINUTE) is Verdict.REFUSED

    def test_has_contact_from_the_first_error_of_the_api_on(self) -> None:
        tracker = OutageTracker(contact=Contact.NONE)
        tracker.fail(refusal(503), BEGAN)
        tracker.fail(UNREACHABLE, BEGAN + MINUTE)
        assert tracker.fail(UNREACHABLE, BEGAN + 30 * MINUTE) is Verdict.TOLERATED

    def test_counts_a_first_contact_from_the_last_time_that_something_answered(self) -> None:
        tracker = OutageTracker(contact=Contact.NONE)
        tracker.fail(refusal(503, has_envelope=False), BEGAN)
        tracker.fail(UNREACHABLE, BEGAN + 10 * MINUTE)
        assert tracker.fail(UNREACHABLE, BEGAN + 11 * MINUTE) is Verdict.TOLERATED
        tracker.fail(refusal(503, has_envelope=False), BEGAN + 11 * MINUTE)
        assert tracker.fail(UNREACHABLE, BEGAN + 12 * MINUTE) is Verdict.TOLERATED
        assert tracker.fail(UNREACHABLE, BEGAN + 14 * MINUTE) is Verdict.NO_CONTACT

    def test_counts_a_refusal_anew_after_an_outage(self) -> None:
        tracker = OutageTracker()
        tracker.fail(refusal(404), BEGAN)
        tracker.fail(BROKEN, BEGAN + timedelta(seconds=59))
        assert tracker.fail(refusal(404), BEGAN + MINUTE) is Verdict.TOLERATED
        assert tracker.fail(refusal(404), BEGAN + 2 * MINUTE) is Verdict.REFUSED

    def test_does_not_let_refusals_and_outages_in_turn_go_on_for_ever(self) -> None:
        tracker, now = OutageTracker(), BEGAN
        verdict = Verdict.TOLERATED
        while verdict is Verdict.TOLERATED and now < BEGAN + 3 * HOUR:
            tracker.fail(BROKEN, now)
            now += timedelta(seconds=30)
            verdict = tracker.fail(refusal(404), now)
        assert verdict is Verdict.OUTAGE
        assert now == pytest.approx(BEGAN + HOUR, abs=2 * MINUTE)

    def test_logs_once_a_minute(self) -> None:
        tracker = OutageTracker()
        assert [tracker.is_news(BEGAN + timedelta(seconds=seconds)) for seconds in (0, 30, 59, 60, 90)] == [
            True,
            False,
            False,
            True,
            False,
        ]
