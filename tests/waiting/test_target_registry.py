from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.target_registry import deserialize_target
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, WaitTarget


@pytest.mark.parametrize(
    "target",
    [
        JobTarget("job_1"),
        JobTarget("job_1", ["running"]),
        BackfillTarget("bf_1", ["running", "queued"]),
        SyncTarget("conn_1", datetime(2025, 3, 27, tzinfo=UTC), "finished", "wait"),
    ],
    ids=lambda target: target.goal,
)
def test_a_target_survives_the_way_to_another_process(target: WaitTarget) -> None:
    copy = deserialize_target(json.loads(json.dumps(target.serialize())))
    assert type(copy) is type(target)
    assert vars(copy) == vars(target)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        deserialize_target({"kind": "something new", "id": "job_1"})
