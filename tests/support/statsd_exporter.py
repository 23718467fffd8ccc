"""A statsd_exporter without a mapping, for tests: it turns StatsD's lines into metrics that Prometheus scrapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.support.statsd import Sample, StatsdServer

QUANTILES = (0.5, 0.9, 0.99)


def expose(samples: Iterable[Sample]) -> str:
    """Return samples in Prometheus' text format. A timer is a summary in seconds."""
    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}
    timers: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        name = re.sub(r"\W", "_", f"airflow.{sample.name}")
        labels = ",".join(f'{tag}="{value}"' for tag, value in sorted(sample.tags.items()))
        if sample.kind == "c":
            counters[f"{name}{{{labels}}}"] = counters.get(f"{name}{{{labels}}}", 0) + sample.value
        elif sample.kind == "g":
            gauges[f"{name}{{{labels}}}"] = sample.value
        else:
            timers.setdefault((name, labels), []).append(sample.value / 1000)
    series = counters | gauges
    for (name, labels), seconds in timers.items():
        series[f"{name}_sum{{{labels}}}"] = sum(seconds)
        series[f"{name}_count{{{labels}}}"] = len(seconds)
        for quantile in QUANTILES:
            value = sorted(seconds)[min(int(quantile * len(seconds)), len(seconds) - 1)]
            series[f'{name}{{{labels},quantile="{quantile}"}}'] = value
    return "".join(f"{name} {value}\n" for name, value in series.items())


@contextmanager
def exporting(statsd: StatsdServer) -> Iterator[str]:
    """Serve what a StatsD server has received, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(expose(statsd.samples()).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
