"""The metrics arrive in StatsD and OpenTelemetry as docs/metrics.md describes them, and their errors break no task."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from planasonix_provider import metrics
from planasonix_provider.api.models import Job, JobPage
from planasonix_provider.simulator import Simulator
from planasonix_provider.testing.travelled_clock import TravelledClock
from planasonix_provider.waiting.poller import Poller
from tests.support.scenarios import CONNECTION, sync
from tests.support.statsd import Sample, StatsdServer, forgetting_stats, statsd_settings, use_logger
from tests.support.task_runs import drive
from tests.support.virtual_planasonix import Planasonix, polls

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "metrics.md").read_text()
DASHBOARD = json.loads((DOCS / "grafana" / "planasonix.json").read_text())

SEND = """
import airflow, os
from planasonix_provider import metrics
tags = {"conn_id": "planasonix_default", "connection_id": "conn_01", "kind": "job"}
metrics.JOB_STARTED.add(1, tags)
if os.fork() == 0:
    metrics.JOB_STARTED.add(2, tags)
    os._exit(0)
os.wait()
"""


@pytest.mark.slow("starts processes")
@pytest.mark.parametrize("has_tags", [True, False], ids=["with tags", "without tags"])
def test_a_process_and_its_fork_send_to_the_server_of_the_environment(has_tags: bool) -> None:
    server = StatsdServer()
    subprocess.run(
        [sys.executable, "-c", SEND], env={**os.environ, **statsd_settings(server, has_tags=has_tags)}, check=True
    )
    server.wait()
    name = "airflow.planasonix.job.started"
    tags = ",conn_id=planasonix_default,connection_id=conn_01,kind=job" if has_tags else ""
    ours = [packet for packet in server.packets if "planasonix" in packet]
    assert ours == [f"{name}{tags}:1|c", f"{name}{tags}:2|c"]
    server.close()


def test_each_kind_has_its_type_and_its_unit(statsd: StatsdServer) -> None:
    tags = {"conn_id": "a", "receiver": "a", "method": "lists"}
    metrics.WEBHOOK_DELIVERY.add(3, tags)
    metrics.RATE_LIMIT_REMAINING.set(17, tags)
    metrics.POLL_DURATION.record(1.5, tags)
    assert statsd.samples() == [
        Sample("planasonix.webhook.delivery", "c", 3, {"receiver": "a", "outcome": "none", "reason": "none"}),
        Sample("planasonix.rate_limit.remaining", "g", 17, {"conn_id": "a"}),
        Sample("planasonix.poll.duration", "ms", 1500, {"conn_id": "a", "method": "lists"}),
    ]


def test_a_clock_that_is_behind_makes_no_negative_duration(statsd: StatsdServer) -> None:
    metrics.WATCHER_LAG.record(-3, {})
    assert [sample.value for sample in statsd.samples()] == [0]


def test_a_tag_that_would_break_a_line_is_made_safe(statsd: StatsdServer) -> None:
    metrics.REQUEST.add(1, {"conn_id": "eu,prod:1|c\n=/ä", "route": None, "status": ""})
    assert statsd.tags(metrics.REQUEST) == [{"conn_id": "eu_prod_1_c____", "route": "none", "status": "none"}]


def test_each_round_of_polls_sends_the_number_of_waits_until_there_are_none(statsd: StatsdServer) -> None:
    there = Planasonix()

    async def main() -> None:
        poller = Poller(there.connect, "planasonix_eu")
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(polls(poller, f"job_{number}", interval=10, number=number + 1))

    TravelledClock().run(main())
    samples = statsd.named(metrics.WAITS_DEFERRED)
    assert [sample.value for sample in samples] == [3, 2, 1, 0]
    assert {tuple(sample.tags.items()) for sample in samples} == {
        (("conn_id", "planasonix_eu"), ("hostname", socket.gethostname()))
    }


@pytest.mark.parametrize(("number", "method"), [(3, "each"), (40, "lists")])
def test_a_poll_of_all_due_waits_is_one_duration(statsd: StatsdServer, number: int, method: str) -> None:
    jobs = [Job(id=f"job_{each}", status="running") for each in range(number)]
    there = Planasonix(lists=lambda query: JobPage(data=jobs if query["status"] == "running" else []))

    async def main() -> None:
        poller = Poller(there.connect, "planasonix_eu")
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(polls(poller, job.id, interval=10, number=3))

    TravelledClock().run(main())
    # The last poll ends with the poller.
    first, second, *_ = statsd.tags(metrics.POLL_DURATION)
    assert first == second == {"conn_id": "planasonix_eu", "method": method}
    assert len(statsd.tags(metrics.POLL_DURATION)) <= 3


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """Airflow's logger of OpenTelemetry, whose metrics stay in memory."""
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    try:
        otel_logger = import_module("airflow.sdk._shared.observability.metrics.otel_logger")
    except ImportError:
        otel_logger = import_module("airflow.metrics.otel_logger")
    with forgetting_stats():
        use_logger(lambda: otel_logger.SafeOtelLogger(provider))
        yield reader
    provider.shutdown()


@pytest.mark.usefixtures("without_airflow")
def test_opentelemetry_gets_the_same_names_and_tags(otel: InMemoryMetricReader, simulator: Simulator) -> None:
    assert drive(sync).error is None
    data: Any = otel.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    received = {metric.name: [dict(point.attributes) for point in metric.data.data_points] for metric in scope.metrics}
    ours = {metric.name: set(metric.tags) for metric in metrics.METRICS}
    for name, points in received.items():
        assert all(set(point) <= ours[name.removeprefix("airflow.")] for point in points), name
    work = {"conn_id": "planasonix_default", "connection_id": CONNECTION, "kind": "job"}
    assert received["airflow.planasonix.job.started"] == [work]
    assert received["airflow.planasonix.job.succeeded"] == [work | {"source": "operator"}]
    assert received["airflow.planasonix.job.duration"] == [work | {"source": "operator", "status": "succeeded"}]
    assert {"airflow.planasonix.request", "airflow.planasonix.rate_limit.remaining"} <= set(received)


@pytest.mark.usefixtures("without_airflow")
def test_broken_stats_break_no_task(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, deferrable: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_CUSTOM_CLIENT_PATH", "no_such_module.Client")
    with forgetting_stats():
        run = drive(lambda: sync(deferrable=deferrable))
    assert run.error is None
    assert run.result["status"] == "succeeded"
    warnings = [record for record in caplog.records if record.name == metrics.__name__]
    assert len(warnings) == 1
    assert "no_such_module" in str(warnings[0].exc_info)


def test_a_duration_that_is_too_long_breaks_no_task(statsd: StatsdServer) -> None:
    metrics.JOB_DURATION.record(1e300, {})
    assert statsd.named(metrics.JOB_DURATION) == []


@pytest.mark.slow("starts processes")
def test_without_metrics_nothing_is_imported_or_sent() -> None:
    source = (
        "import sys; from planasonix_provider import metrics;"
        "metrics.JOB_STARTED.add(1, {}); assert 'airflow' not in sys.modules;"
        "import airflow; metrics.JOB_STARTED.add(1, {}); assert metrics._find_stats() is None;"
        "assert not [m for m in sys.modules if m.startswith('statsd') or 'otel_logger' in m]"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


# --- The docs ---


def test_the_page_describes_each_metric_with_kind_unit_and_tags() -> None:
    rows = re.findall(r"^\| `(planasonix\.\S+)` \| (\w+) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (metric.name, metric.kind, metric.unit, ", ".join(f"`{tag}`" for tag in metric.tags), metric.meaning)
        for metric in metrics.METRICS
    ]


def test_the_page_explains_each_tag() -> None:
    for tag in {tag for metric in metrics.METRICS for tag in metric.tags}:
        assert re.search(rf"^\| `{tag}` \| ", PAGE, re.MULTILINE), tag


def queries() -> list[str]:
    panels = [panel for row in DASHBOARD["panels"] for panel in (row, *row.get("panels", ()))]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return found + [variable["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]


def prometheus_names(metric: metrics.Metric) -> set[str]:
    """Return the names that the exporter of StatsD makes of a metric; a timer is a summary."""
    name = "airflow_" + metric.name.replace(".", "_")
    return {name, f"{name}_sum", f"{name}_count"} if metric.kind == "timer" else {name}


def test_the_dashboard_queries_only_metrics_that_exist() -> None:
    known = {name: metric for metric in metrics.METRICS for name in prometheus_names(metric)}
    used = set()
    for query in queries():
        names = re.findall(r"\bairflow_planasonix_\w+", query)
        assert names, query
        for name in names:
            assert name in known, f"{query}: {name}"
            used.add(known[name])
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query)) | set(
            re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", query)))
        )
        tags = {tag for name in names for tag in known[name].tags} | {"quantile"}
        assert labels <= tags, f"{query}: {labels - tags}"
    assert used == set(metrics.METRICS), {metric.name for metric in set(metrics.METRICS) - used}


def test_each_panel_has_a_description_and_the_data_source_of_the_reader() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
