"""The names of Planasonix's events. They are strings, not enums, because the set is open.

This module imports no models, because DAG files are checked against these names.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from planasonix_provider.api.states import BACKFILL_OVER, JOB_OVER
from planasonix_provider.validators import invalid_parameter, to_list

log = logging.getLogger(__name__)

#: The events of the reference, to which webhooks can subscribe.
KNOWN_EVENTS = frozenset({"job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"})
#: The events that report the end of a job, such as ``job.failed``.
JOB_END_EVENTS = frozenset(f"job.{state}" for state in JOB_OVER)
#: The events that report the end of a job or a backfill, such as ``backfill.failed``.
END_EVENTS = JOB_END_EVENTS | {f"backfill.{state}" for state in BACKFILL_OVER}


def event_names(name: str, value: Any) -> list[str]:
    """Return a list of event names without duplicates. Unknown names pass."""
    events = sorted(value, key=str) if isinstance(value, (set, frozenset)) else to_list(value)
    if not events or not all(isinstance(event, str) and event.strip() for event in events):
        raise invalid_parameter(name, events or value, "a list of events, such as ['job.succeeded', 'job.failed']")
    return list(dict.fromkeys(events))


def warn_of_unknown_events(name: str, events: Collection[str], known: Collection[str] = KNOWN_EVENTS) -> None:
    """Log a warning for unknown events: a misspelt event never occurs."""
    if unknown := sorted(set(events) - set(known)):
        log.warning(
            "%s: this version of airflow-provider-planasonix does not know %s, which may never come. Check the "
            "spelling; known are %s.",
            name,
            ", ".join(unknown),
            ", ".join(sorted(known)),
        )
