from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom
from pytest_mock import MockerFixture

from planasonix_provider.links.planasonix import PlanasonixJobLink
from planasonix_provider.operators.planasonix import PlanasonixSyncOperator

KEY: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=3)


def test_operator_has_the_link_under_its_name() -> None:
    operator = PlanasonixSyncOperator(task_id="load", connection_id="conn_1")
    assert [link.name for link in operator.operator_extra_links] == ["Open in Planasonix"]


def test_reads_the_xcom_that_the_operator_pushes() -> None:
    assert PlanasonixJobLink().xcom_key == "job_url"


@pytest.mark.parametrize(("stored", "link"), [("https://app/jobs/1", "https://app/jobs/1"), (None, ""), (5, "")])
def test_is_empty_while_there_is_no_job(mocker: MockerFixture, stored: object, link: str) -> None:
    # Airflow's database differs between versions; the system tests cover it.
    get_value = mocker.patch.object(XCom, "get_value", return_value=stored)
    operator = PlanasonixSyncOperator(task_id="load", connection_id="conn_1")
    assert PlanasonixJobLink().get_link(operator, ti_key=KEY) == link
    get_value.assert_called_once_with(key="job_url", ti_key=KEY)
