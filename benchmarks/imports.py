"""Measure the time and the modules that importing operators and sensors adds to ``import airflow.sdk``.

Run by ``make bench``. Each figure is the median over fresh interpreters. The cases take turns, so that a machine that
becomes slower affects all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from figures import record

ROUNDS = 15
BUDGET_MS = 60
UNWANTED = ("httpx", "requests", "aiohttp", "tenacity", "planasonix_provider.api.models")

CASES = {
    "the Airflow SDK alone": "pass",
    "a DAG file's own BaseOperator": "from airflow.providers.common.compat.sdk import BaseOperator",
    "the Planasonix operators": "from planasonix_provider.operators.planasonix import PlanasonixSyncOperator",
    "operators, sensors and windows": (
        "from planasonix_provider import windows\n"
        "from planasonix_provider.operators.planasonix import PlanasonixSyncOperator\n"
        "from planasonix_provider.sensors.planasonix import PlanasonixJobSensor"
    ),
}

PROBE = """
import importlib, json, sys, time
try:
    importlib.import_module("airflow.sdk")
except ImportError:
    from airflow.models import baseoperator
before = set(sys.modules)
began = time.perf_counter()
{statement}
seconds = time.perf_counter() - began
print(json.dumps({{"seconds": seconds, "modules": sorted(set(sys.modules) - before)}}))
"""


def measure(statement: str) -> tuple[float, list[str]]:
    """Run imports in a fresh interpreter. Return the seconds, and the modules that were loaded."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)], capture_output=True, text=True, check=True
    )
    answer = json.loads(run.stdout.splitlines()[-1])
    return answer["seconds"], answer["modules"]


def main() -> None:
    """Measure every case in turns, and print a table."""
    times: dict[str, list[float]] = {case: [] for case in CASES}
    modules: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        for case, statement in CASES.items():
            seconds, modules[case] = measure(statement)
            times[case].append(seconds * 1000)
    print(
        f"Milliseconds that an import adds to `import airflow.sdk` (median and range of {ROUNDS}; budget {BUDGET_MS})"
    )
    for case, values in times.items():
        print(f"{case:32} {statistics.median(values):7.1f}   {min(values):.1f} to {max(values):.1f}")
        if "planasonix" in CASES[case]:
            record(f"import of {case} (ms)", statistics.median(values))
    unwanted = [name for name in UNWANTED if name in modules["operators, sensors and windows"]]
    print("They bring along none of " + ", ".join(UNWANTED) if not unwanted else f"UNWANTED: {', '.join(unwanted)}")


if __name__ == "__main__":
    main()
