"""`fit`, the run directory it writes, and reading that back."""

import csv
import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import seewhy.fitting
from seewhy.data.augment import AUGMENTATIONS, Batch
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.fitting import fit
from seewhy.models import MODELS
from seewhy.models.inference import logits
from seewhy.run import Run, new_directory, open_run
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe, read_recipe


@pytest.fixture
def run(recipe: Recipe, data: Dataset, tmp_path: Path) -> Run:
    return fit(recipe, data, tmp_path / "runs" / "first", quiet=True)


def directory_of(run: Run) -> Path:
    assert run.directory is not None
    return run.directory


def test_without_a_directory_nothing_is_written(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(recipe, data, quiet=True)
    assert run.directory is None
    assert run.summary["accuracy"] > 0.95
    assert not list(tmp_path.iterdir())
    assert repr(run).startswith("Run(tiny on bars: ")


def test_the_directory_holds_what_it_should(run: Run, recipe: Recipe, data: Dataset) -> None:
    directory = directory_of(run)
    assert read_recipe(directory / "recipe.toml") == recipe
    assert json.loads((directory / "status.json").read_text())["status"] == "finished"
    rows = [EpochStats(**json.loads(line)) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert tuple(rows) == run.history
    environment = json.loads((directory / "env.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["data"]["fingerprint"] == data.fingerprint
    assert environment["data"]["images"] == {"train": 240, "test": 60, "validation": 0}
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["schema_version"] == 1
    assert summary["interval"][0] < summary["accuracy"] <= summary["interval"][1]
    for name in ("curves.svg", "curves.png"):
        assert (directory / "figures" / name).stat().st_size > 1000
    assert "# tiny on bars" in (directory / "README.md").read_text()
    assert (directory / "command.txt").read_text().strip()
    assert (directory.parent / "latest").resolve() == directory.resolve()


def test_predictions_and_tables_agree_with_the_model(run: Run, data: Dataset) -> None:
    directory = directory_of(run)
    expected = logits(run.model, data.test.images).numpy()
    with np.load(directory / "predictions.npz") as saved:
        np.testing.assert_allclose(saved["logits"], expected, rtol=1e-4, atol=1e-5)
        assert np.array_equal(saved["labels"], data.test.labels)
        assert saved["classes"].tolist() == list(data.classes)
    predicted = expected.argmax(1)
    with (directory / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == list(data.classes)
    counts = [[int(count) for count in row[1:]] for row in rows]
    assert np.array_equal(counts, confusion_matrix(data.test.labels, predicted))
    assert json.loads((directory / "summary.json").read_text())["accuracy"] == pytest.approx(
        float((predicted == data.test.labels.numpy()).mean())
    )


def test_every_error_is_listed_the_most_confident_first(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    run = fit(replace(recipe, epochs=0.5), data, tmp_path / "weak", quiet=True)
    with (directory_of(run) / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert run.test is not None
    wrong = (run.test.predicted != data.test.labels).nonzero().flatten().tolist()
    assert len(rows) == len(wrong) > 0
    assert {row["name"] for row in rows} == {data.test.names[index] for index in wrong}
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    for row in rows:
        index = list(data.test.names).index(row["name"])
        assert row["true"] == data.classes[data.test.labels[index]] != row["predicted"]
        assert float(row["loss"]) == pytest.approx(run.test.losses[index].item(), abs=1e-4)


def test_tensorboard_shows_the_history(run: Run) -> None:
    events = EventAccumulator(str(directory_of(run) / "tensorboard"))
    events.Reload()
    found = [event.value for event in events.Scalars("train/loss")]
    assert found == pytest.approx([row.train_loss for row in run.history], rel=1e-6)
    assert {"train/accuracy", "eval/loss", "eval/accuracy", "lr"} <= set(events.Tags()["scalars"])


def test_an_opened_run_predicts_as_the_one_that_was_saved(run: Run, data: Dataset) -> None:
    opened = open_run(directory_of(run))
    assert opened.recipe == run.recipe
    assert opened.history == run.history
    assert opened.classes == data.classes
    assert opened.image_shape == (3, 8, 8)
    assert not opened.model.training
    torch.testing.assert_close(logits(opened.model, data.test.images), logits(run.model, data.test.images), rtol=0, atol=0)


def test_a_model_of_ones_own_is_trained_and_opened(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linear(num_classes: int, sample: object, scale: float = 1.0) -> torch.nn.Module:
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
        torch.nn.init.constant_(net[1].bias, scale)
        return net

    monkeypatch.setitem(MODELS, "linear", linear)
    fit(replace(recipe, model="linear:scale=3", lr=0.01, epochs=1), data, tmp_path / "own", quiet=True)
    assert open_run(tmp_path / "own").model[1].bias.mean().item() == pytest.approx(3, abs=0.5)  # type: ignore[index]
    monkeypatch.delitem(MODELS, "linear")
    with pytest.raises(SeewhyError, match=r"unknown model 'linear'"):
        open_run(tmp_path / "own")


def test_an_augmentation_of_ones_own(recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(batch: Batch, generator: torch.Generator) -> Batch:
        seen.append(len(batch.images))
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "spy", spy)
    fit(replace(recipe, augment=("spy",), epochs=1), data, quiet=True)
    assert seen == [40] * 6


def test_the_random_state_of_the_caller_is_left_as_it_was(recipe: Recipe, data: Dataset) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fit(replace(recipe, epochs=1), data, quiet=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_best_epoch_on_validation_is_kept_and_the_test_split_is_read_once(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = seewhy.fitting.predictions

    def counted(model: torch.nn.Module, split: object, *rest: object) -> object:
        calls.append(split)
        return original(model, split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(seewhy.fitting, "predictions", counted)
    # labels rotated by one: learning makes this validation split worse, so the first epoch is the best
    hostile = replace(data.test, labels=(data.test.labels + 1) % 3)
    slowly = replace(recipe, batch_size=240, epochs=8)
    run = fit(slowly, replace(data, validation=hostile), quiet=True)
    assert calls == [data.test]
    assert run.summary["selected_on"] == "validation"
    accuracies = [row.eval_accuracy for row in run.history]
    kept = (logits(run.model, hostile.images).argmax(1) == hostile.labels).float().mean().item()
    assert kept == pytest.approx(max(accuracies))  # type: ignore[type-var]
    assert kept > accuracies[-1]  # type: ignore[operator]


def test_a_directory_is_never_reused_silently(run: Run, recipe: Recipe, data: Dataset) -> None:
    before = {path: path.read_bytes() for path in directory_of(run).rglob("*") if path.is_file()}
    with pytest.raises(SeewhyError, match=r"exists already and nothing in it was touched; name another directory"):
        fit(recipe, data, run.directory, quiet=True)
    assert {path: path.read_bytes() for path in directory_of(run).rglob("*") if path.is_file()} == before


def test_a_recipe_that_does_not_fit_the_data_leaves_no_directory(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SeewhyError):
        fit(replace(recipe, model="vgg16"), data, tmp_path / "none", quiet=True)  # 8x8 is too small for it
    with pytest.raises(SeewhyError):
        fit(replace(recipe, augment=("crop:8",)), data, tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (RuntimeError("broken"), "failed")])
def test_what_was_written_stays_when_a_run_ends_early(
    error: BaseException, status: str, recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(batch: Batch, generator: torch.Generator) -> Batch:
        if batch.epoch == 2:
            raise error
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "late", late)
    with pytest.raises(type(error)):
        fit(replace(recipe, augment=("late",)), data, tmp_path / "early", quiet=True)
    assert json.loads((tmp_path / "early" / "status.json").read_text())["status"] == status
    assert len((tmp_path / "early" / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "early" / "model.safetensors").exists() == (status == "interrupted")
    tomllib.loads((tmp_path / "early" / "recipe.toml").read_text())


def test_new_directories_do_not_collide(tmp_path: Path) -> None:
    first = new_directory("a", tmp_path)
    first.mkdir()
    second = new_directory("a", tmp_path)
    assert second != first
    assert second.name.startswith(first.name[:9])


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def garble(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(b"\x00garbage")  # type: ignore[return-value]


def foreign(directory: Path) -> None:
    save_file({"weight": torch.zeros(3)}, directory / "model.safetensors")


def other_shape(directory: Path) -> None:
    about = json.dumps({"model": "speednet:width=0.25", "classes": ["a", "b", "c"], "image_shape": [3, 8, 8]})
    save_file({"linear.weight": torch.zeros(3, 7)}, directory / "model.safetensors", metadata={"seewhy": about})


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("recipe.toml"), r"is not a run directory \(it holds no recipe.toml\); runs are below runs/"),
        (remove("summary.json"), r"summary.json does not exist: the run has not finished"),
        (garble("summary.json"), r"summary.json is damaged"),
        (garble("metrics.jsonl"), r"metrics.jsonl is damaged"),
        (remove("model.safetensors"), r"model.safetensors does not exist"),
        (garble("model.safetensors"), r"model.safetensors is damaged or no safetensors file"),
        (truncate, r"model.safetensors is damaged or no safetensors file"),
        (foreign, r"does not say which network it is of"),
        (other_shape, r"does not fit the network 'speednet:width=0.25' that it names"),
    ],
)
def test_a_damaged_run_says_what_is_wrong(damage: Callable[[Path], None], message: str, run: Run) -> None:
    damage(directory_of(run))
    with pytest.raises(SeewhyError, match=message) as caught:
        open_run(directory_of(run))
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_none() -> None:
    with pytest.raises(SeewhyError, match=r"nowhere is not a run directory \(no such directory\)"):
        open_run("nowhere")
