"""The process of one measured case, which runs all its triggers in one event loop, as a triggerer does.

``waiting.py`` starts it. It prints a line when it is ready, reads the case as JSON, and prints the costs as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from airflow.triggers.base import BaseTrigger

#: The seconds that the heartbeat sleeps.
BEAT = 0.01
#: The poll interval of the warm-up in seconds: the shortest that the provider allows.
WARM_UP_INTERVAL = 0.5
#: The seconds for which the heartbeat runs alone, to measure its own cost.
ALONE = 1.0
A_WEEK = 7 * 86_400

#: Makes a trigger from the number of a job and a poll interval in seconds.
Make = Callable[[int, float], BaseTrigger]


def planasonix() -> Make:
    """Return a factory of this package's triggers, as a triggerer that has just started runs them."""
    from planasonix_provider.triggers.planasonix import PlanasonixJobTrigger

    return lambda number, interval: PlanasonixJobTrigger(f"job_{number:08}", poll_interval=interval)


def dbt_cloud() -> Make:
    """Return a factory of dbt Cloud's triggers."""
    from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    # The hook requires TLS, but the server of the benchmark has none, so that no client pays for TLS.
    with_tls = DbtCloudHook.get_request_url_params

    def without_tls(*arguments: Any, **options: Any) -> tuple[str, dict[str, Any]]:
        url, parameters = with_tls(*arguments, **options)
        return url.replace("https://", "http://", 1), parameters

    DbtCloudHook.get_request_url_params = staticmethod(without_tls)
    end = time.time() + A_WEEK
    return lambda number, interval: DbtCloudRunJobTrigger("dbt_cloud_default", number, end, interval, account_id=1)


def airbyte() -> Make:
    """Return a factory of Airbyte's triggers."""
    from airflow.providers.airbyte.triggers.airbyte import AirbyteSyncTrigger

    end = time.time() + A_WEEK
    return lambda number, interval: AirbyteSyncTrigger(number, "airbyte_default", end, interval)


KINDS = {function.__name__: function for function in (planasonix, dbt_cloud, airbyte)}


class Heartbeat:
    """Sleeps in a loop, and measures by how much a blocked event loop delays it."""

    def __init__(self) -> None:
        self.beats = 0
        self.longest_block = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            slept_at = time.perf_counter()
            await asyncio.sleep(BEAT)
            self.longest_block = max(self.longest_block, time.perf_counter() - slept_at - BEAT)
            self.beats += 1


class Collections:
    """Times Python's garbage collector, which blocks the event loop if there are many objects."""

    def __init__(self) -> None:
        self._began = 0.0
        self.longest = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Record the start or the end of a collection."""
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.longest = max(self.longest, time.perf_counter() - self._began)


async def main(kind: str, output: TextIO) -> None:
    """Warm up, run the case from the standard input, and write its costs to ``output``."""
    make = KINDS[kind]()
    await wait(make(0, WARM_UP_INTERVAL))
    seconds_of_a_beat = await beat_alone()
    gc.collect()
    print("ready", file=output, flush=True)
    case = json.loads(sys.stdin.readline())
    heart = Heartbeat()
    beating = asyncio.create_task(heart.run())
    gc.callbacks.append(collections := Collections())
    await asyncio.sleep(0)
    before = time.process_time()
    answers = await wait_for_all(make, case["waits"], case["interval"])
    cpu_seconds = time.process_time() - before
    beating.cancel()
    told = {
        "cpu_seconds": cpu_seconds - heart.beats * seconds_of_a_beat,
        "longest_block": heart.longest_block,
        "longest_collection": collections.longest,
        "seen_at": [seen_at for seen_at, _ in answers],
        "failures": [repr(payload) for _, payload in answers if not is_success(payload)],
    }
    print(json.dumps(told), file=output, flush=True)


async def beat_alone() -> float:
    """Return the CPU seconds of one beat."""
    heart, before = Heartbeat(), time.process_time()
    beating = asyncio.create_task(heart.run())
    await asyncio.sleep(ALONE)
    beating.cancel()
    return (time.process_time() - before) / heart.beats


async def wait_for_all(make: Make, waits: int, interval: float) -> list[tuple[float, Any]]:
    """Run triggers for the jobs from 1 on. Return the results of :func:`wait` in this order."""
    tasks = []
    for number in range(1, waits + 1):
        # The triggerer also starts one trigger after the other, and yields to the others twice in between.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(wait(make(number, interval))))
    return await asyncio.gather(*tasks)


async def wait(trigger: BaseTrigger) -> tuple[float, Any]:
    """Run a trigger to its end, as the triggerer does. Return the time and the payload of its event."""
    seen_at, payload = 0.0, None
    async for event in trigger.run():
        seen_at, payload = time.monotonic(), event.payload
    return seen_at, payload


def is_success(payload: Any) -> bool:
    """Return whether an event reports a job that has succeeded."""
    if "outcome" in payload:
        return bool(payload["outcome"] == "over" and payload["job"]["status"] == "succeeded")
    return bool(payload["status"] == "success")


if __name__ == "__main__":
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Logs of triggers are written to the null device, because writing them is part of their cost.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
    asyncio.run(main(sys.argv[1], output))
