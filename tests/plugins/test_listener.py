from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import hookimpl
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.plugins import listener as listener_module
from planasonix_provider.plugins.listener import LISTENER, EndedTaskListener
from planasonix_provider.plugins.notices import EndedTasks
from planasonix_provider.plugins.planasonix import PlanasonixPlugin

TI: Any = SimpleNamespace(dag_id="nightly", run_id="run_1", task_id="load", map_index=2)
needs_airflow_3 = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no API server")


def call_all(listener: Any, names: tuple[str, ...]) -> None:
    """Call hooks as Airflow does."""
    from airflow.listeners.listener import get_listener_manager

    manager = get_listener_manager()
    manager.add_listener(listener)
    others = [plugin for plugin in manager.pm.get_plugins() if plugin is not listener]
    try:
        for name in names:
            call = manager.pm.subset_hook_caller(name, others)
            if name.startswith("on_dag_run"):
                call(dag_run=TI, msg="")
            elif name == "on_task_instance_failed":
                call(previous_state=None, task_instance=TI, error="by hand")
            else:
                call(previous_state=None, task_instance=TI)
    finally:
        manager.pm.unregister(listener)


def taken(listener: EndedTaskListener) -> list[EndedTasks]:
    return [listener.pending.get_nowait() for _ in range(listener.pending.qsize())]


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> EndedTaskListener:
    """A listener without a thread."""
    listener = EndedTaskListener()
    monkeypatch.setattr(listener, "_ensure_thread", lambda: None)
    return listener


@needs_airflow_3
def test_notices_the_tasks_and_the_runs_that_a_person_ends(listener: EndedTaskListener) -> None:
    listener.enable()
    call_all(
        listener,
        ("on_task_instance_failed", "on_task_instance_success", "on_dag_run_failed", "on_dag_run_success"),
    )
    task, run = EndedTasks("nightly", "run_1", "load", 2), EndedTasks("nightly", "run_1")
    assert taken(listener) == [task, task, run, run]


@needs_airflow_3
def test_does_nothing_outside_of_the_api_server(listener: EndedTaskListener) -> None:
    call_all(listener, ("on_task_instance_failed", "on_task_instance_success", "on_dag_run_failed"))
    assert taken(listener) == []


@needs_airflow_3
def test_begins_when_the_api_server_loads_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PlanasonixPlugin.listeners == [LISTENER]
    monkeypatch.setattr(LISTENER, "_is_api_server", False)
    from planasonix_provider.plugins import planasonix

    planasonix._fastapi_apps.cache_clear()
    assert PlanasonixPlugin.fastapi_apps
    assert LISTENER._is_api_server


@pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 2")
def test_airflow_2_has_no_listener() -> None:
    assert PlanasonixPlugin.listeners == []


def test_does_not_hold_up_a_request(listener: EndedTaskListener) -> None:
    listener.enable()
    began = time.perf_counter()
    for _ in range(1000):
        listener.on_task_instance_failed(task_instance=TI)
    assert (time.perf_counter() - began) / 1000 < 0.001


@needs_airflow_3
def test_comes_before_listeners_that_fail(listener: EndedTaskListener) -> None:
    from airflow.listeners.listener import get_listener_manager

    class Broken:
        @hookimpl
        def on_dag_run_failed(self, dag_run: Any) -> None:
            raise RuntimeError("broken")

    listener.enable()
    manager, broken = get_listener_manager(), Broken()
    manager.add_listener(listener)
    manager.add_listener(broken)
    try:
        with pytest.raises(RuntimeError, match="broken"):
            manager.hook.on_dag_run_failed(dag_run=TI, msg="")
    finally:
        manager.pm.unregister(broken)
        manager.pm.unregister(listener)
    assert taken(listener) == [EndedTasks("nightly", "run_1")]


def test_survives_a_row_that_cannot_be_read(listener: EndedTaskListener, caplog: pytest.LogCaptureFixture) -> None:
    listener.enable()
    listener.on_task_instance_failed(task_instance=SimpleNamespace())  # type: ignore[arg-type]
    assert "its Planasonix job is not looked at: AttributeError" in caplog.text


def test_limits_the_number_of_pending_tasks(
    listener: EndedTaskListener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener.enable()
    for _ in range(listener_module.MAX_PENDING + 1):
        listener.on_task_instance_failed(task_instance=TI)
    assert listener.pending.qsize() == listener_module.MAX_PENDING
    assert "`python -m planasonix_provider orphans --cancel`" in caplog.text


@pytest.mark.slow("starts processes")
def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, planasonix_provider.plugins.planasonix;"
        "print([name for name in ('httpx', 'pydantic', 'fastapi', 'sqlalchemy') if name in sys.modules])"
    )
    before = "import sys, airflow.plugins_manager; import airflow.providers.common.compat.sdk as sdk; sdk.conf;"
    heavy = "print([name for name in ('httpx', 'pydantic', 'fastapi', 'sqlalchemy') if name in sys.modules])"
    seen = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        for text in (code, before + heavy)
    ]
    assert seen[0] == seen[1]
