from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from planasonix_provider.simulator import Fault
from planasonix_provider.simulator.api.faults import Faults


def kinds(faults: Faults, *routes: str) -> list[str | None]:
    taken = [faults.next_fault(route) for route in routes]
    return [fault and fault.kind for fault in taken]


@pytest.mark.parametrize(
    ("planned", "routes", "taken"),
    [
        ([{"kind": "reset", "times": 2}], ["get_job"] * 3, ["reset", "reset", None]),
        ([{"kind": "reset", "route": "trigger_sync"}], ["get_job", "trigger_sync"], [None, "reset"]),
        (
            [{"kind": "reset", "route": "trigger_sync"}, {"kind": "cut"}, {"kind": "html"}],
            ["get_job", "get_job", "trigger_sync"],
            ["cut", "html", "reset"],
        ),
        ([{"kind": "reset", "skip": 2}, {"kind": "cut"}], ["get_job"] * 4, ["cut", None, "reset", None]),
    ],
    ids=["as often as planned", "only its route", "the first that matches", "the next while one skips"],
)
def test_faults_of_requests(planned, routes, taken):
    faults = Faults()
    for fault in planned:
        faults.add(Fault(**fault))
    assert kinds(faults, *routes) == taken


def test_fault_without_times_stays_until_cleared():
    faults = Faults()
    faults.add(Fault(kind="reset", times=None))
    assert kinds(faults, *["get_job"] * 50) == ["reset"] * 50
    faults.clear()
    assert kinds(faults, "get_job") == [None]


def test_pending_faults_count_down():
    faults = Faults()
    faults.add(Fault(kind="reset", skip=1, times=3))
    kinds(faults, "get_job", "get_job")
    assert [(fault.skip, fault.times) for fault in faults.pending()] == [(0, 2)]


def test_faults_are_thread_safe():
    faults = Faults()
    faults.add(Fault(kind="reset", times=100))
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: faults.next_fault("get_job"), range(400)))
    assert sum(fault is not None for fault in taken) == 100


@pytest.mark.parametrize(("kind", "status"), [("status", 500), ("html", 502), ("empty", 200)])
def test_default_status(kind, status):
    assert Fault(kind=kind).response_status == status


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "explode"}, r"(?s)kind.*'status', 'reset'.*explode"),
        ({"kind": "reset", "route": "get_jobs"}, r"(?s)route.*'get_jobs'.*'get_job'"),
        ({"kind": "reset", "times": 0}, r"(?s)times.*greater than or equal to 1"),
        ({"kind": "reset", "skip": -1}, r"(?s)skip.*greater than or equal to 0"),
        ({"kind": "reset", "when": "later"}, r"(?s)when.*'before' or 'after'"),
        ({"kind": "hang", "seconds": float("inf")}, r"(?s)seconds"),
        ({"kind": "status", "status": 200}, r"status: got 200, allowed for 'status' is 400 to 599"),
        ({"kind": "html", "status": 204}, r"status: got 204, allowed for 'html' is 200 or 300 to 599"),
        ({"kind": "status", "headers": {"Retry-After": "1\r\nX: y"}}, r"headers.Retry-After"),
        ({"kind": "status", "headers": {"No Name": "1"}}, r"headers.No Name"),
        ({"kind": "reset", "color": "red"}, r"(?s)color.*not permitted"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        Fault(**values)
