"""What the cases of ``waiting.py`` have cost, as a table and as a plot for the docs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAMES = {
    "planasonix": "Planasonix",
    "dbt_cloud": "dbt Cloud",
    "airbyte": "Airbyte",
}
#: Between these, the page in the docs has the tables.
BEGIN, END = "<!-- measured by make bench -->", "<!-- end -->"
#: Whose cost the ratios compare with.
MEASURE = "dbt_cloud"
PACKAGES = (
    "apache-airflow",
    "airflow-provider-planasonix",
    "apache-airflow-providers-dbt-cloud",
    "apache-airflow-providers-airbyte",
)
COLOURS = {"planasonix": "#0072b2", "dbt_cloud": "#d55e00", "airbyte": "#777777"}
MARKERS = {"planasonix": "o", "dbt_cloud": "s", "airbyte": "^"}
HOW = """\
Each row is a fresh process that has all its triggers in one event loop, as a triggerer does. They look every 5 s, and
each answer takes the server 5 ms. All jobs that run are waited for. The CPU is the process's own, less what the task
takes that watches it, which is known to some 0.05 s. The memory is its highest meanwhile, less what it was after the
imports and a first wait. A block is how late a task was that sleeps for 10 ms again and again; much of it is Python's
garbage collector, which goes through all that Airflow has loaded. An event comes so many seconds after its job has
ended."""


@dataclass(frozen=True)
class Case:
    """So many waits, all with triggers of one kind.

    :param kind: whose triggers.
    :param waits: how many.
    :param evenly: whether the jobs end one after the other, and not at once.
    """

    kind: str
    waits: int
    evenly: bool

    def __str__(self) -> str:
        return f"{self.waits:,} waits with {NAMES[self.kind]}, ending {'evenly' if self.evenly else 'at once'}"


@dataclass(frozen=True)
class Cost:
    """What a case has cost.

    :param requests: how many requests the server was sent.
    :param sockets: how many connections the server accepted.
    :param cpu_seconds: what the process computed, less the heartbeat that watches it.
    :param memory: by how many bytes its memory grew at the most.
    :param longest_block: for how many seconds its event loop was held up at the most.
    :param longest_collection: for how many of them Python's garbage collector may have held it up.
    :param delays: how many seconds after the end of each job its event came.
    """

    requests: int
    sockets: int
    cpu_seconds: float
    memory: int
    longest_block: float
    longest_collection: float
    delays: list[float]


#: Of each case its cost, or why there is none to give.
Outcomes = dict[Case, Cost | str]


@dataclass(frozen=True)
class Column:
    """A figure of the table.

    :param name: what it is, with its unit.
    :param of: takes it from a cost and the number of waits.
    :param form: how to write it.
    """

    name: str
    of: Callable[[Cost, int], float]
    form: str


COLUMNS = (
    Column("requests", lambda cost, _: cost.requests, ",.0f"),
    Column("sockets", lambda cost, _: cost.sockets, ",.0f"),
    Column("CPU (s)", lambda cost, _: cost.cpu_seconds, ".2f"),
    Column("memory (MB)", lambda cost, _: cost.memory / 1e6, ",.1f"),
    Column("a wait (KB)", lambda cost, waits: cost.memory / 1e3 / waits, ",.1f"),
    Column("longest block (s)", lambda cost, _: cost.longest_block, ".3f"),
    Column("longest garbage collection (s)", lambda cost, _: cost.longest_collection, ".3f"),
    Column("event after, median (s)", lambda cost, _: statistics.median(cost.delays), ".2f"),
    Column("worst (s)", lambda cost, _: max(cost.delays), ".2f"),
)


def summary_line(outcome: Cost | str, waits: int) -> str:
    """Say what a case has cost."""
    if isinstance(outcome, str):
        return outcome
    return ", ".join(f"{column.name}: {column.of(outcome, waits):{column.form}}" for column in COLUMNS)


def table(outcomes: Outcomes) -> str:
    """The costs of all cases and their ratios to dbt Cloud's, in Markdown, with what they were measured on."""
    parts = [surroundings(), HOW]
    for evenly, title in ((False, "All jobs end at once, after 20 s"), (True, "The jobs end evenly, within 60 s")):
        part = {case: outcome for case, outcome in outcomes.items() if case.evenly is evenly}
        if part:
            parts += [f"**{title}:**", _costs(part)]
        if ratios := list(_ratios(part)):
            parts += [f"The same, where {NAMES[MEASURE]}'s is 1:", _rows([column.name for column in COLUMNS], ratios)]
    parts += [f"{case}: {outcome}." for case, outcome in outcomes.items() if isinstance(outcome, str)]
    return "\n\n".join(parts) + "\n"


def surroundings() -> str:
    """Say on what this is measured: the figures of two machines are not to be compared."""
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


def _costs(outcomes: Outcomes) -> str:
    rows = []
    for case, outcome in outcomes.items():
        cost = outcome if isinstance(outcome, Cost) else None
        figures = [f"{column.of(cost, case.waits):{column.form}}" if cost else "-" for column in COLUMNS]
        rows.append((case, figures))
    return _rows([column.name for column in COLUMNS], rows)


def _ratios(outcomes: Outcomes) -> Iterable[tuple[Case, list[str]]]:
    for case, cost in outcomes.items():
        measure = outcomes.get(Case(MEASURE, case.waits, case.evenly))
        if case.kind != MEASURE and isinstance(cost, Cost) and isinstance(measure, Cost):
            yield case, [_ratio(column.of(cost, case.waits), column.of(measure, case.waits)) for column in COLUMNS]


def _ratio(value: float, measure: float) -> str:
    if measure <= 0:
        return "-"
    return f"{value / measure:{',.0f' if value > 10 * measure else '.2g'}}"


def _rows(names: list[str], rows: Iterable[tuple[Case, list[str]]]) -> str:
    lines = [
        " | ".join(["waits", "triggers", *names]),
        " | ".join(["---:", "---", *["---:"] * len(names)]),
        *(" | ".join([f"{case.waits:,}", NAMES[case.kind], *figures]) for case, figures in rows),
    ]
    return "\n".join(f"| {line} |" for line in lines)


def write(outcomes: Outcomes, docs: Path) -> None:
    """Write what the docs show: the tables into their page, and the plot."""
    page = docs / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n{END}{rest.split(END)[1]}")
    images = docs / "images"
    images.mkdir(exist_ok=True)
    plot(outcomes, images / "waiting.svg")


def plot(outcomes: Outcomes, path: Path) -> None:
    """Draw four of the costs by the number of waits that end at once."""
    # Not at the top: who only wants the table has no need of it.
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    # The same figures are to give the same file.
    mpl.rcParams.update({"svg.hashsalt": "waiting", "svg.fonttype": "path", "font.size": 9})
    figure = Figure(figsize=(7.3, 5.6), layout="constrained")
    panels = figure.subplots(2, 2)
    costs = {case: cost for case, cost in outcomes.items() if isinstance(cost, Cost) and not case.evenly}
    waits = sorted({case.waits for case in costs})
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    shown = (
        ("requests", COLUMNS[0].of),
        ("CPU time (s)", COLUMNS[2].of),
        ("memory growth (MB)", COLUMNS[3].of),
        ("last event, after the jobs' end (s)", COLUMNS[8].of),
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
