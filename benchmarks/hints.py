"""Compare 500 waits that only poll with 500 that poll slowly and react to webhooks.

Run by hand; takes eight minutes. A webhook leaves a hint for the triggerer, which reads the hints once a second and
polls the jobs that they name. The cost of reading hints in Airflow is not measured.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pydantic import SecretStr

from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, ClientConfig
from planasonix_provider.simulator import Simulator
from planasonix_provider.waiting.poller import Poller

WAITS = 500
#: The jobs end evenly between these times, in seconds.
SHORTEST, LONGEST = 30, 90
#: The seconds between two reads of the hints.
READ_EVERY = 1.0
#: The poll interval in seconds, and whether there are hints.
CASES = ((10, False), (2, False), (1, False), (60, True), (10, True))
KEY = "plnx_test_4f8a1c0e9d"


@contextmanager
def receiver() -> Iterator[tuple[str, set[str]]]:
    """Yield the URL of a webhook receiver, and the set of jobs that its deliveries name."""
    hints: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hints.add(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["job_id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", hints
    finally:
        server.shutdown()


async def wake(poller: Poller, hints: set[str]) -> None:
    """Make the poller poll the jobs in new hints at once."""
    known: set[str] = set()
    while True:
        await asyncio.sleep(READ_EVERY)
        new = hints - known
        known |= new
        for wait in [wait for job_id in new for wait in poller._named.get(job_id, ())]:
            wait.due = asyncio.get_running_loop().time()
            poller._end_sleep_for(wait)


async def measure(planasonix: Simulator, interval: float, hints: set[str] | None) -> list[float]:
    """Wait for all jobs. Return the sorted delays between their ends and their events, in seconds."""
    account = ClientConfig(api_key=SecretStr(KEY), base_url=planasonix.url)

    async def connect() -> AsyncClient:
        return AsyncClient(account)

    poller = Poller(connect)

    async def wait_for(job_id: str) -> float:
        async with poller.wait(routes.get_job(job_id), interval, delay=interval) as wait:
            while getattr(await wait.next(600), "status", None) != "succeeded":
                pass
        ended = planasonix.job(job_id).finished_at
        assert ended
        return (datetime.now(UTC) - ended).total_seconds()

    waking = asyncio.create_task(wake(poller, hints)) if hints is not None else None
    late = await asyncio.gather(*(wait_for(job.id) for job in planasonix.jobs()))
    if waking:
        waking.cancel()
        with suppress(asyncio.CancelledError):
            await waking
    return sorted(late)


def run(interval: float, *, hinted: bool) -> str:
    """Measure one case, and return its row of the table."""
    with receiver() as (url, hints), Simulator(api_key=KEY, rate_limit=100_000) as planasonix:
        if hinted:
            planasonix.subscribe(url, events=["job.succeeded"])
        for number in range(WAITS):
            name = f"conn_{number}"
            planasonix.workspace.add_connection(name)
            seconds = SHORTEST + (LONGEST - SHORTEST) * number / WAITS
            planasonix.plan(name, queued_seconds=0, running_seconds=seconds)
            planasonix.workspace.start_sync(name)
        late = asyncio.run(measure(planasonix, interval, hints if hinted else None))
        minutely = len(planasonix.requests) * 60 / LONGEST
    reads = f"{60 / READ_EVERY:.0f}" if hinted else "0"
    return f"| {interval} | {reads} | {minutely:.0f} | {statistics.median(late):.2f} | {late[-1]:.2f} |"


if __name__ == "__main__":
    print("| interval (s) | hints read a minute | requests a minute | event after, median (s) | worst (s) |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for interval, hinted in CASES:
        print(run(interval, hinted=hinted), flush=True)
