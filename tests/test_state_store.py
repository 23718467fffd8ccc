from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from planasonix_provider import state_store
from planasonix_provider.state_store import VariableStateStore


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stand in for Airflow's variables."""
    values: dict[str, str] = {}
    variables = SimpleNamespace(
        get=values.get,
        set=lambda name, text, description: values.update({name: text}),
        delete=lambda name: values.pop(name, None),
    )
    monkeypatch.setattr(state_store, "variable_class", lambda: variables)
    return values


def store_of(**ti: Any) -> VariableStateStore:
    fields = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1} | ti
    return VariableStateStore.for_task({"ti": SimpleNamespace(**fields)}, "description")


@pytest.mark.usefixtures("values")
def test_returns_the_value_of_another_instance_until_it_is_deleted() -> None:
    assert store_of().get("key") is None
    store_of().set("key", {"a": [1, None]})
    assert store_of().get("key") == {"a": [1, None]}
    store_of().delete("key")
    assert store_of().get("key") is None


@pytest.mark.usefixtures("values")
@pytest.mark.parametrize("other", [{"dag_id": "x"}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 0}])
def test_scopes_are_separate(other: dict[str, Any]) -> None:
    store_of().set("key", {})
    assert store_of(**other).get("key") is None


@pytest.mark.parametrize("text", ["{", "null", "", "[]", "1"])
def test_a_damaged_variable_is_an_error(values: dict[str, str], text: str) -> None:
    values[store_of().name("key")] = text
    assert store_of().get("key") == text


def test_a_write_that_airflow_lost_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lossy = SimpleNamespace(get=lambda name, default: default, set=lambda *_, **__: None)
    monkeypatch.setattr(state_store, "variable_class", lambda: lossy)
    with pytest.raises(AirflowException, match=r"Airflow variable 'key_.*' could not be written"):
        store_of().set("key", {})


def test_a_newer_version_finds_the_variables_of_an_older_one() -> None:
    assert store_of().name("planasonix_attempt") == "planasonix_attempt_d8966c33a8c603eaca48e6dbe1517cd5"
