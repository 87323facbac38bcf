"""`fit`, the run directory it writes, and reading that back."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import seewhy.runs.training
from seewhy.data.augment import AUGMENTATIONS, Batch
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.models.inference import compute_logits
from seewhy.models.registry import MODELS, build_model
from seewhy.runs.directory import new_directory
from seewhy.runs.lr_search import find_lr
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe, from_dict, to_toml
from seewhy.train.recipes import read_recipe
from seewhy.train.state import new_state


@pytest.fixture
def run(recipe: Recipe, data: Dataset, tmp_path: Path) -> Run:
    return fit(recipe, data, tmp_path / "runs" / "first", quiet=True)


def accuracy_of(run: Run) -> float:
    assert run.result is not None
    return run.result.accuracy


def directory_of(run: Run) -> Path:
    assert run.directory is not None
    return run.directory


def test_without_a_directory_nothing_is_written(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fit(recipe, data, quiet=True)
    assert run.directory is None
    assert accuracy_of(run) > 0.95
    assert not list(tmp_path.iterdir())
    assert repr(run).startswith("Run(tiny on bars: ")


def test_the_directory_holds_what_it_should(run: Run, recipe: Recipe, data: Dataset) -> None:
    directory = directory_of(run)
    assert read_recipe(directory / "recipe.toml") == recipe
    assert json.loads((directory / "status.json").read_text())["status"] == "finished"
    rows = [
        EpochStats(**json.loads(line))
        for line in (directory / "metrics.jsonl").read_text().splitlines()
    ]
    assert tuple(rows) == run.history
    environment = json.loads((directory / "env.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["data"]["fingerprint"] == data.fingerprint
    assert environment["data"]["images"] == {"train": 240, "test": 60}
    assert environment["processor"]
    assert environment["threads"] == torch.get_num_threads()
    assert (environment["device"], environment["precision"]) == ("cpu", "fp32")
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["schema_version"] == 1
    assert summary["interval"][0] < summary["accuracy"] <= summary["interval"][1]
    for name in ("curves.svg", "curves.png"):
        assert (directory / "figures" / name).stat().st_size > 1000
    card = (directory / "README.md").read_text()
    for words in (
        "# tiny on bars",
        f"**{100 * accuracy_of(run):.2f}%** of 60 test images",
        "upright, level, slanting",
        to_toml(recipe),
    ):
        assert words in card
    assert (directory / "command.txt").read_text() == "Python\n"


def test_predictions_and_tables_agree_with_the_model(run: Run, data: Dataset) -> None:
    directory = directory_of(run)
    expected = compute_logits(run.model, data.test.images).numpy()
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


def test_every_error_is_listed_the_most_confident_first(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    run = fit(replace(recipe, epochs=0.5), data, tmp_path / "weak", quiet=True)
    with (directory_of(run) / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert run.predictions is not None
    wrong = (run.predictions.predicted != data.test.labels).nonzero().flatten().tolist()
    assert len(rows) == len(wrong) > 0
    assert {row["name"] for row in rows} == {data.test.names[index] for index in wrong}
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    for row in rows:
        index = list(data.test.names).index(row["name"])
        assert row["true"] == data.classes[data.test.labels[index]] != row["predicted"]
        assert float(row["loss"]) == pytest.approx(run.predictions.losses[index].item(), abs=1e-4)


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
    assert opened.result == run.result
    assert (opened.environment, opened.data) == (run.environment, run.data)
    assert opened.predictions is not None
    assert run.predictions is not None
    assert torch.equal(opened.predictions.logits, run.predictions.logits)
    torch.testing.assert_close(
        compute_logits(opened.model, data.test.images),
        compute_logits(run.model, data.test.images),
        rtol=0,
        atol=0,
    )


def test_a_model_of_ones_own_is_trained_and_opened(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def linear(num_classes: int, sample: object, scale: float = 1.0) -> torch.nn.Module:
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
        torch.nn.init.constant_(net[1].bias, scale)
        return net

    monkeypatch.setitem(MODELS, "linear", linear)
    fit(
        replace(recipe, model="linear:scale=3", lr=0.01, epochs=1),
        data,
        tmp_path / "own",
        quiet=True,
    )
    assert open_run(tmp_path / "own").model[1].bias.mean().item() == pytest.approx(3, abs=0.5)  # type: ignore[index]
    monkeypatch.delitem(MODELS, "linear")
    with pytest.raises(SeewhyError, match=r"unknown model 'linear'"):
        open_run(tmp_path / "own")


def test_opening_needs_the_model_only(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    def invert(images: torch.Tensor) -> torch.Tensor:
        return 255 - images

    run = fit(
        replace(recipe, augment=("crop:1", invert), epochs=1), data, tmp_path / "own", quiet=True
    )
    opened = open_run(tmp_path / "own")
    assert opened.recipe.augment[0] == "crop:1"
    torch.testing.assert_close(
        compute_logits(opened.model, data.test.images),
        compute_logits(run.model, data.test.images),
        rtol=0,
        atol=0,
    )


def test_an_augmentation_of_ones_own(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    original = seewhy.runs.training.predict_split

    def counted(model: torch.nn.Module, split: object, *rest: object) -> object:
        calls.append(split)
        return original(model, split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(seewhy.runs.training, "predict_split", counted)
    # labels rotated by one: learning makes this validation split worse, so the first epoch is the best
    hostile = replace(data.test, labels=(data.test.labels + 1) % 3)
    slowly = replace(recipe, batch_size=240, epochs=8)
    run = fit(slowly, replace(data, validation=hostile), quiet=True)
    assert calls == [data.test]
    assert run.result is not None
    assert run.result.selected_on == "validation"
    accuracies = [row.eval_accuracy for row in run.history]
    assert run.result.selected_epoch == accuracies.index(max(accuracies)) + 1  # type: ignore[type-var]
    kept = (
        (compute_logits(run.model, hostile.images).argmax(1) == hostile.labels)
        .float()
        .mean()
        .item()
    )
    assert kept == pytest.approx(max(accuracies))  # type: ignore[type-var]
    assert kept > accuracies[-1]  # type: ignore[operator]


def test_a_directory_is_never_reused_silently(run: Run, recipe: Recipe, data: Dataset) -> None:
    before = {path: path.read_bytes() for path in directory_of(run).rglob("*") if path.is_file()}
    with pytest.raises(
        SeewhyError,
        match=r"exists and is not empty \(nothing was changed\); name another directory",
    ):
        fit(recipe, data, run.directory, quiet=True)
    assert {
        path: path.read_bytes() for path in directory_of(run).rglob("*") if path.is_file()
    } == before


def test_a_recipe_that_does_not_fit_the_data_leaves_no_directory(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SeewhyError):
        fit(
            replace(recipe, model="vgg16"), data, tmp_path / "none", quiet=True
        )  # 8x8 is too small for it
    with pytest.raises(SeewhyError):
        fit(replace(recipe, augment=("crop:8",)), data, tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def failing_in_epoch(
    number: int, error: BaseException
) -> Callable[[Batch, torch.Generator], Batch]:
    def late(batch: Batch, generator: torch.Generator) -> Batch:
        if batch.epoch == number:
            raise error
        return batch

    return late


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (RuntimeError("broken"), "failed")]
)
def test_what_was_written_stays_when_a_run_ends_early(
    error: BaseException,
    status: str,
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "late", failing_in_epoch(2, error))
    with pytest.raises(type(error)):
        fit(replace(recipe, augment=("late",)), data, tmp_path / "early", quiet=True)
    assert json.loads((tmp_path / "early" / "status.json").read_text())["status"] == status
    assert len((tmp_path / "early" / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "early" / "model.safetensors").exists() == (status == "interrupted")


def test_an_interrupted_run_can_be_used(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "late", failing_in_epoch(3, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fit(replace(recipe, augment=("crop:1", "late")), data, tmp_path / "early", quiet=True)
    run = open_run(tmp_path / "early")
    assert (run.result, run.predictions) == (None, None)
    assert len(run.history) == 3
    assert evaluate(run, data).accuracy == pytest.approx(run.history[-1].eval_accuracy)
    assert repr(run) == "Run(tiny on bars: not finished, 3 epochs)"


def test_a_run_that_fails_after_training_keeps_its_weights(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(seewhy.runs.training, "write_result", broken)
    with pytest.raises(ZeroDivisionError):
        fit(recipe, data, tmp_path / "late", quiet=True)
    assert json.loads((tmp_path / "late" / "status.json").read_text())["status"] == "failed"
    assert evaluate(open_run(tmp_path / "late"), data).accuracy > 0.95


def test_tied_weights_are_written(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tied(num_classes: int, sample: object) -> torch.nn.Module:
        net = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(192, 192),
            torch.nn.Linear(192, 192),
            torch.nn.Linear(192, num_classes),
        )
        net[2].weight = net[1].weight
        return net

    monkeypatch.setitem(MODELS, "tied", tied)
    run = fit(
        replace(recipe, model="tied", lr=0.001, epochs=1), data, tmp_path / "tied", quiet=True
    )
    torch.testing.assert_close(
        compute_logits(open_run(tmp_path / "tied").model, data.test.images),
        compute_logits(run.model, data.test.images),
        rtol=0,
        atol=0,
    )


FILE_LIMIT = """
import resource, sys
from dataclasses import replace
import seewhy
from seewhy.cli import main as cli
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(cli.main(["train", "demo", "--data", "digits", "--epochs", "0.2", "--output", "full", "--quiet", "--no-report"]))
"""


@pytest.mark.slow
def test_a_file_that_the_system_refuses_to_write_is_one_line(tmp_path: Path) -> None:
    """A checkpoint exceeds a limit on file sizes."""
    load("digits", quiet=True)  # into the cache, before files are limited
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "seewhy: full/checkpoints/last.pt could not be written"
    )
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "full" / "status.json").read_text())["status"] == "failed"
    assert not [path for path in (tmp_path / "full").iterdir() if path.name.startswith(".")]


def test_data_made_by_hand_is_checked(recipe: Recipe, data: Dataset) -> None:
    wrong = replace(data, train=replace(data.train, labels=data.train.labels + 1))
    with pytest.raises(SeewhyError, match=r"labels of the train split are out of range 0 to 2"):
        fit(recipe, wrong, quiet=True)


def test_a_rate_that_is_to_be_found_is_found_first(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    """The run is, bit for bit, that of the recipe with the number; the range test is kept beside it."""
    expected = find_lr(recipe, data)
    found = fit(replace(recipe, lr="find", epochs=2), data, tmp_path / "found", quiet=True)
    assert found.recipe == replace(recipe, lr=expected.suggestion, epochs=2)
    assert read_recipe(tmp_path / "found" / "recipe.toml") == found.recipe
    assert found.range_test == expected
    assert json.loads((tmp_path / "found" / "lr_range_test.json").read_text())["losses"] == list(
        expected.losses
    )
    for name in ("lr_range_test.svg", "lr_range_test.png"):
        assert (tmp_path / "found" / "figures" / name).stat().st_size > 1000
    opened = open_run(tmp_path / "found")
    assert opened.range_test == expected
    assert opened.recipe.lr == expected.suggestion

    given = fit(found.recipe, data, tmp_path / "given", quiet=True)
    for tensor, same in zip(
        found.model.state_dict().values(), given.model.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, same)
    assert found.predictions is not None
    assert given.predictions is not None
    assert torch.equal(found.predictions.logits, given.predictions.logits)
    assert [row.train_loss for row in found.history] == [row.train_loss for row in given.history]
    assert given.range_test is None
    assert open_run(tmp_path / "given").range_test is None
    assert not (tmp_path / "given" / "lr_range_test.json").exists()


def test_what_is_found_is_said(
    recipe: Recipe, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(replace(recipe, lr="find", epochs=0.5), data)
    assert run.range_test is not None
    assert (
        f"lr {run.recipe.lr:.3g}, by a range test of {len(run.range_test.rates)} updates"
        in capsys.readouterr().err
    )


def test_where_no_rate_is_found_nothing_is_written(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    def stuck(batch: Batch, generator: torch.Generator) -> Batch:
        return replace(batch, labels=batch.labels * float("nan"))

    with pytest.raises(SeewhyError, match=r"begin lower than"):
        fit(replace(recipe, lr="find", augment=(stuck,)), data, tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def test_a_directory_that_is_taken_is_said_before_a_rate_is_looked_for(
    run: Run, recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        seewhy.runs.training, "find_lr", lambda *arguments, **named: pytest.fail("this takes long")
    )
    with pytest.raises(SeewhyError, match="exists and is not empty"):
        fit(replace(recipe, lr="find"), data, run.directory, quiet=True)


def test_a_recipe_may_leave_its_rate_open(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    open_one = replace(recipe, lr="find")
    (tmp_path / "open.toml").write_text(to_toml(open_one))
    assert 'lr = "find"' in (tmp_path / "open.toml").read_text()
    assert read_recipe(tmp_path / "open.toml") == open_one
    assert from_dict({"lr": "find"}).lr == "find"
    with pytest.raises(
        SeewhyError, match=r"recipe field lr must be a number, or find, found 'search'"
    ):
        replace(recipe, lr="search")
    with pytest.raises(
        SeewhyError,
        match=r"lr is still to be found; `fit` does so itself, and find_lr\(recipe, data\)",
    ):
        new_state(build_model(recipe.model, 3, data.train), open_one)


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


def test_latest_links_to_automatic_names_only(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    short = replace(recipe, epochs=1)
    first = new_directory("a", tmp_path)
    fit(short, data, first, quiet=True)
    assert (tmp_path / "latest").resolve() == first.resolve()
    fit(short, data, tmp_path / "named", quiet=True)
    assert (tmp_path / "latest").resolve() == first.resolve()
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("named")  # the user's own link
    fit(short, data, new_directory("b", tmp_path), quiet=True)
    assert (tmp_path / "latest").readlink() == Path("named")


def test_new_directories_do_not_collide(tmp_path: Path) -> None:
    first = new_directory("a", tmp_path)
    second = new_directory("a", tmp_path)
    assert second != first
    assert second.name.startswith(first.name[:9])


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def garble(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(b"\x00garbage")  # type: ignore[return-value]


def rewrite(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(text)  # type: ignore[return-value]


def foreign(directory: Path) -> None:
    save_file({"weight": torch.zeros(3)}, directory / "model.safetensors")


def other_shape(directory: Path) -> None:
    about = json.dumps(
        {"model": "speednet:width=0.25", "classes": ["a", "b", "c"], "image_shape": [3, 8, 8]}
    )
    save_file(
        {"linear.weight": torch.zeros(3, 7)},
        directory / "model.safetensors",
        metadata={"seewhy": about},
    )


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            remove("recipe.toml"),
            r"is not a run directory \(it holds no recipe.toml\); runs are below runs/",
        ),
        (garble("summary.json"), r"summary.json is missing or damaged"),
        (rewrite("summary.json", "[1]"), r"summary.json is missing or damaged"),
        (rewrite("summary.json", "{}"), r"summary.json is missing or damaged"),
        (rewrite("env.json", "{}"), r"env.json is missing or damaged"),
        (garble("metrics.jsonl"), r"metrics.jsonl is missing or damaged"),
        (garble("predictions.npz"), r"predictions.npz is missing or damaged"),
        (remove("model.safetensors"), r"model.safetensors does not exist"),
        (garble("model.safetensors"), r"model.safetensors is damaged or no safetensors file"),
        (truncate, r"model.safetensors is damaged or no safetensors file"),
        (foreign, r"does not say which network it is of"),
        (other_shape, r"does not fit the network 'speednet:width=0.25' that it names"),
    ],
)
def test_a_damaged_run_says_what_is_wrong(
    damage: Callable[[Path], None], message: str, run: Run
) -> None:
    damage(directory_of(run))
    with pytest.raises(SeewhyError, match=message) as caught:
        open_run(directory_of(run))
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_none() -> None:
    with pytest.raises(SeewhyError, match=r"nowhere is not a run directory \(no such directory\)"):
        open_run("nowhere")


def test_patience_needs_evaluations(recipe: Recipe, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match="patience 2 needs evaluations, but eval_every is 0"):
        fit(
            replace(recipe, patience=2, eval_every=0),
            replace(data, validation=data.test),
            quiet=True,
        )
