"""`fit`: what it trains, keeps and writes, and how it ends early."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy.runs.training
from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.models.inference import compute_logits
from seewhy.models.registry import MODELS
from seewhy.runs.directory import read_status
from seewhy.runs.environment import WeightsFile
from seewhy.runs.lr_search import find_lr
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit, resume
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe, from_dict, to_toml
from seewhy.train.recipes import find_recipe
from seewhy.train.state import new_state

pytestmark = pytest.mark.train


def test_fit_without_a_directory_writes_nothing(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(recipe, data, quiet=True)
    assert run.directory is None
    assert run.result is not None
    assert run.result.accuracy > 0.95
    assert not list(tmp_path.iterdir())


def test_fit_uses_augmentations_of_ones_own_and_restores_the_random_state(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_sizes = []

    def spy(batch: Batch, generator: torch.Generator) -> Batch:
        batch_sizes.append(len(batch.images))
        torch.rand(1)
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "spy", spy)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fit(replace(recipe, augment=("spy",), epochs=1), data, quiet=True)
    assert batch_sizes == [40] * 6
    assert torch.equal(torch.get_rng_state(), before)


def test_fit_keeps_the_best_epoch_and_reads_the_test_split_once(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted = []

    def spy(classifier: Any, images: Tensor, **settings: Any) -> Tensor:
        predicted.append(images)
        return compute_logits(classifier, images, **settings)

    monkeypatch.setattr("seewhy.runs.final_predictions.compute_logits", spy)
    # labels rotated by one: learning lowers this accuracy, so the first epoch is the best
    hostile = replace(data.test, labels=(data.test.labels + 1) % 3)
    slow_recipe = replace(recipe, batch_size=240, epochs=8)
    run = fit(slow_recipe, replace(data, validation=hostile), quiet=True)
    (images,) = predicted
    assert torch.equal(images, data.test.images)
    assert run.result is not None
    assert run.result.selected_on == "validation"
    accuracies = [row.eval_accuracy or 0.0 for row in run.history]
    assert run.result.selected_epoch == accuracies.index(max(accuracies)) + 1
    correct = compute_logits(run.model, hostile.images).argmax(1) == hostile.labels
    accuracy = correct.float().mean().item()
    assert accuracy == pytest.approx(max(accuracies))
    assert accuracy > accuracies[-1]


def test_fit_never_reuses_a_directory(
    directory: Path, recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is checked before a learning rate is searched, which takes long."""
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", lambda *_, **__: pytest.fail("too late"))
    for lr in (0.1, "find"):
        with pytest.raises(SeewhyError, match="is not empty; nothing was written"):
            fit(replace(recipe, lr=lr), data, directory, quiet=True)  # type: ignore[arg-type]
    after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("changes", [{"model": "vgg16"}, {"augment": ("crop:8",)}], ids=str)
def test_a_recipe_that_does_not_fit_the_data_leaves_no_directory(
    changes: dict[str, Any], recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    """Images of 8x8 are too small for either."""
    with pytest.raises(SeewhyError):
        fit(replace(recipe, **changes), data, tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def raise_in_epoch(epoch: int, error: BaseException) -> Callable[[Batch, torch.Generator], Batch]:
    """An augmentation that raises `error` in an epoch."""

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        if batch.epoch == epoch:
            raise error
        return batch

    return augment


def test_an_interrupted_run_can_be_used(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "late", raise_in_epoch(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fit(replace(recipe, augment=("late",)), data, tmp_path / "run", quiet=True)
    assert read_status(tmp_path / "run").status == "interrupted"
    run = open_run(tmp_path / "run")
    assert (run.result, run.predictions, len(run.history)) == (None, None, 2)
    assert evaluate(run, data).accuracy == pytest.approx(run.history[-1].eval_accuracy)


def test_a_failed_run_keeps_its_history(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "late", raise_in_epoch(2, RuntimeError("broken")))
    with pytest.raises(RuntimeError):
        fit(replace(recipe, augment=("late",)), data, tmp_path / "run", quiet=True)
    assert read_status(tmp_path / "run") == ("failed", "RuntimeError: broken")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_that_fails_after_training_keeps_its_weights(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(seewhy.runs.training, "write_result", fail)
    with pytest.raises(ZeroDivisionError):
        fit(recipe, data, tmp_path / "run", quiet=True)
    assert read_status(tmp_path / "run").status == "failed"
    assert evaluate(open_run(tmp_path / "run"), data).accuracy > 0.95


FILE_LIMIT = """
import resource, sys
from seewhy.cli import main as cli
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
options = "demo --data digits --epochs 0.2 --output full --quiet --no-report"
sys.exit(cli.main(["train", *options.split()]))
"""


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A checkpoint exceeds a limit on file sizes."""
    load("digits", quiet=True)  # into the cache, before files are limited
    completed = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    last_line = completed.stderr.splitlines()[-1]
    assert last_line.startswith("seewhy: full/checkpoints/last.pt could not be written")
    assert "Traceback" not in completed.stderr
    assert read_status(tmp_path / "full").status == "failed"
    assert not [path for path in (tmp_path / "full").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_fit_finds_a_learning_rate_first(
    recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is, to the last bit, that of the recipe with the learning rate that is found."""
    test = find_lr(recipe, data)
    found = fit(replace(recipe, lr="find", epochs=2), data, tmp_path / "found")
    line = f"lr {test.suggestion:.3g}, by a range test of {len(test.lrs)} updates"
    assert line in capsys.readouterr().err
    assert found.recipe == replace(recipe, lr=test.suggestion, epochs=2)
    assert find_recipe(tmp_path / "found" / "recipe.toml") == found.recipe
    opened = open_run(tmp_path / "found")
    assert opened.range_test == found.range_test == test
    assert opened.recipe.lr == test.suggestion
    assert (tmp_path / "found" / "figures" / "lr_range_test.svg").stat().st_size > 1000

    given = fit(found.recipe, data, tmp_path / "given", quiet=True)
    states = [run.model.state_dict().values() for run in (found, given)]
    assert all(map(torch.equal, *states))
    assert [row.train_loss for row in found.history] == [row.train_loss for row in given.history]
    assert given.range_test is None
    assert open_run(tmp_path / "given").range_test is None
    assert not (tmp_path / "given" / "lr_range_test.json").exists()


def test_nothing_is_written_if_no_learning_rate_is_found(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    def spoil(batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, labels=batch.labels * float("nan"))

    with pytest.raises(SeewhyError, match="start below"):
        fit(replace(recipe, lr="find", augment=(spoil,)), data, tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def test_a_recipe_may_leave_its_rate_open(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    open_one = replace(recipe, lr="find")
    (tmp_path / "open.toml").write_text(to_toml(open_one))
    assert 'lr = "find"' in (tmp_path / "open.toml").read_text()
    assert find_recipe(tmp_path / "open.toml") == open_one
    assert from_dict({"lr": "find"}).lr == "find"
    with pytest.raises(
        SeewhyError, match=r"recipe field lr must be a number, or find, found 'search'"
    ):
        replace(recipe, lr="search")
    with pytest.raises(
        SeewhyError,
        match=r"lr is 'find', which only fit\(\) resolves; set a number, such as find_lr",
    ):
        new_state(make_plan(open_one, data, "cpu"))


@pytest.mark.parametrize(("optimizer", "of_each"), [("sgd", 0), ("momentum", 4), ("adadelta", 8)])
def test_what_the_optimizer_remembers_is_in_the_summary(
    optimizer: str, of_each: int, recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    run = fit(replace(recipe, optimizer=optimizer, epochs=0.5), data, tmp_path / "run", quiet=True)
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    steps = 4 * len(trained) if optimizer == "adadelta" else 0  # each parameter's own count
    expected = of_each * sum(map(torch.numel, trained)) + steps
    assert run.result is not None
    assert run.result.optimizer_bytes == expected
    assert (
        json.loads((tmp_path / "run" / "summary.json").read_text())["optimizer_bytes"] == expected
    )


def wrong_labels(data: Dataset) -> Dataset:
    return replace(data, train=replace(data.train, labels=data.train.labels + 1))


def with_validation(data: Dataset) -> Dataset:
    return replace(data, validation=data.test)


@pytest.mark.parametrize(
    ("changes", "change_data", "message"),
    [
        ({}, wrong_labels, "labels of the train split are out of range 0 to 2"),
        (
            {"patience": 2, "eval_every": 0},
            with_validation,
            "needs evaluations, but eval_every is 0",
        ),
        ({"patience": 2}, replace, "patience 2 needs a validation split"),
    ],
    ids=["labels", "no evaluation", "no validation split"],
)
def test_fit_rejects(
    changes: dict[str, Any],
    change_data: Callable[[Dataset], Dataset],
    message: str,
    recipe: Recipe,
    data: Dataset,
) -> None:
    with pytest.raises(SeewhyError, match=message):
        fit(replace(recipe, **changes), change_data(data), quiet=True)


class NanInEvaluation(nn.Module):
    """Logits that are finite in training, and not in evaluation from its `first` one on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        self.first, self.evaluations = first, 0

    def forward(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.net(pixels)
        if self.training:
            return outputs
        self.evaluations += len(pixels) > 2  # not those that estimate memory or choose batches
        return outputs * (float("nan") if self.evaluations >= self.first else 1.0)


@pytest.mark.parametrize("first", [1, 3], ids=["evaluation after an epoch", "result"])
def test_nan_in_evaluation_fails_the_run(
    first: int, recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs have an evaluation each, then comes the result."""
    monkeypatch.setitem(MODELS, "nan", lambda num_classes, sample: NanInEvaluation(first))
    message = (
        r"not in the evaluation after epoch 1\.00: .*precision fp32, or try an lr below 0\.5"
        if first == 1
        else "the logits of 60 of 60 images are not finite"
    )
    with pytest.raises(SeewhyError, match=message):
        fit(replace(recipe, model="nan", epochs=2), data, tmp_path / "run", quiet=True)
    assert '"failed"' in (tmp_path / "run" / "status.json").read_text()
    written = [path for path in (tmp_path / "run").rglob("*.json*") if path.is_file()]
    assert len(written) >= 3
    assert not any("NaN" in path.read_text() for path in written)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_fit_begins_with_the_weights_of_a_file(
    run: Run, recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a learning rate of almost 0, the accuracy is that of the weights; they are recorded."""
    assert run.directory is not None
    file = tmp_path / "weights.safetensors"
    shutil.copy(run.directory / "model.safetensors", file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    spec = f"{recipe.model},weights={file}"
    still = replace(recipe, model=spec, epochs=1, lr=1e-12)
    again = fit(still, data, tmp_path / "run")
    assert again.result is not None
    assert run.result is not None
    assert again.result.accuracy == run.result.accuracy
    assert again.environment.weights == WeightsFile(str(file), digest)
    assert "weights.safetensors:" not in capsys.readouterr().err
    # the labels of fewer classes: a new head
    two = replace(data, classes=data.classes[:2])
    two = replace(
        two,
        train=data.train.take((data.train.labels < 2).nonzero()[:, 0]),
        test=data.test.take((data.test.labels < 2).nonzero()[:, 0]),
    )
    fit(still, two)
    error = capsys.readouterr().err
    remark = "weights.safetensors: a head for 3 classes; the one for 2 classes is new\n"
    assert error.count(remark) == 1
    shutil.copytree(tmp_path / "run", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints")
    (tmp_path / "part" / "summary.json").unlink()
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(
        SeewhyError, match=r"weights\.safetensors has changed since the run started"
    ):
        resume(tmp_path / "part", data, quiet=True)
    file.unlink()
    opened = open_run(tmp_path / "run")
    assert opened.environment == again.environment
    assert digest in (tmp_path / "run" / "README.md").read_text()
    with pytest.raises(SeewhyError, match=r"weights\.safetensors does not exist"):
        fit(still, data, tmp_path / "other")
    assert not (tmp_path / "other").exists()
