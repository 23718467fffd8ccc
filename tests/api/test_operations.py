from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, Client
from planasonix_provider.api.errors import PlanasonixUnreadableError
from planasonix_provider.api.operations import Operations
from planasonix_provider.simulator import Simulator
from tests.support.api_clients import CallStyle, make_config
from tests.support.raw_server import RawServer, Reaction, ReceivedRequest, error_response, response


def pages(*chain: tuple[int, str | None]) -> Reaction:
    """Return a reaction with pages; each has a number of jobs and the cursor of the next page."""
    by_cursor: dict[str | None, tuple[int, str | None]] = {}
    patience = iter(range(20 + len(chain)))
    asked: str | None = None
    for size, cursor in chain:
        by_cursor[asked] = (size, cursor)
        asked = cursor

    def react(request: ReceivedRequest) -> bytes:
        if next(patience, None) is None:  # an endless list must fail its test instead of hanging it
            return error_response(404)
        asked = parse_qs(urlsplit(request.path).query).get("cursor", [None])[0]
        size, cursor = by_cursor[asked]
        rows = [{"id": f"{asked or 'start'}_{number}", "status": "running"} for number in range(size)]
        return response(200, {"data": rows, "meta": {"page": {"limit": size, "cursor": cursor}}})

    return react


def cursors(raw_server: RawServer) -> list[str | None]:
    """Return the cursors of all requests."""
    return [parse_qs(urlsplit(seen.path).query).get("cursor", [None])[0] for seen in raw_server.requests]


def every_job(client: Any) -> Any:
    return client.list_jobs()


def test_a_list_follows_the_cursors_to_its_end(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(pages((2, "a"), (2, "b"), (1, None)))
    jobs = style.take_items(make_config(raw_server.url), None, every_job)
    assert [job.id for job in jobs] == ["start_0", "start_1", "a_0", "a_1", "b_0"]
    assert cursors(raw_server) == [None, "a", "b"]


@pytest.mark.parametrize(
    ("taken", "asked"), [(0, []), (1, [None]), (2, [None]), (3, [None, "a"]), (4, [None, "a"]), (5, [None, "a", "b"])]
)
def test_a_page_is_requested_when_its_first_item_is_needed(
    style: CallStyle, raw_server: RawServer, taken: int, asked: list[str | None]
) -> None:
    raw_server.respond_with(pages((2, "a"), (2, "b"), (2, None)))
    assert len(style.take_items(make_config(raw_server.url), taken, every_job)) == taken
    assert cursors(raw_server) == asked


@pytest.mark.parametrize(
    ("limit", "given", "asked"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (4, 4, 2), (5, 5, 3), (9, 6, 3)]
)
def test_the_limit_is_a_total_and_no_unneeded_page_is_requested(
    style: CallStyle, raw_server: RawServer, limit: int, given: int, asked: int
) -> None:
    raw_server.respond_with(pages((2, "a"), (2, "b"), (2, None)))
    jobs = style.take_items(make_config(raw_server.url), None, lambda client: client.list_jobs(limit=limit))
    assert (len(jobs), len(raw_server.requests)) == (given, asked)


def test_an_empty_page_does_not_end_a_list(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(pages((1, "a"), (0, "b"), (1, None)))
    assert [job.id for job in style.take_items(make_config(raw_server.url), None, every_job)] == ["start_0", "b_0"]


@pytest.mark.heavy
@pytest.mark.parametrize("limit", [10, None])
def test_fifty_empty_pages_in_a_row_are_an_error(style: CallStyle, raw_server: RawServer, limit: int | None) -> None:
    raw_server.respond_with(pages((1, "a"), *((0, f"c{number}") for number in range(60))))
    with pytest.raises(PlanasonixUnreadableError, match=r"^GET /api/v1/jobs: 50 pages of the list in a row were empty"):
        style.take_items(make_config(raw_server.url), None, lambda client: client.list_jobs(limit=limit))
    assert len(raw_server.requests) == 51


@pytest.mark.heavy
def test_fewer_empty_pages_in_a_row_do_not_end_a_list(style: CallStyle, raw_server: RawServer) -> None:
    empty = [[(0, f"{name}{number}") for number in range(49)] for name in "ab"]
    raw_server.respond_with(pages(*empty[0], (1, "x"), *empty[1], (1, None)))
    assert len(style.take_items(make_config(raw_server.url), None, every_job)) == 2


def test_an_empty_list_is_one_request(style: CallStyle, raw_server: RawServer) -> None:
    raw_server.respond_with(pages((0, None)))
    assert style.take_items(make_config(raw_server.url), None, every_job) == []
    assert len(raw_server.requests) == 1


@pytest.mark.parametrize(
    "circle",
    [
        [(1, "a"), (1, "a")],
        [(1, "a"), (1, "b"), (1, "a")],
        [(0, "a"), (0, "b"), (0, "c"), (0, "b")],
    ],
    ids=["page with its own cursor", "cycle of two pages", "cycle without the first page"],
)
def test_a_cycle_of_cursors_is_an_error(
    style: CallStyle, raw_server: RawServer, circle: list[tuple[int, str | None]]
) -> None:
    raw_server.respond_with(pages(*circle))
    with pytest.raises(PlanasonixUnreadableError, match=r"^GET /api/v1/jobs: .* (would never end|itself as the next)"):
        style.take_items(make_config(raw_server.url), None, every_job)
    # A page that names its own cursor may have been garbled in transit, so it is requested up to three times.
    assert len(raw_server.requests) <= len(circle) + 2


def test_the_error_of_a_page_is_raised_after_the_items_before_it(raw_server: RawServer) -> None:
    raw_server.respond_with(pages((1, "a")), error_response(403))
    with Client(make_config(raw_server.url)) as client:
        jobs = client.list_jobs()
        assert next(jobs).id == "start_0"
        with pytest.raises(Exception, match="403 Forbidden"):
            next(jobs)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_invalid_argument_raises_at_the_call_and_not_at_the_first_item(kind: Any) -> None:
    client = kind(make_config("http://127.0.0.1:9"))
    with pytest.raises(ValueError, match="limit"):
        client.list_jobs(limit=0)
    with pytest.raises(ValueError, match="job_id"):
        client.get_job("")


@pytest.mark.heavy
def test_a_long_list_is_complete_and_has_no_duplicates(style: CallStyle, server: Simulator) -> None:
    with Client(make_config(server.url)) as client:
        started = [client.trigger_sync(f"conn_{number % 2}").id for number in range(103)]
    sent = len(server.requests)
    listed = style.take_items(make_config(server.url), None, every_job)
    assert [job.id for job in listed] == started[::-1]
    assert len(server.requests) - sent == 2
    ours = style.take_items(make_config(server.url), None, lambda client: client.list_jobs(connection_id="conn_1"))
    assert {job.connection_id for job in ours} == {"conn_1"}
    assert len(ours) == 51


@pytest.mark.parametrize("name", [name for name in vars(Operations) if not name.startswith("_")])
def test_a_method_has_the_name_and_the_docstring_of_its_route(name: str) -> None:
    with Client(make_config("http://127.0.0.1:9")) as client:
        method = getattr(client, name)
    assert method.__name__ == name
    assert method.__doc__ == getattr(Operations, name).__doc__ == getattr(routes, name).__doc__


def test_methods_return_the_objects_of_the_server(style: CallStyle, server: Simulator) -> None:
    server.plan("conn_1", queued_seconds=60)
    here = make_config(server.url)
    started = style.call(here, lambda client: client.trigger_sync("conn_1", pipeline_id="pl_1"))
    cancelled = style.call(here, lambda client: client.cancel_job(started.id))
    polled = style.call(here, lambda client: client.get_job(job_id=started.id))
    results = style.call(here, lambda client: client.get_job_results(started.id))
    assert (started.status, started.connection_id, started.pipeline_id) == ("queued", "conn_1", "pl_1")
    assert (cancelled.id, cancelled.status) == (started.id, "cancelled")
    assert polled.status == "cancelled"
    assert (results.job_id, results.status) == (started.id, "cancelled")
