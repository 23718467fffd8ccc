"""Measure the simulator on one core: requests per second and memory.

Run by ``make bench``. The simulator runs in its own process, and several kept-alive connections send requests. If the
operating system allows it, simulator and client have a core each. The table also has the CPU time per response, because
it varies less on a busy machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from urllib.parse import quote, urlsplit

import psutil
from figures import record

ACTIVE = 5_000
PAST = 50_000
COME_AND_GO = 100_000
ROUNDS = 5
CONNECTIONS = 8
SECONDS = 4.0
API_KEY = "plnx_sim_benchmark"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

#: Returns the path of a connection's next request from the body of its last response, which is empty at first.
Ask = Callable[[bytes], str]


class Line:
    """A minimal HTTP connection to the simulator, so that the client costs little."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def get(self, path: str) -> None:
        """Send a GET request."""
        self._send("GET", path, b"", "")

    def post(self, path: str, body: bytes, key: str) -> None:
        """Send a POST request."""
        self._send("POST", path, body, f"Idempotency-Key: {key}\r\n")

    def receive(self) -> bytes:
        """Return the body of a response."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"The simulator answered {head.decode()}")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return body

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, method: str, path: str, body: bytes, more: str) -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {API_KEY}\r\n{more}"
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _more(self) -> None:
        received = self._socket.recv(262_144)
        if not received:
            raise RuntimeError("The simulator hung up.")
        self._received += received


class Load:
    """Several connections in turns, so that the simulator always has a request."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.process = process
        self._lines = [Line(url) for _ in range(CONNECTIONS)]
        self._keys = count()

    def ask(self, path: str) -> bytes:
        """Send a GET request on one connection, and return the body of the response."""
        self._lines[0].get(path)
        return self._lines[0].receive()

    def control(self, what: str, **fields: object) -> None:
        """Send a command to the simulator's control API."""
        self._lines[0].post(f"/_simulator/{what}", json.dumps(fields).encode(), "none")
        self._lines[0].receive()

    def start(self, jobs: int) -> None:
        """Start syncs. Their number must be a multiple of the number of connections."""
        for _ in range(jobs // CONNECTIONS):
            for line in self._lines:
                line.post("/api/v1/connections/conn_demo_01/sync", b"{}", f"key-{next(self._keys)}")
            for line in self._lines:
                line.receive()

    def rate(self, ask: Ask) -> tuple[float, float]:
        """Send requests for some seconds. Return the responses per second, and the CPU milliseconds per response."""
        for line in self._lines:
            line.get(ask(b""))
        began, worked, answers = time.perf_counter(), self._worked(), 0
        while (passed := time.perf_counter() - began) < SECONDS:
            for line in self._lines:
                line.get(ask(line.receive()))
            answers += CONNECTIONS
        worked = self._worked() - worked
        for line in self._lines:
            line.receive()
        return answers / passed, worked / answers * 1000

    def megabytes(self) -> float:
        """Return the memory of the simulator."""
        return self.process.memory_info().rss / 1e6

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines:
            line.close()

    def _worked(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


def pin_to(cores: Sequence[int]) -> None:
    """Restrict this process and its future children to some cores. Do nothing if there are none."""
    if cores:
        os.sched_setaffinity(0, cores)


@contextmanager
def simulator(*options: str) -> Iterator[Load]:
    """Run a simulator whose jobs run for a day, without a rate limit and without conflicts."""
    arguments = ["--port", "0", "--api-key", API_KEY, "--queued-seconds", "0", "--job-seconds", "86400"]
    command = [sys.executable, "-m", "planasonix_provider.simulator", *arguments, "--rate-limit", "1000000000"]
    pin_to(CORES[:1])
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        pin_to(CORES[1:])
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            with closing(Load(url, psutil.Process(process.pid))) as load:
                load.control("settings", conflict="allowed")
                yield load
        finally:
            process.terminate()


def job_requests(load: Load) -> Ask:
    """Return a function that requests one active job after the other."""
    ids: list[str] = []
    ask = pages("status=running")
    page = b""
    while len(ids) < ACTIVE:
        page = load.ask(ask(page))
        ids += [job["id"] for job in json.loads(page)["data"]]
    turn = count()
    return lambda _: f"/api/v1/jobs/{ids[next(turn) % ACTIVE]}"


def pages(filters: str) -> Ask:
    """Return a function that requests the pages of a list, again and again."""
    first = f"/api/v1/jobs?limit=100&{filters}"

    def ask(body: bytes) -> str:
        cursor = json.loads(body)["meta"]["page"]["cursor"] if body else None
        return f"{first}&cursor={quote(cursor)}" if cursor else first

    return ask


def measure(load: Load, what: str) -> None:
    """Measure requests for jobs, lists and pages, and print their rows of the table."""
    asks = {
        f"looks at an active job, {what}": (job_requests(load), "1,000"),
        f"pages of `status=running`, {what}": (pages("status=running"), "200"),
        f"the same with `since`, {what}": (pages("status=running&since=2025-01-01T00:00:00Z"), "200"),
        f"pages of `status=queued`, {what}": (pages("status=queued"), "200"),
        f"pages of all jobs, {what}": (pages(""), "200"),
        f"pages for people, of 50 jobs, {what}": (lambda _: "/jobs", "50"),
        f"searches that find nothing, {what}": (lambda _: "/jobs?text=nothing", "10"),
    }
    for name, (ask, wanted) in asks.items():
        rate, cost = load.rate(ask)
        print(f"| {name} | {rate:,.0f} | {cost:.2f} | {wanted} |", flush=True)
        record(f"simulator: {name} (ms of CPU each)", cost)


def main() -> None:
    """Measure, and print two tables."""
    print(f"| {ACTIVE:,} active jobs, pages of 100, one core | per second | ms of CPU each | wanted per second |")
    print("| --- | ---: | ---: | ---: |")
    with simulator("--keep", str(PAST)) as load:
        load.start(ACTIVE)
        measure(load, "no past")
        load.control("plans", connection_id="conn_demo_01", times=None, queued_seconds=0, running_seconds=0)
        load.start(PAST)
        measure(load, f"{PAST:,} jobs of the past")
    print("\n| jobs that came and went | MB |\n| ---: | ---: |")
    with simulator() as load:
        load.control("plans", connection_id="conn_demo_01", times=None, queued_seconds=0, running_seconds=0)
        print(f"| 0 | {load.megabytes():.0f} |")
        for number in range(1, ROUNDS + 1):
            load.start(COME_AND_GO // ROUNDS)
            print(f"| {number * COME_AND_GO // ROUNDS:,} | {load.megabytes():.0f} |", flush=True)
        record(f"simulator: memory after {COME_AND_GO:,} jobs (MB)", load.megabytes())


if __name__ == "__main__":
    main()
