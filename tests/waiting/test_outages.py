from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from planasonix_provider.api.errors import (
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixLostTrackError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
)
from planasonix_provider.waiting.outages import Contact, OutagePolicy, OutageTracker, Verdict
from tests.support.api_errors import api_error

BEGAN = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
NEVER, MINUTE, TWO_MINUTES, HOUR = (timedelta(minutes=minutes) for minutes in (0, 1, 2, 60))
UNREACHABLE = PlanasonixTransportError("no such host", sent=False, is_unreachable=True)
BROKEN = PlanasonixTransportError("the connection broke")


@pytest.mark.parametrize(
    ("error", "limits"),
    [
        (UNREACHABLE, (TWO_MINUTES, HOUR, HOUR)),
        (BROKEN, (HOUR, HOUR, HOUR)),
        (PlanasonixUnreadableError("HTML"), (HOUR, HOUR, HOUR)),
        (api_error(503), (HOUR, HOUR, HOUR)),
        (api_error(429), (HOUR, HOUR, HOUR)),
        (api_error(408), (HOUR, HOUR, HOUR)),
        (api_error(425, has_envelope=False), (HOUR, HOUR, HOUR)),
        (api_error(302, has_envelope=False), (NEVER, HOUR, HOUR)),
        (api_error(403, has_envelope=False), (NEVER, HOUR, HOUR)),
        (api_error(404, has_envelope=False), (NEVER, HOUR, HOUR)),
        (api_error(401, has_envelope=False), (MINUTE, HOUR, HOUR)),
        (api_error(401), (MINUTE, MINUTE, MINUTE)),
        (api_error(400), (NEVER, NEVER, MINUTE)),
        (api_error(403), (NEVER, NEVER, MINUTE)),
        (api_error(404), (NEVER, NEVER, MINUTE)),
        (api_error(409), (NEVER, NEVER, MINUTE)),
        (PlanasonixConfigurationError("no Airflow connection"), (NEVER, NEVER, MINUTE)),
        (PlanasonixLostTrackError("a bug"), (NEVER, NEVER, NEVER)),
    ],
    ids=str,
)
def test_the_tolerance_of_an_error_depends_on_earlier_responses(
    error: PlanasonixError, limits: tuple[timedelta, timedelta, timedelta]
) -> None:
    assert tuple(OutagePolicy().limit(error, contact) for contact in Contact) == limits


class TestATracker:
    def test_ends_a_first_contact_before_a_request_that_would_be_too_late(self) -> None:
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
        assert tracker.fail(api_error(404), BEGAN + 31 * MINUTE) is Verdict.REFUSED

    def test_has_contact_from_the_first_error_of_the_api_on(self) -> None:
        tracker = OutageTracker(contact=Contact.NONE)
        tracker.fail(api_error(503), BEGAN)
        tracker.fail(UNREACHABLE, BEGAN + MINUTE)
        assert tracker.fail(UNREACHABLE, BEGAN + 30 * MINUTE) is Verdict.TOLERATED

    def test_counts_a_first_contact_from_the_last_response(self) -> None:
        tracker = OutageTracker(contact=Contact.NONE)
        tracker.fail(api_error(503, has_envelope=False), BEGAN)
        tracker.fail(UNREACHABLE, BEGAN + 10 * MINUTE)
        assert tracker.fail(UNREACHABLE, BEGAN + 11 * MINUTE) is Verdict.TOLERATED
        tracker.fail(api_error(503, has_envelope=False), BEGAN + 11 * MINUTE)
        assert tracker.fail(UNREACHABLE, BEGAN + 12 * MINUTE) is Verdict.TOLERATED
        assert tracker.fail(UNREACHABLE, BEGAN + 14 * MINUTE) is Verdict.NO_CONTACT

    def test_restarts_the_count_of_a_refusal_after_an_outage(self) -> None:
        tracker = OutageTracker()
        tracker.fail(api_error(404), BEGAN)
        tracker.fail(BROKEN, BEGAN + timedelta(seconds=59))
        assert tracker.fail(api_error(404), BEGAN + MINUTE) is Verdict.TOLERATED
        assert tracker.fail(api_error(404), BEGAN + 2 * MINUTE) is Verdict.REFUSED

    def test_limits_refusals_and_outages_in_turn_to_an_hour(self) -> None:
        tracker, now = OutageTracker(), BEGAN
        verdict = Verdict.TOLERATED
        while verdict is Verdict.TOLERATED and now < BEGAN + 3 * HOUR:
            tracker.fail(BROKEN, now)
            now += timedelta(seconds=30)
            verdict = tracker.fail(api_error(404), now)
        assert verdict is Verdict.OUTAGE
        assert abs(now - (BEGAN + HOUR)) <= 2 * MINUTE

    def test_logs_once_a_minute(self) -> None:
        tracker = OutageTracker()
        assert [tracker.is_news(BEGAN + timedelta(seconds=seconds)) for seconds in (0, 30, 59, 60, 90)] == [
            True,
            False,
            False,
            True,
            False,
        ]
