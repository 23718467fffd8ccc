"""Compare the figures of ``make bench`` with earlier nights, and append them to the history.

Run by ``make bench-history``. The history has one line of JSON for each night. The exit status is 1 if a figure is much
worse than the median of the last nights. It needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

#: The median is over at most this many nights.
MAX_NIGHTS = 14
#: With fewer nights, a figure is shown, but not judged.
MIN_NIGHTS = 3
#: A figure above this multiple of its median is reported. Cloud machines differ by up to a third.
MAX_RATIO = 1.5

Figures = dict[str, float]


def load_figures(text: str) -> Figures:
    """Return the figures of one run."""
    return {figure["name"]: figure["value"] for figure in map(json.loads, text.splitlines())}


def compare(figures: Figures, history: Sequence[Figures]) -> tuple[str, list[str]]:
    """Return a table in Markdown, and the names of the figures that are much worse."""
    lines = [f"| figure | now | median of the last {MAX_NIGHTS} | ratio |", "| --- | ---: | ---: | ---: |"]
    worse = []
    for name, value in figures.items():
        earlier = [night[name] for night in history[-MAX_NIGHTS:] if name in night]
        median = statistics.median(earlier) if earlier else None
        ratio = value / median if median else None
        lines.append(f"| {name} | {value:,.4g} | {_number(median)} | {_number(ratio)} |")
        if ratio and ratio > MAX_RATIO and len(earlier) >= MIN_NIGHTS:
            worse.append(name)
    return "\n".join(lines), worse


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def main() -> None:
    """Print the table, append the figures, and fail if one is much worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="the figures of make bench")
    parser.add_argument("history", type=Path, help="the history; it is created if it does not exist")
    parser.add_argument("--commit", required=True, help="the commit that was measured")
    parser.add_argument("--date", required=True, help="the date, such as 2026-01-31")
    options = parser.parse_args()
    figures = load_figures(options.figures.read_text())
    if not figures:
        parser.error(f"There are no figures in {options.figures}.")
    nights = options.history.read_text().splitlines() if options.history.exists() else []
    text, worse = compare(figures, [json.loads(night)["figures"] for night in nights])
    night = {"date": options.date, "commit": options.commit, "figures": figures}
    options.history.write_text("\n".join([*nights, json.dumps(night)]) + "\n")
    print(text)
    if worse:
        sys.exit(f"More than {MAX_RATIO} times the median: {', '.join(worse)}.")


if __name__ == "__main__":
    main()
