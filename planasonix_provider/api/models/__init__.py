"""What the API sends and takes, as pydantic models that tolerate what the reference does not know yet.

Unknown fields are kept, so that an answer can be written back without loss; unknown states and types are
plain strings; times are always aware. Everything here follows the Orchestration API reference, v1.
"""

# ruff: noqa: F403 - each file lists its public names in __all__

from __future__ import annotations

from planasonix_provider.api.models.backfills import *
from planasonix_provider.api.models.base import *
from planasonix_provider.api.models.envelopes import *
from planasonix_provider.api.models.errors import *
from planasonix_provider.api.models.jobs import *
from planasonix_provider.api.models.webhooks import *
