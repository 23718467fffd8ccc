from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from planasonix_provider import waiting
from planasonix_provider.waiting.target_registry import TARGETS, deserialize_target
from planasonix_provider.waiting.targets import WaitTarget

NOW = datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC)
#: A value for each parameter of a target, other than its default.
VALUES: dict[str, Any] = {
    "id": "id_1",
    "until": ["running", "queued"],
    "since": NOW,
    "by": "finished",
    "on_failure": "wait",
}


def examples() -> Iterator[WaitTarget]:
    """Yield a target of each kind with its defaults, and one with all parameters."""
    for kind in TARGETS.values():
        parameters = inspect.signature(kind).parameters.values()
        missing = [parameter.name for parameter in parameters if parameter.name not in VALUES]
        assert not missing, f"VALUES in {__file__} has no value for {', '.join(missing)} of {kind.__name__}"
        for is_needed in (lambda parameter: parameter.default is parameter.empty, lambda _: True):
            yield kind(**{one.name: VALUES[one.name] for one in filter(is_needed, parameters)})


def concrete_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for subclass in kind.__subclasses__():
        if not inspect.isabstract(subclass):
            yield subclass
        yield from concrete_subclasses(subclass)


def test_every_target_is_registered() -> None:
    for module in pkgutil.iter_modules(waiting.__path__, f"{waiting.__name__}."):
        importlib.import_module(module.name)
    targets = {kind for kind in concrete_subclasses(WaitTarget) if kind.__module__.startswith(waiting.__name__)}
    missing = sorted(kind.__name__ for kind in targets - set(TARGETS.values()))
    assert not missing, f"Add to TARGETS in waiting/target_registry.py: {', '.join(missing)}"


@pytest.mark.parametrize("target", list(examples()), ids=lambda target: target.goal)
class TestEachTarget:
    def test_survives_serialization(self, target: WaitTarget) -> None:
        copy = deserialize_target(json.loads(json.dumps(target.serialize())))
        assert type(copy) is type(target)
        assert vars(copy) == vars(target)

    def test_polls_its_request_first(self, target: WaitTarget) -> None:
        assert next(target.poll(NOW, detailed=True)) == target.request


@pytest.mark.parametrize("kind", TARGETS)
def test_each_target_has_tests(kind: str) -> None:
    tests = [path for path in Path(__file__).parent.glob("test_*target*.py") if path != Path(__file__)]
    name = TARGETS[kind].__name__
    assert any(name in path.read_text() for path in tests), f"no tests/waiting/test_*target*.py mentions {name}"


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match=f"allowed is {', '.join(TARGETS)}"):
        deserialize_target({"kind": "something new", "id": "job_1"})
