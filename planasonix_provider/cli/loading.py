"""A status line while Airflow is imported, which takes seconds. Imports nothing that takes time itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_status() -> Iterator[None]:
    """Show that Airflow is being loaded during a block, if stderr is a terminal."""
    # stderr is None if it is closed.
    if not (sys.stderr and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    console = Console(stderr=True)
    # Redirected streams would end up in the log handlers that Airflow creates during its import.
    with Live(
        Spinner("dots", "Loading Airflow"),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        if not console.is_dumb_terminal:
            # Rich hides the cursor, and a SIGTERM would leave it hidden.
            console.show_cursor()
        yield
