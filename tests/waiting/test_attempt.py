from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planasonix_provider.waiting.attempt import Attempt, AttemptRecord

ATTEMPT = Attempt("nightly", "load", "scheduled__2025-03-27T02:00:00+00:00", 1, -1)


def test_metadata_names_the_task_of_a_run_in_planasonix() -> None:
    assert ATTEMPT.metadata == {
        "dag_id": "nightly",
        "task_id": "load",
        "run_id": "scheduled__2025-03-27T02:00:00+00:00",
        "try_number": 1,
        "map_index": -1,
    }
    assert ATTEMPT.key_metadata == {"airflow_attempt": ATTEMPT.nonce}


@pytest.mark.parametrize(
    ("version", "metadata"),
    [
        pytest.param("4f8a1c0", {"dag_bundle_version": "4f8a1c0"}, id="Git"),
        pytest.param(None, {}, id="local folder"),
    ],
)
def test_metadata_has_the_version_of_the_dag(version: str | None, metadata: dict[str, str]) -> None:
    dag_version, bundle = uuid4(), SimpleNamespace(name="warehouse", version=version)
    ti = SimpleNamespace(
        dag_id="nightly",
        task_id="load",
        run_id="run",
        map_index=-1,
        try_number=1,
        max_tries=0,
        dag_version_id=dag_version,
        bundle_instance=bundle,
    )
    names = {"dag_version_id": str(dag_version), "dag_bundle_name": "warehouse", **metadata}
    assert Attempt.of({"ti": ti}).metadata.items() - ATTEMPT.metadata.items() == {
        *names.items(),
        ("run_id", "run"),
    }


@pytest.mark.parametrize(
    "other", [{"dag_id": "weekly"}, {"task_id": "save"}, {"run_id": "manual__1"}, {"try_number": 2}, {"map_index": 3}]
)
def test_shares_its_key_with_no_other_attempt(other: dict[str, object]) -> None:
    assert replace(ATTEMPT, **other).idempotency_key != ATTEMPT.idempotency_key


def test_shares_its_key_with_no_earlier_run_of_the_same_names() -> None:
    again = Attempt("nightly", "load", "scheduled__2025-03-27T02:00:00+00:00", 1, -1)
    assert again.idempotency_key != ATTEMPT.idempotency_key


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_has_a_key_that_is_valid_in_a_header(dag_id: str, task_id: str, run_id: str) -> None:
    key = Attempt(dag_id, task_id, run_id, 1, -1).idempotency_key
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key
    assert len(key) <= 255


@dataclass
class TaskInstance:
    """A task instance that counts its tries as Airflow does."""

    retries: int
    max_tries: int = 0
    try_number: int = 1
    clear_number: int = 0

    def __post_init__(self) -> None:
        self.max_tries = self.retries

    def retry(self) -> None:
        self.try_number += 1

    def clear(self) -> None:
        self.max_tries = self.try_number + self.retries
        self.clear_number += 1
        self.try_number += 1

    def clear_another_task(self) -> None:
        self.clear_number += 1

    def attempt(self) -> Attempt:
        ti = SimpleNamespace(dag_id="nightly", task_id="load", run_id="run", map_index=-1, **vars(self))
        return Attempt.of({"ti": ti, "task": ti, "dag_run": ti})

    def record(self) -> AttemptRecord:
        attempt = self.attempt()
        return AttemptRecord(
            **attempt.metadata,
            planasonix_conn_id="planasonix_default",
            kind="job",
            connection_id="conn_1",
            key=attempt.idempotency_key,
            first_sent_at=datetime(2025, 3, 27, tzinfo=UTC),
            digest="1",
            max_tries=attempt.max_tries,
            retries=attempt.retries,
            clear_number=attempt.clear_number,
        )

    def is_cleared_since(self, record: AttemptRecord, *, counts_every_clear: bool = True) -> bool:
        return self.attempt().is_later_than_a_clear_of(record, counts_every_clear=counts_every_clear)


class TestAClear:
    @pytest.mark.parametrize("counts_every_clear", [True, False])
    @pytest.mark.parametrize(("tries", "before", "after"), [(1, 1, 0), (2, 3, 1), (2, 2, 0), (1, 3, 2)])
    def test_is_detected_if_retries_were_lowered_by_the_number_of_tries(
        self, tries: int, before: int, after: int, counts_every_clear: bool
    ) -> None:
        ti = TaskInstance(retries=before)
        record = ti.record()
        for _ in range(tries - 1):
            ti.retry()
        ti.retries = after
        ti.clear()
        assert ti.max_tries == record.max_tries
        assert ti.is_cleared_since(record, counts_every_clear=counts_every_clear)

    def test_is_detected_with_the_record_of_an_earlier_version(self) -> None:
        ti = TaskInstance(retries=1)
        record = AttemptRecord.model_validate_json(ti.record().model_dump_json(exclude={"retries", "clear_number"}))
        assert (record.retries, record.clear_number) == (None, None)
        ti.retries = 0
        ti.clear()
        assert ti.is_cleared_since(record)

    def test_is_detected_after_the_dag_run_was_deleted_and_created_again(self) -> None:
        ti = TaskInstance(retries=1, clear_number=2)
        record = ti.record()
        ti = TaskInstance(retries=1)
        ti.retry()
        assert ti.is_cleared_since(record)

    @pytest.mark.heavy
    @given(
        retries=st.integers(0, 4),
        acts=st.lists(
            st.one_of(st.sampled_from(["retry", "clear", "clear_another_task"]), st.integers(0, 4)), max_size=8
        ),
        counts_every_clear=st.booleans(),
    )
    def test_is_never_mistaken_for_a_retry_if_retries_stay_as_at_the_clear(
        self, retries: int, acts: list[Any], counts_every_clear: bool
    ) -> None:
        ti = TaskInstance(retries)
        record = ti.record()
        for act in acts:
            if isinstance(act, int):
                ti.retries = act
            else:
                getattr(ti, act)()
        ti.clear()
        assert ti.is_cleared_since(record, counts_every_clear=counts_every_clear)


class TestARetry:
    @given(retries=st.lists(st.integers(0, 9), min_size=2, max_size=5))
    def test_is_not_a_clear_with_any_number_of_retries_if_nothing_was_cleared(self, retries: list[int]) -> None:
        ti = TaskInstance(retries[0])
        record = ti.record()
        for ti.retries in retries[1:]:
            ti.retry()
            assert not ti.is_cleared_since(record)

    def test_is_not_a_clear_if_retries_were_lowered_by_the_try_number(self) -> None:
        ti = TaskInstance(3)
        record = ti.record()
        ti.retries = 1
        ti.retry()
        assert not ti.is_cleared_since(record, counts_every_clear=False)

    @pytest.mark.parametrize("counts_every_clear", [True, False])
    @pytest.mark.parametrize("retries", [2, 3, 9])
    def test_is_not_a_clear_if_another_task_was_cleared_and_retries_were_raised(
        self, retries: int, counts_every_clear: bool
    ) -> None:
        ti = TaskInstance(2)
        record = ti.record()
        ti.retries = retries
        ti.clear_another_task()
        ti.retry()
        assert not ti.is_cleared_since(record, counts_every_clear=counts_every_clear)

    def test_without_a_task_and_a_dag_run_in_the_context_is_not_a_clear(self) -> None:
        record = TaskInstance(1).record()
        ti = SimpleNamespace(
            dag_id="nightly", task_id="load", run_id="run", map_index=-1, try_number=2, max_tries=record.max_tries
        )
        assert not Attempt.of({"ti": ti}).is_later_than_a_clear_of(record, counts_every_clear=True)
