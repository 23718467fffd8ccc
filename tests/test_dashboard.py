"""A real Prometheus answers each query of the dashboard from what Airflow has sent to StatsD."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from dev.processes import end, free_port, start
from planasonix_provider import metrics
from tests.support.statsd import StatsdServer
from tests.support.statsd_exporter import exporting

DOCS = Path(__file__).parent.parent / "docs"
DASHBOARD = json.loads((DOCS / "grafana" / "planasonix.json").read_text())
(ALERT,) = re.findall(r"```text\n(sum by.*?)\n```", (DOCS / "metrics.md").read_text(), re.DOTALL)
PANELS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
VARIABLES = [variable["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
#: The values of Grafana's variables.
GRAFANA = {"$__rate_interval": "20s", "$__range": "1m", "$conn_id": ".*", "$connection_id": ".*"}
TAGS = {"conn_id": "planasonix_default", "connection_id": "conn_01", "kind": "job", "source": "operator"}
CONFIG = """
global: {scrape_interval: 1s}
scrape_configs: [{job_name: statsd, static_configs: [{targets: ["ADDRESS"]}]}]
"""

pytestmark = [
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Prometheus: apt-get install prometheus"),
    pytest.mark.slow("starts Prometheus"),
]


class Prometheus:
    """A Prometheus that scrapes one address each second."""

    def __init__(self, folder: Path, address: str) -> None:
        (folder / "prometheus.yml").write_text(CONFIG.replace("ADDRESS", address))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = start(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            {},
            folder / "prometheus.log",
        )

    @property
    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=60).is_success
        except httpx.TransportError:
            return False

    def get(self, path: str, **params: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[float]:
        """Return the values of an expression; none for those that are not a number."""
        for name, value in GRAFANA.items():
            expression = expression.replace(name, value)
        values = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in values if not math.isnan(value)]


def send_all() -> None:
    """Send each metric, as Airflow sends it."""
    for metric in metrics.METRICS:
        if isinstance(metric, metrics.Counter):
            metric.add(1, TAGS)
        elif isinstance(metric, metrics.Timer):
            metric.record(1.5, TAGS)
        else:
            assert isinstance(metric, metrics.Gauge)
            metric.set(7, TAGS)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped all metrics, with values that have grown since the first scrape."""
    from tests.support.statsd import forgetting_stats, statsd_settings

    statsd = StatsdServer()
    with pytest.MonkeyPatch.context() as patch, exporting(statsd) as address:
        for name, value in statsd_settings(statsd).items():
            patch.setenv(name, value)
        with forgetting_stats():
            send_all()
            prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), address)
            try:
                deadline = time.monotonic() + 120
                while not (prometheus.is_ready and _has_grown(prometheus)):
                    assert time.monotonic() < deadline
                    assert prometheus.process.poll() is None
                    # Scrapes are in real time.
                    time.sleep(0.5)
                    send_all()
                with _send_repeatedly():
                    yield prometheus
            finally:
                end(prometheus.process)
                statsd.close()


def _has_grown(prometheus: Prometheus) -> bool:
    return any(value > 3 for value in prometheus.query("increase(airflow_planasonix_job_started[20s])"))


@contextmanager
def _send_repeatedly() -> Iterator[None]:
    """Send each metric twice a second, because the queries read only the last seconds."""
    is_over = Event()

    def send() -> None:
        while not is_over.wait(0.5):
            send_all()

    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("panel", PANELS)
def test_each_query_of_a_panel_has_data(prometheus: Prometheus, panel: str) -> None:
    assert [value for value in prometheus.query(PANELS[panel]) if value > 0], panel


@pytest.mark.parametrize("query", VARIABLES)
def test_each_variable_has_values(prometheus: Prometheus, query: str) -> None:
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    assert found
    metric, label = found.groups()
    assert prometheus.get(f"label/{label}/values", **{"match[]": metric}) == [TAGS[label]]


def test_the_alert_of_the_docs_fires_at_the_first_failure_of_a_connection(prometheus: Prometheus) -> None:
    metrics.JOB_FAILED.add(1, TAGS | {"connection_id": "conn_first"})
    deadline = time.monotonic() + 60
    while not prometheus.query('airflow_planasonix_job_failed{connection_id="conn_first"}'):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert prometheus.query(ALERT.replace("{", '{connection_id="conn_first",')) == [1]


def test_prometheus_can_read_all_that_is_exposed(prometheus: Prometheus) -> None:
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
