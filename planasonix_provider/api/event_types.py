"""The events by which Planasonix tells what has happened. Imports no models: DAG files are checked against these.

They stay strings and no enums: the set is open.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from planasonix_provider.api.states import BACKFILL_OVER, JOB_OVER
from planasonix_provider.validators import invalid_parameter, to_list

log = logging.getLogger(__name__)

#: The events that the reference names, which webhooks can be subscribed to.
KNOWN_EVENTS = frozenset({"job.queued", "job.succeeded", "job.failed", "job.cancelled", "backfill.completed"})
#: The events that tell of the end of a job or a backfill, as ``backfill.failed``.
END_EVENTS = frozenset({f"job.{state}" for state in JOB_OVER} | {f"backfill.{state}" for state in BACKFILL_OVER})


def event_names(name: str, value: Any) -> list[str]:
    """Check a list of events. The set is open: a name that nobody knows is none of this check's.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the events, each once.
    :raises ValueError: if it is no list, or there is none in it.
    """
    events = sorted(value, key=str) if isinstance(value, (set, frozenset)) else to_list(value)
    if not events or not all(isinstance(event, str) and event.strip() for event in events):
        raise invalid_parameter(name, events or value, "a list of events, such as ['job.succeeded', 'job.failed']")
    return list(dict.fromkeys(events))


def warn_of_unknown_events(name: str, events: Collection[str], known: Collection[str] = KNOWN_EVENTS) -> None:
    """Warn of events that this version does not know; a misspelt one would never come.

    :param name: the parameter's name, for the message.
    :param events: what was given.
    :param known: what is known.
    """
    if unknown := sorted(set(events) - set(known)):
        log.warning(
            "%s: this version of airflow-provider-planasonix does not know %s, which may never come. Check the "
            "spelling; known are %s.",
            name,
            ", ".join(unknown),
            ", ".join(sorted(known)),
        )
