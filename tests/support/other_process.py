"""Runs code in another process, because other tests change this one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def result_of(code: str) -> Any:
    """Run code that assigns a JSON-serializable value to ``result``; return that value."""
    code += "\nimport json\nprint('RESULT', json.dumps(result))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Airflow may print lines before the result.
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))
