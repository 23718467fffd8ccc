from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.models import Variable
from airflow.utils.session import create_session
from sqlalchemy import select

from planasonix_provider import airflow_compat, state_store
from planasonix_provider.api.errors import PlanasonixLostTrackError
from planasonix_provider.execution.attempt_store import AttemptStore
from planasonix_provider.waiting.attempt import RECORD_KEY, AttemptRecord
from tests.support.task_runs import Run, context

RECORD = AttemptRecord(
    dag_id="nightly",
    run_id="run",
    task_id="load",
    map_index=-1,
    planasonix_conn_id="planasonix_default",
    kind="job",
    connection_id="conn_1",
    key="nightly/load/1/5f0c",
    first_sent_at=datetime(2025, 3, 27, 14, 22, 10, tzinfo=UTC),
    digest="ab",
    try_number=1,
    max_tries=2,
    id="job_1",
)


def context_before_3_3(**ti: int) -> dict[str, Any]:
    """Return a context without a state store."""
    return {"ti": context(Run(), **ti)["ti"]}


def names() -> list[str]:
    """Return the names in Airflow's list of variables."""
    with create_session() as session:
        keys = session.scalars(select(Variable.key)).all()
    return [key for key in keys if key.startswith(RECORD_KEY)]


@pytest.mark.usefixtures("airflow_db")
class TestRecordInAVariable:
    @pytest.fixture(autouse=True)
    def _real_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(state_store, "variable_class", airflow_compat.variable_class)

    def test_is_read_by_the_next_try_until_it_is_deleted(self) -> None:
        AttemptStore(context_before_3_3()).write(RECORD)
        assert AttemptStore(context_before_3_3(try_number=2)).read() == RECORD
        AttemptStore(context_before_3_3()).release()
        assert AttemptStore(context_before_3_3()).read() is None

    def test_keeps_the_fields_of_a_later_release(self) -> None:
        later = AttemptRecord.model_validate(RECORD.model_dump() | {"of_a_later_release": 1})
        AttemptStore(context_before_3_3()).write(later)
        store = AttemptStore(context_before_3_3(try_number=2))
        record = store.read()
        assert record
        store.write(record.model_copy(update={"is_given_up": True}))
        again = AttemptStore(context_before_3_3(try_number=3)).read()
        assert again
        assert again.model_dump()["of_a_later_release"] == 1
        store.release()

    def test_of_one_mapped_task_is_not_read_by_another(self) -> None:
        AttemptStore(context_before_3_3(map_index=1)).write(RECORD)
        assert AttemptStore(context_before_3_3(map_index=2)).read() is None
        AttemptStore(context_before_3_3(map_index=1)).release()

    @pytest.mark.parametrize(
        ("damage", "what"),
        [
            (lambda text: text[:-9], "record: "),
            (lambda text: "null", "record: "),
            (lambda text: "", "record: "),
            (lambda text: "[]", "record: "),
            (lambda text: "{}", "dag_id: Field required"),
            (lambda text: text.replace('"version": 1', '"version": 2'), "version: Input should be 1"),
            (lambda text: text.replace('"kind"', '"sort"'), "kind: Field required"),
        ],
    )
    def test_that_is_damaged_raises_an_error_until_it_is_deleted(self, damage: Callable[[str], str], what: str) -> None:
        AttemptStore(context_before_3_3(map_index=5)).write(RECORD)
        (name,) = names()
        whole = airflow_compat.variable_class().get(name, None)
        assert damage(whole) != whole
        airflow_compat.variable_class().set(name, damage(whole), description="")
        with pytest.raises(PlanasonixLostTrackError) as lost:
            AttemptStore(context_before_3_3(map_index=5, try_number=2)).read()
        assert what in str(lost.value)
        assert f"delete Airflow variable {name!r}, and clear the task" in str(lost.value)
        airflow_compat.variable_class().delete(name)
        assert AttemptStore(context_before_3_3(map_index=5, try_number=2)).read() is None

    def test_can_be_deleted_twice(self) -> None:
        AttemptStore(context_before_3_3()).release()
