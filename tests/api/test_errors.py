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
def test_each_status_has_its_kind(status: int, name: str) -> None:
    assert error_for_status(status).__name__ == name


def test_no_status_is_left_without_an_error() -> None:
    assert all(issubclass(error_for_status(status), PlanasonixResponseError) for status in HTTPStatus)


def test_each_kind_has_a_word_of_its_own() -> None:
    assert len(KINDS) == 16
    assert PlanasonixError.kind not in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_makes_the_same_error_again(kind: str) -> None:
    made = error_of(kind, "What was said.")
    assert type(made) is KINDS[kind]
    assert (made.message, str(made)) == ("What was said.", "What was said.")


def test_a_kind_of_another_version_is_still_an_error_of_this_package() -> None:
    made = error_of("of_tomorrow", "What was said.")
    assert (type(made), made.message) == (PlanasonixError, "What was said.")


def test_a_reworded_error_stays_the_same_error() -> None:
    error = PlanasonixResponseError("Before.", status=409, existing_job_id="job_1")
    error.set_message("After.")
    assert (str(error), error.status, error.existing_job_id) == ("After.", 409, "job_1")


@pytest.mark.parametrize("kind", KINDS.values())
def test_an_error_goes_from_process_to_process(kind: type[PlanasonixError]) -> None:
    error = kind("What was said.")
    error.hint = "kept"  # type: ignore[attr-defined]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, vars(copy)) == (error.message, vars(error))
