from __future__ import annotations

from dev.local_airflow import LocalAirflow, add_connection
from tests.conftest import API_KEY
from tests.support.reference_server import ReferenceServer, fourteen_faults
from tests.system.conftest import Notes
from tests.system.runs import WAYS, TaskRun


def test_two_tasks_come_through_fourteen_faults_each_with_one_job(airflow: LocalAirflow, note: Notes) -> None:
    servers, runs = {}, {}
    for seed, way in enumerate(WAYS):
        faults = fourteen_faults(seed)
        servers[way] = ReferenceServer(
            api_key=API_KEY,
            # One look amid the faults finds the job over, so that the request for its results meets the rest of them.
            read_faults=[*faults[:9], ("ok",), *faults[9:]],
            start_faults=[("status", 503, {"Retry-After": "1"})],
        )
    with servers["on_a_worker"], servers["deferred"]:
        for way in WAYS:
            conn_id = f"planasonix_faulty_{way}"
            fields = {"conn_type": "planasonix", "host": servers[way].url, "password": API_KEY}
            add_connection(airflow, conn_id, fields)
            runs[way] = TaskRun.start(airflow, f"sync_{way}", connection_id="conn_1", planasonix_conn_id=conn_id)
        for way in WAYS:
            runs[way].wait_for("success")
            (job,) = servers[way].jobs.values()
            assert (job["status"], job["cancel_requested_at"]) == ("succeeded", None)
            assert runs[way].xcom()["job_id"] == job["id"]
            assert servers[way].faults_left == (0, 0)
            outcomes = [f"{request.method} {request.outcome}" for request in servers[way].requests]
            assert [outcome for outcome in outcomes if "GET" not in outcome] == ["POST 503", "POST 202"]
            note(f"{way}: {', '.join(outcomes)}")
            for line in runs[way].our_lines():
                note(f"{way}: {line}")
