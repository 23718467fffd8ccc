"""The costs of the cases of ``waiting.py``, as tables, a CSV file and a plot for the docs."""

from __future__ import annotations

import csv
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAMES = {
    "planasonix": "Planasonix",
    "dbt_cloud": "dbt Cloud",
    "airbyte": "Airbyte",
}
#: These comments enclose the tables in the page of the docs.
BEGIN, END = "<!-- measured by make bench -->", "<!-- end -->"
#: The kind whose cost the ratios compare with.
MEASURE = "planasonix"
PACKAGES = (
    "apache-airflow",
    "airflow-provider-planasonix",
    "apache-airflow-providers-dbt-cloud",
    "apache-airflow-providers-airbyte",
)
COLOURS = {"planasonix": "#0072b2", "dbt_cloud": "#d55e00", "airbyte": "#777777"}
MARKERS = {"planasonix": "o", "dbt_cloud": "s", "airbyte": "^"}
HOW = """\
Each row is a fresh process with all its triggers in one event loop, as in a triggerer. The triggers poll every 5 s, and
each response takes the server 5 ms. All jobs that run are waited for. The number in parentheses is the multiple of
Planasonix's value.

- **Requests**: all requests from the first poll to the last event.
- **CPU**: the CPU time of the process, without that of the task that measures it; exact to about 0.05 s.
- **Last event**: the seconds between the end of a job and its event, of the slowest job."""
FULL_DATA = """\
[All measurements as CSV](waiting.csv): also sockets, memory, blocks of the event loop, and the median delay. The memory
is the highest value, less the value after the imports and a first wait. A block is the delay of a task that sleeps for
10 ms again and again. Most of it is Python's garbage collector, which goes through all that Airflow has loaded."""


@dataclass(frozen=True)
class Case:
    """A number of waits, all with triggers of one kind.

    :param kind: a key of ``NAMES``.
    :param waits: the number of waits.
    :param evenly: whether the jobs end one after another, and not at once.
    """

    kind: str
    waits: int
    evenly: bool

    def __str__(self) -> str:
        return f"{self.waits:,} waits with {NAMES[self.kind]}, ending {'evenly' if self.evenly else 'at once'}"


@dataclass(frozen=True)
class Cost:
    """The cost of a case.

    :param requests: requests that the server received.
    :param sockets: connections that the server accepted.
    :param cpu_seconds: CPU time of the process, without the heartbeat that watches it.
    :param memory: maximum growth of its memory, in bytes.
    :param longest_block: longest block of its event loop, in seconds.
    :param longest_collection: longest run of Python's garbage collector, in seconds.
    :param delays: seconds between the end of each job and its event.
    """

    requests: int
    sockets: int
    cpu_seconds: float
    memory: int
    longest_block: float
    longest_collection: float
    delays: list[float]


#: The cost of each case, or the reason why there is none.
Outcomes = dict[Case, Cost | str]


@dataclass(frozen=True)
class Column:
    """A column of the tables or of the CSV file.

    :param name: its heading, with the unit.
    :param of: returns its value for a cost and a number of waits.
    :param form: its format.
    """

    name: str
    of: Callable[[Cost, int], float]
    form: str


REQUESTS = Column("requests", lambda cost, _: cost.requests, ",.0f")
MEMORY = Column("memory (MB)", lambda cost, _: cost.memory / 1e6, ",.1f")
CPU = Column("CPU (s)", lambda cost, _: cost.cpu_seconds, ".2f")
LAST_EVENT = Column("last event (s)", lambda cost, _: max(cost.delays), ".2f")
#: The columns of the CSV file.
COLUMNS = (
    REQUESTS,
    Column("sockets", lambda cost, _: cost.sockets, ",.0f"),
    CPU,
    MEMORY,
    Column("memory per wait (KB)", lambda cost, waits: cost.memory / 1e3 / waits, ",.1f"),
    Column("longest block (s)", lambda cost, _: cost.longest_block, ".3f"),
    Column("longest garbage collection (s)", lambda cost, _: cost.longest_collection, ".3f"),
    Column("median event (s)", lambda cost, _: statistics.median(cost.delays), ".2f"),
    LAST_EVENT,
)
#: The columns of the tables. With the number of waits and the kind, they fit the screen of a laptop.
SHOWN = (REQUESTS, CPU, LAST_EVENT)


def summary_line(outcome: Cost | str, waits: int) -> str:
    """Return the cost of a case in one line."""
    if isinstance(outcome, str):
        return outcome
    return ", ".join(f"{column.name}: {column.of(outcome, waits):{column.form}}" for column in COLUMNS)


def table(outcomes: Outcomes) -> str:
    """Return the main costs of all cases in Markdown, with the machine and the versions."""
    parts = [describe_machine(), HOW]
    for evenly, title in ((False, "All jobs end at once, after 20 s"), (True, "The jobs end evenly, within 60 s")):
        part = {case: outcome for case, outcome in outcomes.items() if case.evenly is evenly}
        if part:
            parts += [f"**{title}:**", _rows(part)]
    parts += [f"{case}: {outcome}." for case, outcome in outcomes.items() if isinstance(outcome, str)]
    return "\n\n".join([*parts, FULL_DATA]) + "\n"


def describe_machine() -> str:
    """Describe the machine and the versions, because figures of different machines cannot be compared."""
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    return f"Measured on {os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}, {packages}."


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _rows(outcomes: Outcomes) -> str:
    lines = [
        " | ".join(["waits", "triggers", *(column.name for column in SHOWN)]),
        " | ".join(["---:", "---", *["---:"] * len(SHOWN)]),
    ]
    for case, outcome in outcomes.items():
        measure = outcomes.get(Case(MEASURE, case.waits, case.evenly))
        figures = [_figure(column, outcome, measure, case.waits) for column in SHOWN]
        lines.append(" | ".join([f"{case.waits:,}", NAMES[case.kind], *figures]))
    return "\n".join(f"| {line} |" for line in lines)


def _figure(column: Column, outcome: Cost | str, measure: Cost | str | None, waits: int) -> str:
    """Return a value, with its ratio to that of ``measure`` if that is another kind."""
    if not isinstance(outcome, Cost):
        return "-"
    value = column.of(outcome, waits)
    text = f"{value:{column.form}}"
    if not isinstance(measure, Cost) or measure is outcome or column.of(measure, waits) <= 0:
        return text
    ratio = value / column.of(measure, waits)
    return f"{text} ({ratio:{',.0f' if ratio >= 10 else '.1f'}}x)"


def write(outcomes: Outcomes, docs: Path) -> None:
    """Write the tables into their page of the docs, and all figures into a CSV file and a plot beside it."""
    page = docs / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n{END}{rest.split(END)[1]}")
    write_csv(outcomes, docs / "waiting.csv")
    images = docs / "images"
    images.mkdir(exist_ok=True)
    plot(outcomes, images / "waiting.svg")


def write_csv(outcomes: Outcomes, path: Path) -> None:
    """Write all figures of the cases that have a cost."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["waits", "triggers", "jobs end", *(column.name for column in COLUMNS)])
        for case, cost in outcomes.items():
            if isinstance(cost, Cost):
                figures = [f"{column.of(cost, case.waits):{column.form.lstrip(',')}}" for column in COLUMNS]
                rows.writerow([case.waits, NAMES[case.kind], "evenly" if case.evenly else "at once", *figures])


def plot(outcomes: Outcomes, path: Path) -> None:
    """Plot four of the costs by the number of waits that end at once."""
    # Imported lazily, because the tables do not need it.
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    # The same figures must give the same file.
    mpl.rcParams.update({"svg.hashsalt": "waiting", "svg.fonttype": "path", "font.size": 9})
    figure = Figure(figsize=(7.3, 5.6), layout="constrained")
    panels = figure.subplots(2, 2)
    costs = {case: cost for case, cost in outcomes.items() if isinstance(cost, Cost) and not case.evenly}
    waits = sorted({case.waits for case in costs})
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    shown = (
        ("requests", REQUESTS.of),
        ("CPU time (s)", CPU.of),
        ("memory growth (MB)", MEMORY.of),
        ("last event, after the jobs' end (s)", LAST_EVENT.of),
    )
    for panel, (title, of) in zip(panels.flat, shown, strict=True):
        for kind in dict.fromkeys(case.kind for case in costs):
            points = [(case.waits, of(cost, case.waits)) for case, cost in costs.items() if case.kind == kind]
            panel.plot(*zip(*points, strict=True), color=COLOURS[kind], marker=MARKERS[kind], label=NAMES[kind])
        panel.set(title=title, xscale="log", yscale="log", xticks=waits, xlabel="waits")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(plain)
            axis.set_minor_locator(NullLocator())
        panel.grid(which="major", color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, metadata={"Date": None})
