"""Faults of an API and of the network, planned in the simulator."""

from __future__ import annotations

import random
from itertools import cycle
from typing import Any

from planasonix_provider.simulator import Simulator


def order_fourteen_faults(
    simulator: Simulator, seed: int = 0, *, routes: tuple[str, ...] = ("get_job",), retry_after: str = "0"
) -> None:
    """Plan fourteen failing reads on each of some routes in turn, in an order that depends on the seed."""
    faults: list[dict[str, Any]] = [
        *[{"kind": "status", "status": 429, "headers": {"Retry-After": retry_after}}] * 3,
        *[{"kind": "reset"}] * 3,
        *[{"kind": "cut", "when": "after"}] * 2,
        {"kind": "html", "status": 200},
        *[{"kind": "html", "status": 502}] * 2,
        *[{"kind": "status", "status": 500}] * 3,
    ]
    random.Random(seed).shuffle(faults)
    for fault, route in zip(faults, cycle(routes), strict=False):
        simulator.fail(route=route, **fault)
