"""The states that the reference names. Imports nothing, since DAG files are checked against them when they are parsed.

They stay strings and no enums: a state that appears one day must neither end a wait nor break it.
"""

from __future__ import annotations

#: States from which a job never moves on.
JOB_OVER = frozenset({"succeeded", "failed", "cancelled"})
#: All states of a job.
JOB_STATES = JOB_OVER | {"queued", "running", "cancelling"}
#: The states of jobs and backfills that have not ended, in the order of their life: lists that are requested in this
#: order miss no work that moves on meanwhile.
ACTIVE_STATES = ("queued", "running")
#: States from which a backfill never moves on.
BACKFILL_OVER = frozenset({"completed", "failed", "cancelled"})
#: All states of a backfill.
BACKFILL_STATES = BACKFILL_OVER | {"queued", "running"}
