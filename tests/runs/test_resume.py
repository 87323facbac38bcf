"""A training that stops anywhere and is resumed ends as the one that was not stopped, to the last bit."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS
from seewhy.runs.checkpoint import CheckpointPolicy, read_checkpoint
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit, resume
from seewhy.train.loop import EpochStats, train
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.schedules import SCHEDULES
from seewhy.train.state import TrainState, load_state_dict, new_state, state_dict

EVERY_STEP = CheckpointPolicy(checkpoint_seconds=0)


def begin(recipe: Recipe, data: Dataset) -> tuple[TrainState, TrainingPlan]:
    torch.manual_seed(recipe.seed)
    plan = make_plan(recipe, data, "cpu")
    return new_state(plan), plan


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, through lists, tuples and dicts."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what differs between two states, apart from times."""
    return [
        name
        for name in one
        if name not in ("seconds", "epoch_seconds") and not same(one[name], other[name])
    ]


def assert_resumes(recipe: Recipe, data: Dataset, stop: int, tmp_path: Path) -> None:
    """Train to the end; train to `stop`, through a file into a new state, and on; compare everything."""
    whole, plan = begin(recipe, data)
    list(train(whole, plan))
    expected = state_dict(whole)
    part, plan = begin(recipe, data)
    for event in train(part, plan):
        if getattr(event, "steps", None) and event.step == stop:
            break
    torch.save(state_dict(part), tmp_path / "state.pt")
    resumed, plan = begin(replace(recipe), data)
    torch.rand(3)  # whatever happens in between is forgotten
    load_state_dict(resumed, torch.load(tmp_path / "state.pt", weights_only=True))
    list(train(resumed, plan))
    assert resumed.step == whole.step
    assert differences(expected, state_dict(resumed)) == []


def with_dropout(num_classes: int, sample: Split) -> nn.Module:
    features = (
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    return nn.Sequential(
        *features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, num_classes)
    )


@pytest.fixture
def rich(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Shuffling, several augmentations that draw, dropout, averages: whatever has a state."""
    monkeypatch.setitem(MODELS, "with-dropout", with_dropout)
    return replace(
        recipe,
        model="with-dropout",
        epochs=2,
        lr=0.02,
        augment=("crop:1", "flip", "cutout:3", "mixup"),
        ema=0.9,
        lookahead=2,
        label_smoothing=0.1,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_resumes_in_the_middle_of_an_epoch(
    name: str, rich: Recipe, data: Dataset, tmp_path: Path
) -> None:
    assert_resumes(replace(rich, optimizer=name), data, 8, tmp_path)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_resumes(name: str, rich: Recipe, data: Dataset, tmp_path: Path) -> None:
    text = "plateau:patience=0,threshold=0.9" if name == "plateau" else name
    assert_resumes(
        replace(rich, epochs=3, schedule=text, momentum_schedule="dip"), data, 14, tmp_path
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16"},
        {"precision": "bf16"},
        {"accumulate": 4},
        {"freeze": ("3:1",)},
        {"resolution": "linear:warmup=0.6,start=0.5,end=1"},
        {"clip": 0.1, "l1": 1e-4, "class_weights": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", [1, 6, 9])
def test_whatever_else_has_a_state_resumes(
    changes: dict[str, Any], stop: int, rich: Recipe, data: Dataset, tmp_path: Path
) -> None:
    assert_resumes(replace(rich, **changes), data, stop, tmp_path)


class Stop(Exception):
    pass


def interrupted(
    recipe: Recipe, data: Dataset, directory: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A training whose process dies, as far as its directory can tell, in the middle of step `step`."""
    from seewhy.runs import training

    def dies(state: TrainState, *others: Any) -> Any:
        for event in train(state, *others):
            if state.step == step:
                raise Stop
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", dies)
        with pytest.raises(Stop):
            fit(recipe, data, directory, quiet=True, checkpoint=EVERY_STEP)


def without_times(run: Run) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in asdict(row).items() if k not in ("seconds", "images_per_second")}
        for row in run.history
    ]


def assert_same_run(one: Run, other: Run) -> None:
    assert same(one.model.state_dict(), other.model.state_dict())
    assert without_times(one) == without_times(other)
    assert one.predictions is not None
    assert other.predictions is not None
    assert torch.equal(one.predictions.logits, other.predictions.logits)


def test_resume_goes_on_in_the_same_directory(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(recipe, data, tmp_path / "whole", quiet=True)
    interrupted(recipe, data, tmp_path / "part", monkeypatch, step=15)
    before = torch.get_rng_state()
    run = resume(tmp_path / "part", data, quiet=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_run(run, whole)
    assert_same_run(open_run(tmp_path / "part"), whole)
    assert json.loads((tmp_path / "part" / "status.json").read_text())["status"] == "finished"
    (again,) = json.loads((tmp_path / "part" / "env.json").read_text())["resumed"]
    assert again["step"] == 14
    with pytest.raises(SeewhyError, match=r"has finished"):
        resume(tmp_path / "part", data)


def test_a_rate_that_was_found_is_not_looked_for_again(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives the recipe may give it as it was, with its rate open, or as it is in the directory."""
    open_one = replace(recipe, lr="find")
    whole = fit(open_one, data, quiet=True)
    interrupted(open_one, data, tmp_path / "part", monkeypatch, step=8)
    with pytest.raises(SeewhyError, match="the given recipe is not the one"):
        resume(tmp_path / "part", data, recipe=replace(open_one, batch_size=41))
    monkeypatch.setattr(
        "seewhy.runs.lr_search.find_lr",
        lambda *arguments, **named: pytest.fail("it was found before"),
    )
    for name, given in {"none": None, "open": open_one, "found": whole.recipe}.items():
        part = tmp_path / name
        shutil.copytree(tmp_path / "part", part)
        run = resume(part, data, quiet=True, recipe=given)
        assert_same_run(run, whole)
        assert run.recipe == whole.recipe
        assert run.range_test == open_run(part).range_test == whole.range_test is not None


@pytest.mark.parametrize("step", [8, 15, 21])
def test_the_best_epoch_survives(
    step: int, recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_validation = replace(data, validation=data.test)
    whole = fit(recipe, with_validation, quiet=True)
    interrupted(recipe, with_validation, tmp_path / "part", monkeypatch, step)
    run = resume(tmp_path / "part", with_validation, quiet=True)
    assert_same_run(run, whole)
    assert run.result is not None
    assert whole.result is not None
    assert run.result.selected_epoch == whole.result.selected_epoch


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: str,
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = fit(recipe, data, quiet=True)
    interrupted(recipe, data, tmp_path / "part", monkeypatch, step=15)
    last = tmp_path / "part" / "checkpoints" / "last.pt"
    content = last.read_bytes()
    last.unlink()  # previous.pt must not share its fate
    if damage == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        last.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    run = resume(tmp_path / "part", data, quiet=True)
    said = capsys.readouterr().err
    assert (last.parent / "last.damaged").exists() == (damage != "gone")
    assert re.search(
        r"last\.pt (is damaged|cannot be read).*resuming from previous\.pt instead", said
    )
    assert_same_run(run, whole)


def test_no_checkpoint_is_whole(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(recipe, data, tmp_path / "part", monkeypatch, step=15)
    for path in (tmp_path / "part" / "checkpoints").iterdir():
        path.unlink()
        path.write_bytes(b"short")
    with pytest.raises(
        SeewhyError,
        match=r"no checkpoint to resume from: .*last\.pt is damaged.*previous\.pt is damaged.*train again",
    ):
        resume(tmp_path / "part", data)


def test_other_data_another_recipe_and_no_run(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(recipe, data, tmp_path / "part", monkeypatch, step=3)
    with pytest.raises(SeewhyError, match="is not the data that was trained on"):
        resume(tmp_path / "part", replace(data, fingerprint="1" * 32))
    with pytest.raises(SeewhyError, match="the given recipe is not the one"):
        resume(tmp_path / "part", data, recipe=replace(recipe, lr=0.4))
    with pytest.raises(SeewhyError, match=r"was made in memory"):
        resume(tmp_path / "part")
    with pytest.raises(SeewhyError, match=r"is not a run directory"):
        resume(tmp_path)


def test_augmentations_that_are_python_need_the_recipe(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inverted(images: torch.Tensor) -> torch.Tensor:
        return 255 - images

    mine = replace(recipe, augment=("crop:1", inverted))
    interrupted(mine, data, tmp_path / "part", monkeypatch, step=3)
    with pytest.raises(SeewhyError, match=r"inverted>\); pass the recipe to resume\(\)"):
        resume(tmp_path / "part", data)
    assert_same_run(
        resume(tmp_path / "part", data, recipe=mine, quiet=True), fit(mine, data, quiet=True)
    )


def test_checkpoints_by_epoch_and_best(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    fit(
        recipe,
        replace(data, validation=data.test),
        tmp_path / "run",
        quiet=True,
        checkpoint=CheckpointPolicy(checkpoint_epochs=2),
    )
    directory = tmp_path / "run" / "checkpoints"
    assert {path.name for path in directory.iterdir()} == {
        "last.pt",
        "previous.pt",
        "best.pt",
        "epoch-0002.pt",
        "epoch-0004.pt",
    }
    assert read_checkpoint(directory / "epoch-0002.pt")["state"]["step"] == 12
    assert read_checkpoint(directory / "last.pt")["state"]["step"] == 24
    rows = read_checkpoint(directory / "best.pt")["history"]
    assert rows[-1]["eval_accuracy"] == max(row["eval_accuracy"] for row in rows)
    torch.load(
        directory / "last.pt", weights_only=True
    )  # the checksum behind it does not disturb torch


def test_killed_again_right_after_resuming_at_the_end_of_an_epoch(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the epoch that was over comes first, and must be in whatever is kept next."""
    whole = fit(recipe, data, quiet=True)
    from seewhy.runs import training

    def dies_before_the_row(state: TrainState, *others: Any) -> Any:
        for event in train(state, *others):
            if isinstance(event, EpochStats) and event.step == 12:
                raise Stop
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", dies_before_the_row)
        with pytest.raises(Stop):
            fit(recipe, data, tmp_path / "part", quiet=True, checkpoint=EVERY_STEP)
    kept = read_checkpoint(tmp_path / "part" / "checkpoints" / "last.pt")
    assert (kept["state"]["step"], len(kept["history"])) == (12, 1)

    def dies(state: TrainState, *others: Any) -> Any:
        yield from islice(train(state, *others), 2)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", dies)
        with pytest.raises(Stop):
            resume(
                tmp_path / "part",
                data,
                quiet=True,
                checkpoint=CheckpointPolicy(checkpoint_seconds=1e9),
            )
    assert_same_run(resume(tmp_path / "part", data, quiet=True), whole)


@pytest.mark.parametrize("damage", [b"short", None])
def test_a_best_checkpoint_that_is_lost_is_said(
    damage: bytes | None,
    recipe: Recipe,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_validation = replace(data, validation=data.test)
    interrupted(recipe, with_validation, tmp_path / "part", monkeypatch, step=9)
    best = tmp_path / "part" / "checkpoints" / "best.pt"
    best.unlink()
    if damage:
        best.write_bytes(damage)
    run = resume(tmp_path / "part", with_validation, quiet=True)
    assert re.search(
        r"best\.pt (is damaged|cannot be read).*the best of the remaining epochs is kept",
        capsys.readouterr().err,
    )
    assert run.result is not None
    assert run.result.selected_epoch > 1


def test_patience_goes_on_counting(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = replace(recipe, epochs=40, patience=3)
    with_validation = replace(data, validation=data.test)
    whole = fit(patient, with_validation, quiet=True)
    interrupted(
        patient, with_validation, tmp_path / "part", monkeypatch, step=whole.history[-1].step - 2
    )
    assert_same_run(resume(tmp_path / "part", with_validation, quiet=True), whole)


def test_a_recipe_file_that_was_changed(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(recipe, data, tmp_path / "part", monkeypatch, step=3)
    path = tmp_path / "part" / "recipe.toml"
    path.write_text(path.read_text().replace("lr = 0.5", "lr = 0.4"))
    with pytest.raises(SeewhyError, match=r"recipe\.toml has changed since the run started"):
        resume(tmp_path / "part", data)


@pytest.mark.parametrize("values", [(-1.0, 0), (float("nan"), 0), (60.0, -1)])
def test_how_often_is_not_negative(values: tuple[float, int]) -> None:
    with pytest.raises(SeewhyError, match=r"must be 0 or more"):
        CheckpointPolicy(*values)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "seewhy", "train", "--no-report", *arguments]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_killed_training_resumes_bit_for_bit(number: signal.Signals, tmp_path: Path) -> None:
    load("digits", quiet=True)
    options = (
        "demo",
        "--data",
        "digits",
        "--epochs",
        "6",
        "--precision",
        "fp32",
        "--checkpoint-seconds",
        "0.05",
        "--quiet",
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        command(*options, "--output", "whole"),
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    killed = subprocess.Popen(
        command(*options, "--output", "part"),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    metrics = tmp_path / "part" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while (
        killed.poll() is None
        and time.monotonic() < deadline
        and (not metrics.exists() or len(metrics.read_text()) < 500)
    ):
        pass
    killed.send_signal(number)
    said, _ = killed.communicate()
    if number != signal.SIGKILL:
        assert re.search(
            rb"Interrupted. Files written so far are kept. Resume with: seewhy resume part", said
        )
    assert killed.returncode == (-9 if number == signal.SIGKILL else 130)
    assert not (tmp_path / "part" / "summary.json").exists()
    step = read_checkpoint(tmp_path / "part" / "checkpoints" / "last.pt")["state"]["step"]
    assert 0 < step < 6 * 12
    subprocess.run(
        command("--resume", "part", "--quiet"),
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    assert_same_run(open_run(tmp_path / "part"), open_run(tmp_path / "whole"))


def test_a_training_that_ended_before_its_first_checkpoint_begins_again(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    whole = fit(recipe, data, tmp_path / "whole", quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints")
    (tmp_path / "part" / "summary.json").unlink()
    resumed = resume(tmp_path / "part", data, quiet=True)
    assert same(whole.model.state_dict(), resumed.model.state_dict())
    assert [row.step for row in resumed.history] == [row.step for row in whole.history]


def test_two_processes_do_not_train_in_one_directory(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    fit(recipe, data, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "checkpoints" / ".half.pt").write_text("the other one is writing this")
    (tmp_path / "link").symlink_to("run")
    with (
        FileLock(tmp_path / ".run.lock"),
        pytest.raises(SeewhyError, match=r"another process is still training .*run; wait for it"),
    ):
        resume(tmp_path / "link", data, quiet=True)
    assert (tmp_path / "run" / "checkpoints" / ".half.pt").exists()
    assert resume(tmp_path / "run", data, quiet=True).result is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "link",
        "run",
    ]  # no lock stays behind


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("augment = 5", "recipe field augment must be a list of strings or functions, found 5"),
        ("", "has changed since the run started"),
        ('epochs = "many"', "recipe field epochs must be of type float, found 'many'"),
    ],
)
def test_a_recipe_that_was_damaged_is_one_line(
    line: str, message: str, recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    fit(replace(recipe, augment=("flip",)), data, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "summary.json").unlink()
    path = tmp_path / "run" / "recipe.toml"
    field = line.partition(" ")[0] or "augment"
    lines = [line if old.startswith(field) else old for old in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    with pytest.raises(SeewhyError, match=message):
        resume(tmp_path / "run", data, quiet=True)
