"""The files of a run directory."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.calibration import measure_calibration
from seewhy.errors import SeewhyError
from seewhy.models.inference import compute_logits
from seewhy.runs.directory import (
    RunStatus,
    read_history,
    read_status,
    write_status,
)
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe, to_toml
from seewhy.train.recipes import find_recipe


def test_status(tmp_path: Path) -> None:
    assert read_status(tmp_path) == RunStatus("", "")
    write_status(tmp_path, "failed", "the loss is not finite")
    assert read_status(tmp_path) == RunStatus("failed", "the loss is not finite")
    (tmp_path / "status.json").write_text("[]")
    with pytest.raises(SeewhyError, match=r"status\.json is missing or damaged"):
        read_status(tmp_path)


@pytest.mark.train
def test_files_of_a_finished_run(run: Run, directory: Path, recipe: Recipe, data: Dataset) -> None:
    assert find_recipe(directory / "recipe.toml") == recipe
    assert (directory / "command.txt").read_text() == "Python\n"
    assert read_status(directory) == RunStatus("finished", "")
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    assert tuple(EpochStats(**json.loads(line)) for line in lines) == run.history
    environment = json.loads((directory / "env.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["data"]["fingerprint"] == data.fingerprint
    assert environment["data"]["images"] == {"train": 240, "test": 60}
    assert environment["processor"]
    assert environment["threads"] == torch.get_num_threads()
    assert (environment["device"], environment["precision"]) == ("cpu", "fp32")
    assert (directory / "figures" / "curves.svg").stat().st_size > 1000


@pytest.mark.train
def test_summary_has_the_result(run: Run, directory: Path) -> None:
    summary = json.loads((directory / "summary.json").read_text())
    assert run.result is not None
    assert run.predictions is not None
    assert summary["schema_version"] == 1
    assert summary["interval"][0] < summary["accuracy"] <= summary["interval"][1]
    assert summary["accuracy"] == run.predictions.accuracy
    assert summary["calibration_error"] == measure_calibration(run.predictions).ece
    assert (summary["test_images"], summary["steps"]) == (60, 24)
    assert summary["train_seconds"] == run.history[-1].seconds


@pytest.mark.train
def test_model_card(run: Run, directory: Path) -> None:
    card = (directory / "README.md").read_text()
    assert run.result is not None
    for text in (
        "# tiny on bars",
        f"**{100 * run.result.accuracy:.2f}%** of 60 test images",
        "This is the last epoch",
        "upright, level, slanting",
        to_toml(run.recipe),
    ):
        assert text in card


@pytest.mark.train
def test_predictions_and_confusion_agree_with_the_model(
    run: Run, directory: Path, data: Dataset
) -> None:
    expected = compute_logits(run, data.test.images).numpy()
    with np.load(directory / "predictions.npz") as saved:
        np.testing.assert_allclose(saved["logits"], expected, rtol=1e-4, atol=1e-5)
        assert np.array_equal(saved["labels"], data.test.labels)
        assert saved["classes"].tolist() == list(data.classes)
    with (directory / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == list(data.classes)
    counts = [[int(count) for count in row[1:]] for row in rows]
    assert np.array_equal(counts, confusion_matrix(data.test.labels, expected.argmax(1)))


@pytest.mark.train
def test_errors_are_listed_most_confident_first(weak_run: Run, data: Dataset) -> None:
    assert weak_run.directory is not None
    assert weak_run.predictions is not None
    with (weak_run.directory / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = (~weak_run.predictions.correct).nonzero().flatten().tolist()
    assert len(rows) == len(wrong) > 0
    assert {row["name"] for row in rows} == {data.test.names[index] for index in wrong}
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    for row in rows:
        index = list(data.test.names).index(row["name"])
        assert row["true"] == data.classes[data.test.labels[index]] != row["predicted"]
        loss = weak_run.predictions.losses[index].item()
        assert float(row["loss"]) == pytest.approx(loss, abs=1e-4)


@pytest.mark.train
def test_tensorboard_has_the_loss_scale(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    spec = "dynamic:init_scale=1152921504606846976"
    small = replace(recipe, precision="fp16", loss_scale=spec, epochs=0.5)
    run = fit(small, data, tmp_path / "run", quiet=True)
    (row,) = run.history
    assert row.skipped_updates
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for tag, value in (("loss/scale", row.loss_scale), ("skipped/updates", row.skipped_updates)):
        assert [event.value for event in events.Scalars(tag)] == [value]
    assert read_history(tmp_path / "run") == run.history


@pytest.mark.train
def test_tensorboard_has_the_history(run: Run, directory: Path) -> None:
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("train/loss")]
    assert values == pytest.approx([row.train_loss for row in run.history], rel=1e-6)
    assert {"train/accuracy", "eval/loss", "eval/accuracy", "lr"} <= set(events.Tags()["scalars"])
