"""The webhook receivers of this Airflow, and what has arrived there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from airflow.providers.common.compat.sdk import conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider.airflow_compat import database_session
from planasonix_provider.hooks.connection_lookup import list_conn_ids
from planasonix_provider.hooks.webhook_receiver import (
    PlanasonixReceiverHook,
    ReceiverInspection,
    find_asset,
    unknown_asset_message,
)
from planasonix_provider.monitoring.json_types import json_time

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: The event of Airflow's audit log that counts refused deliveries. Its extra is ``{"receiver": …, "count": …}``.
REFUSED_EVENT = "planasonix_webhook_refused"
#: The path of a receiver in Airflow's API server.
PATH = "/planasonix/webhook/"
#: How many receivers are listed, and how many entries of the audit log are read.
MAX_RECEIVERS, MAX_ENTRIES = 100, 50_000
DAY = timedelta(days=1)
#: An older delivery is not searched for.
MAX_AGE_OF_DELIVERY = timedelta(days=30)


class ReceiverRow(TypedDict):
    """A webhook receiver in JSON types."""

    conn_id: str
    url: str
    asset: str | None
    has_secret: bool
    problem: str | None
    last_delivery_at: str | None
    deliveries_24h: int
    refusals_24h: int


class _Deliveries(NamedTuple):
    """The deliveries of a receiver."""

    total: int
    last_at: datetime


def read_receivers(now: datetime, unsaved_refusals: Mapping[str, int] | None = None) -> list[ReceiverRow]:
    """Return the receivers in Airflow's database and the environment; Airflow 2 has none. It blocks.

    :param unsaved_refusals: the refusals that are not in the audit log yet, by the receiver's name in lower case.
    """
    if not AIRFLOW_V_3_0_PLUS:
        return []
    names = sorted(list_conn_ids(PlanasonixReceiverHook.conn_type))[:MAX_RECEIVERS]
    receivers = {name: PlanasonixReceiverHook(name).inspect() for name in names}
    with database_session() as session:
        refusals = _count_refusals(session, now) + Counter(unsaved_refusals or {})
        return [_receiver_row(session, name, receiver, refusals, now) for name, receiver in receivers.items()]


def _receiver_row(
    session: Session, name: str, receiver: ReceiverInspection, refusals: Mapping[str, int], now: datetime
) -> ReceiverRow:
    asset = find_asset(session, receiver.asset) if receiver.asset else None
    problem = receiver.problem
    if receiver.asset and asset is None:
        problem = problem or unknown_asset_message(receiver.asset)
    deliveries = _find_deliveries(session, asset.id, name, now) if asset else None
    base_url = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    return {
        "conn_id": name,
        "url": f"{base_url}{PATH}{name}",
        "asset": receiver.asset,
        "has_secret": receiver.has_secret,
        "problem": problem,
        "last_delivery_at": json_time(deliveries.last_at) if deliveries else None,
        "deliveries_24h": deliveries.total if deliveries else 0,
        "refusals_24h": refusals[name.lower()],
    }


def _find_deliveries(session: Session, asset_id: int, name: str, now: datetime) -> _Deliveries | None:
    """Return the deliveries of a receiver, which are events of its asset."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import JSON, func, select, type_coerce

    # Airflow finds a connection of the environment by its name in any case.
    receiver = func.lower(type_coerce(AssetEvent.extra, JSON)["receiver"].as_string())
    mine = (AssetEvent.asset_id == asset_id, receiver == name.lower())
    recent = select(func.count(), func.max(AssetEvent.timestamp)).where(*mine, AssetEvent.timestamp >= now - DAY)
    last_at: datetime | None
    total, last_at = session.execute(recent).one()
    if not total:
        last = select(AssetEvent.timestamp).where(*mine, AssetEvent.timestamp >= now - MAX_AGE_OF_DELIVERY)
        last_at = session.scalar(last.order_by(AssetEvent.timestamp.desc()).limit(1))
    return _Deliveries(total, last_at) if last_at else None


def _count_refusals(session: Session, now: datetime) -> Counter[str]:
    from airflow.models.log import Log
    from sqlalchemy import select

    query = select(Log.extra).where(Log.event == REFUSED_EVENT, Log.dttm >= now - DAY).limit(MAX_ENTRIES)
    refusals: Counter[str] = Counter()
    for extra in session.scalars(query):
        entry: dict[str, Any] = json.loads(extra or "{}")
        refusals[str(entry.get("receiver")).lower()] += int(entry.get("count", 0))
    return refusals


def save_refusals(counts: Mapping[str, int]) -> None:
    """Write counts of refused deliveries into Airflow's audit log, one entry for each receiver. It blocks."""
    from airflow.models.log import Log

    with database_session() as session:
        session.add_all(
            Log(event=REFUSED_EVENT, owner="planasonix", extra=json.dumps({"receiver": name, "count": count}))
            for name, count in counts.items()
        )
