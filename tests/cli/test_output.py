from __future__ import annotations

import json
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from typing import Any

import pytest
from airflow.utils import yaml
from rich.cells import cell_len
from rich.text import Text

from planasonix_provider.cli.output import CommandResult, print_result

JOB: dict[str, Any] = {
    "id": "job_1",
    "created_at": "2025-03-27T14:22:10.123456Z",
    "finished_at": None,
    "metrics": {"rows_loaded": 44_802, "bytes_read": None},
    "error": {"message": "a [/bracket] and \x1b[31ma colour"},
    "tables": [{"name": "public.orders", "rows_loaded": 1}, {"name": "ünï", "rows_loaded": 2}],
    "events": ["a", "b"],
    "enabled": True,
    "warnings": [],
}


def shown(capsys: pytest.CaptureFixture[str], form: str, data: Any, *columns: str) -> str:
    print_result(CommandResult(data, columns), form)
    return capsys.readouterr().out


def test_json_and_yaml_have_all_fields_and_keep_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(capsys, "json", JOB)) == JOB
    assert yaml.safe_load(shown(capsys, "yaml", JOB)) == JOB
    assert "ünï" in shown(capsys, "json", JOB)
    assert shown(capsys, "json", []) == "[]\n"
    assert json.loads(shown(capsys, "json", [JOB], "id")) == [JOB], "columns are for tables"


@pytest.mark.parametrize("form", ["table", "plain"])
def test_a_table_of_one_object_has_a_line_for_each_field(capsys: pytest.CaptureFixture[str], form: str) -> None:
    lines = [line.replace(" | ", " ").split() for line in shown(capsys, form, JOB).splitlines()]
    assert ["id", "job_1"] in lines
    assert ["created_at", "2025-03-27T14:22:10Z"] in lines
    assert ["metrics.rows_loaded", "44802"] in lines
    assert ["error.message", "a", "[/bracket]", "and", "�[31ma", "colour"] in lines
    assert ["events", "a,", "b"] in lines
    assert ["enabled", "true"] in lines
    assert ["public.orders", "1"] in lines
    assert not [line for line in lines if line[:1] == ["finished_at"]]


@pytest.mark.parametrize("form", ["table", "plain"])
def test_a_table_of_many_objects_has_the_given_columns(capsys: pytest.CaptureFixture[str], form: str) -> None:
    first, *_ = shown(capsys, form, [JOB, {"id": "job_2"}], "id", "created_at").splitlines()
    assert first.replace("|", " ").split() == ["id", "created_at"]
    out = shown(capsys, form, [JOB, {"id": "job_2"}], "id", "created_at")
    assert "job_2" in out
    assert "None" not in out


@pytest.fixture
def at_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Prints a table while stdout looks like a terminal of 80 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def show(data: Any, *columns: str) -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        return shown(capsys, "table", data, *columns)

    return show


@pytest.mark.parametrize("length", [10, 36, 90])
def test_a_narrow_terminal_breaks_no_id(at_a_terminal: Callable[..., str], length: int) -> None:
    one, other = "job_".ljust(length, "1"), "job_".ljust(length, "2")
    row = {"id": one, "connection_id": other, "last_error": "word " * 50, "created_at": JOB["created_at"]}
    for out in (
        at_a_terminal([row], *row),
        at_a_terminal({"job_id": one, "job_ids": [one, other], "error": {"message": "word " * 50}, "tables": [row]}),
    ):
        words = {word.strip(",") for word in Text.from_ansi(out).plain.split()}
        assert {one, other, "word"} <= words


def test_a_table_is_folded_to_the_terminal_if_its_ids_leave_room(at_a_terminal: Callable[..., str]) -> None:
    row = {"id": "job_1", "last_error": "word " * 50 + "END", "status": "failed"}
    out = at_a_terminal([row], *row)
    assert max(cell_len(Text.from_ansi(line).plain) for line in out.splitlines()) <= 80
    assert "END" in out


def test_states_have_colours_on_a_terminal(at_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": "job_1", "status": "failed"}, {"id": "failed", "status": "unheard_of"}]
    assert at_a_terminal(rows, "id", "status").count("\x1b[31mfailed") == 1
    assert at_a_terminal(rows[0]).count("\x1b[31mfailed") == 1
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in at_a_terminal(rows, "id", "status")


def test_states_have_no_colours_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in shown(capsys, "table", [{"status": "failed"}], "status")


def test_rows_of_a_nested_table_may_differ_in_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "table", {"tables": [{"name": "a"}, {"rows_loaded": 7, "name": "b"}]})
    assert [line.split() for line in out.splitlines() if "| 7" in line] == [["b", "|", "7"]]


def test_a_text_is_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "table", "openapi: 3\n") == "openapi: 3\n"
    assert shown(capsys, "json", None) == ""


@pytest.mark.parametrize("form", ["table", "plain", "json", "yaml"])
def test_a_character_outside_of_the_encoding_does_not_prevent_output(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    written = BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", TextIOWrapper(written, "ascii"))
        print_result(CommandResult({"id": "job_1", "connection_id": "conn_\u00e9"}), form)
        text = written.getvalue().decode("ascii")
    assert "job_1" in text
    if form in ("json", "yaml"):
        assert yaml.safe_load(text)["connection_id"] == "conn_\u00e9"
    if form == "json":
        assert json.loads(text)["connection_id"] == "conn_\u00e9"


# Characters that move the cursor, set colours or the window's title, or reverse the text; in C0, C1 and beyond.
STEERING = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\x7f",
    "\x85",
    "\u202e",
    "\u2028",
    "\U000e0001",
]


@pytest.mark.parametrize("steering", STEERING, ids=repr)
@pytest.mark.parametrize("form", ["table", "plain", "json", "yaml"])
def test_a_response_cannot_send_control_characters_to_a_terminal(
    capsys: pytest.CaptureFixture[str], form: str, steering: str
) -> None:
    key = f"a{steering}b"
    job = {"id": "job_1", key: key, "metadata": {key: key}, "tables": [{key: key, "name": "ünï"}], key * 2: [{key: 1}]}
    out = shown(capsys, form, job)
    assert [letter for letter in out if not letter.isprintable() and letter != "\n"] == []
    assert out.count("job_1") == 1
    if form == "json":
        assert json.loads(out) == job
        assert "ünï" in out
    if form == "yaml":
        assert yaml.safe_load(out) == job
    listed = shown(capsys, form, [job, job], "id", "metadata")
    assert [letter for letter in listed if not letter.isprintable() and letter != "\n"] == []


@pytest.mark.parametrize(("is_terminal", "printed"), [(True, "a: �[31m\n"), (False, "a: \x1b[31m\n")])
def test_control_characters_in_a_text_are_removed_only_for_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool, printed: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    assert shown(capsys, "table", "a: \x1b[31m\n") == printed
