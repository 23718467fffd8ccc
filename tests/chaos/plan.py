"""The plan of a storm, made from a seed alone, before anything runs.

The same seed always gives the same plan, because a plan names no tasks. A target is a component, or a number between 0
and 1: the position in the list of suitable tasks at the time of the action.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.catalogue import Size, Spec, catalogue
from tests.support.proxy import REFUSALS, Oddity

#: The duration of the storm in seconds.
STORM = {"full": 130.0, "short": 55.0}
#: The number of actions of each kind in a full storm, and in a short one.
COUNTS: dict[str, tuple[int, int]] = {
    "kill": (8, 3),
    "kill_task": (8, 3),
    "freeze": (1, 0),
    "lose_start": (9, 3),
    "fault": (9, 3),
    "rotate": (2, 1),
    "clear": (5, 2),
    "mark_failed": (5, 2),
    "kill_start": (4, 1),
    "refuse": (6, 3),
    "spoil_lists": (2, 1),
    "delete_connection": (2, 1),
    # It takes a minute, which is too long for a short storm.
    "api_server_away": (1, 0),
    "end_by_hand": (2, 1),
}
#: The second at which the API server is killed: tasks on workers have started, and still wait.
AWAY_AT = (22.0, 30.0)
#: The seconds until it restarts. A task's supervisor gives up after three failed heartbeats, which takes 37 s.
AWAY_SECONDS = (48.0, 55.0)
#: The share of connections with odd values in responses. Connections whose work fails always have them.
ODD_SHARE = 0.3
#: The simulator's responses to a lost start, which may have had its effect or not.
LOST_STARTS: tuple[dict[str, Any], ...] = (
    {"kind": "reset"},
    {"kind": "cut"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 504},
    {"kind": "html", "status": 502},
    {"kind": "empty", "status": 200},
    {"kind": "hang", "seconds": 8},
)
STARTS = ("trigger_sync", "trigger_sync", "trigger_backfill")
CANCELS = ("cancel_job", "get_job", "list_jobs", "get_job_results", "get_backfill")


@dataclass(frozen=True)
class Action:
    """One planned action.

    :param at: its time in seconds.
    :param kind: its kind, a key of ``COUNTS`` or a follow-up of one.
    :param target: a component, or a position from 0 to 1 in the list of suitable tasks.
    :param how: its other parameters.
    """

    at: float
    kind: str
    target: str | float | None = None
    how: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        target = "" if self.target is None else f" {self.target}"
        return f"{self.at:6.1f} s  {self.kind}{target} {json.dumps(self.how) if self.how else ''}".rstrip()


@dataclass(frozen=True)
class Plan:
    """The plan of a storm.

    :param seed: its seed.
    :param distributed: whether Airflow has two triggerers, and Celery with two workers.
    :param size: "full" or "short".
    :param settings: the settings of the simulator.
    :param seconds: the duration of the work of each connection.
    :param oddities: the odd values in responses about the work of a connection.
    :param actions: the actions in order.
    """

    seed: int
    distributed: bool
    size: Size
    settings: dict[str, Any]
    seconds: dict[str, float]
    oddities: dict[str, Oddity]
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        how = "two triggerers, Celery with two workers" if self.distributed else "LocalExecutor"
        counts = ", ".join(
            f"{count} {kind}" for kind, count in sorted(Counter(action.kind for action in self.actions).items())
        )
        lines = [f"Seed {self.seed}, {self.size}: {how}. The simulator: {json.dumps(self.settings)}. {counts}"]
        lines.append(f"Odd answers: {', '.join(f'{name} {oddity}' for name, oddity in self.oddities.items())}")
        return "\n".join([*lines, *map(str, self.actions)])


def make(seed: int, *, distributed: bool | None = None, size: Size = "full") -> Plan:
    """Return the plan of a seed.

    :param seed: any number. Plans of odd seeds are distributed.
    :param distributed: overrides the choice by the seed.
    :param size: "full" or "short".
    """
    is_distributed = seed % 2 == 1 if distributed is None else distributed
    dice = random.Random(f"{seed} {is_distributed} {size}")
    settings = {
        "honour_idempotency": dice.random() < 0.5,
        "show_metadata": dice.random() < 0.5,
        "conflict": dice.choice(["named", "unnamed"]),
    }
    seconds = {connection_id: _seconds(dice, spec) for spec in catalogue(size) for _, _, connection_id in spec.names()}
    actions = [action for kind in COUNTS for action in _actions(dice, kind, size, is_distributed)]
    actions.sort(key=lambda action: action.at)
    return Plan(seed, is_distributed, size, settings, seconds, _oddities(dice, size), tuple(actions))


def _oddities(dice: random.Random, size: Size) -> dict[str, Oddity]:
    """Choose odd values for responses about each connection's work. Connections whose work fails get every kind."""
    ways: tuple[Oddity, ...] = ("nul", "huge", "infinite")
    odd: dict[str, Oddity] = {}
    failing = 0
    for spec in catalogue(size):
        for _, _, connection_id in spec.names():
            if spec.fails_once:
                odd[connection_id] = ways[failing % len(ways)]
                failing += 1
            elif dice.random() < ODD_SHARE:
                odd[connection_id] = dice.choice(("nul", *ways))
    return odd


def _seconds(dice: random.Random, spec: Spec) -> float:
    if spec.timeout:
        # So long that its own end cannot be mistaken for a cancel.
        return round(dice.uniform(120, 150), 1)
    return round(dice.uniform(60, 90) if spec.is_long else dice.uniform(5, 30), 1)


def _actions(dice: random.Random, kind: str, size: Size, distributed: bool) -> list[Action]:
    """Make the actions of one kind, spread over the storm so that killed components can restart in between."""
    count = COUNTS[kind][size == "short"]
    if kind == "freeze" and not distributed:
        return []
    make_one = _MAKERS[kind]
    # In a short storm, responses to starts get lost early, because few tasks start later.
    span = STORM[size] / 4 if (kind, size) == ("lose_start", "short") else STORM[size]
    step = span / count if count else 0
    begins = [step * number + dice.uniform(0, step) for number in range(count)]
    order = list(range(count))
    dice.shuffle(order)
    return [make_one(dice, round(5 + begin, 1), turn, distributed) for begin, turn in zip(begins, order, strict=True)]


def _kill(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    components = ["triggerer", "scheduler", "simulator", "api-server"]
    if distributed:
        components = [
            "triggerer",
            "celery-worker",
            "scheduler",
            "simulator",
            "triggerer-2",
            "celery-worker-2",
            "api-server",
        ]
    signal = dice.choice(["SIGKILL", "SIGKILL", "SIGTERM"])
    how = {"signal": signal, "down": round(dice.uniform(1, 8), 1)}
    return Action(at, "kill", components[turn % len(components)], how)


def _kill_task(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    signal = "SIGTERM" if turn % 3 == 2 else "SIGKILL"
    how = {"signal": signal, "with_supervisor": signal == "SIGKILL" and turn % 4 == 3}
    return Action(at, "kill_task", _position(dice), how)


def _freeze(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    return Action(at, "freeze", dice.choice(["triggerer", "triggerer-2"]), {"seconds": round(dice.uniform(18, 25), 1)})


def _lose_start(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    """Lose the response to a start. In most cases the start has had its effect, because that is the hard case."""
    when = "before" if turn % 3 == 2 else "after"
    return Action(at, "fault", None, {**dice.choice(LOST_STARTS), "route": dice.choice(STARTS), "when": when})


def _fault(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    """Disturb requests of all kinds for a while."""
    waves: list[dict[str, Any]] = [
        {"kind": "status", "status": 429, "headers": {"Retry-After": "2"}, "times": dice.randint(10, 30)},
        {"kind": "hang", "seconds": 20, "times": dice.randint(2, 5)},
        {"kind": "reset", "route": dice.choice(CANCELS), "when": "after", "times": dice.randint(1, 4)},
        {"kind": "status", "status": dice.choice([500, 502, 503, 504]), "times": dice.randint(3, 12)},
        {"kind": dice.choice(["cut", "empty"]), "times": dice.randint(2, 6)},
        {"kind": "status", "status": 503, "route": "cancel_job", "times": dice.randint(1, 4)},
    ]
    return Action(at, "fault", None, waves[turn % len(waves)])


def _rotate(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    return Action(at, "rotate", None, {"key": f"plnx_sim_rotated_{dice.getrandbits(64):016x}", "revoke_after": 4})


def _clear(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    states = [["deferred"], ["running"], ["success", "failed"]][turn % 3]
    return Action(at, "clear", _position(dice), {"states": states})


def _mark_failed(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    return Action(at, "mark_failed", _position(dice), {"states": [["deferred"], ["running"]][turn % 2]})


def _kill_start(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    """Kill the next task that starts work while it waits for the response."""
    how = {"signal": "SIGTERM" if turn == 3 else "SIGKILL", "when": "before" if turn == 2 else "after", "seconds": 6}
    return Action(at, "kill_start", None, how)


def _refuse(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    """Make the proxy reject requests, mostly reads, because a wait consists of reads."""
    which = "writes" if turn % 3 == 2 else "reads"
    how = list(REFUSALS)[turn % len(REFUSALS)]
    return Action(at, "refuse", None, {"which": which, "how": how, "seconds": round(dice.uniform(5, 12), 1)})


def _spoil_lists(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    return Action(at, "spoil_lists", None, {"seconds": round(dice.uniform(10, 20), 1)})


def _delete_connection(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    return Action(at, "delete_connection", None, {"seconds": round(dice.uniform(4, 10), 1)})


def _api_server_away(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    """Kill the API server, and restart it only after the supervisors of tasks have given up."""
    return Action(
        round(dice.uniform(*AWAY_AT), 1), "api_server_away", None, {"down": round(dice.uniform(*AWAY_SECONDS), 1)}
    )


def _end_by_hand(dice: random.Random, at: float, turn: int, distributed: bool) -> Action:
    """Mark a deferred task failed while no triggerer runs. The triggerer stays down until the API server notices."""
    return Action(at, "end_by_hand", _position(dice), {"down": round(dice.uniform(10, 14), 1)})


def _position(dice: random.Random) -> float:
    return round(dice.random(), 4)


_MAKERS: dict[str, Callable[[random.Random, float, int, bool], Action]] = {
    "kill": _kill,
    "kill_task": _kill_task,
    "freeze": _freeze,
    "lose_start": _lose_start,
    "fault": _fault,
    "rotate": _rotate,
    "clear": _clear,
    "mark_failed": _mark_failed,
    "kill_start": _kill_start,
    "refuse": _refuse,
    "spoil_lists": _spoil_lists,
    "delete_connection": _delete_connection,
    "api_server_away": _api_server_away,
    "end_by_hand": _end_by_hand,
}
