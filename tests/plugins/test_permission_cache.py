from __future__ import annotations

from collections.abc import Callable

import pytest

from planasonix_provider.plugins import page_verdicts
from planasonix_provider.plugins.page_verdicts import MAX_VERDICT_AGE_SECONDS, VerdictCache
from tests.support.time_travel import TravelledClock


class AuthManager:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.verdict = True

    def about(self, name: str) -> Callable[[], bool]:
        def ask() -> bool:
            self.asked.append(name)
            return self.verdict

        return ask


@pytest.mark.parametrize("verdict", [True, False])
def test_asks_again_after_some_seconds(travel: TravelledClock, verdict: bool) -> None:
    cache, manager = VerdictCache(), AuthManager()
    manager.verdict = verdict
    for seconds in (0.0, MAX_VERDICT_AGE_SECONDS - 1):
        travel.sleep(seconds)
        assert cache.get("op/nightly", manager.about("nightly")) is verdict
    assert len(manager.asked) == 1
    travel.sleep(2)
    manager.verdict = not verdict
    assert cache.get("op/nightly", manager.about("nightly")) is not verdict
    assert len(manager.asked) == 2


def test_an_error_is_no_verdict() -> None:
    cache, manager = VerdictCache(), AuthManager()
    with pytest.raises(TimeoutError):
        cache.get("key", _fail)
    assert cache.get("key", manager.about("key"))


def test_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_verdicts, "MAX_VERDICTS", 2)
    cache, manager = VerdictCache(), AuthManager()
    for name in ("first", "second", "third", "second", "first"):
        cache.get(name, manager.about(name))
    assert manager.asked == ["first", "second", "third", "first"]


def _fail() -> bool:
    raise TimeoutError
