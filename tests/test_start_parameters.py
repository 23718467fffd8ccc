"""The table of start parameters, and every place that must have each of them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from planasonix_provider.api import routes
from planasonix_provider.api.models import BackfillBody, SyncBody
from planasonix_provider.operators.planasonix import PlanasonixBackfillOperator, PlanasonixSyncOperator
from planasonix_provider.start_parameters import KINDS, StartKind, common_checks, parameters_of
from tests.support.example_calls import EXAMPLE_CALLS

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


@pytest.mark.parametrize("page", ["command-line.md", "testing-dags.md"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_docs_name_each_parameter(kind: StartKind, page: str) -> None:
    text = (DOCS / page).read_text()
    own_page = (DOCS / PAGES[kind]).read_text() + (DOCS / "syncs.md").read_text()
    for name in names_of(kind):
        form = f"`--{name.replace('_', '-')}`" if page == "command-line.md" else f"`{name}`"
        assert form in text, f"docs/{page} lacks {form}"
        assert f"`{name}`" in own_page, f"docs/{PAGES[kind]} lacks `{name}`"


def test_common_checks_are_those_of_all_kinds() -> None:
    assert set(common_checks()) == names_of("sync") & names_of("backfill") == {"priority", "metadata"}
