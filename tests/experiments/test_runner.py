"""Experiments as they run: every trial is an ordinary training, and whatever goes wrong with one costs the others nothing."""

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from joblib.externals.loky import get_reusable_executor

import seewhy.experiments.runner
from seewhy.data.augment import AUGMENTATIONS, Batch
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import Experiment, open_experiment
from seewhy.experiments.parallel import Parallel
from seewhy.experiments.runner import resume_experiment, run_experiment
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.runs.directory import read_environment
from seewhy.runs.lr_search import find_lr
from seewhy.runs.run import open_run
from seewhy.runs.training import fit
from seewhy.train.loop import train
from seewhy.train.recipe import Recipe
from seewhy.train.recipes import RECIPES, find_recipe
from seewhy.train.state import TrainState

ONE = Parallel(jobs=1, device="cpu")  # in this process
TWO = Parallel(jobs=2, device="cpu")

Augment = Callable[[Batch, torch.Generator], Batch]


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
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing each run's curves would take more than all else here; only the slow tests do."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("seewhy.runs.training.save_figure", lambda figure, path: None)


@pytest.fixture(scope="module")
def workers() -> Iterator[None]:
    """Worker processes are reused from comparison to comparison; after the last one they end."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def compared(
    recipes: dict[str, Recipe], data: Dataset, directory: Path, seeds: int = 1, **named: Any
) -> Experiment:
    return run_experiment(
        recipes, data, directory, seeds, **({"fan_out": ONE, "quiet": True} | named)
    )


def resumed(directory: Path, data: Dataset | None) -> Experiment:
    return resume_experiment(directory, data, ONE, quiet=True)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return open_run(directory).model.state_dict()


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_close_weights(one: Path, other: Path) -> None:
    """Of trainings in processes that may count in another number of threads, so that their last bits differ."""
    ours, theirs = weights(one), weights(other)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


def files(directory: Path) -> set[str]:
    """Every file below a directory, but for times in the names of TensorBoard's, which have process numbers too."""
    paths = (
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )
    return {re.sub(r"events\.out\.tfevents.*", "events", path) for path in paths}


def status(directory: Path) -> dict[str, str]:
    return dict(json.loads((directory / "status.json").read_text()))


def no_answer(batch: Batch, generator: torch.Generator) -> Batch:
    """Labels that give no finite loss."""
    return replace(batch, labels=batch.labels * float("nan"))


def test_every_trial_is_the_training_of_its_recipe_and_seed(recipe: Recipe, tmp_path: Path) -> None:
    data = load("digits", limit=200, quiet=True)
    recipes = {
        "sgd · flip": replace(recipe, optimizer="sgd", augment=("flip",), seed=3),
        "adam": replace(recipe, lr=0.01, seed=3),
    }
    experiment = compared(recipes, data, tmp_path / "e", seeds=2)
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
        assert (trial.result.accuracy, trial.result.test_loss) == (
            alone.result.accuracy,
            alone.result.test_loss,
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
    means = [float(row["test_loss_mean"]) for row in rows]
    assert means == pytest.approx(
        [sum(t.result.test_loss for t in experiment.of(name) if t.result) / 2 for name in recipes],
        rel=1e-6,
    )


def test_what_is_done_is_said_unless_quiet(
    recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = {"good": recipe, "bad": replace(recipe, lr=1e30)}
    compared(recipes, data, tmp_path / "loud", quiet=False)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["good: lr 0.5, 1 epochs", "bad: lr 1e+30, 1 epochs"]
    assert re.fullmatch(r"1 of 2: good, seed 0: \d+\.\d\d% in \d+ s", said[2])
    assert said[3].startswith("2 of 2: bad, seed 0: the ")
    compared(recipes, data, tmp_path / "quiet")
    assert capsys.readouterr().err == ""


def test_a_training_that_fails_costs_the_others_nothing(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    experiment = compared(
        {"bad": replace(recipe, lr=1e30), "good": recipe}, data, tmp_path / "e", seeds=2
    )
    assert [(trial.recipe, trial.seed) for trial in experiment.finished] == [
        ("good", 0),
        ("good", 1),
    ]
    for trial in experiment.trials[:2]:
        assert "not finite" in trial.why_not
        assert status(trial.directory)["status"] == "failed"
        assert not (trial.directory / "traceback.txt").exists()  # this is nobody's bug
    with (tmp_path / "e" / "results.csv").open(newline="") as file:
        assert [row["seeds"] for row in csv.DictReader(file)] == ["0", "2"]


@pytest.mark.parametrize("step", [0, 3])
def test_an_error_in_the_users_code_leaves_a_traceback_and_is_tried_again(
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
    experiment = compared({"mine": mine, "good": recipe}, data, tmp_path / "e")
    failed, good = experiment.trials
    assert failed.why_not == "ValueError: no such color"
    assert status(failed.directory)["status"] == "failed"
    text = (failed.directory / "traceback.txt").read_text()
    assert 'raise ValueError("no such color")' in text
    assert good.result is not None
    experiment = resumed(tmp_path / "e", data)
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
    """As if the process ended."""


def part_of(
    recipe: Recipe, data: Dataset, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process leaves that dies in the fourth step of a training."""

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


def without_checkpoints(home: Path) -> None:
    shutil.rmtree(home / "checkpoints")


def half_a_checkpoint(home: Path) -> None:
    (home / "checkpoints" / "last.pt").rename(home / "checkpoints" / ".last-123.pt")
    (home / "checkpoints" / "previous.pt").unlink()


def damaged_checkpoints(home: Path) -> None:
    for path in (home / "checkpoints").iterdir():
        path.unlink()  # both may be one file
        path.write_bytes(b"short")


def test_an_interrupted_comparison_goes_on(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has finished stays; what has a checkpoint goes on from it; all else begins anew; all ends bit for bit the same."""
    whole = compared({"a": recipe}, data, tmp_path / "whole", seeds=6)
    shutil.copytree(tmp_path / "whole", tmp_path / "e")
    homes = [tmp_path / "e" / "01-a" / f"seed-{seed}" for seed in range(6)]
    part_of(replace(recipe, seed=1), data, tmp_path / "part", monkeypatch)
    leave: dict[int, Callable[[Path], None]] = {
        1: lambda home: None,
        2: without_checkpoints,
        3: half_a_checkpoint,
        4: damaged_checkpoints,
        5: shutil.rmtree,
    }
    for seed, damage in leave.items():
        shutil.rmtree(homes[seed])
        shutil.copytree(tmp_path / "part", homes[seed])
        damage(homes[seed])
    before = open_experiment(tmp_path / "e")
    assert [trial.why_not for trial in before.trials] == ["", *["not finished"] * 4, "not begun"]
    kept = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in homes[0].rglob("*")
        if path.is_file()
    }

    after = resumed(tmp_path / "e", data)
    assert [trial.why_not for trial in after.trials] == [""] * 6
    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in homes[0].rglob("*")
        if path.is_file()
    } == kept
    for mine, other in zip(after.trials, whole.trials, strict=True):
        assert_same_weights(mine.directory, other.directory)
        assert [row.train_loss for row in mine.history] == [row.train_loss for row in other.history]
    environments = [json.loads((home / "env.json").read_text()) for home in homes]
    assert [row["step"] for row in environments[1]["resumed"]] == [3]
    assert ["resumed" in environment for environment in environments] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert resumed(tmp_path / "e", data).finished  # nothing is left to do


def test_ctrl_c_ends_all_and_what_is_done_is_kept(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stops(batch: Batch, generator: torch.Generator) -> Batch:
        nonlocal calls
        calls += 1
        if calls == 7 + 4:  # in the second training
            raise KeyboardInterrupt
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "stops", stops)
    recipes = {
        name: replace(recipe, augment=("stops",), lr=lr) for name, lr in (("a", 0.5), ("b", 0.25))
    }
    with pytest.raises(KeyboardInterrupt):
        compared(recipes, data, tmp_path / "e", seeds=2)
    experiment = open_experiment(tmp_path / "e")
    assert [(trial.recipe, trial.seed) for trial in experiment.finished] == [
        ("a", 0)
    ]  # each recipe's first seed comes first
    assert [bool(trial.history) for trial in experiment.trials] == [True, False, False, False]
    assert experiment.of("b") == ()
    assert status(experiment.trials[2].directory)["status"] == "interrupted"
    assert len(resumed(tmp_path / "e", data).finished) == 4
    assert (
        calls == 7 + 4 + 7 * 3 - 1
    )  # the second one goes on after its first step, of which there is a checkpoint


def test_a_trial_that_another_process_trains_is_left_alone(
    recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared({"a": recipe}, data, tmp_path / "e", seeds=2)
    first, second = (tmp_path / "e" / "01-a" / f"seed-{seed}" for seed in (0, 1))
    shutil.rmtree(first)
    shutil.rmtree(second)
    with FileLock(first.with_name(".seed-0.lock")):
        experiment = resumed(tmp_path / "e", data)
        assert (
            f"another process is still training {first}; wait for it, or end it, and resume"
            in capsys.readouterr().err
        )
        assert not first.exists()
        assert [trial.seed for trial in experiment.finished] == [1]
    assert len(resumed(tmp_path / "e", data).finished) == 2


def test_data_made_in_memory_is_asked_for(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    compared({"a": recipe}, data, tmp_path / "e")
    with pytest.raises(
        SeewhyError, match=r"bars was made in memory; give resume_comparison\(\) the data of"
    ):
        resumed(tmp_path / "e", None)
    with pytest.raises(SeewhyError, match=r"bars is not the data of .*: its fingerprint differs"):
        resumed(tmp_path / "e", replace(data, fingerprint="1" * 32))
    with pytest.raises(SeewhyError, match=r"is not an experiment"):
        resumed(tmp_path, data)


def test_data_that_was_changed_after_loading_is_not_loaded_again(
    recipe: Recipe, tmp_path: Path
) -> None:
    whole = load("digits", quiet=True)
    some = replace(whole, train=whole.train.take(torch.arange(0, len(whole.train), 9)))
    experiment = compared({"a": replace(recipe, epochs=1)}, some, tmp_path / "e")
    assert experiment.data["load_args"] == {}
    assert experiment.data["fingerprint"] != whole.fingerprint
    assert read_environment(experiment.trials[0].directory)[1].images["train"] == len(some.train)


def test_a_checkpoint_that_cannot_be_read_is_put_aside_and_not_removed(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    home = compared({"a": recipe}, data, tmp_path / "e").trials[0].directory
    (home / "summary.json").unlink()
    for path in (home / "checkpoints").glob("*.pt"):
        path.write_bytes(b"of another version")
    assert resumed(tmp_path / "e", data).trials[0].result is not None
    kept = home.with_name(f"{home.name}.damaged-1")
    assert (kept / "checkpoints" / "last.pt").read_bytes() == b"of another version"


def test_a_row_that_was_half_written_hinders_nothing(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    home = compared({"a": recipe}, data, tmp_path / "e").trials[0].directory
    before = (home / "metrics.jsonl").read_text()
    (home / "summary.json").unlink()
    (home / "metrics.jsonl").write_text(before[:-30])
    assert open_experiment(tmp_path / "e").trials[0].history == ()
    assert resumed(tmp_path / "e", data).trials[0].result is not None
    assert (home / "metrics.jsonl").read_text() == before


def test_data_that_was_loaded_is_loaded_again(recipe: Recipe, tmp_path: Path) -> None:
    data = load("digits", validation=0.2, limit=150, quiet=True)
    compared({"a": recipe}, data, tmp_path / "e", seeds=2)
    home = tmp_path / "e" / "01-a" / "seed-1"
    shutil.move(home, tmp_path / "kept")
    assert len(resumed(tmp_path / "e", None).finished) == 2
    assert_same_weights(home, tmp_path / "kept")
    assert open_run(home).data.images["train"] == 150


@pytest.mark.parametrize("lr", [0.5, "find"])
def test_seconds_set_the_epochs(
    lr: Any, recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pace(recipe: Recipe, *others: Any) -> float:
        asked.append(recipe)
        return 1000.0 if recipe.batch_size == 35 else 250.0

    monkeypatch.setattr(seewhy.experiments.runner, "images_per_second", pace)
    recipes = {"fast": replace(recipe, lr=lr), "slow": replace(recipe, lr=lr, batch_size=60)}
    experiment = compared(recipes, data, tmp_path / "e", seeds=2, seconds=0.48)
    assert {name: recipe.epochs for name, recipe in experiment.recipes.items()} == pytest.approx(
        {"fast": 2.0, "slow": 0.5}
    )
    assert [each.lr for each in asked] == [
        each.lr for each in experiment.recipes.values()
    ]  # once a recipe, at its own rate
    assert all(isinstance(each.lr, float) for each in asked)
    assert find_recipe(tmp_path / "e" / "02-slow" / "recipe.toml") == experiment.recipes["slow"]
    assert experiment.seconds == open_experiment(tmp_path / "e").seconds == 0.48
    for trial in experiment.trials:
        assert trial.result is not None
        assert trial.result.epochs == (2.0 if trial.recipe == "fast" else 0.5)
        assert open_run(trial.directory).recipe == replace(
            experiment.recipes[trial.recipe], seed=trial.seed
        )


def test_a_rate_is_found_once_and_all_seeds_share_it(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(recipe: Recipe, *others: Any, **named: Any) -> Any:
        asked.append(recipe)
        return find_lr(recipe, *others, **named)

    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", spy)
    recipes = {
        "sgd": replace(recipe, optimizer="sgd", lr="find", seed=2),
        "fixed": replace(recipe, seed=2),
    }
    experiment = compared(recipes, data, tmp_path / "e", seeds=2)
    expected = find_lr(recipes["sgd"], data, device="cpu")
    assert asked == [recipes["sgd"]]
    assert experiment.recipes["sgd"] == replace(recipes["sgd"], lr=expected.suggestion)
    assert experiment.recipes["fixed"] == recipes["fixed"]
    assert dict(experiment.range_tests) == {"sgd": expected}
    assert (tmp_path / "e" / "01-sgd" / "lr_range_test.json").exists()
    assert (tmp_path / "e" / "01-sgd" / "figures" / "lr_range_test.svg").exists()
    for trial in experiment.of("sgd"):
        assert open_run(trial.directory).recipe == replace(
            experiment.recipes["sgd"], seed=trial.seed
        )
    fit(replace(experiment.recipes["sgd"], seed=3), data, tmp_path / "alone", "cpu", quiet=True)
    assert_same_weights(experiment.of("sgd")[1].directory, tmp_path / "alone")
    resumed(tmp_path / "e", data)
    assert len(asked) == 1


def test_a_preparation_that_fails_is_said_and_tried_again(
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "mine", no_answer)
    recipes = {"mine": replace(recipe, augment=("mine",), lr="find"), "good": recipe}
    experiment = compared(recipes, data, tmp_path / "e", seeds=2, quiet=False)
    assert [(trial.recipe, trial.seed) for trial in experiment.finished] == [
        ("good", 0),
        ("good", 1),
    ]
    failed = experiment.trials[0]
    assert failed.why_not == experiment.trials[1].why_not
    assert "start below" in failed.why_not
    said = capsys.readouterr().err
    assert f"mine: {failed.why_not}\n" in said
    assert "2 of 2: good, seed 1" in said
    assert not failed.directory.exists()
    assert experiment.recipes["mine"].lr == "find"
    monkeypatch.setitem(AUGMENTATIONS, "mine", lambda batch, generator: batch)
    experiment = resumed(tmp_path / "e", data)
    assert len(experiment.finished) == 4
    assert experiment.recipes["mine"].lr != "find"
    assert not (failed.directory.parent / "status.json").exists()


def test_a_bug_while_preparing_leaves_a_traceback(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(batch: Batch, generator: torch.Generator) -> Batch:
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(AUGMENTATIONS, "breaks", breaks)
    experiment = compared(
        {"a": replace(recipe, augment=("breaks",), lr="find")}, data, tmp_path / "e"
    )
    assert experiment.trials[0].why_not == "ZeroDivisionError: by zero"
    assert "ZeroDivisionError: by zero" in (tmp_path / "e" / "01-a" / "traceback.txt").read_text()
    monkeypatch.setitem(AUGMENTATIONS, "breaks", lambda batch, generator: batch)
    assert len(resumed(tmp_path / "e", data).finished) == 1
    assert not (tmp_path / "e" / "01-a" / "traceback.txt").exists()


def invert(images: torch.Tensor) -> torch.Tensor:
    return 255 - images


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipes": {}}, "there is no recipe to train"),
        ({"seeds": 0}, "seeds must be at least 1, found 0"),
        ({"seeds": -2}, "seeds must be at least 1, found -2"),
        ({"seconds": 0.0}, "seconds must be more than 0, found 0"),
        ({"seconds": -1.5}, "seconds must be more than 0, found -1.5"),
        ({"seconds": float("nan")}, "seconds must be more than 0, found nan"),
        (
            {"recipes": {"a": Recipe(augment=("flip", invert))}},
            "a: an experiment keeps recipes as text; give the augmentation a name in AUGMENTATIONS",
        ),
    ],
)
def test_what_cannot_be_compared(
    changes: dict[str, Any], said: str, recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "recipes": {"a": recipe},
        "data": data,
        "directory": tmp_path / "e",
    } | changes
    with pytest.raises(SeewhyError) as raised:
        run_experiment(**given, fan_out=ONE, quiet=True)
    assert str(raised.value) == said
    assert not (tmp_path / "e").exists()


def test_jobs_are_not_negative() -> None:
    with pytest.raises(SeewhyError, match=r"jobs must be 0 or more, found -1"):
        Parallel(jobs=-1)


def test_a_directory_that_is_taken_is_left_alone(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SeewhyError, match="exists and is not empty"):
        compared({"a": recipe}, data, tmp_path)
    assert files(tmp_path) == {"mine.txt"}


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_cluster_needs_its_package_and_no_device_here(
    backend: Any,
    package: str,
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    fan_out = Parallel(backend=backend, device="cuda:99")
    with pytest.raises(
        SeewhyError,
        match=rf"--backend {backend} needs the package {package}; `pip install {package}`",
    ):
        compared({"a": recipe}, data, tmp_path / "e", fan_out=fan_out)
    assert len(resumed(tmp_path / "e", data).finished) == 1  # it goes on where there is a way


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_processes_do_what_this_one_does(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data made in memory and entries that are registered here reach them."""

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
    experiment = compared(recipes, data, tmp_path / "two", seeds=2, fan_out=TWO)
    assert len(experiment.finished) == 4
    alone = compared(recipes, data, tmp_path / "one", seeds=2)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert experiment.recipes["line"].lr == pytest.approx(alone.recipes["line"].lr)
    for mine, other in zip(experiment.trials, alone.trials, strict=True):
        assert_close_weights(mine.directory, other.directory)


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_worker_that_dies_is_one_line_and_the_rest_is_kept(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = tmp_path / "died"

    def dies_once(batch: Batch, generator: torch.Generator) -> Batch:
        if generator.initial_seed() == 2 and not died.exists():
            died.touch()
            os._exit(1)  # as where the system ends what takes too much memory
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "dies-once", dies_once)
    data = load("digits", limit=200, quiet=True)
    recipes = {"good": recipe, "dies": replace(recipe, augment=("dies-once",))}
    compared({"good": recipe, "too": replace(recipe, lr=0.1)}, data, tmp_path / "warm", fan_out=TWO)
    with pytest.raises(SeewhyError) as raised:
        compared(recipes, data, tmp_path / "e", seeds=4, fan_out=TWO)
    said = re.fullmatch(
        r"a worker process died, out of memory or killed \(fewer --jobs need less\)\. "
        rf"(\d) of 8 runs have finished\. Resume with: seewhy resume {tmp_path}/e",
        str(raised.value),
    )
    assert said, raised.value
    kept = {
        trial.directory: (trial.directory / "summary.json").read_bytes()
        for trial in open_experiment(tmp_path / "e").finished
    }
    assert 2 <= int(said[1]) <= len(kept) < 8
    experiment = resume_experiment(tmp_path / "e", fan_out=TWO, quiet=True)
    assert len(experiment.finished) == 8
    assert all((home / "summary.json").read_bytes() == content for home, content in kept.items())


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "workers", "threads"), [(False, 1, 2), (True, 2, 1)])
def test_a_dask_cluster_does_what_this_process_does(
    processes: bool,
    workers: int,
    threads: int,
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a worker has several threads, which share the generators of random numbers, and in processes of its own."""
    import dask
    import distributed

    def shifts(batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, images=batch.images.roll(int(torch.randint(8, ())), 3))

    monkeypatch.setitem(AUGMENTATIONS, "shifts", shifts)
    recipes = {
        "a": replace(recipe, augment=("shifts",)),
        "b": replace(recipe, augment=("shifts",), lr=0.1),
    }
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=processes,
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        monkeypatch.context() as patch,
    ):
        patch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        dask.config.refresh()
        experiment = compared(
            recipes,
            data,
            tmp_path / "dask",
            seeds=3,
            fan_out=Parallel(backend="dask", device="cpu"),
        )
    dask.config.refresh()
    assert len(experiment.finished) == 6
    for mine, other in zip(
        experiment.trials, compared(recipes, data, tmp_path / "here", seeds=3).trials, strict=True
    ):
        (assert_close_weights if processes else assert_same_weights)(
            mine.directory, other.directory
        )


def test_the_demo_recipe_is_compared_on_digits(tmp_path: Path) -> None:
    """The names in RECIPES have all that an experiment asks for."""
    recipe = replace(RECIPES["demo"], model="speednet:width=0.05", epochs=0.2, precision="fp32")
    experiment = compared({"demo": recipe}, load("digits", quiet=True), tmp_path / "e")
    assert len(experiment.finished) == 1
    assert experiment.data["load_args"]["name"] == "digits"
