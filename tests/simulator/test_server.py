from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from planasonix_provider.simulator import Simulator
from tests.support.webhook_target import until


def call(simulator: Simulator, method: str = "GET", path: str = "/jobs") -> httpx.Response:
    headers = {"Authorization": f"Bearer {simulator.api_key}"}
    # Without TLS to verify, httpx need not read the machine's certificates, which takes it 40 ms.
    return httpx.request(method, f"{simulator.url}/api/v1{path}", headers=headers, timeout=60, verify=False)


def test_runs_only_in_the_with_block():
    with Simulator() as simulator:
        url = simulator.url
        assert call(simulator).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    with pytest.raises(RuntimeError, match="does not run"):
        _ = simulator.url
    assert [request.route for request in simulator.requests] == ["list_jobs"], "requests can be read after the end"


def test_can_start_again_but_not_twice():
    simulator = Simulator()
    for _ in range(2):
        with simulator:
            assert call(simulator).status_code == 200
            with pytest.raises(RuntimeError, match="already running"):
                simulator.start()
    simulator.stop()


def test_two_run_side_by_side():
    with Simulator(api_key="one") as one, Simulator(api_key="two") as two:
        call(one, "POST", "/connections/conn_demo_01/sync")
        assert (len(one.jobs()), len(two.jobs())) == (1, 0)
        answer = httpx.get(f"{two.url}/api/v1/jobs", headers={"Authorization": "Bearer one"}, timeout=60)
        assert answer.status_code == 401


def test_stops_at_once_with_open_requests(caplog):
    with Simulator() as simulator, httpx.Client(timeout=60) as idle, ThreadPoolExecutor(1) as threads:
        idle.get(simulator.url)
        simulator.fail("hang", seconds=600)
        hanging = threads.submit(call, simulator)
        until(lambda: simulator.requests)
        # Raises an error if the server's thread does not end long before the hanging response.
        simulator.stop()
        with pytest.raises(httpx.TransportError):
            hanging.result()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_request_that_hangs_during_reset_has_no_effect(hanging):
    with Simulator() as simulator, ThreadPoolExecutor(1) as threads:
        simulator.fail("hang", route="trigger_sync")
        answer = threads.submit(call, simulator, "POST", "/connections/conn_demo_01/sync")
        hanging.begins()
        simulator.reset()
        hanging.ends()
        with pytest.raises(httpx.TransportError):
            answer.result()
        assert simulator.jobs() == []


def test_does_not_change_signals_and_logging():
    logger = logging.getLogger("uvicorn.access")
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), logger.handlers[:], logger.propagate)
    with Simulator():
        after = (
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            logger.handlers[:],
            logger.propagate,
        )
    assert after == before


def test_port_in_use():
    with Simulator() as simulator:
        port = int(simulator.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            Simulator(port=port).start()


def test_ipv6():
    if not socket.has_ipv6:
        pytest.skip("This machine has no IPv6.")
    try:
        simulator = Simulator(host="::1")
        simulator.start()
    except OSError:
        pytest.skip("This machine has no IPv6.")
    try:
        assert simulator.url.startswith("http://[::1]:")
        assert call(simulator).status_code == 200
    finally:
        simulator.stop()


def test_small_responses_are_sent_at_once(simulator, client):
    client.get("/jobs")
    connections = [one.transport.get_extra_info("socket") for one in simulator._server.server_state.connections]
    delays = [not one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in connections]
    assert delays, "the connection stays open"
    assert not any(delays), "waiting for an acknowledgement delays each response by 0.04 s"


def test_job_durations():
    with Simulator(job_seconds=7, queued_seconds=3, cancelling_seconds=5) as simulator:
        plan = simulator.plan("conn_demo_01")
        backfill = simulator.plan_backfill("conn_demo_01")
    assert (plan.running_seconds, plan.queued_seconds, plan.cancelling_seconds) == (7, 3, 5)
    assert (backfill.job_seconds, backfill.queued_seconds, backfill.cancelling_seconds) == (7, 3, 5)


def test_fail_job_and_slow_job(simulator, clock):
    failed, slowed = (simulator.workspace.start_sync(connection).id for connection in ("conn_demo_01", "conn_demo_02"))
    clock.move(1)
    error = simulator.fail_job(failed, code="disk_full", message="No room.").error
    assert (error.code, error.message) == ("disk_full", "No room.")
    assert simulator.slow_job(slowed, 5).status == "running"
    clock.move(60)
    assert [simulator.job(job_id).duration_seconds for job_id in (failed, slowed)] == [0.8, 7]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"allowed_hosts": ["a:80"]}, "allowed_hosts: got 'a:80'"),
        ({"webhook_hosts": ["https://a"]}, "webhook_hosts: got 'https://a'"),
        ({"job_seconds": -1}, "running_seconds"),
        ({"rate_limit": 0}, "per_minute"),
        ({"api_key": "a b"}, "value"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        Simulator(**values)


def test_clock_and_ids_can_be_given(clock):
    with Simulator(clock=clock, ids=lambda prefix: f"{prefix}_1", connections=["conn_mine"]) as simulator:
        job = call(simulator, "POST", "/connections/conn_mine/sync").json()["data"]["job"]
        assert (job["id"], simulator.job("job_1").created_at) == ("job_1", clock.now)


def test_airflow_connection(simulator):
    assert simulator.airflow_connection() == {
        "conn_type": "planasonix",
        "host": simulator.url,
        "password": "plnx_sim_local_key",
        "extra": {"web_url": simulator.url},
    }


def test_concurrent_starts_are_separate(simulator):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: call(simulator, "POST", "/connections/conn_demo_01/sync"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert len(simulator.jobs()) == 1


def test_methods_are_thread_safe_during_requests(simulator):
    def change(number: int) -> None:
        simulator.fail("empty", route="list_jobs")
        simulator.workspace.add_connection(f"conn_{number}")
        simulator.jobs()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(50)))
        answers = list(threads.map(lambda _: call(simulator), range(60)))
    assert sum(answer.content == b"" for answer in answers) == 50


def running() -> int:
    """Return the number of simulators with a thread."""
    return sum(thread.name == "planasonix-simulator" for thread in threading.enumerate())


def test_thread_ends_with_the_block():
    before = running()
    with Simulator():
        assert running() == before + 1
    assert running() == before


def in_new_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)


@pytest.mark.slow("starts processes")
def test_missing_extra_is_named():
    result = in_new_python(
        "import sys; sys.modules['fastapi'] = None; import planasonix_provider.simulator as simulator; simulator.Fault"
    )
    assert "ImportError: The simulator needs fastapi" in result.stderr
    assert "airflow-provider-planasonix[simulator]" in result.stderr


@pytest.mark.slow("starts processes")
def test_needs_neither_airflow_nor_httpx():
    result = in_new_python(
        "import sys; sys.modules['airflow'] = sys.modules['httpx'] = None\n"
        "from planasonix_provider.simulator import Simulator\n"
        "with Simulator() as planasonix: print(planasonix.url)"
    )
    assert result.stdout.startswith("http://127.0.0.1:"), result.stderr


def test_unknown_name():
    import planasonix_provider.simulator as simulator

    with pytest.raises(AttributeError, match="no attribute 'Simulatr'"):
        _ = simulator.Simulatr
