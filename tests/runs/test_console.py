"""The settings, the table of epochs and the live line."""

import io
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from seewhy.data.dataset import Dataset, Split
from seewhy.progress import clock
from seewhy.runs.console import Row, fitting_columns, live_state, live_table, lr_text
from seewhy.train.loop import EpochStats, StepStats
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe

ROW = EpochStats(2.0, 100, 0.0123, 0.9, 754.0, 812.0, 1.2345, 0.5678, 1.1111, 0.4619)
EARLIER = replace(ROW, epoch=1.0, step=50, seconds=634.0, eval_accuracy=0.5)
STEP = StepStats(50, 100, 0.5, 0.1, 1.5, 0.4, 800.0, 61.0)
RECIPE = Recipe(
    model="speednet:width=0.125", weight_decay=5e-4, label_smoothing=0.2, precision="fp32"
)


def plan_of(held_out: str = "test") -> TrainingPlan:
    """A plan whose evaluated split has 10,000 images, which share the memory of one."""
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    split, small = (
        Split(image.expand(count, -1, -1, -1), torch.arange(count) % 2, ["image"] * count)
        for count in (10_000, 2)
    )
    validation = split if held_out == "valid" else None
    test = small if held_out == "valid" else split
    return make_plan(RECIPE, Dataset("two", ("a", "b"), split, test, validation, "0" * 32), "cpu")


def output_of(width: int, terminal: bool, held_out: str = "test") -> list[str]:
    """The lines for two epochs, the first one before an interruption, with a step between."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    with live_table(plan_of(held_out), [EARLIER], console=console) as show:
        show(STEP)
        show(ROW)
    return out.getvalue().split("\n")


def test_live_table_prints_epochs_without_a_terminal() -> None:
    lines = output_of(100, terminal=False)
    heading, row, best, end = lines[-4:]
    names = "epoch lr time total img/s train loss train % test loss test % correct"
    assert " ".join(heading.split()) == names
    cells = "2 0.012300 2:00 12:34 812 1.2345 56.78 1.1111 46.19 4619/10000"
    assert " ".join(row.split()) == cells
    assert best == "best epoch seen: 1, 50.00% (not selected: the last epoch is kept)"
    assert end == ""


def test_live_table_begins_with_the_settings() -> None:
    text = " ".join(" ".join(output_of(100, terminal=False)).split())
    for part in (
        "device cpu, fp32",
        "optimizer sgd:momentum=0.9",
        "learning rate 0.100000, one-cycle",
        "batch 500 images, 20 per epoch",
        "regularization weight decay 0.0005, label smoothing 0.2",
        "augmentation crop:4 flip cutout:8",
    ):
        assert part in text


def test_live_table_says_that_validation_selects() -> None:
    best = output_of(100, terminal=False, held_out="valid")[-2]
    assert best == "best epoch: 1, 50.00% (selected on the validation split)"


def test_live_table_has_a_live_line_on_a_terminal() -> None:
    text = "\n".join(output_of(100, terminal=True))
    assert "epoch 0.50" in text
    assert "loss 1.500  acc 40.0%  800 img/s  1:01 left" in text


def test_live_table_prints_nothing_if_quiet(
    recipe: Recipe, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with live_table(make_plan(recipe, data, "cpu"), quiet=True) as show:
        show(STEP)
        show(ROW)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [40, 60, 72, 80, 120])
@pytest.mark.parametrize("held_out", ["test", "valid"])
def test_fitting_columns_keeps_epoch_and_accuracies(width: int, held_out: str) -> None:
    columns = fitting_columns(width, held_out, 10_000)
    assert sum(column.width + 1 for column in columns) - 1 <= width
    assert {"epoch", "train %", f"{held_out} %"} <= {column.heading for column in columns}
    assert max(map(len, output_of(width, terminal=False, held_out=held_out))) <= width


def test_fitting_columns_of_usual_terminals() -> None:
    headings = [column.heading for column in fitting_columns(80, "test", 10_000)]
    assert headings == [
        *("epoch", "lr", "time", "total", "train loss", "train %"),
        *("test loss", "test %", "correct"),
    ]
    headings = [column.heading for column in fitting_columns(60, "test", 10_000)]
    assert headings == ["epoch", "time", "total", "train loss", "train %", "test %", "correct"]


def test_epochs_without_evaluation_have_dashes() -> None:
    row = replace(ROW, epoch=1.5, eval_loss=None, eval_accuracy=None)
    cells = [column.cell(Row(row, 1.0)) for column in fitting_columns(100, "test", 10)]
    assert cells[0] == "1.50"
    assert cells[-3:] == ["–", "–", "–"]


@pytest.mark.parametrize(
    ("lr", "text"), [(0.001059, "0.001059"), (5.0941e-7, "5.094e-07"), (0.0, "0.000000")]
)
def test_lr_text_has_digits_of_small_rates(lr: float, text: str) -> None:
    assert lr_text(lr) == text


def test_live_state_leaves_out_what_is_unknown() -> None:
    unknown = replace(STEP, train_loss=math.nan, train_accuracy=math.nan)
    assert live_state(unknown) == "800 img/s  1:01 left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00"), (59.6, "1:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


class Cell:
    """A notebook's cell: the one output that is shown and replaced."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, data: dict[str, str], raw: bool, display_id: bool) -> "Cell":
        self.update(data, raw)
        return self

    def update(self, data: dict[str, str], raw: bool) -> None:
        assert raw
        self.shown.append(data)


def test_live_table_grows_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell()
    monkeypatch.setattr("IPython.display.display", cell.display)
    with live_table(plan_of("test"), [EARLIER], console=Console(force_jupyter=True)) as show:
        show(STEP)
        live = cell.shown[-1]["text/plain"]
        show(ROW)
    assert "epoch 0.50  loss 1.500  acc 40.0%" in live.split("\n")[-1]
    text = cell.shown[-1]["text/plain"]
    assert "epoch 0.50" not in text
    assert text.split("\n")[-2].endswith("4619/10000")
    assert cell.shown[-1]["text/html"].startswith("<pre style=")
