"""Turns a delivery into an asset event, once, whichever API server it came to and however often."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto
from functools import cache
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING

from airflow.utils.session import create_session
from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, inspect, select
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.hooks.webhook_receiver import ReceiverConfig, find_asset
from planasonix_provider.plugins.delivery import DeliveryBody

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

TABLE = "planasonix_webhook_delivery"
#: For how many seconds a delivery is known again: a week, as senders of webhooks try again for three days at the most.
RETENTION = 7 * 86_400
#: How many seconds pass between two looks for what can be forgotten.
PURGE_INTERVAL = 3_600
#: How often a delivery is written down before the database is said not to take it: a task that tells of the same asset
#: at the same moment may be a deadlock.
WRITE_ATTEMPTS = 3


class RecordResult(Enum):
    """What became of a delivery."""

    RECORDED = auto()
    REPEATED = auto()
    NO_ASSET = auto()


class PlanasonixDeliveryStoreError(PlanasonixError):
    """Airflow's database could not take a delivery."""

    kind = "register"


def _is_statement_error(fault: BaseException) -> bool:
    """Tell what a database says of a statement from a database that cannot be reached: that is not waited for."""
    return isinstance(fault, OperationalError) and fault.statement is not None


class DeliveryStore:
    """Keeps the deliveries that came, in a table of its own in Airflow's database. Its methods block.

    :param clock: tells the time, in Unix seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._has_table = False
        self._purged_at = 0.0

    def record(self, receiver: ReceiverConfig, event: DeliveryBody) -> RecordResult:
        """Record an event of the receiver's asset, unless it came before.

        :param receiver: whom it was delivered to.
        :param event: the delivery.
        :return: what became of it.
        :raises PlanasonixDeliveryStoreError: if the database cannot take it; nothing is recorded then.
        """
        try:
            self._ensure_table()
            outcome = self._record(receiver, event)
            self._purge()
        except SQLAlchemyError as fault:
            # Somebody may have made the database anew.
            self._has_table = False
            # Without its words, in which there may be the delivery's.
            kinds = " from ".join(dict.fromkeys(type(one).__name__ for one in (fault, getattr(fault, "orig", fault))))
            raise PlanasonixDeliveryStoreError(f"Airflow's database could not take a delivery ({kinds}).") from None
        return outcome

    @retry(
        retry=retry_if_exception(_is_statement_error),
        stop=stop_after_attempt(WRITE_ATTEMPTS),
        wait=wait_random(0, 0.1),
        reraise=True,
    )
    def _record(self, receiver: ReceiverConfig, event: DeliveryBody) -> RecordResult:
        from airflow.assets.manager import asset_manager

        # One transaction: whoever has written the row first has recorded the event, and nobody else does.
        with create_session(scoped=False) as session:
            try:
                session.execute(
                    _table().insert().values(id=_delivery_key(receiver, event), received_at=int(self._clock()))
                )
            except IntegrityError:
                session.rollback()
                return RecordResult.REPEATED
            asset = find_asset(session, receiver.asset)
            # One after another: Airflow queues the DAGs of an asset in no order, so two events of an asset that many
            # DAGs wait for would now and then each wait for the other. Whoever only refers to the asset is not held up.
            if asset is None or not _lock(session, asset):
                session.rollback()
                return RecordResult.NO_ASSET
            asset_manager.register_asset_change(asset=asset, extra=event.to_asset_extra(receiver.name), session=session)
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
                # Another API server may have made it at the same moment.
                if not inspect(engine).has_table(TABLE, schema=_table().schema):
                    raise PlanasonixDeliveryStoreError(_missing_table_message(engine, fault)) from None
            self._has_table = True

    def _purge(self) -> None:
        now = self._clock()
        with self._lock:
            if now - self._purged_at < PURGE_INTERVAL:
                return
            self._purged_at = now
        with create_session(scoped=False) as session:
            session.execute(delete(_table()).where(_table().c.received_at < int(now) - RETENTION))


@cache
def _table() -> Table:
    from airflow.models.base import metadata

    # Not among Airflow's own tables, which its migrations look after.
    return Table(
        TABLE,
        MetaData(schema=metadata.schema),
        Column("id", String(64), primary_key=True),
        Column("received_at", BigInteger, nullable=False, index=True),
    )


def _delivery_key(receiver: ReceiverConfig, event: DeliveryBody) -> str:
    """Make one key of receiver and event that every database compares alike, whatever is in an event's id.

    Airflow finds a connection of the environment by its name in upper and in lower case.
    """
    return sha256(f"{receiver.name.lower()}\0{event.id}".encode()).hexdigest()


def _lock(session: Session, asset: AssetModel) -> bool:
    """Have an asset's row for this transaction alone, and say whether it is still there."""
    mine = select(type(asset).id).where(type(asset).id == asset.id).with_for_update(key_share=True)
    return session.scalar(mine) is not None


def _engine(session: Session) -> Engine:
    bind = session.get_bind()
    return bind.engine


def _missing_table_message(engine: Engine, fault: SQLAlchemyError) -> str:
    words = (str(getattr(fault, "orig", None) or fault).splitlines() or [""])[0]
    statements: list[DDLElement] = [CreateTable(_table()), *map(CreateIndex, _table().indexes)]
    by_hand = "; ".join(" ".join(str(statement.compile(engine)).split()) for statement in statements)
    return (
        f"The table {TABLE}, which tells repeated deliveries, is not in Airflow's database and cannot be made "
        f"({type(fault).__name__}: {words}). Let Airflow's database user create tables, or have it made: {by_hand}"
    )
