"""Pydantic models of the API's bodies. They follow the Orchestration API reference, v1, and tolerate additions to it.

Unknown fields are kept, unknown states and types are plain strings, and times are always aware.
"""

# ruff: noqa: F403 - each file lists its public names in __all__

from __future__ import annotations

from planasonix_provider.api.models.backfills import *
from planasonix_provider.api.models.base import *
from planasonix_provider.api.models.envelopes import *
from planasonix_provider.api.models.errors import *
from planasonix_provider.api.models.jobs import *
from planasonix_provider.api.models.webhooks import *
