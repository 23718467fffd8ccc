from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.ui import UI

pytestmark = pytest.mark.timeout(900)


def assert_button_opens_job_page(ui: UI, state: str, task_id: str, map_index: int = -1) -> None:
    job = ui.job_of(task_id, map_index)
    task = ui.task(job)
    task.show_details()
    task.expect_state(state)
    expect(task.button).to_have_attribute("href", f"{ui.planasonix.url}/jobs/{job.id}")
    ui.picture(f"button-{task_id}")
    with ui.page.context.expect_page() as opened:
        task.button.click()
    expect(opened.value).to_have_url(f"{ui.planasonix.url}/jobs/{job.id}")
    expect(opened.value.get_by_role("heading", name=job.id)).to_be_visible()


def test_the_button_of_a_successful_task_opens_its_job(ui: UI) -> None:
    assert_button_opens_job_page(ui, "success", "load_orders")


def test_the_button_of_a_running_task_opens_its_job(ui: UI) -> None:
    assert_button_opens_job_page(ui, "running", "load_history")
    ui.picture_of_the_docs("button", {"x": 330, "y": 64, "width": 940, "height": 420})


@pytest.mark.parametrize("map_index", [0, 1])
def test_the_button_of_each_mapped_task_opens_its_own_job(ui: UI, map_index: int) -> None:
    assert_button_opens_job_page(ui, "success", "load_shops", map_index)


def test_the_log_shows_the_progress_of_the_job(ui: UI) -> None:
    job = ui.job_of("load_orders")
    task = ui.task(job)
    task.show_details()
    task.expect_state("success")
    task.show_log()
    for line in (f"Started job {job.id} on connection", f"Job {job.id} succeeded", "Loaded 44,802 rows into 1 table."):
        expect(ui.page.get_by_text(line).first).to_be_visible()
    ui.picture("log")
    ui.picture_of_the_docs("log", {"x": 330, "y": 64, "width": 940, "height": 500})
