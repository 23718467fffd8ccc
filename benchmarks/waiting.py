"""Measure what waiting costs the API and the triggerer, and compare it with the triggers of dbt Cloud and Airbyte.

Run by ``make bench``. Each case is a fresh process that waits as a triggerer does. All use the same server process.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from figures import record
from waiting_report import CPU, MEASURE, MEMORY, NAMES, REQUESTS, Case, Cost, Outcomes, summary_line, table, write
from waiting_server import KEY, Server, allow_many_sockets

CLIENT = Path(__file__).with_name("waiting_client.py")
KINDS = ("planasonix", "dbt_cloud", "airbyte")
WAITS = (50, 500, 2_000, 5_000)
WAITS_EVENLY = (500,)
#: With fewer waits, the cost is too small to compare with another run.
MIN_RECORDED_WAITS = 500
#: The seconds between two polls.
INTERVAL = 5
#: The seconds after which all jobs end at once, or within which they end one after the other.
AT_ONCE, EVENLY = 20.0, 60.0
#: A case is stopped this many seconds after the last end, or at this much memory, which is more than a triggerer has.
TIMEOUT_SECONDS, MAX_MEMORY_BYTES = 90.0, 4e9
#: The seconds between two measurements of memory.
MEMORY_POLL_SECONDS = 0.05


def main() -> None:
    """Measure every case, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=KINDS, help="whose triggers")
    parser.add_argument("--waits", nargs="*", type=int, default=WAITS, help="how many jobs end at once")
    parser.add_argument("--evenly", nargs="*", type=int, default=WAITS_EVENLY, help="how many end within a minute")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="the docs, which get the tables and the plot")
    options = parser.parse_args()
    cases = [Case(kind, waits, evenly=False) for waits in options.waits for kind in options.only]
    cases += [Case(kind, waits, evenly=True) for waits in options.evenly for kind in options.only]
    outcomes = measure_all(cases)
    print(table(outcomes))
    for case, cost in outcomes.items():
        if isinstance(cost, Cost) and case.kind == MEASURE and case.waits >= MIN_RECORDED_WAITS:
            for column in (REQUESTS, CPU, MEMORY):
                record(f"{case}: {column.name}", column.of(cost, case.waits))
    if options.write:
        write(outcomes, options.write)


def measure_all(cases: list[Case]) -> Outcomes:
    """Run one case after the other on the same server, and print the progress."""
    outcomes: Outcomes = {}
    allow_many_sockets()
    with Server() as server:
        for number, case in enumerate(cases, 1):
            print(f"{number} of {len(cases)}: {case}", file=sys.stderr, flush=True)
            outcomes[case] = outcome = measure(server, case)
            print(f"    {summary_line(outcome, case.waits)}", file=sys.stderr, flush=True)
    return outcomes


def measure(server: Server, case: Case) -> Cost | str:
    """Run a case in a new process. Return its cost, or the reason why there is none."""
    with (
        tempfile.TemporaryDirectory() as home,
        subprocess.Popen(
            [sys.executable, CLIENT, case.kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(server.address, home),
        ) as client,
    ):
        try:
            return _measure(server, case, client)
        finally:
            client.kill()


def _measure(server: Server, case: Case, client: subprocess.Popen[str]) -> Cost | str:
    assert client.stdin
    assert client.stdout
    if client.stdout.readline() != "ready\n":
        return "did not start"
    process = psutil.Process(client.pid)
    before = most = process.memory_info().rss
    ends = end_times(case, time.monotonic())
    server.begin(ends)
    print(json.dumps({"waits": case.waits, "interval": INTERVAL}), file=client.stdin, flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(client.stdout, selectors.EVENT_READ)
        while not selector.select(MEMORY_POLL_SECONDS):
            most = max(most, process.memory_info().rss)
            if most > MAX_MEMORY_BYTES:
                return f"given up at {most / 1e9:.1f} GB of memory"
            if time.monotonic() > ends[-1] + TIMEOUT_SECONDS:
                return (
                    f"given up {TIMEOUT_SECONDS:.0f} s after the last job had ended, at {most / 1e9:.1f} GB of memory"
                )
    requests, sockets = server.requests, server.sockets
    told: dict[str, Any] | None = json.loads(client.stdout.readline() or "null")
    if told is None:
        return "the process died"
    if told["failures"]:
        return f"{len(told['failures']):,} waits failed, the first with {told['failures'][0]}"
    delays = [seen - end for seen, end in zip(told["seen_at"], ends, strict=True)]
    return Cost(
        requests, sockets, told["cpu_seconds"], most - before, told["longest_block"], told["longest_collection"], delays
    )


def end_times(case: Case, start: float) -> list[float]:
    """Return the end of each job, by the same clock as ``start``."""
    if case.evenly:
        return [start + EVENLY * number / case.waits for number in range(1, case.waits + 1)]
    return [start + AT_ONCE] * case.waits


def environment(address: str, home: str) -> dict[str, str]:
    """Return the environment of a client: the Airflow connections, without the user's Airflow."""
    connections: dict[str, dict[str, str]] = {
        "planasonix": {"host": f"http://{address}", "password": KEY},
        "dbt_cloud": {"host": address, "login": "1", "password": KEY},
        "airbyte": {"host": f"http://{address}/api/public/v1", "login": "benchmark", "password": KEY},
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    for kind, fields in connections.items():
        clean[f"AIRFLOW_CONN_{kind.upper()}_DEFAULT"] = json.dumps({"conn_type": kind, **fields})
    return {**clean, "AIRFLOW_HOME": home, "no_proxy": "127.0.0.1"}


if __name__ == "__main__":
    main()
