"""A run with a probe: its files and its console."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from seewhy.data.dataset import Dataset
from seewhy.figures.curves import accuracy_figure, curves_figure
from seewhy.runs.console import live_table
from seewhy.runs.run import Run, open_classifier, open_run
from seewhy.runs.training import fit
from seewhy.train.loop import EpochStats, train
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import new_state

pytestmark = [pytest.mark.usefixtures("blank_figures"), pytest.mark.train]


@pytest.fixture(scope="module")
def probe_recipe(recipe: Recipe) -> Recipe:
    return replace(recipe, name="probed", epochs=0, probe="logistic", tta="flip")


@pytest.fixture
def probe_run(probe_recipe: Recipe, data: Dataset, tmp_path: Path) -> Run:
    return fit(probe_recipe, data, tmp_path / "run", quiet=True)


def test_run_of_a_probe_alone(probe_run: Run, data: Dataset) -> None:
    assert probe_run.directory is not None
    assert probe_run.result is not None
    assert probe_run.predictions is not None
    opened = open_run(probe_run.directory)
    assert opened.probe == probe_run.probe is not None
    used = open_classifier(str(probe_run.directory))  # as the command line opens it
    assert isinstance(used, Run)
    assert used.probe == probe_run.probe
    assert opened.history == probe_run.history
    (row,) = opened.history
    assert (row.epoch, row.step) == (0, 0)
    assert (opened.result.epochs, opened.result.steps) == (0, 0) if opened.result else False
    assert probe_run.result.images_per_second > 0
    values = json.loads((probe_run.directory / "probe.json").read_text())
    assert values["validation"]["folds"] == 5
    with torch.no_grad():
        pixels = data.test.images.float() / 255
        logits = (opened.model(pixels) + opened.model(pixels.flip(3))) / 2
    torch.testing.assert_close(probe_run.predictions.logits, logits, rtol=0, atol=1e-3)
    card = (probe_run.directory / "README.md").read_text()
    assert "a linear probe in" in card
    assert "The head was fitted to the training images only." in card


def test_probe_is_shown(probe_recipe: Recipe, data: Dataset) -> None:
    plan = make_plan(probe_recipe, data, "cpu")
    console = Console(file=StringIO(), width=60)
    with live_table(plan, console=console) as show:
        for event in train(new_state(plan), plan):
            show(event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 60
    text = " ".join(" ".join(lines).split())
    assert "probe: 32 features of 240 images, C " in text
    assert "by 5-fold cross-validation (" in text
    assert "optimizer" not in text


def test_curves_of_a_probe_and_of_the_epochs_after_it() -> None:
    row = EpochStats(0.0, 0, 0.0, 0.0, 20.0, 10.0, 0.4, 0.9, 0.5, 0.8)
    later = replace(row, epoch=2.0, step=9, seconds=60.0)
    for history in ([row], [row, replace(later, epoch=1.0, seconds=40.0), later]):
        curves_figure(history).draw_without_rendering()
        figure = accuracy_figure(history)
    (top,) = figure.axes[0].child_axes
    seconds, _ = top._functions
    assert seconds(np.array([0.0, 1.0, 2.0])).tolist() == pytest.approx([20.0, 40.0, 60.0])
