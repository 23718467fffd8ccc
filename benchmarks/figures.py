"""The figures that ``make bench`` compares every night. For each of them, less is better."""

from __future__ import annotations

import json
import os
from pathlib import Path


def record(name: str, value: float) -> None:
    """Append a figure to the file in the environment variable ``BENCH_FIGURES``, if it is set."""
    if path := os.environ.get("BENCH_FIGURES"):
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps({"name": name, "value": round(value, 4)}) + "\n")
