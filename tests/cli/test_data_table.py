"""The widths of the columns of the tables on a terminal."""

import io

import pytest
from rich.console import Console

from seewhy.cli.tables import table


def printed(rows: list[tuple[str, ...]], width: int) -> list[str]:
    listed = table("check", "found", "worst", "limit", "verdict")
    for row in rows:
        listed.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(listed)
    return [line.rstrip() for line in out.getvalue().splitlines()]


ROWS = [
    ("low-information", "1,123 images", "0.000123", "< 0.0100", "not judged"),
    ("near-duplicates across splits", "1 pair", "1", "\u2013", "found"),
]


@pytest.mark.parametrize("width", [54, 60, 70, 80])
def test_no_word_is_broken_while_all_fit(width: int) -> None:
    lines = printed(ROWS, width)
    assert max(map(len, lines)) <= width
    words = {word for row in ROWS for cell in row for word in cell.split()}
    assert words <= {word for line in lines for word in line.split()}


def test_only_the_longest_words_are_broken_where_they_do_not_fit() -> None:
    lines = printed([("x" * 60, "1,123 images", "0.000123", "< 0.0100", "found")], 60)
    assert max(map(len, lines)) <= 60
    text = " ".join(lines)
    assert text.count("x") == 60
    assert all(word in text.split() for word in ("1,123", "images", "0.000123", "found"))


def test_columns_that_fit_are_as_wide_as_their_cells() -> None:
    head, _, first = printed([("dark", "no", "0.1", "0.2", "ok")], 60)
    assert head == "check   found   worst   limit   verdict"
    assert first == "dark       no     0.1     0.2        ok"


def test_wide_characters_take_two_columns() -> None:
    lines = printed([("\u72ac" * 20, "1,123 images", "0.000123", "< 0.0100", "not judged")], 60)
    assert max(len(line) + line.count("\u72ac") for line in lines) <= 60
    assert sum(line.count("\u72ac") for line in lines) == 20
