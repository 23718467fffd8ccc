from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path

import pytest

from planasonix_provider.simulator import Simulator
from tests.cli.conftest import Ran, Run, call_before_retry, call_on_request, press
from tests.support.hanging_responses import Hanging
from tests.support.scenarios import routes_asked
from tests.support.time_travel import simulated_time

URL = "https://hooks.example.com/planasonix"
SECRET = re.compile(r"whsec_\w{10,}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "secret.json"


def create(shell: Run, place: Path, *more: str) -> Ran:
    events = ("--events", "job.succeeded,job.failed", "--events", "backfill.completed")
    return shell("webhooks", "create", URL, *events, "--secret-to", f"file:{place}", "-o", "json", *more)


def stored_secret(place: Path) -> str:
    return str(json.loads(place.read_text())["signing_secret"])


class TestACreation:
    def test_stores_the_secret_and_shows_everything_else(self, shell: Run, place: Path) -> None:
        ran = create(shell, place)
        assert ran.code == 0
        assert ran.json["url"] == URL
        assert ran.json["events"] == ["job.succeeded", "job.failed", "backfill.completed"]
        assert ran.err == f"The signing secret of webhook {ran.json['id']} is in file {place}.\n"
        assert SECRET.fullmatch(stored_secret(place)) or len(stored_secret(place)) > 20
        assert stored_secret(place) not in ran.out + ran.err
        assert "signing_secret" not in ran.json
        assert stat.S_IMODE(place.stat().st_mode) == 0o600

    def test_reads_an_own_secret_from_a_file_or_stdin(
        self, shell: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = tmp_path / "own"
        own.write_text("whsec_mine_0123456789\n")
        ran = create(shell, place, "--secret-from", str(own))
        assert (ran.code, stored_secret(place)) == (0, "whsec_mine_0123456789")
        assert "whsec_mine" not in ran.out + ran.err
        place.unlink()
        with own.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert create(shell, place, "--secret-from", "-").code == 0
        assert stored_secret(place) == "whsec_mine_0123456789"

    @pytest.mark.parametrize(
        ("more", "code", "said"),
        [
            (("--secret-to", "whsec_0123456789012345"), 2, "--secret-to: allowed is variable:NAME, connection"),
            (("--secret-from", "/nowhere/at/all"), 2, "(No such file or directory)"),
            (("--secret-from", "/dev/null"), 2, "it is empty"),
            (("--secret-to", "file:/nowhere/at/all"), 1, "there is no folder /nowhere/at."),
            (("--events", "job.failed", "--url", "x"), 2, "unrecognized arguments: --url x"),
        ],
    )
    def test_with_invalid_options_sends_no_request(
        self, simulator: Simulator, shell: Run, place: Path, more: tuple[str, ...], code: int, said: str
    ) -> None:
        ran = create(shell, place, *more)
        assert (ran.code, ran.out) == (code, "")
        assert said in ran.err
        assert not simulator.requests

    def test_requires_a_store_for_the_secret(self, shell: Run) -> None:
        ran = shell("webhooks", "create", URL, "--events", "job.failed")
        assert ran.code == 2
        assert "the following arguments are required: --secret-to" in ran.err

    def test_is_not_interrupted_by_ctrl_c(
        self, simulator: Simulator, shell: Run, place: Path, hanging: Hanging
    ) -> None:
        simulator.fail("hang", route="create_webhook")
        call_on_request(simulator, "create_webhook", lambda: (press(), hanging.ends()))
        ran = create(shell, place)
        assert ran.code == 0
        assert "Interrupted: the command ends when the secret is stored." in ran.err
        assert stored_secret(place)

    def test_is_undone_despite_ctrl_c_if_the_secret_cannot_be_stored(
        self, simulator: Simulator, shell: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder := tmp_path / "folder").mkdir()
        simulator.fail("status", route="create_webhook", status=429)
        simulator.fail("status", route="delete_webhook", status=503)
        call_before_retry(monkeypatch, lambda: (shutil.rmtree(folder), press()))
        with simulated_time():
            ran = create(shell, folder / "secret.json")
        assert (ran.code, ran.out) == (1, "")
        assert "Interrupted: the command ends when the secret is stored." in ran.err
        assert "was deleted again: nothing was created." in ran.last_line
        assert shell("webhooks", "list", "-o", "json").json == []

    def test_reports_an_unknown_effect(self, simulator: Simulator, shell: Run, place: Path) -> None:
        simulator.fail("reset", route="create_webhook", when="after")
        ran = create(shell, place)
        assert ran.code == 6
        assert "It is unknown whether the webhook was created." in ran.last_line

    def test_interrupted_by_a_second_ctrl_c_has_an_unknown_effect(
        self, simulator: Simulator, at_a_terminal: Run, place: Path
    ) -> None:
        simulator.fail("hang", route="create_webhook", seconds=600)
        call_on_request(simulator, "create_webhook", press)
        ran = at_a_terminal(
            *("webhooks", "create", URL, "--events", "job.failed", "--secret-to", f"file:{place}"),
            answers=(("Interrupted: the command ends when", press),),
        )
        assert ran.code == 6
        assert f"It is unknown whether the webhook for {URL} was created; if it was, its secret may be" in ran.err


class TestASubscription:
    @pytest.fixture
    def webhook_id(self, shell: Run, place: Path) -> str:
        return str(create(shell, place).json["id"])

    def test_can_be_listed_shown_and_changed(self, shell: Run, webhook_id: str) -> None:
        assert [row["id"] for row in shell("webhooks", "list", "-o", "json").json] == [webhook_id]
        assert "job.succeeded, job.failed, backfill.completed" in shell("webhooks", "list").out
        assert shell("webhooks", "get", webhook_id, "-o", "json").json["enabled"] is True
        ran = shell("webhooks", "update", webhook_id, "--no-enabled", "--events", "job.failed", "-o", "json")
        assert (ran.json["enabled"], ran.json["events"], ran.json["url"]) == (False, ["job.failed"], URL)
        ran = shell("webhooks", "update", webhook_id, "--enabled", "--url", f"{URL}/2", "-o", "json")
        assert (ran.json["enabled"], ran.json["url"]) == (True, f"{URL}/2")

    def test_update_without_a_change_is_refused(self, shell: Run, webhook_id: str) -> None:
        ran = shell("webhooks", "update", webhook_id)
        assert (ran.code, ran.err) == (
            2,
            "There is nothing to change: add --url, --events, --enabled or --no-enabled.\n",
        )

    def test_rotation_stores_the_new_secret(self, shell: Run, webhook_id: str, place: Path) -> None:
        before = stored_secret(place)
        ran = shell("webhooks", "rotate-secret", webhook_id, "--secret-to", f"file:{place}", "-o", "json")
        assert (ran.code, ran.json["id"]) == (0, webhook_id)
        assert ran.json["rotated_at"].endswith("Z")
        assert stored_secret(place) != before
        assert stored_secret(place) not in ran.out + ran.err
        assert ran.err == f"The new signing secret of webhook {webhook_id} is in file {place}.\n"

    def test_rotation_is_not_interrupted_by_ctrl_c(
        self, simulator: Simulator, shell: Run, webhook_id: str, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        simulator.fail("status", route="rotate_webhook_secret", status=502)
        simulator.fail("status", route="rotate_webhook_secret", status=429, times=None)
        call_before_retry(monkeypatch, press)
        with simulated_time():
            ran = shell("webhooks", "rotate-secret", webhook_id, "--secret-to", f"file:{place}")
        assert (ran.code, ran.out) == (6, "")
        assert "Interrupted: the command ends when the secret is stored." in ran.err
        assert f"It is unknown whether the secret of webhook {webhook_id} was changed" in ran.last_line

    def test_can_be_tested_and_lists_its_deliveries(self, shell: Run, webhook_id: str) -> None:
        ran = shell("webhooks", "test", webhook_id, "--event", "job.failed", "-o", "json")
        assert ran.code == 0
        (delivery,) = shell("webhooks", "deliveries", webhook_id, "-o", "json").json
        assert (delivery["id"], delivery["event"]) == (ran.json["delivery_id"], "job.failed")

    def test_is_deleted_without_a_question_with_the_option(self, shell: Run, webhook_id: str) -> None:
        ran = shell("webhooks", "delete", webhook_id, "--yes")
        assert (ran.code, ran.out, ran.err) == (0, "", f"Deleted webhook {webhook_id}.\n")
        assert shell("webhooks", "get", webhook_id).code == 1

    def test_is_not_deleted_without_a_terminal(self, simulator: Simulator, shell: Run, webhook_id: str) -> None:
        ran = shell("webhooks", "delete", webhook_id)
        assert ran.code == 2
        assert ran.err.endswith("there is no terminal for the confirmation. --yes skips it.\n")
        assert "delete_webhook" not in routes_asked(simulator)

    @pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1)])
    def test_is_deleted_at_a_terminal_only_after_a_yes(
        self, shell: Run, at_a_terminal: Run, webhook_id: str, answer: str, code: int, left: int
    ) -> None:
        ran = at_a_terminal("webhooks", "delete", webhook_id, answers=(("[y/N]", answer),))
        assert (ran.code, ran.out) == (code, "")
        assert len(shell("webhooks", "list", "-o", "json").json) == left
