import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from seewhy.runs.console import clock, fitting_columns, live_state, live_table
from seewhy.train.loop import EpochStats, StepStats

ROW = EpochStats(2.0, 100, 0.0123, 0.9, 754.0, 812.0, 1.2345, 0.5678, 1.1111, 0.6789)
STEP = StepStats(50, 100, 0.5, 0.1, 1.5, 0.4, 800.0, 61.0)


def shown(width: int, terminal: bool, held_out: str = "test") -> str:
    out = io.StringIO()
    with live_table(
        held_out, console=Console(file=out, width=width, force_terminal=terminal, color_system=None)
    ) as show:
        show(STEP)
        show(ROW)
    return out.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    heading, row, rest = shown(100, terminal=False).split("\n")
    assert heading.split() == [
        "epoch",
        "lr",
        "time",
        "img/s",
        "train",
        "loss",
        "train",
        "%",
        "test",
        "loss",
        "test",
        "%",
    ]
    assert row.split() == ["2", "0.0123", "12:34", "812", "1.2345", "56.78", "1.1111", "67.89"]
    assert rest == ""


def test_a_live_line_on_a_terminal() -> None:
    text = shown(100, terminal=True)
    assert "epoch 0.50" in text
    assert "loss 1.500  acc 40.0%  800 img/s  1:01 left" in text


@pytest.mark.parametrize("width", [40, 60, 72, 80, 120])
@pytest.mark.parametrize("held_out", ["test", "valid"])
def test_the_table_fits_and_keeps_what_matters(width: int, held_out: str) -> None:
    columns = fitting_columns(width, held_out)
    assert sum(column[1] + 1 for column in columns) - 1 <= width
    assert {"epoch", "train %", f"{held_out} %"} <= {column[0] for column in columns}
    assert all(
        len(line) <= width for line in shown(width, terminal=False, held_out=held_out).split("\n")
    )
    assert len(fitting_columns(80, held_out)) == 8


def test_epochs_without_evaluation_have_dashes() -> None:
    row = EpochStats(1.5, 1, 0.1, 0.9, 1.0, 1.0, 1.0, 0.5, None, None)
    assert [cell(row) for _, _, cell in fitting_columns(100, "test")][-2:] == ["–", "–"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with live_table("test", quiet=True) as show:
        show(STEP)
        show(ROW)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00"), (59.6, "1:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_what_is_not_known_yet_is_left_out() -> None:
    assert (
        live_state(replace(STEP, train_loss=math.nan, train_accuracy=math.nan))
        == "800 img/s  1:01 left"
    )
