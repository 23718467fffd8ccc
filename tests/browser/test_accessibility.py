from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.conftest import PICTURES
from tests.browser.stage import Stage

DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


def findings(page: Page, axe: str, part: str = ":root") -> list[str]:
    """Return axe's violations on a page or a part of it, and the rules that it could not decide."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    found = page.evaluate("(part) => axe.run(part)", part)
    rules = [*found["violations"], *found["incomplete"]]
    return [f"{rule['id']} ({rule['impact']}): {node['html']}" for rule in rules for node in rule["nodes"]]


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_page_has_accessibility_violations(
    chromium: Browser, stage: Stage, axe: str, size: ViewportSize, colours
) -> None:
    # The page's content security policy would block axe's script.
    context = chromium.new_context(
        base_url=stage.planasonix.url, viewport=size, color_scheme=colours, bypass_csp=True, device_scale_factor=1
    )
    page = context.new_page()
    found = {}
    paths = stage.fill()
    stage.send_requests()
    for name, path in paths.items():
        page.goto(path)
        page.screenshot(path=PICTURES / f"{name}-{size['width']}-{colours}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        found[name] = findings(page, axe) + ([f"is {wide} px wide"] if wide > size["width"] else [])
    page.goto("/start")
    page.evaluate("document.querySelectorAll('[required]').forEach((field) => field.required = false)")
    page.get_by_role("button", name="Start the backfill").click()
    expect(page.get_by_role("alert")).to_be_focused()
    page.screenshot(path=PICTURES / f"start-refused-{size['width']}-{colours}.png", full_page=True)
    found["start-refused"] = findings(page, axe)
    context.close()
    assert {name: what for name, what in found.items() if what} == {}


def test_screen_readers_see_the_cards_of_a_phone_as_a_table(page: Page, stage: Stage) -> None:
    stage.fill()
    page.set_viewport_size(PHONE)
    page.goto("/jobs?status=failed")
    table = page.get_by_role("table", name="Jobs, newest first")
    expect(table.get_by_role("columnheader")).to_have_count(7)
    expect(table.get_by_role("row")).to_have_count(2)
    expect(table.get_by_role("cell", name="failed")).to_be_visible()
    expect(table.get_by_role("rowheader")).to_be_visible()


def test_every_action_works_by_keyboard(page: Page, stage: Stage) -> None:
    page.goto("/start")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    sync = page.get_by_role("form", name="Sync")
    expect(sync.get_by_label("Connection")).to_be_focused()
    page.keyboard.type("conn_demo_02")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Cancel this job")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("cancelling")).to_be_visible()
    assert [(job.connection_id, job.status) for job in stage.planasonix.jobs()] == [("conn_demo_02", "cancelling")]


def test_the_screenshot_for_the_docs_is_small(chromium: Browser) -> None:
    picture = PICTURES / "simulator.png"
    stage = Stage()  # a new one, so that times and ids are the same in every run
    stage.fill()
    with stage.planasonix as planasonix:
        page = chromium.new_page(base_url=planasonix.url, viewport={"width": 1280, "height": 500})
        page.goto("/")
        page.screenshot(path=picture)
        page.close()
    assert picture.stat().st_size < 100_000
