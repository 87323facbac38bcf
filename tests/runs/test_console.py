"""The table of epochs and the live line."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from seewhy.runs.console import clock, fitting_columns, live_state, live_table
from seewhy.train.loop import EpochStats, StepStats

ROW = EpochStats(2.0, 100, 0.0123, 0.9, 754.0, 812.0, 1.2345, 0.5678, 1.1111, 0.6789)
STEP = StepStats(50, 100, 0.5, 0.1, 1.5, 0.4, 800.0, 61.0)


def output_of(width: int, terminal: bool, held_out: str = "test") -> str:
    """The output for a step and an epoch."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    with live_table(held_out, console=console) as show:
        show(STEP)
        show(ROW)
    return out.getvalue()


def test_live_table_prints_epochs_without_a_terminal() -> None:
    heading, row, end = output_of(100, terminal=False).split("\n")
    assert " ".join(heading.split()) == "epoch lr time img/s train loss train % test loss test %"
    assert " ".join(row.split()) == "2 0.0123 12:34 812 1.2345 56.78 1.1111 67.89"
    assert end == ""


def test_live_table_has_a_live_line_on_a_terminal() -> None:
    text = output_of(100, terminal=True)
    assert "epoch 0.50" in text
    assert "loss 1.500  acc 40.0%  800 img/s  1:01 left" in text


def test_live_table_prints_nothing_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with live_table("test", quiet=True) as show:
        show(STEP)
        show(ROW)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [40, 60, 72, 80, 120])
@pytest.mark.parametrize("held_out", ["test", "valid"])
def test_fitting_columns_keeps_epoch_and_accuracies(width: int, held_out: str) -> None:
    columns = fitting_columns(width, held_out)
    assert sum(column.width + 1 for column in columns) - 1 <= width
    assert {"epoch", "train %", f"{held_out} %"} <= {column.heading for column in columns}
    lines = output_of(width, terminal=False, held_out=held_out).split("\n")
    assert max(map(len, lines)) <= width
    assert len(fitting_columns(80, held_out)) == 8


def test_epochs_without_evaluation_have_dashes() -> None:
    row = replace(ROW, epoch=1.5, eval_loss=None, eval_accuracy=None)
    cells = [column.cell(row) for column in fitting_columns(100, "test")]
    assert cells[0] == "1.50"
    assert cells[-2:] == ["–", "–"]


def test_live_state_leaves_out_what_is_unknown() -> None:
    unknown = replace(STEP, train_loss=math.nan, train_accuracy=math.nan)
    assert live_state(unknown) == "800 img/s  1:01 left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00"), (59.6, "1:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
