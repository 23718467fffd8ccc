"""A StatsD server that stores what it receives, and an Airflow that sends its metrics there."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from planasonix_provider import metrics

#: A line as Airflow sends it with the tags of InfluxDB.
_LINE = re.compile(r"airflow\.(?P<name>[^,:]+)(?P<tags>[^:]*):(?P<value>-?[\d.]+)\|(?P<kind>c|g|ms)")

# Packets of the server to itself.
_MARK, _END = "mark", "end"


@dataclass(frozen=True)
class Sample:
    """One value of a metric; ``kind`` is StatsD's."""

    name: str
    kind: str
    value: float
    tags: dict[str, str]


class StatsdServer:
    """Receives UDP packets on a free port, in a thread, because a socket buffers only some hundred."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        #: All packets so far.
        self.packets: list[str] = []
        self._has_all = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while (packet := self._socket.recv(65_535).decode()) != _END:
            if packet == _MARK:
                self._has_all.set()
            else:
                self.packets.append(packet)

    def _send(self, packet: str) -> None:
        self._socket.sendto(packet.encode(), ("127.0.0.1", self.port))

    def wait(self) -> None:
        """Wait for all packets that were sent before: on the loopback interface, packets keep their order."""
        self._has_all.clear()
        self._send(_MARK)
        assert self._has_all.wait(60)

    def samples(self, prefix: str = "planasonix.") -> list[Sample]:
        """Return all samples so far."""
        self.wait()
        lines = [found for packet in self.packets for line in packet.split("\n") if (found := _LINE.fullmatch(line))]
        return [_sample(line) for line in lines if line["name"].startswith(prefix)]

    def named(self, metric: metrics.Metric) -> list[Sample]:
        """Return the samples of a metric."""
        return [sample for sample in self.samples() if sample.name == metric.name]

    def tags(self, metric: metrics.Metric) -> list[dict[str, str]]:
        """Return the tags of each sample of a metric."""
        return [sample.tags for sample in self.named(metric)]

    def totals(self, prefix: str = "planasonix.job.") -> Counter[str]:
        """Sum the counters, by the end of their names."""
        sums: Counter[str] = Counter()
        for sample in self.samples(prefix):
            if sample.kind == "c":
                sums[sample.name.removeprefix(prefix)] += int(sample.value)
        return sums

    def close(self) -> None:
        self._send(_END)
        self._thread.join()
        self._socket.close()


def _sample(line: re.Match[str]) -> Sample:
    tags = dict(tag.split("=", 1) for tag in line["tags"].split(",") if tag)
    return Sample(line["name"], line["kind"], float(line["value"]), tags)


def statsd_settings(server: StatsdServer, *, has_tags: bool = True) -> dict[str, str]:
    """Return the environment that makes an Airflow send its metrics to a server."""
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(server.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": str(has_tags),
    }


@contextmanager
def forgetting_stats() -> Iterator[None]:
    """Make Airflow read ``[metrics]`` again within the block, and after it."""
    _forget_stats()
    try:
        yield
    finally:
        with pytest.MonkeyPatch.context() as patch:
            for switch in ("STATSD_ON", "OTEL_ON"):
                patch.delenv(f"AIRFLOW__METRICS__{switch}", raising=False)
            _forget_stats()


def _forget_stats() -> None:
    from airflow.providers.common.compat.sdk import Stats

    metrics._find_stats.cache_clear()
    metrics._log_once.cache_clear()
    stats: Any = Stats
    module: Any = sys.modules[stats.__module__]
    if hasattr(module, "_backend"):
        module._factory = module._backend = None
        return
    stats.instance = None
    if hasattr(type(stats), "initialize"):
        # Airflow 3.2
        stats.factory = None
    else:
        del type(stats).factory
        type(stats).__init__(stats)


def use_logger(make: Any) -> None:
    """Make Airflow's ``Stats`` use a logger, within :func:`forgetting_stats`."""
    from airflow.providers.common.compat.sdk import Stats

    stats: Any = Stats
    if hasattr(sys.modules[stats.__module__], "_backend"):
        stats.initialize(factory=make, export_legacy_names=True)
    elif hasattr(type(stats), "initialize"):
        stats.initialize(factory=make)
    else:
        type(stats).factory = lambda cls: make()
