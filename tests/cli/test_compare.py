"""`seewhy compare`, `seewhy find-lr`, and `seewhy resume` of an experiment."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seewhy.cli import main
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES
from seewhy.experiments.experiment import open_experiment
from seewhy.runs.lr_search import find_lr
from seewhy.train.lr_finder import LR_SUGGESTIONS, LRRangeTest
from seewhy.train.recipe import Recipe

Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]
COMPARE = ["compare", "tiny.toml", "--data", "bars", "--jobs", "1", "--device", "cpu", "--quiet"]
RESUME = ["--jobs", "1", "--device", "cpu", "--quiet"]

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.mark.slow
@pytest.mark.train
def test_compare_trains_each_recipe_with_each_seed(
    workspace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, error_of: ErrorOf
) -> None:
    optimizers = ["sgd:momentum=0.9,nesterov=true", "adam"]
    options = ["--vary", "optimizer", *optimizers, "--seeds", "2", "--epochs", "1"]
    assert main.main([*COMPARE, *options, "--output", "both"]) == 0
    out = capsys.readouterr().out
    assert "sgd:momentum=0.9,nesterov=true" in out
    assert " has the highest test accuracy: " in out
    assert " has the lowest training loss: " in out
    assert "over seeds" in out
    directories = sorted(path.name for path in (workspace / "both").iterdir() if path.is_dir())
    assert directories == ["01-sgd-momentum-0.9-nesterov-true", "02-adam", "figures"]
    for name in directories[:2]:
        directory = workspace / "both" / name
        assert (directory / "lr_range_test.json").exists()  # optimizers vary, so lr is searched
        assert len(list(directory.glob("seed-*/summary.json"))) == 2
    for name in ("results.csv", "differences.csv", "curves.csv", "report.html"):
        assert (workspace / "both" / name).exists()
    before = (workspace / "both" / "02-adam" / "seed-1" / "summary.json").read_bytes()

    monkeypatch.setenv("COLUMNS", "60")
    assert main.main(["resume", "both", *RESUME]) == 0  # nothing is left to do
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 60
    assert "training loss" in narrow
    assert "state MB" not in narrow
    assert (workspace / "both" / "02-adam" / "seed-1" / "summary.json").read_bytes() == before
    message = error_of("resume", "both", "--checkpoint-epochs", "1")
    assert "checkpoint options and --lr are for runs; both is an experiment" in message


@pytest.mark.slow
@pytest.mark.train
def test_compare_makes_a_grid_with_the_given_learning_rate(workspace: Path) -> None:
    grid = ["--vary", "optimizer", "momentum", "adam", "--vary", "augment", "none", "flip"]
    options = ["--lr", "0.01", "--seeds", "1", "--images", "120", "--output", "grid"]
    assert main.main([*COMPARE, *grid, *options]) == 0
    experiment = open_experiment("grid")
    assert list(experiment.recipes) == [
        "momentum · no augment",
        "momentum · flip",
        "adam · no augment",
        "adam · flip",
    ]
    assert {recipe.lr for recipe in experiment.recipes.values()} == {0.01}
    images = len(SOURCES["bars"]().train)  # type: ignore[union-attr]
    assert {recipe.epochs for recipe in experiment.recipes.values()} == {120 / images}
    assert not experiment.range_tests


@pytest.mark.slow
@pytest.mark.train
def test_compare_with_a_failed_run_is_partly_done(workspace: Path, capsys: Capture) -> None:
    options = ["--vary", "lr", "0.01", "1e30", "--seeds", "1", "--epochs", "1", "--output", "half"]
    assert main.main([*COMPARE, *options]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 trials failed. Try again with:\nseewhy resume half\n" in out
    assert (workspace / "half" / "results.csv").exists()
    assert len(open_experiment("half").finished) == 1
    assert main.main(["resume", "half", *RESUME]) == 1


@pytest.mark.slow
@pytest.mark.train
def test_compare_survives_a_learning_rate_that_cannot_be_found(
    workspace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fall(recipe: Recipe, data: Dataset, device: str) -> LRRangeTest:
        test = find_lr(recipe, data)
        return test if recipe.batch_size == 40 else replace(test, losses=tuple(sorted(test.losses)))

    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", no_fall)
    options = "--vary batch_size 40 60 --lr find --seeds 1 --epochs 1 --output half"
    assert main.main([*COMPARE, *options.split()]) == 1
    assert "1 of 2 trials failed" in capsys.readouterr().out
    experiment = open_experiment("half")
    assert [trial.recipe for trial in experiment.finished] == ["batch_size=40"]
    assert "the loss decreased only from" in experiment.trials[1].unfinished_reason
    assert "batch_size=60" in (workspace / "half" / "report.html").read_text()


def test_compare_refuses_torchrun(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, error_of: ErrorOf
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "start it without torchrun" in error_of(*COMPARE, "--vary", "lr", "0.1", "0.2")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "compare needs at least one --vary, as in --vary optimizer sgd adam"),
        ("--vary optimiser sgd adam", "'optimiser' (did you mean 'optimizer'?)"),
        ("--vary lr 0.1 --vary lr 0.3", "lr varies twice; give all its values to one --vary"),
        ("--vary lr 0.1 -3", "lr must be more than 0, found -3.0"),
        ("--vary lr 0.1 fast", "lr must be a number, or find, found 'fast'"),
        ("--vary lr 0.1 0.1", "two recipes would be equal"),
        ("--vary optimizer", "--vary needs a field and its values"),
        ("--vary seed 1 2", "see --seeds"),
        ("--vary lr 0.1 0.2 --seeds 0", "seeds must be at least 1, found 0"),
        ("--vary lr 0.1 0.2 --seconds 0", "seconds must be more than 0, found 0"),
        ("--vary lr 0.1 0.2 --images 0", "images must be more than 0, found 0"),
        (
            "--vary epochs 1 2 --seconds 3",
            "set only one of epochs, seconds and images, found epochs and seconds",
        ),
        (
            "--vary lr 0.1 0.2 --epochs 3 --images 9",
            "set only one of epochs, seconds and images, found epochs and images",
        ),
        ("--vary lr 0.1 0.2 --backend dask --jobs 2", "jobs"),
        ("--vary lr 0.1 0.2 --jobs -1", "jobs must be 0 or more, found -1"),
    ],
)
def test_compare_errors(workspace: Path, options: str, message: str, error_of: ErrorOf) -> None:
    assert message in error_of(*COMPARE, *options.split())
    assert not (workspace / "runs").exists()


@pytest.mark.train
def test_find_lr_prints_suggestions(workspace: Path, capsys: Capture, error_of: ErrorOf) -> None:
    command = ["find-lr", "tiny.toml", "--data", "bars", "--device", "cpu"]
    options = ["--updates", "12", "--start", "1e-3", "--end", "1e3", "--output", "figures/range"]
    assert main.main([*command, *options]) == 0
    out = capsys.readouterr().out
    assert "updates, lr 0.001 to " in out
    assert all(f"\n{name} " in out for name in (*LR_SUGGESTIONS, "recipe tiny"))
    assert (workspace / "figures" / "range.svg").exists()
    assert not (workspace / "runs").exists()
    assert "the loss still decreased at the end of the range" in error_of(
        *command, "--updates", "12", "--start", "1e-4", "--end", "0.2"
    )
    assert "a range test needs 0 < start < end" in error_of(
        *command, "--start", "1", "--end", "0.1"
    )
