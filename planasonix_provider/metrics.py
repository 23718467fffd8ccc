"""The metrics of this package, which Airflow's ``Stats`` sends to StatsD or OpenTelemetry as ``[metrics]`` says.

A metric never breaks what it counts: an error of ``Stats`` is logged once, and ignored. Without ``[metrics]``, a metric
costs one function call.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, lru_cache
from typing import Any, ClassVar, TypeAlias

log = logging.getLogger(__name__)

Tags: TypeAlias = Mapping[str, str | None]

#: The settings of ``[metrics]`` that let Airflow send metrics.
_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")
#: StatsD separates its fields by the other characters, and Airflow drops a metric whose tag has one of them.
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Metric:
    """A metric. ``meaning`` is its row in docs/metrics.md."""

    kind: ClassVar[str]

    name: str
    unit: str
    tags: tuple[str, ...]
    meaning: str

    def _convert(self, value: float) -> float | timedelta:
        return value

    def _send(self, method: str, value: float, tags: Tags) -> None:
        try:
            # Only Airflow's processes send metrics; others need not import it for them.
            if "airflow" in sys.modules and (stats := _find_stats()) is not None:
                # A missing tag is sent, too: Prometheus wants the same labels on all series of a metric.
                safe = {name: _safe(tags.get(name) or "none") for name in self.tags}
                getattr(stats, method)(self.name, self._convert(value), tags=safe)
        except Exception:
            _log_once()
            log.debug("The metric %s could not be sent.", self.name, exc_info=True)


class Counter(Metric):
    """A metric that only grows."""

    kind = "counter"

    def add(self, count: int, tags: Tags) -> None:
        """Add to the counter; a tag that is ``None`` is sent as ``none``."""
        self._send("incr", count, tags)


class Gauge(Metric):
    """A metric whose last value counts."""

    kind = "gauge"

    def set(self, value: float, tags: Tags) -> None:
        """Set the value."""
        self._send("gauge", value, tags)


class Timer(Metric):
    """A metric of durations."""

    kind = "timer"

    def record(self, seconds: float, tags: Tags) -> None:
        """Record a duration."""
        self._send("timing", seconds, tags)

    def _convert(self, value: float) -> timedelta:
        # Airflow converts a timedelta to the unit of the backend, and takes a number as milliseconds.
        return timedelta(seconds=max(0.0, value))


_WORK = ("conn_id", "connection_id", "kind")
_END = (*_WORK, "source")

JOB_STARTED = Counter("planasonix.job.started", "jobs, backfills", _WORK, "work that tasks have started")
JOB_SUCCEEDED = Counter("planasonix.job.succeeded", "jobs, backfills", _END, "work whose success a task has seen")
JOB_FAILED = Counter("planasonix.job.failed", "jobs, backfills", _END, "work whose failure a task has seen")
JOB_CANCELLED = Counter(
    "planasonix.job.cancelled", "jobs, backfills", _END, "work that a task has cancelled, or has seen to be cancelled"
)
JOB_RECONNECTED = Counter(
    "planasonix.job.reconnected", "tries", _WORK, "tries that continue the work of an earlier try, or return its result"
)
JOB_SEARCHED = Counter(
    "planasonix.job.searched", "searches", _WORK, "searches for work after the response to a start was lost"
)
JOB_DURATION = Timer("planasonix.job.duration", "ms", (*_END, "status"), "run time of the work whose end was counted")
JOB_ROWS_LOADED = Counter("planasonix.job.rows_loaded", "rows", _WORK, "rows that the work of tasks has loaded")
JOB_EVENT_DELAY = Timer(
    "planasonix.job.event_delay", "ms", _END, "time from the end of the work until its trigger or its worker notices it"
)
REQUEST = Counter("planasonix.request", "requests", ("conn_id", "route", "status"), "requests to the API, each try")
REQUEST_DURATION = Timer("planasonix.request.duration", "ms", ("conn_id", "route"), "time of a request, each try")
REQUEST_RETRIED = Counter(
    "planasonix.request.retried", "requests", ("conn_id", "route"), "requests that are repeated after an error"
)
REQUEST_RATE_LIMITED = Counter(
    "planasonix.request.rate_limited", "requests", ("conn_id", "route"), "requests that were answered with 429"
)
RATE_LIMIT_REMAINING = Gauge(
    "planasonix.rate_limit.remaining", "requests", ("conn_id",), "requests that are left of the API key's rate limit"
)
WAITS_DEFERRED = Gauge("planasonix.waits.deferred", "waits", ("conn_id", "hostname"), "waits in a triggerer")
POLL_DURATION = Timer(
    "planasonix.poll.duration", "ms", ("conn_id", "method"), "time of a poll of all due waits in a triggerer"
)
WATCHER_LAG = Timer(
    "planasonix.watcher.lag", "ms", ("conn_id", "kind"), "time from the end of the work until its asset event"
)
WEBHOOK_DELIVERY = Counter(
    "planasonix.webhook.delivery",
    "deliveries",
    ("receiver", "outcome", "reason"),
    "deliveries that reached the webhook receiver",
)

#: All metrics; docs/metrics.md lists them in this order.
METRICS = tuple(metric for metric in list(globals().values()) if isinstance(metric, Metric))


@cache
def _find_stats() -> Any | None:
    """Return Airflow's ``Stats``, or ``None`` if Airflow sends no metrics."""
    # Imported lazily: this module is imported where Airflow may not be needed.
    from airflow.providers.common.compat.sdk import conf

    if not any(conf.getboolean("metrics", name, fallback=False) for name in _SWITCHES):
        return None
    from airflow.providers.common.compat.sdk import Stats

    _initialize(Stats, conf)
    return Stats


def _initialize(stats: Any, conf: Any) -> None:
    """Initialize ``Stats`` if Airflow has not: Airflow 3.2 and later do so in tasks, but not in other processes."""
    try:
        from airflow.sdk.observability.metrics import stats_utils
    except ImportError:
        # Before Airflow 3.2, it initializes itself.
        return
    # A second initialization would start a second exporter of OpenTelemetry.
    if getattr(stats, "factory", None) or getattr(sys.modules[stats.__module__], "_factory", None):
        return
    try:
        factory = stats_utils.get_stats_factory()
    except TypeError:
        # Airflow 3.2
        factory = stats_utils.get_stats_factory(stats)  # type: ignore[call-arg]
        stats.initialize(factory=factory)
    else:
        has_legacy_names = conf.getboolean("metrics", "legacy_names_on", fallback=True)
        stats.initialize(factory=factory, export_legacy_names=has_legacy_names)


@lru_cache(maxsize=1_000)
def _safe(tag: str) -> str:
    return _UNSAFE.sub("_", tag)


@cache
def _log_once() -> None:
    log.warning("Metrics of Planasonix cannot be sent; this is logged once per process.", exc_info=True)
