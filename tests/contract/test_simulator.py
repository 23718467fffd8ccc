"""The simulator follows the OpenAPI document for all requests that schemathesis generates.

By default this takes seconds, and sends the same requests each time; ``make contract`` sends more, and other ones each
time. ``HYPOTHESIS_EXAMPLES=100 CONTRACT_SEED=7 pytest tests/contract/test_simulator.py`` sends a hundred times as many.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig
from schemathesis.generation.stateful import run_state_machine_as_test

from planasonix_provider.api.models import as_utc
from planasonix_provider.simulator import Simulator
from planasonix_provider.simulator.model.request_bodies import BackfillRequestBody
from planasonix_provider.simulator.webhooks.webhook_sender import WebhookSender

pytestmark = pytest.mark.slow("tries hundreds of requests")

#: The number of requests generated for each operation, besides those that cover each of its parameters.
EXAMPLES = 5 * int(os.environ.get("HYPOTHESIS_EXAMPLES", "1"))
SEED = int(os.environ.get("CONTRACT_SEED", "1"))
CONNECTION = "conn_01jq8k2m3n4p5q6r7s8t9u0v1"
#: The resources at the start of a test, named by the document's examples, so that not every response is a 404.
FIRST = {"job": ["job_01jq8syncabc"], "bf": ["bf_01jq8bfill01"], "wh": ["wh_01jq8hook02"]}
WINDOW = {"start_at": "2025-01-01T00:00:00Z", "end_at": "2025-03-01T00:00:00Z"}
#: A part of the URLs that the document allows; each of these is valid.
RECEIVER = re.compile(r"https://[A-Za-z0-9.-]+(/[!-~]*)?")
NOON = datetime(2025, 3, 27, 12, tzinfo=UTC)

# The document allows any time. Simulator and client accept the years that Python can compute with in every zone.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(
        datetime.fromisoformat("1001-01-01"), datetime.fromisoformat("8999-01-01"), timezones=st.just(UTC)
    ).map(datetime.isoformat),
)

schema = schemathesis.openapi.from_path(
    Path(__file__).parents[2] / "docs" / "openapi.yaml",
    config=schemathesis.Config(
        seed=SEED,
        projects=ProjectsConfig(
            default=ProjectConfig(
                generation=GenerationConfig(max_examples=EXAMPLES, database="none", with_security_parameters=False)
            )
        ),
    ),
)


class World:
    """A deterministic simulator: its time passes, and its webhooks are sent, only in :meth:`advance_a_second`."""

    def __init__(self) -> None:
        self.now = NOON
        self.ids: dict[str, Iterator[str]] = {}
        self.simulator = Simulator(
            clock=lambda: self.now,
            ids=self._id,
            queued_seconds=1,
            job_seconds=2,
            cancelling_seconds=1,
            rate_limit=10**9,
        )

    def _id(self, prefix: str) -> str:
        return next(self.ids.setdefault(prefix, chain(FIRST.get(prefix, ()), map(f"{prefix}_{{}}".format, count()))))

    def begin(self) -> None:
        """Start over with a job, a backfill and a webhook."""
        self.now = NOON
        self.ids.clear()
        self.simulator.reset()
        self.simulator.workspace.configure(webhook_attempts=1)
        self.simulator.subscribe("https://example.com", ["job.failed"])
        self.simulator.workspace.start_sync(CONNECTION)
        self.simulator.workspace.start_backfill(CONNECTION, BackfillRequestBody.model_validate(WINDOW))

    def advance_a_second(self) -> None:
        """Advance time by a second, in which every other delivery succeeds."""
        self.now += timedelta(seconds=1)
        self.simulator.workspace.webhooks.advance()
        outbox = self.simulator.workspace.webhooks.outbox
        for parcel in outbox.due():
            outbox.record_attempt(parcel, (200, 503)[parcel.position % 2])

    @property
    def call(self) -> dict[str, Any]:
        """The arguments that make a request reach the simulator."""
        headers = {"Authorization": f"Bearer {self.simulator.api_key}"}
        return {"base_url": self.simulator.url, "headers": headers}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebhookSender, "wake", lambda _: None)
        world = World()
        with world.simulator:
            yield world


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def with_valid_values(case: schemathesis.Case) -> schemathesis.Case:
    """Return a documented request with valid values only, because a schema cannot express all rules."""
    if not case.meta.generation.mode.is_positive:
        return case
    # Valid cursors come from pages.
    case.query.pop("cursor", None)
    _in_order(case.query, "since", "until")
    # A body may also have fields that its schema does not name, with any values.
    name, body = case.operation.definition.raw["operationId"], case.body
    if name == "trigger_backfill":
        _in_order(body, "start_at", "end_at")
        if _moment(body["start_at"]) == _moment(body["end_at"]):
            body.update(WINDOW)
        if "tables" in body:
            body["tables"] = _names(body["tables"])
    if name in ("create_webhook", "update_webhook"):
        if "events" in body:
            body["events"] = _names(body["events"])
        if "url" in body and not RECEIVER.fullmatch(body["url"]):
            body["url"] = "https://example.com"
    if name == "test_webhook" and isinstance(body, dict) and "event" in body:
        (body["event"],) = _names([body["event"]])
    return case


def _names(names: list[str]) -> list[str]:
    """Return the names that are not blank, without duplicates."""
    return list(dict.fromkeys(name for name in names if name.strip())) or ["job.failed"]


def _in_order(values: dict[str, Any], begin: str, end: str) -> None:
    if {begin, end} <= set(values):
        values[begin], values[end] = sorted((values[begin], values[end]), key=_moment)


def _moment(text: str) -> datetime:
    return as_utc(datetime.fromisoformat(text))


@schema.parametrize()
def test_an_operation_follows_the_document(case: schemathesis.Case, world: World, session: requests.Session) -> None:
    world.begin()
    world.advance_a_second()
    with_valid_values(case).call_and_validate(session=session, **world.call)


def test_a_sequence_of_requests_follows_the_document(world: World, session: requests.Session) -> None:
    class Story(schema.as_state_machine()):
        """Requests use ids from earlier responses."""

        def setup(self) -> None:
            world.begin()

        def before_call(self, case: schemathesis.Case) -> None:
            world.advance_a_second()
            with_valid_values(case)

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"session": session, **world.call}

    run_state_machine_as_test(
        seed(SEED)(Story),
        settings=settings(
            # A deletion followed by a request for the deleted object is rare.
            max_examples=4 * EXAMPLES,
            stateful_step_count=8,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
