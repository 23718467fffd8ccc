from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args, overload

import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider import validators
from planasonix_provider.api.event_types import event_names
from planasonix_provider.api.models import Priority
from planasonix_provider.operators import planasonix as operators
from planasonix_provider.triggers import planasonix as triggers
from planasonix_provider.triggers.events import PlanasonixEventTrigger
from tests.support.example_tasks import SENSORS, make_example, parameters_of, public_classes

XCOM = BaseOperator(task_id="other").output


@pytest.mark.parametrize(
    ("value", "is_templated"),
    [
        ("{{ ds }}", True),
        ("conn_{{ var.value.x }}", True),
        ("{% if a %}b{% endif %}", True),
        ("{# nothing #}", True),
        ({"a": {"b": ["{{ ds }}"]}}, True),
        ({"{{ ds }}": 1}, True),
        (("a", "{{ ds }}"), True),
        ({"{{ ds }}"}, True),
        (XCOM, True),
        (XCOM["key"], True),
        ({"a": [XCOM]}, True),
        ("conn_1", False),
        ("{ds}", False),
        ("", False),
        ({"a": {"b": ["c", 1, None]}}, False),
        ({}, False),
        (None, False),
        (30, False),
        (timedelta(seconds=30), False),
    ],
    ids=str,
)
def test_a_template_or_an_xcom_is_templated(value: Any, is_templated: bool) -> None:
    assert validators.is_templated(value) is is_templated


def error_message(check: validators.Check, value: Any) -> str:
    with pytest.raises(ValueError, match=r"^the_name: got ") as refused:
        check("the_name", value)
    return str(refused.value)


@pytest.mark.parametrize("value", ["conn_1", " conn_1 ", "größe"])
def test_a_text_is_returned_unchanged(value: str) -> None:
    assert validators.text("the_name", value) == value


@pytest.mark.parametrize("value", ["", " ", "\t\n", None, 7, True, b"conn_1", ["conn_1"]])
def test_an_invalid_text_is_refused(value: Any) -> None:
    assert error_message(validators.text, value) == f"the_name: got {value!r}, allowed is a text that is not empty."


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (30, 30.0),
        (0.5, 0.5),
        ("30", 30.0),
        (" 1.5 ", 1.5),
        (timedelta(minutes=2), 120.0),
        (timedelta(milliseconds=1), 0.001),
        (Decimal("1.5"), 1.5),
    ],
)
def test_seconds_are_a_number_a_text_or_a_timedelta(value: Any, seconds: float) -> None:
    given = validators.seconds("the_name", value)
    assert (given, type(given)) == (seconds, float)


def test_a_poll_interval_is_at_least_half_a_second(min_poll_seconds: float) -> None:
    assert min_poll_seconds == 0.5
    assert [validators.poll_interval("x", value) for value in (0.5, "0.5", timedelta(seconds=2))] == [0.5, 0.5, 2]
    for value in (0.49, "0.1", 1e-9, timedelta(milliseconds=499)):
        assert error_message(validators.poll_interval, value) == (
            f"the_name: got {value!r}, allowed is a number of seconds from 0.5, or a timedelta."
        )
    assert "above 0 and up to ten years" in error_message(validators.poll_interval, "x")


def classes_that_poll() -> list[tuple[type, str]]:
    """Return all operators, sensors and triggers that poll, each with the parameter that has its interval."""
    tasks_and_triggers = [*public_classes(operators), *public_classes(triggers)]
    polling = [(kind, "poll_interval") for kind in tasks_and_triggers if "poll_interval" in parameters_of(kind)]
    if AIRFLOW_V_3_0_PLUS:
        # Airflow 2 has no watchers.
        polling.append((PlanasonixEventTrigger, "poll_interval"))
    return [*polling, *((kind, "poke_interval") for kind in SENSORS)]


@pytest.mark.usefixtures("min_poll_seconds")
@pytest.mark.parametrize(("kind", "name"), classes_that_poll())
def test_everything_that_polls_validates_its_interval(kind: type, name: str) -> None:
    make_example(kind, **{name: 0.5})
    with pytest.raises(ValueError, match=rf"{name}: got 0\.1, allowed is a number of seconds from 0\.5"):
        make_example(kind, **{name: 0.1})


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 0.0, -0.5, math.nan, math.inf, -math.inf, 10**400, True, False, None),
        *("", "x", "0", "-1", "nan", "inf", "True", "00:01:00"),
        *(timedelta(0), timedelta(seconds=-1), [30], {"seconds": 30}, datetime(2025, 1, 1, tzinfo=UTC)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_duration_is_refused(value: Any) -> None:
    message = error_message(validators.seconds, value)
    assert message.endswith(", allowed is a number of seconds above 0 and up to ten years, or a timedelta.")
    assert repr(value)[:200] in message


def test_the_priorities_are_those_of_the_api() -> None:
    assert [validators.priority("the_name", value) for value in get_args(Priority)] == list(get_args(Priority))


@pytest.mark.parametrize("value", ["", "urgent", "Low", " low", None, 1, ["low"], {"low": 1}])
def test_an_invalid_priority_is_refused(value: Any) -> None:
    assert error_message(validators.priority, value) == f"the_name: got {value!r}, allowed is low, normal, high."


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({}, {}),
        (
            {"a": 1, "b": [None, True, 1.5, "c"], "d": {"e": "f"}},
            {"a": 1, "b": [None, True, 1.5, "c"], "d": {"e": "f"}},
        ),
        (OrderedDict(a=(1, 2)), {"a": [1, 2]}),
        ({"größe": "ü"}, {"größe": "ü"}),
    ],
)
def test_metadata_becomes_plain_json(value: Any, plain: dict[str, Any]) -> None:
    given = validators.metadata("the_name", value)
    assert (given, type(given)) == (plain, dict)


@pytest.mark.parametrize("value", [None, "a=b", '{"a": 1}', ["a"], [("a", 1)], 7, {1: "a"}, {None: 1}, {("a",): 1}])
def test_metadata_must_be_a_mapping_with_text_keys(value: Any) -> None:
    message = error_message(validators.metadata, value)
    assert message == f"the_name: got {value!r}, allowed is a mapping whose keys are texts."


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, [math.nan], {1, 2}, datetime(2025, 1, 1, tzinfo=UTC), b"a", object(), {("a",): 1}],
    ids=lambda value: type(value).__name__,
)
def test_metadata_that_json_cannot_hold_is_refused(value: Any) -> None:
    message = error_message(validators.metadata, {"a": value})
    assert ", allowed is what JSON can hold (" in message


def test_metadata_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    assert "Circular reference" in error_message(validators.metadata, value)


def test_metadata_is_copied() -> None:
    given = {"a": [1]}
    made = validators.metadata("the_name", given)
    given["a"].append(2)
    assert made == {"a": [1]}


def test_a_long_value_is_truncated() -> None:
    message = error_message(validators.priority, "x" * 10_000)
    assert len(message) < 300
    assert "…, allowed is low" in message


def test_an_optional_parameter_may_be_none() -> None:
    check = validators.optional(validators.seconds)
    assert check("the_name", None) is None
    assert check("the_name", "30") == 30.0
    assert error_message(check, 0).startswith("the_name: got 0")


def test_an_error_describes_a_value_without_a_repr() -> None:
    assert str(validators.invalid_parameter("metadata", {"a": 10**5_000}, "less")) == (
        "metadata: got a dict that cannot be shown, allowed is less."
    )


@pytest.mark.parametrize("given", ["job_1", "bf-2", "größe", "a.b", "conn:1"])
def test_an_id_is_one_segment_of_a_path(given: str) -> None:
    assert validators.identifier("job_id", given) == given


@pytest.mark.parametrize("given", [".", "..", "a/b", "a\\b", "a?b", "a#b", "a%2Fb", "a b", "a\nb", "a\u200bb", 7])
def test_an_id_that_changes_the_path_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"job_id: got .* allowed is an id as Planasonix gives it"):
        validators.identifier("job_id", given)


@pytest.mark.parametrize("given", [None, "None", "", " ", " None\n"])
def test_an_error_explains_an_empty_template(given: object) -> None:
    with pytest.raises(ValueError, match=r"job_id: got .* A template that renders to nothing gives such a value"):
        validators.identifier("job_id", given)
    with pytest.raises(ValueError, match=r"end_at: got .* A run without a logical date has no data interval"):
        validators.utc("end_at", given)


class Lazy(Sequence[str]):
    """A lazy sequence, like the output of a mapped task."""

    def __init__(self, *items: str) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._items[index]


@pytest.mark.parametrize(
    ("check", "items"),
    [
        (validators.tables, ("public.orders", "public.items")),
        (validators.list_of({"failed", "cancelled"}), ("failed", "cancelled")),
        (event_names, ("job.succeeded", "job.failed")),
    ],
    ids=["tables", "states", "events"],
)
def test_a_list_may_be_any_sequence_except_a_text(check: validators.Check, items: tuple[str, ...]) -> None:
    assert check("the_name", Lazy(*items)) == list(items)
    for wrong in (items[0], items[0].encode(), Lazy(), {items[0]: 1}):
        with pytest.raises(ValueError, match="the_name: got"):
            check("the_name", wrong)


def test_metadata_may_contain_any_sequence() -> None:
    assert validators.metadata("the_name", {"parts": Lazy("a", "b")}) == {"parts": ["a", "b"]}
    with pytest.raises(ValueError, match="what JSON can hold"):
        validators.metadata("the_name", {"parts": object()})
