from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from planasonix_provider.cli import argument_types
from planasonix_provider.cli.argument_types import UsageError


def test_metadata_is_given_as_pairs_or_as_an_object() -> None:
    assert argument_types.metadata("--metadata", None) is None
    assert argument_types.metadata("--metadata", ["a=1", ' {"b": 2}', "c=x=y", "a="]) == {"a": "", "b": 2, "c": "x=y"}


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "=1",
        " =1",
        "{",
        '{"a": NaN}',
        "[1]",
        "",
        '{"a": ' + "1" * 5_000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda text: text[:10],
)
def test_invalid_metadata_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--metadata: got "):
        argument_types.metadata("--metadata", [text])


def test_a_list_is_repeated_options_or_separated_by_commas() -> None:
    assert argument_types.split_list(None) is None
    assert argument_types.split_list(["a, b", "c", ","]) == ["a", "b", "c"]


def test_a_window_is_in_utc() -> None:
    assert argument_types.window("2025-01-01", "2025-01-01T02:00+01:00") == (
        datetime(2025, 1, 1, tzinfo=UTC),
        datetime(2025, 1, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("age", "time"),
    [
        ("30m", datetime(2025, 3, 27, 11, 30, tzinfo=UTC)),
        ("24h", datetime(2025, 3, 26, 12, tzinfo=UTC)),
        (" 7d ", datetime(2025, 3, 20, 12, tzinfo=UTC)),
        ("2w", datetime(2025, 3, 13, 12, tzinfo=UTC)),
        ("2025-03-27", datetime(2025, 3, 27, tzinfo=UTC)),
        ("2025-03-27T14:00+02:00", datetime(2025, 3, 27, 12, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_an_age(monkeypatch: pytest.MonkeyPatch, age: str, time: datetime) -> None:
    monkeypatch.setattr(argument_types, "utcnow", lambda: datetime(2025, 3, 27, 12, tzinfo=UTC))
    assert argument_types.parse_time("--since", age) == time


@pytest.mark.parametrize("text", ["soon", "7", "7 d", "-7d", "1.5h", "7D", "7y", "99999w", "999999d", "\u0667d", ""])
def test_invalid_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--since: got '.*', allowed is a time such as 2025-01-01T00:00:00Z, or an"):
        argument_types.parse_time("--since", text)


def test_the_line_break_after_a_secret_is_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(" s e \r\n")
    secret = argument_types.secret("--secret-from", str(tmp_path / "s"))
    assert secret is not None
    assert secret.get_secret_value() == " s e "


def test_a_binary_file_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"\xff\xfe secret")
    with pytest.raises(UsageError, match=r"^--secret-from: .*\(it is not a text file\)") as refusal:
        argument_types.secret("--secret-from", str(tmp_path / "s"))
    assert "secret'" not in str(refusal.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    "given", ["whsec_0123456789012345", "~nosuch/whsec_0123456789012345", "/nowhere/whsec_0123456789012345"]
)
def test_a_secret_instead_of_its_file_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(UsageError, match=r"^--secret-from: allowed is a file that contains the secret") as refusal:
        argument_types.secret("--secret-from", given)
    assert "whsec_" not in str(refusal.value)
