from __future__ import annotations

import pickle
from http import HTTPStatus

import pytest

from planasonix_provider.api import errors
from planasonix_provider.api.errors import PlanasonixError, PlanasonixResponseError, error_for_status, error_of

KINDS = {
    kind.kind: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PlanasonixError) and kind is not PlanasonixError
}


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "PlanasonixValidationError"),
        (401, "PlanasonixAuthenticationError"),
        (403, "PlanasonixPermissionError"),
        (404, "PlanasonixNotFoundError"),
        (409, "PlanasonixConflictError"),
        (429, "PlanasonixRateLimitError"),
        (500, "PlanasonixServerError"),
        (503, "PlanasonixServerError"),
        (599, "PlanasonixServerError"),
        (302, "PlanasonixResponseError"),
        (418, "PlanasonixResponseError"),
    ],
)
def test_each_status_has_its_exception(status: int, name: str) -> None:
    assert error_for_status(status).__name__ == name


def test_every_status_has_an_exception() -> None:
    assert all(issubclass(error_for_status(status), PlanasonixResponseError) for status in HTTPStatus)


def test_each_exception_has_its_own_kind() -> None:
    assert len(KINDS) == 16
    assert PlanasonixError.kind not in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_is_recreated_from_its_kind(kind: str) -> None:
    made = error_of(kind, "What was said.")
    assert type(made) is KINDS[kind]
    assert (made.message, str(made)) == ("What was said.", "What was said.")


def test_an_unknown_kind_becomes_the_base_class() -> None:
    made = error_of("of_tomorrow", "What was said.")
    assert (type(made), made.message) == (PlanasonixError, "What was said.")


def test_set_message_keeps_all_other_attributes() -> None:
    error = PlanasonixResponseError("Before.", status=409, existing_job_id="job_1")
    error.set_message("After.")
    assert (str(error), error.status, error.existing_job_id) == ("After.", 409, "job_1")


@pytest.mark.parametrize("kind", KINDS.values())
def test_an_exception_can_be_pickled(kind: type[PlanasonixError]) -> None:
    error = kind("What was said.")
    error.hint = "kept"  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, vars(copy)) == (error.message, vars(error))
