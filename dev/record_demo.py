"""Run the demo, and draw its output as a picture of a terminal: ``python -m dev.record_demo FILE.svg``."""

from __future__ import annotations

import io
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

from dev.processes import ROOT

COMMAND = "make demo"
# The picture ends before this line, because the rest is only for readers with a copy of the repository.
LAST_LINE = "What to try next"


def output_of_the_demo() -> list[str]:
    """Run the demo, which takes half a minute, and return its lines."""
    demo = subprocess.run([sys.executable, "-m", "dev.demo"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = demo.stdout.splitlines()
    return lines[: lines.index(LAST_LINE)]


def colored(line: str) -> Text:
    """Return the line with its time, state and number of rows in color."""
    text = Text(line)
    text.highlight_regex(r"^\[.*?\]", "bright_black")
    text.highlight_regex(r"succeeded|[\d,]+ rows", "bold green")
    text.highlight_regex(r"^What happened", "bold")
    return text


def main(path: str) -> None:
    """Write the picture."""
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in output_of_the_demo():
        console.print(colored(line))
    svg = console.export_svg(title=COMMAND, unique_id="demo")
    # An image in a page loads no fonts, so remove the references to them.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, ", "")
    (ROOT / path).write_text(svg)


if __name__ == "__main__":
    main(sys.argv[1])
