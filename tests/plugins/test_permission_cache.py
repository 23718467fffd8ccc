from __future__ import annotations

from collections.abc import Callable

import pytest

from planasonix_provider.plugins import permission_cache
from planasonix_provider.plugins.permission_cache import MAX_PERMISSION_AGE_SECONDS, PermissionCache
from tests.support.time_travel import TravelledClock


class AuthManager:
    """Counts the questions for a permission."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_allowed = True

    def about(self, name: str) -> Callable[[], bool]:
        def ask() -> bool:
            self.asked.append(name)
            return self.is_allowed

        return ask


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_permission_expires_after_some_seconds(travel: TravelledClock, is_allowed: bool) -> None:
    cache, manager = PermissionCache(), AuthManager()
    manager.is_allowed = is_allowed
    for seconds in (0.0, MAX_PERMISSION_AGE_SECONDS - 1):
        travel.sleep(seconds)
        assert cache.get("op/nightly", manager.about("nightly")) is is_allowed
    assert len(manager.asked) == 1
    travel.sleep(2)
    manager.is_allowed = not is_allowed
    assert cache.get("op/nightly", manager.about("nightly")) is not is_allowed
    assert len(manager.asked) == 2


def test_an_error_is_not_cached() -> None:
    cache, manager = PermissionCache(), AuthManager()
    with pytest.raises(TimeoutError):
        cache.get("key", _fail)
    assert cache.get("key", manager.about("key"))


def test_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permission_cache, "MAX_PERMISSIONS", 2)
    cache, manager = PermissionCache(), AuthManager()
    for name in ("first", "second", "third", "second", "first"):
        cache.get(name, manager.about(name))
    assert manager.asked == ["first", "second", "third", "first"]


def _fail() -> bool:
    raise TimeoutError
