"""Prints objects and lists of objects as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow.cli.simple_table import AirflowConsole, SimpleTable
from rich.cells import cell_len
from rich.text import Text

from planasonix_provider.cli.terminal import escape_control_chars

#: The colours of states on a terminal; rich removes them in pipes and with ``NO_COLOR``.
STATE_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "completed": "green",
    "failed": "red",
    "cancelling": "yellow",
    "cancelled": "yellow",
}
#: In a terminal that is too narrow, columns without ids are folded down to this width.
MIN_WIDTH = 10
#: In a terminal that is too narrow even for that, lines continue beyond its edge, with columns up to this width.
MAX_WIDTH = 60
_SEPARATOR = " | "

Row = Mapping[str, str]


def print_tables(data: Any, columns: Sequence[str], form: str) -> None:
    """Print an object, or the columns of a list of objects, as ``table`` or as ``plain`` text."""
    if isinstance(data, list):
        _draw([{column: _cell(row.get(column)) for column in columns} for row in data], form)
        return
    _draw([{"field": _cell(name), "value": _cell(value)} for name, value in _fields(data)], form)
    for name, rows in data.items():
        if _is_table(rows):
            names = list(dict.fromkeys(column for row in rows for column in row))
            _draw([{_cell(column): _cell(row.get(column)) for column in names} for row in rows], form, _cell(name))


class _OutputConsole(AirflowConsole):
    """Raises an error for a broken pipe; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _draw(rows: list[dict[str, str]], form: str, heading: str | None = None) -> None:
    # No markup, because error messages may contain brackets.
    console = _OutputConsole(markup=False, highlight=False, emoji=False)
    if heading:
        console.print(heading if form == "table" else f"\n{heading}")
    if form == "plain" or not rows:
        console.print_as_plain_table(rows)
        return
    widths = _column_widths(rows, console.width)
    console.width = max(console.width, _total_width(widths))
    table = SimpleTable(show_header=True)
    for name, width in widths.items():
        table.add_column(name, width=width)
    for row in rows:
        table.add_row(*(Text(cell, _style(name, row)) for name, cell in row.items()))
    console.print(table)


def _column_widths(rows: Sequence[Row], max_total: int) -> dict[str, int]:
    """Return the width of each column, so that no id is broken and the table fits if possible."""
    full = {name: max(map(cell_len, (name, *(row[name] for row in rows)))) for name in rows[0]}
    smallest = {name: max(_id_width(name, rows), min(width, MIN_WIDTH)) for name, width in full.items()}
    if _total_width(smallest) > max_total:
        return {name: max(smallest[name], min(width, MAX_WIDTH)) for name, width in full.items()}
    widths = dict(full)
    while _total_width(widths) > max_total:
        widest = max(widths, key=lambda name: widths[name] - smallest[name])
        widths[widest] -= 1
    return widths


def _total_width(widths: Mapping[str, int]) -> int:
    # Rich 13 makes each column one cell wider than asked, or another column narrower.
    return sum(width + 1 for width in widths.values()) + len(_SEPARATOR) * (len(widths) - 1)


def _id_width(column: str, rows: Sequence[Row]) -> int:
    """Return the width of the longest id in a column, so that ids can be copied."""
    words = (word for row in rows if re.search(r"(^|[._])ids?$", _field(column, row)) for word in row[column].split())
    return max(map(cell_len, words), default=0)


def _style(column: str, row: Row) -> str:
    return STATE_STYLES.get(row[column], "") if _field(column, row) == "status" else ""


def _field(column: str, row: Row) -> str:
    """Return the name of the field in a cell. The table of a single object has a row for each field."""
    return row.get("field", "") if column == "value" else column


def _fields(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the rows of an object's table: its fields, and those of nested objects with dotted names."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{before}{name}.")
        elif value is not None and value != [] and not _is_table(value):
            yield before + name, value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    # Times without fractions of a second.
    return escape_control_chars(re.sub(r"(?<=\d\dT\d\d:\d\d:\d\d)\.\d+(?=Z$)", "", str(value)))
