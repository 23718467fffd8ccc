"""Measure how long Airflow takes to parse a DAG file with 200 of our operators, and with 200 ``EmptyOperator``.

Run by ``make bench``. Each figure is the median over fresh interpreters. The cases take turns, so that a machine that
becomes slower affects all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import record
from imports import BUDGET_MS

ROUNDS = 5
OPERATORS = 200
RATIO = 1.1

FILE = """
from airflow.providers.common.compat.sdk import DAG
{imports}

with DAG("many"):
    before = None
    for number in range({operators}):
        task = {operator}
        if before:
            before >> task
        before = task
"""

CASES = {
    "EmptyOperator": {
        "imports": "from airflow.providers.standard.operators.empty import EmptyOperator",
        "operator": 'EmptyOperator(task_id=f"task_{number}")',
    },
    "PlanasonixSyncOperator": {
        "imports": "from planasonix_provider.operators.planasonix import PlanasonixSyncOperator",
        "operator": 'PlanasonixSyncOperator(task_id=f"task_{number}", connection_id="conn_1", deferrable=True)',
    },
    "PlanasonixJobSensor": {
        "imports": "from planasonix_provider.sensors.planasonix import PlanasonixJobSensor",
        "operator": 'PlanasonixJobSensor(task_id=f"task_{number}", job_id=f"job_{number}", deferrable=True)',
    },
}

PROBE = """
import json, sys, time
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models.dagbag import DagBag

seconds = []
for _ in range(2):
    began = time.perf_counter()
    bag = DagBag(sys.argv[1])
    seconds.append(time.perf_counter() - began)
    assert not bag.import_errors, bag.import_errors
    assert len(bag.dags["many"].tasks) == int(sys.argv[2])
print(json.dumps(seconds))
"""


def measure(file: Path, home: str) -> list[float]:
    """Parse a file twice in a fresh interpreter. Return the milliseconds with its imports, and without."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(file), str(OPERATORS)],
        env={**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [seconds * 1000 for seconds in json.loads(run.stdout.splitlines()[-1])]


def main() -> None:
    """Measure every case in turns, and print a table."""
    times: dict[str, list[list[float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        files = {case: Path(folder, f"{case}.py") for case in CASES}
        for case, file in files.items():
            file.write_text(FILE.format(operators=OPERATORS, **CASES[case]))
        for _ in range(ROUNDS):
            for case, file in files.items():
                times[case].append(measure(file, folder))

    medians = {case: list(map(statistics.median, zip(*rows, strict=True))) for case, rows in times.items()}
    allowed = RATIO * medians["EmptyOperator"][0] + BUDGET_MS
    print(f"\nReading a DAG file with {OPERATORS} operators, in ms (median of {ROUNDS})\n")
    print("| operator | the first time, with its imports | once more | ratio once more |")
    print("| --- | ---: | ---: | ---: |")
    for case, (first, again) in medians.items():
        ratio = again / medians["EmptyOperator"][1]
        print(f"| {case} | {first:.0f} | {again:.0f} | {ratio:.2f} |")
        if case.startswith("Planasonix"):
            record(f"parsing of {case}, as a multiple of EmptyOperator", ratio)
    print(f"\nThe first time, ours may take {RATIO} times as long as EmptyOperator, and {BUDGET_MS} ms: {allowed:.0f}.")


if __name__ == "__main__":
    main()
