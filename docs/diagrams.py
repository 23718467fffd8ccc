"""The diagrams of these pages: ``python docs/diagrams.py`` writes them into docs/images as SVG.

Text is white on boxes of a medium brightness, so that the pictures are readable on light and on dark pages. They are
narrow enough for a phone.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent / "images"

WIDTH, HEIGHT = 228, 52
COLUMN, ROW = 310, 92
MARGIN = 4
COLORS = {
    "airflow": "#3b5bdb",
    "planasonix": "#0b7285",
    "question": "#5f6b7a",
    "good": "#2b7a3d",
    "bad": "#c2362b",
}
LINE = "#8a94a0"


@dataclass(frozen=True)
class Step:
    """A box of the left column, with an optional box beside it.

    :param text: one or two lines, with a line break between them.
    :param kind: a key of ``COLORS``.
    :param side: the text of the box beside it.
    :param side_kind: the kind of that box.
    :param to_side: the label of the arrow to that box.
    :param down: the label of the arrow to the next step.
    """

    text: str
    kind: str = "airflow"
    side: str = ""
    side_kind: str = "airflow"
    to_side: str = ""
    down: str = ""


DIAGRAMS = {
    "task-life": (
        "The life of a task",
        [
            Step(
                "Worker\nstarts the job",
                side="Airflow stores\nidempotency key and job id",
                side_kind="question",
                to_side="record",
                down="defer",
            ),
            Step(
                "Triggerer\npolls the job",
                side="Job is cancelled,\ntask fails",
                side_kind="bad",
                to_side="killed",
                down="finished",
            ),
            Step(
                "Worker\nfetches the results",
                side="Task fails\nwith code and message",
                side_kind="bad",
                to_side="failed",
                down="succeeded",
            ),
            Step("Task succeeds\nrows, XComs, asset events", "good"),
        ],
    ),
    "retry-decision": (
        "What a retry does",
        [
            Step("Has an earlier try\nleft a record?", "question", "Start a job", to_side="no", down="yes"),
            Step(
                "Did it get a response\nto its start request?",
                "question",
                "Search for the job, or repeat\nthe request with the same key",
                to_side="no",
                down="yes",
            ),
            Step("Does the job still run?", "question", "Continue to wait", to_side="yes", down="no"),
            Step("Has it succeeded?", "question", "Return its results", "good", to_side="yes", down="no"),
            Step("It failed or was cancelled", "question", "Start a new job", to_side=""),
        ],
    ),
    "deferral": (
        "How deferred tasks wait",
        [
            Step("Workers\nstart jobs for 500 tasks", down="defer"),
            Step(
                "Triggerer\none poller for all tasks",
                side="Planasonix\n5 requests per poll interval",
                side_kind="planasonix",
                to_side="poll",
                down="event",
            ),
            Step("Workers\nfetch the results"),
        ],
    ),
    "webhook-delivery": (
        "How a webhook starts a DAG",
        [
            Step("Planasonix\nsends an event", "planasonix", down="POST"),
            Step("Are signature\nand age valid?", "question", "401", "bad", to_side="no", down="yes"),
            Step("Is the event new?", "question", "204, nothing happens", "question", to_side="no", down="yes"),
            Step("Store the event id and the\nasset event in one transaction", down="204"),
            Step("Airflow's scheduler\nstarts the DAGs", "good"),
        ],
    ),
}


def draw(title: str, steps: list[Step]) -> str:
    """Return the diagram as SVG."""
    has_side = any(step.side for step in steps)
    width = 2 * MARGIN + WIDTH + (COLUMN if has_side else 0)
    height = 2 * MARGIN + HEIGHT + ROW * (len(steps) - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="14">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{LINE}"/></marker></defs>',
    ]
    for row, step in enumerate(steps):
        x, y = MARGIN, MARGIN + ROW * row
        middle = y + HEIGHT // 2
        if step.side:
            parts += _arrow(x + WIDTH, middle, x + COLUMN, middle, step.to_side)
            parts += _box(x + COLUMN, y, step.side, step.side_kind)
        if row + 1 < len(steps):
            parts += _arrow(x + WIDTH // 2, y + HEIGHT, x + WIDTH // 2, y + ROW, step.down)
        parts += _box(x, y, step.text, step.kind)
    return "\n".join([*parts, "</svg>\n"])


def _box(x: int, y: int, text: str, kind: str) -> list[str]:
    lines = text.split("\n")
    first = y + HEIGHT // 2 + 5 - 9 * (len(lines) - 1)
    return [
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{COLORS[kind]}"/>',
        *(_text(x + WIDTH // 2, first + 18 * number, line) for number, line in enumerate(lines)),
    ]


def _arrow(x1: int, y1: int, x2: int, y2: int, label: str) -> list[str]:
    parts = [f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{LINE}" stroke-width="2" marker-end="url(#tip)"/>']
    if label:
        x, y, width = (x1 + x2) // 2 - 4 * (x1 != x2), (y1 + y2) // 2 - 3 * (x1 == x2), 8 * len(label) + 12
        box = (
            f'<rect x="{x - width // 2}" y="{y - 10}" width="{width}" height="20" rx="10" fill="{COLORS["question"]}"/>'
        )
        parts += [box, _text(x, y + 5, label)]
    return parts


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle" fill="#fff">{escape(text)}</text>'


if __name__ == "__main__":
    for name, (title, steps) in DIAGRAMS.items():
        (IMAGES / f"{name}.svg").write_text(draw(title, steps))
