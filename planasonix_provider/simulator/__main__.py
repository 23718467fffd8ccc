"""The command line: ``python -m planasonix_provider.simulator``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from planasonix_provider.simulator.airflow_connection import export_line
from planasonix_provider.simulator.hosts import ANY_HOST, host_name
from planasonix_provider.simulator.model.workload import DEFAULT_KEEP

if TYPE_CHECKING:
    from planasonix_provider.simulator import Simulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a simulator until it is interrupted or terminated. Return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        # Imported late, because --help works without the extra.
        from planasonix_provider.simulator import Simulator
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return 1
    try:
        simulator = Simulator(**vars(options))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"Cannot use {options.state}: {error.strerror}. Name another file with --state.", file=sys.stderr)
        return 1
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        simulator.start()
    except OSError as error:
        print(
            f"Cannot listen on {options.host}:{options.port}: {error.strerror}. Name another address with --host, or "
            "port with --port; 0 takes a free one.",
            file=sys.stderr,
        )
        return 1
    print(_welcome(simulator), flush=True)
    stopped.wait()
    simulator.stop()
    simulator.workspace.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m planasonix_provider.simulator",
        description="A local Planasonix, to develop and test DAGs without an account.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    add("--port", type=port, default=8321, help="the port to listen on; 0 takes a free one (default: %(default)s)")
    add(
        "--job-seconds",
        type=seconds,
        default=20.0,
        metavar="SECONDS",
        help="how many seconds a job runs (default: %(default)g)",
    )
    add(
        "--queued-seconds",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="how many seconds a job is queued (default: %(default)g)",
    )
    add(
        "--api-key",
        default="plnx_sim_local_key",
        metavar="KEY",
        help="the API key that exists from the start (default: %(default)s)",
    )
    add(
        "--connection",
        action="append",
        default=[],
        dest="connections",
        metavar="ID",
        help="the id of another connection that exists from the start; may be repeated",
    )
    add(
        "--rate-limit",
        type=count,
        default=1200,
        metavar="N",
        help="how many requests an API key may send per minute (default: %(default)s)",
    )
    add(
        "--keep",
        type=count,
        default=DEFAULT_KEEP,
        metavar="N",
        help="how many ended jobs are kept (default: %(default)s)",
    )
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="store every change in FILE, and restore the state from it at the next start (default: store nothing)",
    )
    add(
        "--airflow-url",
        metavar="URL",
        help="the URL of Airflow 3, for links from jobs to their tasks (default: no links)",
    )
    add(
        "--allow-host",
        type=host,
        action="append",
        default=[],
        dest="allowed_hosts",
        metavar="NAME",
        help="a host name that requests may use, besides localhost, IP addresses and --host; may be repeated",
    )
    add(
        "--webhook-host",
        type=host_or_any,
        action="append",
        default=[],
        dest="webhook_hosts",
        metavar="HOST",
        help="a host that webhooks are delivered to, besides this machine; * allows every host; may be repeated",
    )
    add(
        "--hide-metadata",
        action="store_false",
        dest="show_metadata",
        help="return no metadata with jobs and backfills, as a deployment may do (default: return it)",
    )
    return parser


# argparse uses the names of these functions in "invalid port value: 'x'".
def port(text: str) -> int:
    """Parse a port."""
    return int(_within(int(text), 0, 65_535))


def seconds(text: str) -> float:
    """Parse a duration of at most a year."""
    return _within(float(text), 0, 31_536_000)


def count(text: str) -> int:
    """Parse a positive number."""
    return int(_within(int(text), 1, 10**9))


def host(text: str) -> str:
    """Parse a host name or IP address."""
    try:
        return host_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def host_or_any(text: str) -> str:
    """Parse a host or ``*``."""
    return text if text == ANY_HOST else host(text)


def _within(number: float, minimum: float, maximum: float) -> float:
    if not minimum <= number <= maximum:
        raise argparse.ArgumentTypeError(f"got {number}, allowed is {minimum} to {maximum}")
    return number


def _welcome(simulator: Simulator) -> str:
    from planasonix_provider.simulator.workspace import CONNECTIONS

    url = simulator.url
    own = [connection_id for connection_id in simulator.workspace.connections if connection_id not in CONNECTIONS]
    connections = "\n  ".join([CONNECTIONS[0], f"{CONNECTIONS[1]} to {CONNECTIONS[-1]}", *own])
    return f"""\
Planasonix simulator at {url}
API key: {simulator.api_key}
Open this URL in a browser to watch and control it.

To connect Airflow:
  {export_line(url, simulator.api_key)}

Connections to sync:
  {connections}

To make the next sync of a connection fail:
  curl -d '{{"connection_id": "{CONNECTIONS[0]}", "outcome": "failed"}}' {url}/_simulator/plans

To make the next poll of a job fail (the task continues):
  curl -d '{{"kind": "status", "status": 503, "route": "get_job"}}' {url}/_simulator/faults

Ctrl-C stops it."""


if __name__ == "__main__":
    sys.exit(main())
