"""Running experiments: every trial is an ordinary run, and its failure does not stop the others."""

import csv
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from filelock import FileLock
from joblib.externals.loky import get_reusable_executor
from torch import nn

import seewhy.experiments.runner
from seewhy.cli import main
from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES, load
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import Experiment, open_experiment
from seewhy.experiments.parallel import Parallel
from seewhy.experiments.runner import resume_experiment, run_experiment
from seewhy.models.own import using_model
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.runs.directory import read_environment
from seewhy.runs.lr_search import find_lr
from seewhy.runs.run import open_run
from seewhy.runs.training import fit
from seewhy.train.loop import train
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe, to_toml
from seewhy.train.recipes import RECIPES, find_recipe
from seewhy.train.state import TrainState

ONE = Parallel(jobs=1, device="cpu")  # in this process
TWO = Parallel(jobs=2, device="cpu")
RANGE_TEST = LRRangeTest(
    (1e-3, 1e-2, 1e-1, 1.0), (2.0, 1.5, 1.0, 1.4), (2.0, 1.6, 1.2, 1.3), "diverged"
)


@pytest.fixture
def recipe() -> Recipe:
    """Seven steps of the bars."""
    return Recipe(
        name="tiny",
        model="speednet:width=0.05",
        epochs=1,
        batch_size=35,
        lr=0.5,
        optimizer="momentum",
        augment=("crop:1",),
        precision="fp32",
    )


@pytest.fixture(autouse=True)
def no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures of runs, which take longer than the runs; worker processes draw them."""
    if "workers" not in request.fixturenames:
        monkeypatch.setattr("seewhy.runs.training.curves_figure", lambda *arguments: None)
        for module in ("training", "directory"):
            monkeypatch.setattr(f"seewhy.runs.{module}.write_figure", lambda figure, path: None)


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    """Worker processes that the tests share; their start takes longer than the trials."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def run_all(
    recipes: dict[str, Recipe], data: Dataset, directory: Path, seeds: int = 1, **named: Any
) -> Experiment:
    return run_experiment(
        recipes, data, directory, seeds, **({"parallel": ONE, "quiet": True} | named)
    )


def resume_all(directory: Path, data: Dataset | None) -> Experiment:
    return resume_experiment(directory, data, ONE, quiet=True)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return open_run(directory).model.state_dict()


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_close_weights(one: Path, other: Path) -> None:
    """Compare runs with different numbers of threads, which change the last bits."""
    ours, theirs = weights(one), weights(other)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


def files(directory: Path) -> set[str]:
    """Every file below a directory, without the times in TensorBoard's names."""
    paths = (
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )
    return {re.sub(r"events\.out\.tfevents.*", "events", path) for path in paths}


def status(directory: Path) -> dict[str, str]:
    return dict(json.loads((directory / "status.json").read_text()))


@pytest.mark.train
def test_run_experiment_equals_single_runs(recipe: Recipe, tmp_path: Path) -> None:
    data = load("digits", limit=200, quiet=True)
    recipes = {
        "sgd · flip": replace(recipe, optimizer="sgd", augment=("flip",), seed=3),
        "adam": replace(recipe, lr=0.01, seed=3),
    }
    experiment = run_all(recipes, data, tmp_path / "e", seeds=2)
    assert dict(experiment.recipes) == recipes
    assert experiment.seeds == (3, 4)
    assert [path.name for path in sorted((tmp_path / "e").iterdir()) if path.is_dir()] == [
        "01-sgd-flip",
        "02-adam",
    ]
    for trial in experiment.trials:
        assert (
            trial.directory
            == tmp_path
            / "e"
            / {"sgd · flip": "01-sgd-flip", "adam": "02-adam"}[trial.recipe]
            / f"seed-{trial.seed}"
        )
        alone = fit(replace(recipes[trial.recipe], seed=trial.seed), data, device="cpu", quiet=True)
        run = open_run(trial.directory)
        assert run.recipe == alone.recipe
        assert alone.result is not None
        assert trial.result is not None
        assert (trial.result.accuracy, trial.result.test_nll) == (
            alone.result.accuracy,
            alone.result.test_nll,
        )
        assert trial.result.steps == 6  # 200 images in batches of at most 35
        assert all(
            torch.equal(tensor, run.model.state_dict()[name])
            for name, tensor in alone.model.state_dict().items()
        )
        assert [row.train_loss for row in trial.history] == [
            row.train_loss for row in alone.history
        ]
    with (tmp_path / "e" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["recipe"], row["seeds"]) for row in rows] == [("sgd · flip", "2"), ("adam", "2")]
    means = [float(row["test_nll_mean"]) for row in rows]
    assert means == pytest.approx(
        [
            sum(t.result.test_nll for t in experiment.finished_of(name) if t.result) / 2
            for name in recipes
        ],
        rel=1e-6,
    )


@pytest.mark.train
def test_run_experiment_prints_progress_unless_quiet(
    recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = {"good": recipe, "bad": replace(recipe, lr=1e30)}
    run_all(recipes, data, tmp_path / "loud", quiet=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["good: lr 0.5, 1 epoch", "bad: lr 1e+30, 1 epoch"]
    assert re.fullmatch(r"1 of 2: good, seed 0: \d+\.\d\d% in \d+ s", lines[2])
    assert lines[3].startswith("2 of 2: bad, seed 0: the ")
    run_all(recipes, data, tmp_path / "quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.train
def test_run_experiment_continues_after_a_failed_trial(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    experiment = run_all(
        {"bad": replace(recipe, lr=1e30), "good": recipe}, data, tmp_path / "e", seeds=2
    )
    assert [(trial.recipe, trial.seed) for trial in experiment.finished] == [
        ("good", 0),
        ("good", 1),
    ]
    for trial in experiment.trials[:2]:
        assert "not finite" in trial.unfinished_reason
        assert status(trial.directory)["status"] == "failed"
        assert not (trial.directory / "traceback.txt").exists()
    with (tmp_path / "e" / "results.csv").open(newline="") as file:
        assert [row["seeds"] for row in csv.DictReader(file)] == ["0", "2"]


@pytest.mark.train
@pytest.mark.parametrize("step", [0, 3])
def test_resume_experiment_retries_an_error_in_user_code(
    step: int, recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def breaks(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal calls
        calls += 1
        if calls == step + 1:
            raise ValueError("no such color")
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "breaks", breaks)
    mine = replace(recipe, augment=("breaks",))
    experiment = run_all({"mine": mine, "good": recipe}, data, tmp_path / "e")
    failed, good = experiment.trials
    assert failed.unfinished_reason == "ValueError: no such color"
    assert status(failed.directory)["status"] == "failed"
    text = (failed.directory / "traceback.txt").read_text()
    assert 'raise ValueError("no such color")' in text
    assert good.result is not None
    experiment = resume_all(tmp_path / "e", data)
    assert len(experiment.finished) == 2
    assert not (failed.directory / "traceback.txt").exists()
    assert status(failed.directory) | {"time": ""} == {
        "status": "finished",
        "detail": "",
        "time": "",
    }
    fit(mine, data, tmp_path / "alone", "cpu", quiet=True)
    assert_same_weights(failed.directory, tmp_path / "alone")


class Killed(BaseException):
    """The end of the process."""


def write_part(
    recipe: Recipe, data: Dataset, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write what a process leaves that dies in the fourth step of a run."""

    def dies(state: TrainState, *others: Any) -> Any:
        for event in train(state, *others):
            if state.step == 4:
                raise Killed
            yield event

    with monkeypatch.context() as patch:
        patch.setattr("seewhy.runs.training.train", dies)
        with pytest.raises(Killed):
            fit(
                recipe,
                data,
                directory,
                "cpu",
                quiet=True,
                checkpoint=CheckpointPolicy(checkpoint_seconds=0),
            )
    (directory / "status.json").write_text('{"status": "running", "detail": "", "time": ""}')


def without_checkpoints(directory: Path) -> None:
    shutil.rmtree(directory / "checkpoints")


def half_a_checkpoint(directory: Path) -> None:
    (directory / "checkpoints" / "last.pt").rename(directory / "checkpoints" / ".last-123.pt")
    (directory / "checkpoints" / "previous.pt").unlink()


def damaged_checkpoints(directory: Path) -> None:
    for path in (directory / "checkpoints").iterdir():
        path.unlink()  # both may be one file
        path.write_bytes(b"short")


@pytest.mark.train
def test_resume_experiment_continues_each_trial(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished trials stay, those with a checkpoint resume, others start again."""
    whole = run_all({"a": recipe}, data, tmp_path / "whole", seeds=6)
    shutil.copytree(tmp_path / "whole", tmp_path / "e")
    directories = [tmp_path / "e" / "01-a" / f"seed-{seed}" for seed in range(6)]
    write_part(replace(recipe, seed=1), data, tmp_path / "part", monkeypatch)
    leave: dict[int, Callable[[Path], None]] = {
        1: lambda directory: None,
        2: without_checkpoints,
        3: half_a_checkpoint,
        4: damaged_checkpoints,
        5: shutil.rmtree,
    }
    for seed, damage in leave.items():
        shutil.rmtree(directories[seed])
        shutil.copytree(tmp_path / "part", directories[seed])
        damage(directories[seed])
    before = open_experiment(tmp_path / "e")
    assert [trial.unfinished_reason for trial in before.trials] == [
        "",
        *["not finished"] * 4,
        "not started",
    ]
    kept = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in directories[0].rglob("*")
        if path.is_file()
    }

    after = resume_all(tmp_path / "e", data)
    assert [trial.unfinished_reason for trial in after.trials] == [""] * 6
    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in directories[0].rglob("*")
        if path.is_file()
    } == kept
    for mine, other in zip(after.trials, whole.trials, strict=True):
        assert_same_weights(mine.directory, other.directory)
        assert [row.train_loss for row in mine.history] == [row.train_loss for row in other.history]
    environments = [json.loads((directory / "env.json").read_text()) for directory in directories]
    assert [row["step"] for row in environments[1]["resumed"]] == [3]
    assert [bool(environment["resumed"]) for environment in environments] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert resume_all(tmp_path / "e", data).finished  # nothing is left to do


@pytest.mark.train
def test_run_experiment_keeps_trials_after_ctrl_c(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stops(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal calls
        calls += 1
        if calls == 7 + 4:  # in the second run
            raise KeyboardInterrupt
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "stops", stops)
    recipes = {
        name: replace(recipe, augment=("stops",), lr=lr) for name, lr in (("a", 0.5), ("b", 0.25))
    }
    with pytest.raises(KeyboardInterrupt):
        run_all(recipes, data, tmp_path / "e", seeds=2)
    experiment = open_experiment(tmp_path / "e")
    assert [(trial.recipe, trial.seed) for trial in experiment.finished] == [
        ("a", 0)
    ]  # each recipe's first seed comes first
    assert [bool(trial.history) for trial in experiment.trials] == [True, False, False, False]
    assert experiment.finished_of("b") == ()
    assert status(experiment.trials[2].directory)["status"] == "interrupted"
    assert len(resume_all(tmp_path / "e", data).finished) == 4
    assert calls == 7 + 4 + 7 * 3 - 1  # the second run resumes after its first step


@pytest.mark.train
def test_resume_experiment_skips_a_locked_trial(
    recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all({"a": recipe}, data, tmp_path / "e", seeds=2)
    first, second = (tmp_path / "e" / "01-a" / f"seed-{seed}" for seed in (0, 1))
    shutil.rmtree(first)
    shutil.rmtree(second)
    with FileLock(first.with_name(".seed-0.lock")):
        experiment = resume_all(tmp_path / "e", data)
        assert (
            f"another process is writing to {first}; wait for it or stop it, then resume"
            in capsys.readouterr().err
        )
        assert not first.exists()
        assert [trial.seed for trial in experiment.finished] == [1]
    assert len(resume_all(tmp_path / "e", data).finished) == 2


@pytest.mark.train
def test_resume_experiment_needs_data_made_in_memory(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    run_all({"a": recipe}, data, tmp_path / "e")
    with pytest.raises(
        SeewhyError, match=r"bars was made in memory, so it cannot be loaded again; pass the data"
    ):
        resume_all(tmp_path / "e", None)
    with pytest.raises(SeewhyError, match=r"bars is not the data of the run: its fingerprint"):
        resume_all(tmp_path / "e", replace(data, fingerprint="1" * 32))
    with pytest.raises(SeewhyError, match=r"is not an experiment"):
        resume_all(tmp_path, data)


@pytest.mark.train
def test_run_experiment_keeps_data_changed_after_loading(recipe: Recipe, tmp_path: Path) -> None:
    whole = load("digits", quiet=True)
    changed = replace(whole, train=whole.train.take(torch.arange(0, len(whole.train), 9)))
    experiment = run_all({"a": replace(recipe, epochs=1)}, changed, tmp_path / "e")
    assert experiment.data.load_args == {}
    assert experiment.data.fingerprint != whole.fingerprint
    assert read_environment(experiment.trials[0].directory)[1].images["train"] == len(changed.train)


@pytest.mark.train
def test_resume_experiment_sets_a_damaged_checkpoint_aside(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    directory = run_all({"a": recipe}, data, tmp_path / "e").trials[0].directory
    (directory / "summary.json").unlink()
    for path in (directory / "checkpoints").glob("*.pt"):
        path.write_bytes(b"of another version")
    assert resume_all(tmp_path / "e", data).trials[0].result is not None
    kept = directory.with_name(f"{directory.name}.damaged-1")
    assert (kept / "checkpoints" / "last.pt").read_bytes() == b"of another version"


@pytest.mark.train
def test_resume_experiment_survives_half_a_row(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    directory = run_all({"a": recipe}, data, tmp_path / "e").trials[0].directory
    before = (directory / "metrics.jsonl").read_text()
    (directory / "summary.json").unlink()
    (directory / "metrics.jsonl").write_text(before[:-30])
    assert open_experiment(tmp_path / "e").trials[0].history == ()
    assert resume_all(tmp_path / "e", data).trials[0].result is not None
    assert (directory / "metrics.jsonl").read_text() == before


@pytest.mark.train
def test_resume_experiment_loads_data_again(recipe: Recipe, tmp_path: Path) -> None:
    data = load("digits", validation=0.2, limit=150, quiet=True)
    run_all({"a": recipe}, data, tmp_path / "e", seeds=2)
    directory = tmp_path / "e" / "01-a" / "seed-1"
    shutil.move(directory, tmp_path / "kept")
    assert len(resume_all(tmp_path / "e", None).finished) == 2
    assert_same_weights(directory, tmp_path / "kept")
    assert open_run(directory).data_origin.images["train"] == 150


@pytest.mark.train
@pytest.mark.parametrize("lr", [0.5, "find"])
def test_seconds_sets_the_epochs(
    lr: Any, recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(recipe: Recipe, *others: Any) -> float:
        measured.append(recipe)
        return 1000.0 if recipe.batch_size == 35 else 250.0

    monkeypatch.setattr(seewhy.experiments.runner, "images_per_second", measure)
    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", lambda *_, **named: RANGE_TEST)
    recipes = {"fast": replace(recipe, lr=lr), "slow": replace(recipe, lr=lr, batch_size=60)}
    experiment = run_all(recipes, data, tmp_path / "e", seeds=2, seconds=0.48)
    assert {name: recipe.epochs for name, recipe in experiment.recipes.items()} == pytest.approx(
        {"fast": 2.0, "slow": 0.5}
    )
    # once per recipe, at its own learning rate
    assert [each.lr for each in measured] == [each.lr for each in experiment.recipes.values()]
    assert all(isinstance(each.lr, float) for each in measured)
    assert find_recipe(tmp_path / "e" / "02-slow" / "recipe.toml") == experiment.recipes["slow"]
    assert experiment.seconds == open_experiment(tmp_path / "e").seconds == 0.48
    for trial in experiment.trials:
        assert trial.result is not None
        assert trial.result.epochs == (2.0 if trial.recipe == "fast" else 0.5)
        assert open_run(trial.directory).recipe == replace(
            experiment.recipes[trial.recipe], seed=trial.seed
        )


@pytest.mark.train
def test_lr_is_found_once_for_all_seeds(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def spy(recipe: Recipe, *others: Any, **named: Any) -> Any:
        searched.append(recipe)
        return find_lr(recipe, *others, **named)

    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", spy)
    recipes = {
        "sgd": replace(recipe, optimizer="sgd", lr="find", seed=2),
        "fixed": replace(recipe, seed=2),
    }
    experiment = run_all(recipes, data, tmp_path / "e", seeds=2)
    expected = find_lr(recipes["sgd"], data, device="cpu")
    assert searched == [recipes["sgd"]]
    assert experiment.recipes["sgd"] == replace(recipes["sgd"], lr=expected.suggestion)
    assert experiment.recipes["fixed"] == recipes["fixed"]
    assert dict(experiment.range_tests) == {"sgd": expected}
    assert (tmp_path / "e" / "01-sgd" / "lr_range_test.json").exists()
    for trial in experiment.finished_of("sgd"):
        assert open_run(trial.directory).recipe == replace(
            experiment.recipes["sgd"], seed=trial.seed
        )
    fit(replace(experiment.recipes["sgd"], seed=3), data, tmp_path / "alone", "cpu", quiet=True)
    assert_same_weights(experiment.finished_of("sgd")[1].directory, tmp_path / "alone")
    resume_all(tmp_path / "e", data)
    assert len(searched) == 1


@pytest.mark.train
def test_resume_experiment_retries_a_failed_preparation(
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **named: Any) -> LRRangeTest:
        raise SeewhyError("the range test diverged; start lower than 1e-7")

    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", fail)
    recipes = {"bad": replace(recipe, lr="find"), "good": recipe}
    experiment = run_all(recipes, data, tmp_path / "e", seeds=2, quiet=False)
    assert [(trial.recipe, trial.seed) for trial in experiment.finished] == [
        ("good", 0),
        ("good", 1),
    ]
    failed = experiment.trials[0]
    assert failed.unfinished_reason == "the range test diverged; start lower than 1e-7"
    assert experiment.trials[1].unfinished_reason == failed.unfinished_reason
    err = capsys.readouterr().err
    assert f"bad: {failed.unfinished_reason}\n" in err
    assert "2 of 2: good, seed 1" in err
    assert not failed.directory.exists()
    assert experiment.recipes["bad"].lr == "find"
    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", lambda *_, **named: RANGE_TEST)
    experiment = resume_all(tmp_path / "e", data)
    assert len(experiment.finished) == 4
    assert experiment.recipes["bad"].lr == RANGE_TEST.suggestion
    assert not (failed.directory.parent / "status.json").exists()


@pytest.mark.train
def test_a_bug_in_a_preparation_leaves_a_traceback(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(batch: Batch, generator: torch.Generator) -> Batch:
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(AUGMENTATIONS, "breaks", breaks)
    experiment = run_all(
        {"a": replace(recipe, augment=("breaks",), lr="find")}, data, tmp_path / "e"
    )
    assert experiment.trials[0].unfinished_reason == "ZeroDivisionError: by zero"
    assert "ZeroDivisionError: by zero" in (tmp_path / "e" / "01-a" / "traceback.txt").read_text()
    monkeypatch.setitem(AUGMENTATIONS, "breaks", lambda batch, generator: batch)
    assert len(resume_all(tmp_path / "e", data).finished) == 1
    assert not (tmp_path / "e" / "01-a" / "traceback.txt").exists()


def invert(images: torch.Tensor) -> torch.Tensor:
    return 255 - images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": {}}, "no recipes to train; pass at least one"),
        ({"seeds": 0}, "seeds must be at least 1, found 0"),
        ({"seeds": -2}, "seeds must be at least 1, found -2"),
        ({"seconds": 0.0}, "seconds must be more than 0, found 0"),
        ({"seconds": -1.5}, "seconds must be more than 0, found -1.5"),
        ({"seconds": float("nan")}, "seconds must be more than 0, found nan"),
        (
            {"recipes": {"a": Recipe(augment=("flip", invert))}},
            "a: an experiment saves recipes as text, which is not possible for a function; "
            "add it to AUGMENTATIONS and use its name",
        ),
    ],
)
def test_run_experiment_rejects_bad_arguments(
    changes: dict[str, Any], message: str, recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "recipes": {"a": recipe},
        "data": data,
        "directory": tmp_path / "e",
    } | changes
    with pytest.raises(SeewhyError) as raised:
        run_experiment(**arguments, parallel=ONE, quiet=True)
    assert str(raised.value) == message
    assert not (tmp_path / "e").exists()


def test_parallel_rejects_bad_jobs() -> None:
    with pytest.raises(SeewhyError, match=r"jobs must be 0 or more, found -1"):
        Parallel(jobs=-1)


def test_run_experiment_needs_an_empty_directory(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SeewhyError, match="is not empty; nothing was written"):
        run_all({"a": recipe}, data, tmp_path)
    assert files(tmp_path) == {"mine.txt"}


@pytest.mark.train
def test_dask_needs_its_package_and_no_device_here(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for name in [name for name in sys.modules if name.startswith("distributed.")]:
        monkeypatch.setitem(sys.modules, name, None)
    parallel = Parallel(backend="dask", device="cuda:99")
    with pytest.raises(
        SeewhyError,
        match=r"--backend dask needs the package distributed; `pip install distributed`",
    ):
        run_all({"a": recipe}, data, tmp_path / "e", parallel=parallel)
    assert len(resume_all(tmp_path / "e", data).finished) == 1  # it can be resumed without Dask


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_processes_give_the_results_of_one_process(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data made in memory and additions to tables reach the processes."""

    def darker(batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images // 2)

    def line(num_classes: int, sample: object) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))

    monkeypatch.setitem(AUGMENTATIONS, "darker-than-here", darker)
    monkeypatch.setitem(seewhy.MODELS, "line-of-here", line)
    recipes = {
        "darker": replace(recipe, augment=("darker-than-here",)),
        "line": replace(recipe, model="line-of-here", lr="find"),
    }
    experiment = run_all(recipes, data, tmp_path / "two", seeds=2, parallel=TWO)
    assert len(experiment.finished) == 4
    alone = run_all(recipes, data, tmp_path / "one", seeds=2)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert experiment.recipes["line"].lr == pytest.approx(alone.recipes["line"].lr)
    for mine, other in zip(experiment.trials, alone.trials, strict=True):
        assert_close_weights(mine.directory, other.directory)


@contextmanager
def ctrl_c(condition: Callable[[], bool]) -> Iterator[None]:
    """Press Ctrl-C in this process when the condition holds; every minute until the block ends."""
    ended = threading.Event()

    def press() -> None:
        began = time.monotonic()
        while not condition() and time.monotonic() - began < 120 and not ended.wait(0.1):
            pass
        while not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait(60)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.usefixtures("workers")
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_processes_and_keeps_checkpoints(
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SOURCES, "bars", lambda: data)
    Path("tiny.toml").write_text(to_toml(recipe))
    options = ["--vary", "lr", "0.1", "0.2", "--epochs", "100000", "--seeds", "1", "--jobs", "2"]
    command = ["compare", "tiny.toml", "--data", "bars", *options, "--device", "cpu"]
    checkpoints = "c/*/seed-0/checkpoints/last.pt"
    with ctrl_c(lambda: len(list(tmp_path.glob(checkpoints))) == 2):
        assert main.main([*command, "--output", "c"]) == 130
    message = (
        "Interrupted. 0 of 2 trials have finished and are kept. Resume with: seewhy resume c\n"
    )
    assert capsys.readouterr().err.endswith(f"seewhy: {message}")
    statuses = [status(path.parents[1])["status"] for path in tmp_path.glob(checkpoints)]
    assert statuses == ["interrupted"] * 2
    assert (tmp_path / "c" / "curves.csv").exists()


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_worker_that_dies_is_reported_and_trials_are_kept(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = tmp_path / "died"

    def dies_once(batch: Batch, generator: torch.Generator) -> Batch:
        if generator.initial_seed() == 1 and not died.exists():
            died.touch()
            os._exit(1)  # as where the system ends what takes too much memory
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "dies-once", dies_once)
    data = load("digits", limit=200, quiet=True)
    recipes = {"good": recipe, "dies": replace(recipe, augment=("dies-once",))}
    with pytest.raises(SeewhyError) as raised:
        run_all(recipes, data, tmp_path / "e", seeds=3, parallel=TWO)
    match = re.fullmatch(
        r"a worker process died \(out of memory, or killed\); use fewer --jobs\. "
        rf"(\d) of 6 trials have finished and are kept\. Resume with: seewhy resume {tmp_path}/e",
        str(raised.value),
    )
    assert match, raised.value
    kept = {
        trial.directory: (trial.directory / "summary.json").read_bytes()
        for trial in open_experiment(tmp_path / "e").finished
    }
    assert 2 <= int(match[1]) <= len(kept) < 6
    experiment = resume_experiment(tmp_path / "e", parallel=TWO, quiet=True)
    assert len(experiment.finished) == 6
    assert all(
        (directory / "summary.json").read_bytes() == content for directory, content in kept.items()
    )


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
def test_dask_gives_the_results_of_one_process(
    processes: bool,
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With two threads, which share the random generators, of this process and of another."""
    import dask
    import distributed

    def shifts(batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images.roll(int(torch.randint(8, ())), 3))

    def skip_figures() -> None:
        import seewhy.runs.training as module

        module.curves_figure = module.write_figure = lambda *arguments: None  # type: ignore[assignment]

    monkeypatch.setitem(AUGMENTATIONS, "shifts", shifts)
    recipes = {
        "a": replace(recipe, augment=("shifts",)),
        "b": replace(recipe, augment=("shifts",), lr=0.1),
    }
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=processes,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        monkeypatch.context() as patch,
    ):
        if processes:
            with cluster.get_client() as client:
                client.run(skip_figures)
        patch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        dask.config.refresh()
        experiment = run_all(
            recipes,
            data,
            tmp_path / "dask",
            seeds=2,
            parallel=Parallel(backend="dask", device="cpu"),
        )
    dask.config.refresh()
    assert len(experiment.finished) == 4
    for mine, other in zip(
        experiment.trials, run_all(recipes, data, tmp_path / "here", seeds=2).trials, strict=True
    ):
        (assert_close_weights if processes else assert_same_weights)(
            mine.directory, other.directory
        )


@pytest.mark.train
def test_run_experiment_takes_a_built_in_recipe(tmp_path: Path) -> None:
    recipe = replace(RECIPES["demo"], model="speednet:width=0.05", epochs=0.2, precision="fp32")
    experiment = run_all({"demo": recipe}, load("digits", quiet=True), tmp_path / "e")
    assert len(experiment.finished) == 1
    assert experiment.data.load_args["name"] == "digits"


def test_a_model_of_ones_own_is_sent_to_the_worker_processes(data: Dataset) -> None:
    values = data.train.images[0].numel()
    with using_model(nn.Sequential(nn.Flatten(), nn.Linear(values, 9)), "mine"):
        added = seewhy.experiments.runner._table_additions()
    sent = cloudpickle.loads(cloudpickle.dumps(added[1]))["mine"]
    model = sent(len(data.classes), data.train)
    assert model(data.train.images[:2] / 255).shape == (2, len(data.classes))
