from __future__ import annotations

import pytest

from planasonix_provider.waiting.formatting import capitalize, format_bytes, format_duration, pluralize


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3_600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_duration_is_shown_in_two_units(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (67_108_864, "67.1 MB"),
        (999_950_000, "1.0 GB"),
        (5 * 10**18, "5,000.0 PB"),
    ],
)
def test_a_size_is_shown_in_a_suitable_unit(amount: int, words: str) -> None:
    assert format_bytes(amount) == words


def test_a_count_has_the_right_plural() -> None:
    assert [pluralize(amount, "row") for amount in (0, 1, 44_802)] == ["0 rows", "1 row", "44,802 rows"]


@pytest.mark.parametrize(
    ("words", "said"), [("job job_01AB was not over", "Job job_01AB was not over"), ("No sync", "No sync"), ("", "")]
)
def test_a_sentence_begins_with_a_capital_and_its_ids_stay_unchanged(words: str, said: str) -> None:
    assert capitalize(words) == said
