"""The table of start parameters, and every place that must have each of them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.simulator import Simulator
from planasonix_provider.start_parameters import KINDS, StartKind, common_checks, parameters_of
from planasonix_provider.testing.started_work import started_work
from tests.support.example_calls import EXAMPLE_CALLS
from tests.support.scenarios import CONNECTION
from tests.support.task_runs import drive

DOCS = Path(__file__).parents[1] / "docs"
ROUTES = {"sync": routes.trigger_sync, "backfill": routes.trigger_backfill}
BODIES = {"sync": (SyncBody, "jobs.py"), "backfill": (BackfillBody, "backfills.py")}
OPERATORS = {"sync": PlanasonixSyncOperator, "backfill": PlanasonixBackfillOperator}
PAGES = {"sync": "syncs.md", "backfill": "backfills.md"}


def names_of(kind: StartKind) -> set[str]:
    return {parameter.name for parameter in parameters_of(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_the_parameters_of_the_route(kind: StartKind) -> None:
    arguments = set(inspect.signature(ROUTES[kind]).parameters) - {"connection_id", "idempotency_key"}
    assert arguments == names_of(kind), f"start_parameters.py and trigger_{kind} in api/routes.py differ"


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_has_the_parameters_of_the_table(kind: StartKind) -> None:
    body, file = BODIES[kind]
    assert set(body.model_fields) == names_of(kind), (
        f"start_parameters.py and {body.__name__} in api/models/{file} differ"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_has_the_parameters_of_the_table(kind: StartKind) -> None:
    operator = OPERATORS[kind]
    accepted = {name for owner in operator.__mro__ for name in inspect.signature(owner.__init__).parameters}
    assert names_of(kind) <= accepted, f"operators/planasonix.py or operators/base.py: {operator.__name__}"
    assert names_of(kind) <= set(operator.template_fields)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_call_has_a_value_of_each_parameter(kind: StartKind) -> None:
    call = EXAMPLE_CALLS[f"trigger_{kind}"]
    assert names_of(kind) <= {*call.required, *call.optional}, "tests/support/example_calls.py"


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_sends_each_parameter(kind: StartKind, simulator: Simulator) -> None:
    call = EXAMPLE_CALLS[f"trigger_{kind}"]
    example = {**call.required, **call.optional, "metadata": {"ticket": "OPS-1"}}
    given = {name: example[name] for name in names_of(kind)}
    run = drive(lambda: OPERATORS[kind](task_id="load", connection_id=CONNECTION, wait_for_completion=False, **given))
    assert run.error is None, run.error
    (start,) = started_work(simulator.workspace)
    sent = {name for name, value in start.parameters.items() if value is not None}
    assert sent == names_of(kind), f"submit_job() of {OPERATORS[kind].__name__}, or trigger_{kind} in api/routes.py"


@pytest.mark.parametrize("kind", KINDS)
def test_the_docs_name_each_parameter(kind: StartKind) -> None:
    command_line = (DOCS / "command-line.md").read_text()
    own_page = (DOCS / PAGES[kind]).read_text() + (DOCS / "syncs.md").read_text()
    for name in names_of(kind):
        option = f"`--{name.replace('_', '-')}`"
        assert option in command_line, f"docs/command-line.md lacks {option}"
        assert f"`{name}`" in own_page, f"docs/{PAGES[kind]} lacks `{name}`"


def test_common_checks_are_those_of_all_kinds() -> None:
    assert set(common_checks()) == names_of("sync") & names_of("backfill") == {"priority", "metadata"}
