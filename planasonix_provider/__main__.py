"""The shell where Airflow has no ``airflow planasonix``: ``python -m planasonix_provider``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from planasonix_provider.cli.exit_codes import SIGNALLED
from planasonix_provider.cli.parser import parser
from planasonix_provider.waiting.cli_hints import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line; by default this process's own.
    :return: the exit code, see :mod:`planasonix_provider.cli.exit_codes`.
    """
    options = parser().parse_args(arguments)
    try:
        return _perform(options)
    except KeyboardInterrupt:
        # Before there was anything to be interrupted: to import Airflow takes seconds.
        return SIGNALLED + signal.SIGINT


def _perform(options: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        with _quietly():
            from planasonix_provider.cli.runner import run_command
        return run_command(options.act, options, program=PROGRAM)


@contextmanager
def _quietly() -> Iterator[None]:
    """Spare the user what Airflow has to say of its own parts while it is imported; warnings, until the end."""
    logging.disable(logging.INFO)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        # Airflow 2 sets filters of its own when it is imported, which would go first.
        import airflow  # noqa: F401

        warnings.simplefilter("ignore")
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(main())
