"""Records each delivery as an asset event exactly once, however often and on whichever API server it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto
from functools import cache
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, inspect, select
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from planasonix_provider.airflow_compat import has_partitions
from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, find_asset
from planasonix_provider.plugins.delivery import DeliveryBody

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

TABLE = "planasonix_webhook_delivery"
#: For how many seconds a repeated delivery is recognized: a week; senders of webhooks retry for at most three days.
RETENTION_SECONDS = 7 * 86_400
#: Seconds between two purges of old deliveries.
PURGE_INTERVAL_SECONDS = 3_600
#: More than one, because a task that emits an event of the same asset may cause a deadlock.
WRITE_ATTEMPTS = 3


class RecordResult(Enum):
    """The result of recording a delivery."""

    RECORDED = auto()
    REPEATED = auto()
    NO_ASSET = auto()


class PlanasonixDeliveryStoreError(PlanasonixError):
    """A delivery could not be stored in Airflow's database."""

    kind = "delivery_store"


def _is_statement_error(fault: BaseException) -> bool:
    """Return whether a statement failed. If the database is unreachable, no retry is made."""
    return isinstance(fault, OperationalError) and fault.statement is not None


class DeliveryStore:
    """Stores deliveries in its own table of Airflow's database. Its methods block.

    :param clock: returns the Unix time.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._has_table = False
        self._purged_at = 0.0

    def record(self, receiver: ReceiverConfig, event: DeliveryBody) -> RecordResult:
        """Record an event of the receiver's asset, unless the same event was recorded before.

        :raises PlanasonixDeliveryStoreError: if the database fails; nothing is recorded then.
        """
        try:
            self._ensure_table()
            result = self._record(receiver, event)
            self._purge()
        except SQLAlchemyError as fault:
            # The database may have been reset.
            self._has_table = False
            # Without the text of the exception, which may contain the delivery.
            kinds = " from ".join(dict.fromkeys(type(one).__name__ for one in (fault, getattr(fault, "orig", fault))))
            raise PlanasonixDeliveryStoreError(f"Airflow's database could not take a delivery ({kinds}).") from None
        return result

    @retry(
        retry=retry_if_exception(_is_statement_error),
        stop=stop_after_attempt(WRITE_ATTEMPTS),
        wait=wait_random(0, 0.1),
        reraise=True,
    )
    def _record(self, receiver: ReceiverConfig, event: DeliveryBody) -> RecordResult:
        from airflow.assets.manager import asset_manager

        # One transaction: only the process that inserts the row first records the event.
        with create_session(scoped=False) as session:
            try:
                row = {"id": _delivery_key(receiver, event), "received_at": int(self._clock())}
                session.execute(_table().insert().values(row))
            except IntegrityError:
                session.rollback()
                return RecordResult.REPEATED
            asset = find_asset(session, receiver.asset)
            # The lock serializes the events of an asset: Airflow queues its DAGs in no fixed order, so two events of
            # one asset could deadlock. Transactions that only reference the asset are not blocked.
            if asset is None or not _lock(session, asset):
                session.rollback()
                return RecordResult.NO_ASSET
            extra = event.to_asset_extra(receiver.name)
            key = receiver.partition_key(event.timestamp) if event.is_partitionable and has_partitions() else None
            partition: dict[str, Any] = {"partition_key": key} if key else {}
            asset_manager.register_asset_change(asset=asset, extra=extra, session=session, **partition)
            return RecordResult.RECORDED

    def _ensure_table(self) -> None:
        with self._lock:
            if self._has_table:
                return
            with create_session(scoped=False) as session:
                engine = _engine(session)
            try:
                _table().create(engine, checkfirst=True)
            except SQLAlchemyError as fault:
                # Another API server may have created it at the same time.
                if not inspect(engine).has_table(TABLE, schema=_table().schema):
                    raise PlanasonixDeliveryStoreError(_missing_table_message(engine, fault)) from None
            self._has_table = True

    def _purge(self) -> None:
        now = self._clock()
        with self._lock:
            if now - self._purged_at < PURGE_INTERVAL_SECONDS:
                return
            self._purged_at = now
        with create_session(scoped=False) as session:
            session.execute(delete(_table()).where(_table().c.received_at < int(now) - RETENTION_SECONDS))


@cache
def _table() -> Table:
    from airflow.models.base import metadata

    # Its own MetaData: Airflow's migrations manage all tables of Airflow's metadata.
    return Table(
        TABLE,
        MetaData(schema=metadata.schema),
        Column("id", String(64), primary_key=True),
        Column("received_at", BigInteger, nullable=False, index=True),
    )


def _delivery_key(receiver: ReceiverConfig, event: DeliveryBody) -> str:
    """Return a key that all databases compare in the same way, whichever characters an event's id contains.

    The receiver's name is in lower case: Airflow finds a connection of the environment by its name in any case.
    """
    return sha256(f"{receiver.name.lower()}\0{event.id}".encode()).hexdigest()


def _lock(session: Session, asset: AssetModel) -> bool:
    """Lock an asset's row for this transaction; return whether the row still exists."""
    locked = select(type(asset).id).where(type(asset).id == asset.id).with_for_update(key_share=True)
    return session.scalar(locked) is not None


def _engine(session: Session) -> Engine:
    bind = session.get_bind()
    return bind.engine


def _missing_table_message(engine: Engine, fault: SQLAlchemyError) -> str:
    reason = (str(getattr(fault, "orig", None) or fault).splitlines() or [""])[0]
    statements: list[DDLElement] = [CreateTable(_table()), *map(CreateIndex, _table().indexes)]
    sql = "; ".join(" ".join(str(statement.compile(engine)).split()) for statement in statements)
    return (
        f"The table {TABLE}, which tells repeated deliveries, is not in Airflow's database and cannot be made "
        f"({type(fault).__name__}: {reason}). Let Airflow's database user create tables, or have it made: {sql}"
    )
