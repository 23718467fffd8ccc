"""The command line: ``python -m planasonix_provider.simulator``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.connect import export_line
from planasonix_provider.simulator.past import KEEP


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a simulator until it is interrupted or terminated.

    :param arguments: the command line; by default this process's own.
    :return: the exit code: 0 when it was stopped, 1 if it could not start.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        simulator = Simulator(
            job_seconds=options.job_seconds,
            queued_seconds=options.queued_seconds,
            host=options.host,
            port=options.port,
            api_key=options.api_key,
            connections=options.connection,
            rate_limit=options.rate_limit,
            keep=options.keep,
            state=options.state,
            airflow_url=options.airflow_url,
        )
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"Cannot use {options.state}: {error.strerror}.", file=sys.stderr)
        return 1
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        simulator.start()
    except OSError as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error.strerror}.", file=sys.stderr)
        return 1
    print(_welcome(simulator), flush=True)
    stopped.wait()
    simulator.stop()
    simulator.world.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m planasonix_provider.simulator",
        description="A local Planasonix, to develop and test DAGs without an account.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=port, default=8321, help="port to listen on; 0 takes a free one")
    add("--job-seconds", type=seconds, default=20.0, metavar="S", help="how long a job runs")
    add("--queued-seconds", type=seconds, default=2.0, metavar="S", help="how long a job waits before it runs")
    add("--api-key", default="plnx_sim_local_key", metavar="KEY", help="the key that the API takes")
    add("--connection", action="append", default=[], metavar="ID", help="a further connection; may be repeated")
    add("--rate-limit", type=count, default=1200, metavar="N", help="requests that a key has in each minute")
    add(
        "--keep",
        type=count,
        default=KEEP,
        metavar="N",
        help="how many jobs that are over it keeps",
    )
    add(
        "--state", type=Path, metavar="FILE", help="keep all that happens in FILE, and go on from there after a restart"
    )
    add("--airflow-url", metavar="URL", help="where the pages of Airflow 3 are, for links from jobs to their tasks")
    return parser


# argparse names these functions when a text is no number at all: "invalid port value: 'x'".
def port(text: str) -> int:
    """Read a port.

    :param text: what was typed.
    :return: the port.
    :raises ValueError: if it is no number.
    :raises argparse.ArgumentTypeError: if it is no port.
    """
    return int(_within(int(text), 0, 65_535))


def seconds(text: str) -> float:
    """Read a stretch of time, at most a year.

    :param text: what was typed.
    :return: the seconds.
    :raises ValueError: if it is no number.
    :raises argparse.ArgumentTypeError: if it is negative or too long.
    """
    return _within(float(text), 0, 31_536_000)


def count(text: str) -> int:
    """Read how many.

    :param text: what was typed.
    :return: the number.
    :raises ValueError: if it is no number.
    :raises argparse.ArgumentTypeError: if it is not positive.
    """
    return int(_within(int(text), 1, 10**9))


def _within(number: float, least: int, most: int) -> float:
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"got {number}, allowed is {least} to {most}")
    return number


def _welcome(simulator: Simulator) -> str:
    url = simulator.url
    connections = "\n".join(f"  {connection_id}" for connection_id in simulator.world.connections)
    return f"""\
Planasonix simulator at {url}
API key: {simulator.api_key}
To look at it and steer it, open the address in a browser.

To connect Airflow:
  {export_line(url, simulator.api_key)}

Connections to sync:
{connections}

To let the next look at a job fail:
  curl -d '{{"kind": "status", "status": 503, "route": "get_job"}}' {url}/_simulator/faults

Ctrl-C stops it."""


if __name__ == "__main__":
    sys.exit(main())
