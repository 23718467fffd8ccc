"""``python -m planasonix_provider``: the command line for Airflow versions without ``airflow planasonix``."""

# PYTHON_ARGCOMPLETE_OK: argcomplete looks for this mark before it runs a program to complete its command line.

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from planasonix_provider.cli.exit_codes import EXIT_SIGNAL
from planasonix_provider.cli.loading import loading_status
from planasonix_provider.cli.parser import new_parser
from planasonix_provider.waiting.cli_hints import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line; default: that of this process.
    :return: the exit code, see :mod:`planasonix_provider.cli.exit_codes`.
    """
    parser = new_parser()
    if "_ARGCOMPLETE" in os.environ:
        # A dependency of Airflow.
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        # The import of Airflow takes seconds; nothing has been sent yet.
        return EXIT_SIGNAL + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        with loading_status(), _silence_imports():
            from planasonix_provider.cli.runner import run_command
        return run_command(options.act, options, program=PROGRAM)


@contextmanager
def _silence_imports() -> Iterator[None]:
    """Hide Airflow's messages during its import, and warnings until the end."""
    logging.disable(logging.INFO)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        # Airflow 2 adds its own filters, which would take precedence, when it is imported.
        import airflow  # noqa: F401

        warnings.simplefilter("ignore")
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(main())
