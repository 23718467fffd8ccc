"""The kinds of wait targets. A new kind needs a class and an entry here; events and triggers then know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planasonix_provider.validators import invalid_parameter
from planasonix_provider.waiting.sync_target import SyncTarget
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget, WaitTarget

TARGETS: dict[str, type[WaitTarget]] = {target.kind: target for target in (JobTarget, BackfillTarget, SyncTarget)}


def deserialize_target(fields: Mapping[str, Any]) -> WaitTarget:
    """Return the target that ``WaitTarget.serialize`` has made these fields of."""
    arguments = dict(fields)
    kind = arguments.pop("kind", None)
    if kind not in TARGETS:
        raise invalid_parameter("kind", kind, ", ".join(TARGETS))
    return TARGETS[kind].deserialize(arguments)
