"""An experiment in its directory, its trials, and its tables."""

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

from seewhy.data.dataset import DataOrigin
from seewhy.diagnosis.calibration import measure_calibration
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
from seewhy.experiments.tables import results_table, write_tables
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


def start(
    directory: Path, recipes: Mapping[str, Recipe] = RECIPES, seconds: float | None = 2.5
) -> Experiment:
    data = DataOrigin(
        name="digits",
        fingerprint="0" * 32,
        load_args={"name": "digits", "validation": 0.1},
        classes=tuple("0123456789"),
        image_shape=(1, 8, 8),
        images={"train": 1294, "test": 359, "validation": 144},
        skipped=("bad.png",),
    )
    experiment = Experiment(directory, data, recipes, (3, 4), seconds, (), {})
    directory.mkdir()
    write_experiment(experiment)
    return experiment


def result_of(experiment: Experiment) -> RunResult:
    (trial,) = experiment.finished
    assert trial.result is not None
    return trial.result


def finish(directory: Path, result: RunResult) -> None:
    """Write a finished run; all four predictions have a confidence of 1, and one is wrong."""
    directory.mkdir(parents=True)
    append_epoch(directory, ROW)
    append_epoch(directory, replace(ROW, epoch=2.0, step=24, eval_loss=0.3, eval_accuracy=0.75))
    predictions = Predictions(
        40 * torch.eye(2)[[0, 1, 0, 1]], torch.tensor([0, 1, 0, 0]), ("up", "down")
    )
    write_predictions(directory, predictions, ["a.png", "b.png", "c.png", "d.png"])
    write_result(directory, replace(result, calibration_error=measure_calibration(predictions).ece))


def test_open_experiment_reads_what_was_written(tmp_path: Path) -> None:
    written = start(tmp_path / "e")
    found = open_experiment(str(tmp_path / "e"))
    assert found.directory == tmp_path / "e"
    assert dict(found.recipes) == RECIPES
    assert list(found.recipes) == list(RECIPES)
    assert (found.data, found.seeds, found.seconds) == (written.data, (3, 4), 2.5)
    assert [(trial.recipe, trial.seed) for trial in found.trials] == [
        (name, seed) for name in RECIPES for seed in (3, 4)
    ]
    assert {trial.unfinished_reason for trial in found.trials} == {"not started"}
    assert (found.finished, found.range_tests) == ((), {})
    assert found.optimizer_bytes("adam · crop:1") is None


def test_open_experiment_reads_prepared_recipes_and_range_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.runs.directory.write_figure", lambda figure, path: None)
    start(tmp_path / "e", seconds=None)
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


def test_open_experiment_reads_finished_trials(tmp_path: Path, make: Make) -> None:
    start(tmp_path / "e")
    directory = recipe_directories(tmp_path / "e", RECIPES)["adam · crop:1"] / "seed-4"
    result = replace(result_of(make({"a": {0: 0.3}})), optimizer_bytes=777)
    finish(directory, result)
    found = open_experiment(tmp_path / "e")
    (trial,) = found.finished_of("adam · crop:1")
    assert found.finished == (trial,)
    assert found.finished_of("sgd:momentum=0.9,nesterov=true") == ()
    assert (trial.recipe, trial.seed, trial.directory, trial.unfinished_reason) == (
        "adam · crop:1",
        4,
        directory,
        "",
    )
    assert trial.result == replace(result, calibration_error=trial.result.calibration_error)
    assert trial.history == (
        ROW,
        replace(ROW, epoch=2.0, step=24, eval_loss=0.3, eval_accuracy=0.75),
    )
    assert trial.result.calibration_error == pytest.approx(0.25)  # confidence 1, accuracy 3/4
    assert found.optimizer_bytes("adam · crop:1") == 777


def set_status(status: str, detail: str = "") -> Callable[[Path], None]:
    return lambda directory: write_status(directory, status, detail)


@pytest.mark.parametrize(
    ("trial_status", "recipe_status", "reason"),
    [
        (None, None, "not started"),
        (set_status("running"), None, "not finished"),
        (set_status("interrupted"), None, "interrupted"),
        (set_status("failed", "the loss is not finite"), None, "the loss is not finite"),
        (None, set_status("failed", "the range test diverged"), "the range test diverged"),
        (
            set_status("failed", "no memory"),
            set_status("failed", "the range test diverged"),
            "no memory",
        ),
    ],
)
def test_read_trial_has_the_reason_of_an_unfinished_trial(
    trial_status: Any, recipe_status: Any, reason: str, tmp_path: Path
) -> None:
    directory = tmp_path / "01-a" / "seed-0"
    directory.mkdir(parents=True)
    if trial_status:
        trial_status(directory)
    if recipe_status:
        recipe_status(directory.parent)
    trial = read_trial("a", 0, directory)
    assert trial.unfinished_reason == reason
    assert trial.result is None
    assert trial.history == ()


def test_read_trial_has_the_history_of_an_unfinished_trial(tmp_path: Path) -> None:
    append_epoch(tmp_path, ROW)
    write_status(tmp_path, "running")
    trial = read_trial("a", 0, tmp_path)
    assert (trial.history, trial.unfinished_reason) == ((ROW,), "not finished")


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl"])
def test_read_trial_names_a_damaged_file(name: str, tmp_path: Path, make: Make) -> None:
    finish(tmp_path / "run", result_of(make({"a": {0: 0.3}})))
    (tmp_path / "run" / name).write_bytes(b"garbage")
    trial = read_trial("a", 0, tmp_path / "run")
    assert trial.result is None
    assert f"{name} is missing or damaged" in trial.unfinished_reason
    assert trial.unfinished_reason.endswith(
        f"to run the trial again, remove {tmp_path / 'run'} and resume"
    )


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
def test_open_experiment_rejects_a_damaged_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(
        SeewhyError,
        match=r"experiment\.json is missing or damaged \(.*\); restore it, or run",
    ) as raised:
        open_experiment(tmp_path)
    assert "\n" not in str(raised.value)


def test_open_experiment_rejects_a_missing_field(tmp_path: Path) -> None:
    start(tmp_path / "e")
    path = tmp_path / "e" / "experiment.json"
    whole = json.loads(path.read_text())
    for field in ("recipes", "seeds", "seconds", "data"):
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != field}))
        with pytest.raises(SeewhyError, match=rf"is missing or damaged \(KeyError: '{field}'\)"):
            open_experiment(tmp_path / "e")


def test_open_experiment_rejects_other_directories(tmp_path: Path) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"is not an experiment \(it contains no experiment\.json\); create one with `seewhy",
    ):
        open_experiment(tmp_path)
    with pytest.raises(SeewhyError, match=r"nowhere is not an experiment \(no such directory\)"):
        open_experiment(tmp_path / "nowhere")


def test_recipe_directories_are_distinct_and_safe(tmp_path: Path) -> None:
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
    directories = recipe_directories(tmp_path, {name: Recipe() for name in names})
    assert list(directories) == names
    assert len(set(directories.values())) == len(names)
    for directory in directories.values():
        assert directory.parent == tmp_path
        directory.resolve().relative_to(tmp_path.resolve())
        directory.mkdir()  # the name is valid
    assert directories["a · b"].name == "01-a-b"
    assert directories["sgd:momentum=0.9,nesterov=true"].name == "11-sgd-momentum-0.9-nesterov-true"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(text: str) -> float:
    return float(text) if text else math.nan


def test_write_tables_has_all_numbers(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        name: dict(enumerate(rng.normal(0.5, 0.1, 4).tolist())) for name in ("a", "b · c,d", "once")
    }
    values["once"] = {0: 0.3, 1: None, 2: None, 3: None}
    values["never"] = dict.fromkeys(range(4))
    experiment = make(values)
    write_tables(experiment)
    rows = table(tmp_path / "results.csv")
    assert [row["recipe"] for row in rows] == ["a", "b · c,d", "once", "never"]
    assert [int(row["seeds"]) for row in rows] == [4, 4, 1, 0]
    assert [row["optimizer_bytes"] for row in rows] == ["4000", "4000", "4000", ""]
    assert {row["macro_f1_mean"] for row in rows} == {""}  # the classes are even
    scored = make({"a": {0: 0.5, 1: 0.7}})
    trials = [
        replace(trial, result=replace(result_of(make({"a": {0: 0.3}})), macro_f1=score))
        for trial, score in zip(scored.trials, (0.25, 0.75), strict=True)
    ]
    header, [row] = results_table(replace(scored, trials=tuple(trials)))
    assert row[header.index("macro_f1_mean")] == 0.5
    for row in rows:
        recipe = experiment.recipes[row["recipe"]]
        assert (float(row["lr"]), float(row["epochs"])) == (recipe.lr, recipe.epochs)
        for metric in METRICS:
            expected = metric_summary(experiment, row["recipe"], metric)
            found = [numbers(row[f"{metric}_{part}"]) for part in ("mean", "std", "low", "high")]
            assert found == pytest.approx(
                [expected.mean, expected.std, *expected.interval], nan_ok=True
            )
    assert float(rows[0]["test_nll_mean"]) == pytest.approx(np.mean(list(values["a"].values())))

    found = table(tmp_path / "differences.csv")
    expected_rows = [
        (metric, row) for metric in METRICS for row in pairwise_tests(experiment, metric)
    ]
    assert len(found) == len(expected_rows) == 3 * len(METRICS)
    for line, (metric, pair) in zip(found, expected_rows, strict=True):
        assert (line["metric"], line["better"], line["worse"]) == (metric, pair.better, pair.worse)
        assert (int(line["seeds"]), line["significant"]) == (pair.seeds, str(pair.significant))
        row = [
            numbers(line[name])
            for name in ("difference", "low", "high", "p_value", "adjusted_p_value")
        ]
        assert row == pytest.approx(
            [pair.difference, *pair.interval, pair.p_value, pair.adjusted_p_value], nan_ok=True
        )

    curves = table(tmp_path / "curves.csv")
    lines = [(trial, row) for trial in experiment.trials for row in trial.history]
    assert len(curves) == len(lines) == 9 * 2
    for line, (trial, epoch) in zip(curves, lines, strict=True):
        assert (line["recipe"], int(line["seed"])) == (trial.recipe, trial.seed)
        found_row = {name: float(line[name]) if line[name] else None for name in asdict(epoch)}
        assert found_row == asdict(epoch)


def test_write_tables_of_unfinished_trials(make: Make, tmp_path: Path) -> None:
    write_tables(make({"a": {0: None}, "b": {0: None}}))
    assert [row["seeds"] for row in table(tmp_path / "results.csv")] == ["0", "0"]
    assert table(tmp_path / "differences.csv") == table(tmp_path / "curves.csv") == []
    assert (tmp_path / "curves.csv").read_text() == "recipe,seed\n"
