"""What happens in a world, line by line in a file, so that the world goes on when its process is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, validate_call
from pydantic_core import to_jsonable_python

from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.clock_and_ids import Clock, Ids, random_id, utc_now

#: What the first line says was done: the world began, with these settings.
BEGIN = "begin"
#: The methods of the world that a line may call. A file may come from another person, and a line that could name any
#: attribute of the world would run code of that person's choice.
METHODS = frozenset(
    {
        "add_connection",
        "cancel",
        "configure",
        "fail_job",
        "keys.add",
        "keys.revoke",
        "advance",
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
# How each line begins, which tells one that was cut off from a file that is no simulator's.
_LINE = b'{"at":"'


class Entry(BaseModel):
    """One line: what was done, and what is needed to do it again.

    :param at: when.
    :param do: what, as the path of the world's method.
    :param with: what it was given.
    :param ids: the ids that it made, in this order.
    :param happened: what else happened to jobs and backfills by then; for whoever reads the file, since it follows
        from all the rest.
    """

    model_config = ConfigDict(populate_by_name=True)

    at: AwareDatetime
    do: str
    given: dict[str, Any] = Field(default_factory=dict, alias="with")
    ids: list[str] = Field(default_factory=list)
    happened: list[dict[str, Any]] = Field(default_factory=list)


class Journal:
    """A file of what happens. A world takes time and ids from it, for when all is done again they have to be the same.

    :param file: where it is kept; ``None`` keeps nothing.
    :param clock: tells the time, in UTC.
    :param ids: makes ids.
    """

    def __init__(self, file: Path | None = None, clock: Clock = utc_now, ids: Ids = random_id) -> None:
        self._path = file
        self._clock = clock
        self._ids = ids
        self._file: BinaryIO | None = None
        self._made: list[str] = []
        # What is being done again.
        self._again: Entry | None = None

    def clock(self) -> datetime:
        """Tell the time; while something is done again, that of the first time."""
        return self._again.at if self._again else self._clock()

    def ids(self, prefix: str) -> str:
        """Make an id; while something is done again, give the one from the first time.

        :param prefix: what kind of thing it names, as ``job``.
        :return: the id.
        """
        made = self._again.ids.pop(0) if self._again else self._ids(prefix)
        if self._file:
            self._made.append(made)
        return made

    def open(self, world: object, settings: Mapping[str, Any]) -> None:
        """Do again what the file tells, and write to it from now on.

        :param world: whose methods are called.
        :param settings: what the world began with. All in the file is done again under the same.
        :raises ValueError: if the file is another simulator's, of other settings, or damaged.
        :raises OSError: if it cannot be read and written.
        """
        if self._path is None:
            return
        # There are keys and signing secrets in it.
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0)
        try:
            self._take(file)
            # A reader of its own, for what is not buffered is read byte by byte.
            with open(file.fileno(), "rb", closefd=False) as lines:
                file.truncate(self._do_again(lines, world, settings))
            # Somebody else may have created it.
            os.fchmod(file.fileno(), 0o600)
        except BaseException:
            file.close()
            raise
        self._file = file
        if file.seek(0, os.SEEK_END) == 0:
            self.write(BEGIN, **settings)

    def close(self) -> None:
        """Write nothing more."""
        if self._file:
            self._file.close()
            self._file = None

    def write(
        self, do: str, *, at: datetime | None = None, happened: list[dict[str, Any]] | None = None, **given: Any
    ) -> None:
        """Write down what was just done, with the ids that were made for it; before anybody is told.

        :param do: the path of the world's method, as ``keys.add``.
        :param at: when; now by default.
        :param happened: what happened to jobs and backfills.
        :param given: what the method was given.
        """
        if do != BEGIN and do not in METHODS:
            raise LookupError(f"{do} is not in METHODS, so a file with it could not be read again.")
        if not self._file:
            return
        ids, self._made = self._made, []
        entry = Entry(at=at or self.clock(), do=do, given=_plain(given), ids=ids, happened=happened or [])
        self._file.write(entry.model_dump_json(by_alias=True).encode() + b"\n")

    def start_over(self, settings: Mapping[str, Any]) -> None:
        """Forget all that happened.

        :param settings: what the world begins with again.
        """
        if self._file:
            self._file.truncate(0)
            self._made = []
            self.write(BEGIN, **settings)

    def _take(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"state: another simulator writes to {self._path}.") from None

    def _do_again(self, lines: BinaryIO, world: object, settings: Mapping[str, Any]) -> int:
        """Do all again that was written down as a whole; give where that ends."""
        # What was written as JSON becomes again what the method takes.
        methods = {path: validate_call(attrgetter(path)(world)) for path in METHODS}
        whole = 0
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and line.startswith(_LINE[: len(line)]):
                # Its process was killed amid the write: nobody was told of what it did.
                break
            try:
                entry = Entry.model_validate_json(line)
                if entry.do != BEGIN and whole and entry.do in METHODS:
                    self._again = entry
                    methods[entry.do](**entry.given)
            except (ValueError, LookupError, AttributeError, ApiError) as error:
                # What is in the line is not repeated: there may be a secret in it.
                raise ValueError(
                    f"state: line {number} of {self._path} is not what a simulator of this version writes "
                    f"({type(error).__name__}); name another file, or delete it."
                ) from None
            finally:
                self._again = None
            if entry.do != BEGIN and entry.do not in METHODS:
                # Its name is not repeated: it may be anything.
                raise ValueError(
                    f"state: line {number} of {self._path} names an act that no simulator of this version records, so "
                    "another program or version has written it; name another file, or delete it."
                )
            if not whole:
                self._compare(entry, _plain(settings))
            whole += len(line)
        return whole

    def _compare(self, first: Entry, settings: dict[str, Any]) -> None:
        """Refuse to go on with other settings: each job would become another one."""
        others = sorted(name for name in settings if first.given.get(name) != settings[name])
        if first.do != BEGIN or others:
            raise ValueError(
                f"state: {self._path} was not begun with these {' and '.join(others) or 'settings'}; start with the "
                "same options as the first time, or name another file."
            )


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give it as JSON types; of a model only what was set, since that is what two starts are told apart by."""
    dumped = {
        name: value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        for name, value in given.items()
    }
    plain: dict[str, Any] = to_jsonable_python(dumped)
    return plain
