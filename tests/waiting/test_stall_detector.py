from __future__ import annotations

import pytest

from planasonix_provider.waiting.stall_detector import KILL_GRACE_SECONDS, StallDetector


class TestStallDetector:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [1000.0]

    @pytest.fixture
    def pulse(self, clock: list[float]) -> StallDetector:
        return StallDetector(300.0, lambda: clock[0])

    def test_has_no_doubt_while_it_beats(self, pulse: StallDetector, clock: list[float]) -> None:
        for _ in range(10):
            clock[0] += 140
            pulse.beat()
        assert pulse.seconds_in_doubt() == 0

    @pytest.mark.parametrize("beats", [True, False], ids=["it beats first", "it is asked first"])
    def test_is_in_doubt_after_a_standstill(self, beats: bool, pulse: StallDetector, clock: list[float]) -> None:
        clock[0] += 160
        if beats:
            pulse.beat()
        assert pulse.seconds_in_doubt() == KILL_GRACE_SECONDS

    def test_is_in_doubt_until_airflow_would_have_ended_the_process(
        self, pulse: StallDetector, clock: list[float]
    ) -> None:
        clock[0] += 160
        pulse.beat()
        clock[0] += KILL_GRACE_SECONDS - 1
        assert pulse.seconds_in_doubt() == 1
        clock[0] += 1
        assert pulse.seconds_in_doubt() == 0
