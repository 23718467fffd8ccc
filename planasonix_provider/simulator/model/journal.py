"""A file with one line per change, from which a simulator that was killed restores its state."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import AwareDatetime, BaseModel, validate_call
from pydantic_core import to_jsonable_python

from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.clock_and_ids import Clock, Ids, random_id, utc_now

#: The method of the first line, which has the settings.
BEGIN = "begin"
#: The methods of the workspace that a line may call. A file may come from another person, and a line that could name
#: any attribute of the workspace would run code of that person's choice.
METHODS = frozenset(
    {
        "add_connection",
        "advance",
        "cancel",
        "configure",
        "fail_job",
        "keys.add",
        "keys.revoke",
        "plan",
        "plan_backfill",
        "slow_job",
        "start_backfill",
        "start_sync",
        "webhooks.create",
        "webhooks.delete",
        "webhooks.outbox.apply_attempt",
        "webhooks.rotate",
        "webhooks.test",
        "webhooks.update",
    }
)
# The first bytes of each line. They distinguish a truncated line from the file of another program.
_LINE_START = b'{"at":"'


class Entry(BaseModel):
    """One line: a call of a workspace's method, with the ids that it created.

    ``state_changes`` of jobs and backfills are there for people who read the file. They follow from the other lines.
    """

    at: AwareDatetime
    method: str
    arguments: dict[str, Any] = {}
    ids: list[str] = []
    state_changes: list[dict[str, Any]] = []


class Journal:
    """The file of a workspace; without a path, nothing is stored.

    A workspace takes time and ids from its journal, because they must be the same again when the file is replayed.
    """

    def __init__(self, file: Path | None = None, clock: Clock = utc_now, ids: Ids = random_id) -> None:
        self._path = file
        self._clock = clock
        self._ids = ids
        self._file: BinaryIO | None = None
        self._new_ids: list[str] = []
        self._replayed: Entry | None = None

    def clock(self) -> datetime:
        """Return the current time; during a replay the time of the entry."""
        return self._replayed.at if self._replayed else self._clock()

    def ids(self, prefix: str) -> str:
        """Return a new id; during a replay the next id of the entry."""
        new_id = self._replayed.ids.pop(0) if self._replayed else self._ids(prefix)
        if self._file:
            self._new_ids.append(new_id)
        return new_id

    def open(self, workspace: object, settings: Mapping[str, Any]) -> None:
        """Replay the file, and write to it from now on.

        :raises ValueError: if the file is damaged, in use, or was written with other settings or by another program.
        :raises OSError: if it cannot be read and written.
        """
        if self._path is None:
            return
        # The file contains keys and signing secrets.
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0)
        try:
            self._lock_file(file)
            # A second, buffered reader, because an unbuffered file reads lines byte by byte.
            with open(file.fileno(), "rb", closefd=False) as lines:
                file.truncate(self._replay(lines, workspace, settings))
            # The file may exist with other permissions.
            os.fchmod(file.fileno(), 0o600)
        except BaseException:
            file.close()
            raise
        self._file = file
        if file.seek(0, os.SEEK_END) == 0:
            self.write(BEGIN, **settings)

    def close(self) -> None:
        """Close the file; later changes are not stored."""
        if self._file:
            self._file.close()
            self._file = None

    def write(
        self,
        method: str,
        *,
        at: datetime | None = None,
        state_changes: list[dict[str, Any]] | None = None,
        **arguments: Any,
    ) -> None:
        """Store a call of a workspace's method and the ids that it created. Write before the caller gets its result."""
        if method != BEGIN and method not in METHODS:
            raise LookupError(f"{method} is not in METHODS, so a file with it could not be read again.")
        if not self._file:
            return
        ids, self._new_ids = self._new_ids, []
        entry = Entry(
            at=at or self.clock(),
            method=method,
            arguments=_to_json(arguments),
            ids=ids,
            state_changes=state_changes or [],
        )
        self._file.write(entry.model_dump_json().encode() + b"\n")

    def start_over(self, settings: Mapping[str, Any]) -> None:
        """Empty the file, and write its first line again."""
        if self._file:
            self._file.truncate(0)
            self._new_ids = []
            self.write(BEGIN, **settings)

    def _lock_file(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"state: another simulator writes to {self._path}.") from None

    def _replay(self, lines: BinaryIO, workspace: object, settings: Mapping[str, Any]) -> int:
        """Repeat the calls of all complete lines, and return where these end."""
        # validate_call converts JSON to the argument types of the method.
        methods = {path: validate_call(attrgetter(path)(workspace)) for path in METHODS}
        end = 0
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and line.startswith(_LINE_START[: len(line)]):
                # The process was killed during the write, so no caller got the result of this call.
                break
            try:
                entry = Entry.model_validate_json(line)
                if entry.method != BEGIN and end and entry.method in METHODS:
                    self._replayed = entry
                    methods[entry.method](**entry.arguments)
            except (ValueError, LookupError, AttributeError, ApiError) as error:
                # The message does not contain the line, which may contain a secret.
                raise ValueError(
                    f"state: line {number} of {self._path} cannot be read by a simulator of this version "
                    f"({type(error).__name__}); name another file, or delete it."
                ) from None
            finally:
                self._replayed = None
            if entry.method != BEGIN and entry.method not in METHODS:
                # The message does not contain the name, which may be any text.
                raise ValueError(
                    f"state: line {number} of {self._path} calls a method that a simulator of this version does not "
                    "record, so another program or version has written it; name another file, or delete it."
                )
            if not end:
                self._check_settings(entry, _to_json(settings))
            end += len(line)
        return end

    def _check_settings(self, first: Entry, settings: dict[str, Any]) -> None:
        """Reject a file that was written with other settings: its jobs would have other states."""
        different = sorted(name for name in settings if first.arguments.get(name) != settings[name])
        if first.method != BEGIN or different:
            raise ValueError(
                f"state: {self._path} was written with different {' and '.join(different) or 'options'}, or by another "
                "version; start with the same options as the first time, or name another file."
            )


def _to_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert to JSON types; of a model only the fields that were set, because an idempotency key compares these."""
    dumped = {
        name: value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        for name, value in arguments.items()
    }
    converted: dict[str, Any] = to_jsonable_python(dumped)
    return converted
