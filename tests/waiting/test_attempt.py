from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planasonix_provider.waiting.attempt import Attempt

ATTEMPT = Attempt("nightly", "load", "scheduled__2025-03-27T02:00:00+00:00", 1, -1)


def test_leads_from_a_run_in_planasonix_back_to_the_task() -> None:
    assert ATTEMPT.metadata == {
        "dag_id": "nightly",
        "task_id": "load",
        "run_id": "scheduled__2025-03-27T02:00:00+00:00",
        "try_number": 1,
        "map_index": -1,
    }
    assert ATTEMPT.mark == {"airflow_attempt": ATTEMPT.nonce}


@pytest.mark.parametrize(
    "other",
    [{"dag_id": "weekly"}, {"task_id": "save"}, {"run_id": "manual__1"}, {"try_number": 2}, {"map_index": 3}],
)
def test_shares_its_key_with_no_other_attempt(other: dict[str, object]) -> None:
    assert replace(ATTEMPT, **other).idempotency_key != ATTEMPT.idempotency_key


def test_shares_its_key_with_no_earlier_run_of_the_same_names() -> None:
    again = Attempt("nightly", "load", "scheduled__2025-03-27T02:00:00+00:00", 1, -1)
    assert again.idempotency_key != ATTEMPT.idempotency_key


def test_keeps_its_key() -> None:
    assert ATTEMPT.idempotency_key == ATTEMPT.idempotency_key


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_has_a_key_that_a_header_can_hold(dag_id: str, task_id: str, run_id: str) -> None:
    key = Attempt(dag_id, task_id, run_id, 1, -1).idempotency_key
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key
    assert len(key) <= 255
