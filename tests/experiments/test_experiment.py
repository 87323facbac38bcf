"""An experiment in its directory: written, read back as far as it has come, and as tables."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import (
    Experiment,
    open_experiment,
    read_trial,
    recipe_directories,
    write_experiment,
)
from seewhy.experiments.statistics import METRICS, metric_summary, pairwise_tests
from seewhy.experiments.tables import write_results
from seewhy.runs.directory import (
    append_epoch,
    write_lr_range_test,
    write_predictions,
    write_result,
    write_status,
)
from seewhy.runs.result import RunResult
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe, to_toml

Make = Callable[..., Experiment]

RECIPES = {
    "sgd:momentum=0.9,nesterov=true": Recipe(
        optimizer="sgd:momentum=0.9,nesterov=true", lr="find", augment=()
    ),
    "adam · crop:1": Recipe(
        name="two", optimizer="adam", lr=1e-3, augment=("crop:1",), freeze=("head:2",), seed=3
    ),
}
FOUND = LRRangeTest((1e-3, 1e-2, 1e-1), (2.0, 1.0, 1.5), (2.0, 1.2, 1.4), "diverged")
ROW = EpochStats(1.0, 12, 0.1, 0.9, 1.5, 1000.0, 0.4, 0.8, None, None)


def begun(
    directory: Path, recipes: Mapping[str, Recipe] = RECIPES, seconds: float | None = 2.5
) -> Experiment:
    data = {
        "name": "digits",
        "fingerprint": "0" * 32,
        "load_args": {"name": "digits", "validation": 0.1},
    }
    experiment = Experiment(directory, data, recipes, (3, 4), seconds, (), {})
    directory.mkdir()
    write_experiment(experiment)
    return experiment


def result_of(experiment: Experiment) -> RunResult:
    (trial,) = experiment.finished
    assert trial.result is not None
    return trial.result


def finish(home: Path, result: RunResult) -> None:
    """A run directory as a finished training leaves it; all four answers are certain, one of them is wrong."""
    home.mkdir(parents=True)
    append_epoch(home, ROW)
    append_epoch(home, replace(ROW, epoch=2.0, step=24, eval_loss=0.3, eval_accuracy=0.75))
    answers = Predictions(
        40 * torch.eye(2)[[0, 1, 0, 1]], torch.tensor([0, 1, 0, 0]), ("up", "down")
    )
    write_predictions(home, answers, ["a.png", "b.png", "c.png", "d.png"])
    write_result(home, result)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = begun(tmp_path / "e")
    found = open_experiment(str(tmp_path / "e"))
    assert found.directory == tmp_path / "e"
    assert dict(found.recipes) == RECIPES
    assert list(found.recipes) == list(RECIPES)
    assert (found.data, found.seeds, found.seconds) == (written.data, (3, 4), 2.5)
    assert [(trial.recipe, trial.seed) for trial in found.trials] == [
        (name, seed) for name in RECIPES for seed in (3, 4)
    ]
    assert {trial.why_not for trial in found.trials} == {"not begun"}
    assert (found.finished, found.range_tests) == ((), {})
    assert found.memory("adam · crop:1") is None


def test_a_recipe_is_the_one_that_was_prepared_and_its_range_test_is_there(tmp_path: Path) -> None:
    begun(tmp_path / "e", seconds=None)
    first, second = recipe_directories(tmp_path / "e", RECIPES).values()
    first.mkdir()
    prepared = replace(
        RECIPES["sgd:momentum=0.9,nesterov=true"], lr=0.123456789012345, epochs=1 / 3
    )
    (first / "recipe.toml").write_text(to_toml(prepared))
    write_lr_range_test(first, FOUND)
    found = open_experiment(tmp_path / "e")
    assert list(found.recipes.values()) == [prepared, RECIPES["adam · crop:1"]]
    assert list(found.recipes) == list(RECIPES)
    assert found.range_tests == {"sgd:momentum=0.9,nesterov=true": FOUND}
    assert found.seconds is None
    assert not second.exists()  # reading writes nothing


def test_a_finished_trial(tmp_path: Path, make: Make) -> None:
    begun(tmp_path / "e")
    home = recipe_directories(tmp_path / "e", RECIPES)["adam · crop:1"] / "seed-4"
    result = replace(result_of(make({"a": {0: 0.3}})), optimizer_bytes=777, calibration_error=0.25)
    finish(home, result)
    found = open_experiment(tmp_path / "e")
    (trial,) = found.of("adam · crop:1")
    assert found.finished == (trial,)
    assert found.of("sgd:momentum=0.9,nesterov=true") == ()
    assert (trial.recipe, trial.seed, trial.directory, trial.why_not) == (
        "adam · crop:1",
        4,
        home,
        "",
    )
    assert trial.result == result
    assert trial.history == (
        ROW,
        replace(ROW, epoch=2.0, step=24, eval_loss=0.3, eval_accuracy=0.75),
    )
    assert trial.calibration_error == 0.25
    assert found.memory("adam · crop:1") == 777


def say(status: str, detail: str = "") -> Callable[[Path], None]:
    return lambda home: write_status(home, status, detail)


@pytest.mark.parametrize(
    ("own", "parents", "why_not"),
    [
        (None, None, "not begun"),
        (say("running"), None, "not finished"),
        (say("interrupted"), None, "interrupted"),
        (say("failed", "the loss is not finite"), None, "the loss is not finite"),
        (None, say("failed", "the range test diverged"), "the range test diverged"),
        (say("failed", "no memory"), say("failed", "the range test diverged"), "no memory"),
    ],
)
def test_why_a_trial_has_no_result(own: Any, parents: Any, why_not: str, tmp_path: Path) -> None:
    home = tmp_path / "01-a" / "seed-0"
    home.mkdir(parents=True)
    if own:
        own(home)
    if parents:
        parents(home.parent)
    trial = read_trial("a", 0, home)
    assert trial.why_not == why_not
    assert trial.result is None
    assert trial.history == ()
    assert math.isnan(trial.calibration_error)


def test_an_unfinished_trial_has_the_epochs_that_it_did(tmp_path: Path) -> None:
    append_epoch(tmp_path, ROW)
    write_status(tmp_path, "running")
    trial = read_trial("a", 0, tmp_path)
    assert (trial.history, trial.why_not) == ((ROW,), "not finished")


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl"])
def test_a_trial_that_is_damaged_is_named(name: str, tmp_path: Path, make: Make) -> None:
    finish(tmp_path / "run", result_of(make({"a": {0: 0.3}})))
    (tmp_path / "run" / name).write_bytes(b"garbage")
    trial = read_trial("a", 0, tmp_path / "run")
    assert trial.result is None
    assert f"{name} is missing or damaged" in trial.why_not
    assert trial.why_not.endswith(f"remove {tmp_path / 'run'} and resume, and it is trained again")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"recipes": 3}',
        '{"recipes": {"a": 3}, "seeds": [0], "seconds": null, "data": {}}',
    ],
)
def test_a_damaged_file_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(
        SeewhyError, match=r"experiment\.json is damaged \(.*\); restore it, or compare again"
    ) as raised:
        open_experiment(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_field_that_is_missing_is_damage(tmp_path: Path) -> None:
    begun(tmp_path / "e")
    path = tmp_path / "e" / "experiment.json"
    whole = json.loads(path.read_text())
    for field in ("recipes", "seeds", "seconds", "data"):
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != field}))
        with pytest.raises(SeewhyError, match=rf"is damaged \(KeyError: '{field}'\)"):
            open_experiment(tmp_path / "e")


def test_what_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"is not an experiment \(it holds no experiment\.json\); `seewhy compare` makes one",
    ):
        open_experiment(tmp_path)
    with pytest.raises(SeewhyError, match=r"nowhere is not an experiment \(no such directory\)"):
        open_experiment(tmp_path / "nowhere")


def test_each_recipe_has_a_directory_of_its_own_whatever_it_is_called(tmp_path: Path) -> None:
    names = [
        "a · b",
        "a-b",
        "a/b",
        "../../a-b",
        "..",
        "·",
        "x" * 300,
        "x" * 301,
        "CON",
        "läuft",
        "sgd:momentum=0.9,nesterov=true",
    ]
    homes = recipe_directories(tmp_path, {name: Recipe() for name in names})
    assert list(homes) == names
    assert len(set(homes.values())) == len(names)
    for home in homes.values():
        assert home.parent == tmp_path
        home.resolve().relative_to(tmp_path.resolve())
        home.mkdir()  # a file may be called so
    assert homes["a · b"].name == "01-a-b"
    assert homes["sgd:momentum=0.9,nesterov=true"].name == "11-sgd-momentum-0.9-nesterov-true"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(text: str) -> float:
    return float(text) if text else math.nan


def test_tables_hold_the_numbers(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        name: dict(enumerate(rng.normal(0.5, 0.1, 4).tolist())) for name in ("a", "b · c,d", "once")
    }
    values["once"] = {0: 0.3, 1: None, 2: None, 3: None}
    values["never"] = dict.fromkeys(range(4))
    experiment = make(values)
    write_results(experiment)
    rows = table(tmp_path / "results.csv")
    assert [row["recipe"] for row in rows] == ["a", "b · c,d", "once", "never"]
    assert [int(row["seeds"]) for row in rows] == [4, 4, 1, 0]
    assert [row["optimizer_bytes"] for row in rows] == ["4000", "4000", "4000", ""]
    for row in rows:
        recipe = experiment.recipes[row["recipe"]]
        assert (float(row["lr"]), float(row["epochs"])) == (recipe.lr, recipe.epochs)
        for metric in METRICS:
            expected = metric_summary(experiment, row["recipe"], metric)
            found = [numbers(row[f"{metric}_{part}"]) for part in ("mean", "std", "low", "high")]
            assert found == pytest.approx(
                [expected.mean, expected.std, *expected.interval], nan_ok=True
            )
    assert float(rows[0]["test_loss_mean"]) == pytest.approx(np.mean(list(values["a"].values())))

    found = table(tmp_path / "differences.csv")
    expected_rows = [
        (metric, row) for metric in METRICS for row in pairwise_tests(experiment, metric)
    ]
    assert len(found) == len(expected_rows) == 3 * len(METRICS)
    for line, (metric, pair) in zip(found, expected_rows, strict=True):
        assert (line["metric"], line["better"], line["worse"]) == (metric, pair.better, pair.worse)
        assert (int(line["seeds"]), line["real"]) == (pair.seeds, str(pair.significant))
        said = [
            numbers(line[name])
            for name in ("difference", "low", "high", "p_value", "adjusted_p_value")
        ]
        assert said == pytest.approx(
            [pair.difference, *pair.interval, pair.p_value, pair.adjusted], nan_ok=True
        )

    curves = table(tmp_path / "curves.csv")
    lines = [(trial, row) for trial in experiment.trials for row in trial.history]
    assert len(curves) == len(lines) == 9 * 2
    for line, (trial, epoch) in zip(curves, lines, strict=True):
        assert (line["recipe"], int(line["seed"])) == (trial.recipe, trial.seed)
        assert {name: float(line[name]) for name in asdict(epoch)} == asdict(epoch)


def test_tables_of_an_experiment_that_has_nothing_yet(make: Make, tmp_path: Path) -> None:
    write_results(make({"a": {0: None}, "b": {0: None}}))
    assert [row["seeds"] for row in table(tmp_path / "results.csv")] == ["0", "0"]
    assert table(tmp_path / "differences.csv") == table(tmp_path / "curves.csv") == []
    assert (tmp_path / "curves.csv").read_text() == "recipe,seed\n"
