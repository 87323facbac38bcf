"""A run that stops anywhere and is resumed ends as without the stop, to the last bit."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from seewhy.data.dataset import Dataset
from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.runs import training
from seewhy.runs.checkpoint import CheckpointPolicy, load_checkpoint
from seewhy.runs.directory import read_environment, read_status
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit, resume
from seewhy.train.loop import EpochStats, train
from seewhy.train.plan import TrainingPlan
from seewhy.train.recipe import Recipe
from seewhy.train.state import TrainState

EVERY_STEP = CheckpointPolicy(checkpoint_seconds=0)

pytestmark = pytest.mark.usefixtures("blank_figures")


class Stop(Exception):
    """Stands for the death of the process."""


Train = Callable[[TrainState, TrainingPlan], Iterator[Any]]


@contextmanager
def dying(stopping_train: Train) -> Iterator[None]:
    """Within the block `train` is replaced by one that raises Stop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", stopping_train)
        with pytest.raises(Stop):
            yield


def stop_at(step: int) -> Train:
    """A `train` that stops in the middle of a step."""

    def stopping(state: TrainState, plan: TrainingPlan) -> Iterator[Any]:
        for event in train(state, plan):
            if state.step == step:
                raise Stop
            yield event

    return stopping


def fit_until(step: int, recipe: Recipe, data: Dataset, directory: Path) -> Path:
    """The directory of a run whose process died in the middle of a step."""
    with dying(stop_at(step)):
        fit(recipe, data, directory, quiet=True, checkpoint=EVERY_STEP)
    return directory


def assert_same_run(one: Run, other: Run) -> None:
    weights, other_weights = (run.model.state_dict() for run in (one, other))
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    histories = [
        [replace(row, seconds=0.0, images_per_second=0.0) for row in run.history]
        for run in (one, other)
    ]
    assert histories[0] == histories[1]
    assert one.predictions is not None
    assert other.predictions is not None
    assert torch.equal(one.predictions.logits, other.predictions.logits)
    assert one.result is not None
    assert other.result is not None
    assert one.result.selected_epoch == other.result.selected_epoch


@pytest.fixture(scope="session")
def interrupted(recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `run` if its process had died at step 15 of 24; not to be changed."""
    return fit_until(15, recipe, data, tmp_path_factory.mktemp("runs") / "interrupted")


@pytest.fixture
def part(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of `interrupted`."""
    return shutil.copytree(interrupted, tmp_path / "part")


@pytest.fixture(scope="session")
def with_validation(data: Dataset) -> Dataset:
    return replace(data, validation=data.test)


@pytest.fixture(scope="session")
def validated_run(recipe: Recipe, with_validation: Dataset) -> Run:
    return fit(recipe, with_validation, quiet=True)


@pytest.mark.train
def test_resume_continues_in_the_directory(run: Run, part: Path, data: Dataset) -> None:
    before = torch.get_rng_state()
    resumed = resume(part, data, quiet=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_run(resumed, run)
    assert_same_run(open_run(part), run)
    assert read_status(part).status == "finished"
    environment, _ = read_environment(part)
    assert environment == resumed.environment
    assert [resumption.step for resumption in environment.resumed] == [14]
    with pytest.raises(SeewhyError, match="has already finished"):
        resume(part, data)


@pytest.mark.slow
@pytest.mark.train
def test_resume_keeps_the_learning_rate_that_was_found(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe may be passed with `lr="find"`, as it was started, or with the number."""
    monkeypatch.setattr("seewhy.runs.directory.write_figure", lambda *_: None)
    unresolved = replace(recipe, lr="find", epochs=2)
    whole = fit(unresolved, data, quiet=True)
    part = fit_until(8, unresolved, data, tmp_path / "part")
    with pytest.raises(SeewhyError, match="the given recipe is not the one"):
        resume(part, data, recipe=replace(unresolved, batch_size=41))
    monkeypatch.setattr(
        "seewhy.runs.lr_search.find_lr", lambda *_, **__: pytest.fail("searched again")
    )
    for name, given in {"none": None, "find": unresolved, "number": whole.recipe}.items():
        copy = shutil.copytree(part, tmp_path / name)
        resumed = resume(copy, data, quiet=True, recipe=given)
        assert_same_run(resumed, whole)
        assert resumed.recipe == whole.recipe
        assert resumed.range_test == open_run(copy).range_test == whole.range_test is not None


@pytest.mark.train
@pytest.mark.parametrize("step", [8, 15, 21])
def test_resume_keeps_the_best_epoch(
    step: int, validated_run: Run, recipe: Recipe, with_validation: Dataset, tmp_path: Path
) -> None:
    part = fit_until(step, recipe, with_validation, tmp_path / "part")
    assert_same_run(resume(part, with_validation, quiet=True), validated_run)


@pytest.mark.train
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_resume_uses_the_previous_checkpoint_if_the_last_is_damaged(
    damage: str, run: Run, part: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    last = part / "checkpoints" / "last.pt"
    content = last.read_bytes()
    last.unlink()  # previous.pt may be a link to it
    if damage == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        last.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    resumed = resume(part, data, quiet=True)
    assert (last.parent / "last.damaged").exists() == (damage != "gone")
    report = r"last\.pt (is damaged|cannot be read).*resuming from previous\.pt"
    assert re.search(report, capsys.readouterr().err)
    assert_same_run(resumed, run)


@pytest.mark.train
@pytest.mark.parametrize("damage", [b"short", None], ids=["damaged", "missing"])
def test_resume_reports_a_lost_best_checkpoint(
    damage: bytes | None,
    recipe: Recipe,
    with_validation: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    part = fit_until(9, recipe, with_validation, tmp_path / "part")
    best = part / "checkpoints" / "best.pt"
    best.unlink()
    if damage:
        best.write_bytes(damage)
    resumed = resume(part, with_validation, quiet=True)
    report = r"best\.pt (is damaged|cannot be read).*keeping the best of the remaining epochs"
    assert re.search(report, capsys.readouterr().err)
    assert resumed.result is not None
    assert resumed.result.selected_epoch > 1


@pytest.mark.train
def test_resume_needs_a_whole_checkpoint(part: Path, data: Dataset) -> None:
    for path in (part / "checkpoints").iterdir():
        path.unlink()
        path.write_bytes(b"short")
    message = r"no checkpoint to resume from: .*last\.pt is damaged.*previous\.pt is damaged"
    with pytest.raises(SeewhyError, match=message):
        resume(part, data)


@pytest.mark.train
def test_resume_rejects_other_data_or_another_recipe(
    part: Path, recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SeewhyError, match="is not the data of the run"):
        resume(part, replace(data, fingerprint="1" * 32))
    with pytest.raises(SeewhyError, match="the given recipe is not the one"):
        resume(part, data, recipe=replace(recipe, lr=0.4))
    with pytest.raises(SeewhyError, match="was made in memory"):
        resume(part)
    with pytest.raises(SeewhyError, match="is not a run directory"):
        resume(tmp_path)


@pytest.mark.train
@pytest.mark.parametrize(
    ("field", "line", "message"),
    [
        ("lr", "lr = 0.4", r"recipe\.toml has changed since the run started"),
        ("augment", "", r"recipe\.toml has changed since the run started"),
        ("augment", "augment = 5", "recipe field augment must be a list of strings or functions"),
        ("epochs", 'epochs = "many"', "recipe field epochs must be of type float, found 'many'"),
    ],
)
def test_resume_rejects_a_changed_recipe_file(
    field: str, line: str, message: str, part: Path, data: Dataset
) -> None:
    path = part / "recipe.toml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line if old.startswith(f"{field} =") else old for old in lines))
    with pytest.raises(SeewhyError, match=message):
        resume(part, data, quiet=True)


@pytest.mark.train
def test_resume_needs_the_recipe_if_augmentations_are_functions(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    def invert(images: torch.Tensor) -> torch.Tensor:
        return 255 - images

    mine = replace(recipe, augment=("crop:1", invert), epochs=2)
    part = fit_until(3, mine, data, tmp_path / "part")
    with pytest.raises(SeewhyError, match=r"invert>\); pass the recipe to resume\(\)"):
        resume(part, data)
    assert_same_run(resume(part, data, recipe=mine, quiet=True), fit(mine, data, quiet=True))


@pytest.mark.train
def test_checkpoints_by_epoch_and_of_the_best(
    recipe: Recipe, with_validation: Dataset, tmp_path: Path
) -> None:
    policy = CheckpointPolicy(checkpoint_epochs=2)
    fit(recipe, with_validation, tmp_path / "run", quiet=True, checkpoint=policy)
    directory = tmp_path / "run" / "checkpoints"
    names = {path.name for path in directory.iterdir()}
    assert names == {"last.pt", "previous.pt", "best.pt", "epoch-0002.pt", "epoch-0004.pt"}
    assert load_checkpoint(directory / "epoch-0002.pt")["state"]["step"] == 12
    assert load_checkpoint(directory / "last.pt")["state"]["step"] == 24
    rows = load_checkpoint(directory / "best.pt")["history"]
    assert rows[-1]["eval_accuracy"] == max(row["eval_accuracy"] for row in rows)
    # torch ignores the checksum at the end
    torch.load(directory / "last.pt", weights_only=True)


@pytest.mark.train
def test_resume_after_dying_twice_at_the_end_of_an_epoch(
    run: Run, recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    """The row of the finished epoch comes first, and must be in the next checkpoint."""

    def stop_before_the_row(state: TrainState, plan: TrainingPlan) -> Iterator[Any]:
        for event in train(state, plan):
            if isinstance(event, EpochStats) and event.step == 12:
                raise Stop
            yield event

    def stop_after_two_events(state: TrainState, plan: TrainingPlan) -> Iterator[Any]:
        yield from islice(train(state, plan), 2)
        raise Stop

    part = tmp_path / "part"
    with dying(stop_before_the_row):
        fit(recipe, data, part, quiet=True, checkpoint=EVERY_STEP)
    checkpoint = load_checkpoint(part / "checkpoints" / "last.pt")
    assert (checkpoint["state"]["step"], len(checkpoint["history"])) == (12, 1)
    with dying(stop_after_two_events):
        resume(part, data, quiet=True, checkpoint=CheckpointPolicy(checkpoint_seconds=1e9))
    assert_same_run(resume(part, data, quiet=True), run)


@pytest.mark.train
def test_resume_continues_to_count_patience(
    recipe: Recipe, with_validation: Dataset, tmp_path: Path
) -> None:
    patient = replace(recipe, epochs=40, patience=3)
    whole = fit(patient, with_validation, quiet=True)
    part = fit_until(whole.history[-1].step - 2, patient, with_validation, tmp_path / "part")
    assert_same_run(resume(part, with_validation, quiet=True), whole)


@pytest.mark.train
def test_resume_starts_again_without_a_checkpoint(
    run: Run, recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = fit_until(4, recipe, data, tmp_path / "part")
    shutil.rmtree(part / "checkpoints")
    assert_same_run(resume(part, data, quiet=True), run)
    assert "part has no checkpoint, so training starts again from the" in capsys.readouterr().err


@pytest.mark.train
def test_resume_refuses_epochs_without_checkpoints(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    """To start again would overwrite their metrics and weights."""
    part = fit_until(14, recipe, data, tmp_path / "part")
    metrics = (part / "metrics.jsonl").read_text()
    shutil.rmtree(part / "checkpoints")
    with pytest.raises(SeewhyError, match=r"part has 2 epochs, but checkpoints/ holds no .* of th"):
        resume(part, data, quiet=True)
    assert (part / "metrics.jsonl").read_text() == metrics


@pytest.mark.train
def test_resume_keeps_the_checkpoint_policy(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    policy = CheckpointPolicy(checkpoint_epochs=2)
    for name, given in (("kept", None), ("changed", CheckpointPolicy(checkpoint_epochs=3))):
        with dying(stop_at(8)):
            fit(recipe, data, tmp_path / name, quiet=True, checkpoint=policy)
        resume(tmp_path / name, data, quiet=True, checkpoint=given)
    assert [len(list((tmp_path / name).rglob("epoch-*.pt"))) for name in ("kept", "changed")] == [
        2,
        1,
    ]
    assert (tmp_path / "changed" / "checkpoints" / "epoch-0003.pt").exists()


@pytest.mark.train
def test_resume_locks_the_directory(part: Path, data: Dataset, tmp_path: Path) -> None:
    fragment = part / "checkpoints" / ".half-99999999.pt"
    fragment.write_text("another process is writing this")
    (tmp_path / "link").symlink_to("part")
    with (
        FileLock(tmp_path / ".part.lock"),
        pytest.raises(SeewhyError, match=r"another process is writing to .*part; wait for it"),
    ):
        resume(tmp_path / "link", data, quiet=True)
    assert fragment.exists()
    assert resume(part, data, quiet=True).result is not None
    assert not fragment.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "part"]


@pytest.mark.parametrize("values", [(-1.0, 0), (float("nan"), 0), (60.0, -1)])
def test_checkpoint_policy_rejects_negative_numbers(values: tuple[float, int]) -> None:
    with pytest.raises(SeewhyError, match="must be 0 or more"):
        CheckpointPolicy(*values)


# Signals

COMMAND_LINES = """
import os, signal, sys
# SIGINT is ignored in what nohup or a script's & starts, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
from seewhy.cli.main import main
from seewhy.data.augment import AUGMENTATIONS
from seewhy.runs import training

training.write_figure = lambda figure, stem: None  # drawing takes longer than training
signals = [int(number) for number in os.environ["SIGNALS"].split()]

def interrupt(batch, generator):
    if batch.epoch == 2 and signals:
        os.kill(os.getpid(), signals.pop())
    return batch

AUGMENTATIONS["interrupt"] = interrupt
for line in sys.stdin.read().splitlines():
    code = main([*line.split(), "--no-report", "--quiet"])
    print("exit code", code, file=sys.stderr, flush=True)
"""


def run_seewhy(
    *lines: str, directory: Path, signals: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run commands in a process that sends itself each of `signals` in a third epoch."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND_LINES],
        input="\n".join(lines),
        cwd=directory,
        env=os.environ | {"OMP_NUM_THREADS": "1", "SIGNALS": signals},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_run_resumes_to_the_last_bit(tmp_path: Path) -> None:
    load("digits", quiet=True)
    options = (
        "--data digits --limit 300 --model speednet:width=0.125 --epochs 4 --batch-size 50 "
        "--augment crop:1 interrupt --precision fp32 --checkpoint-seconds 0.05"
    )
    names = ("SIGTERM", "SIGINT", "SIGKILL")  # the last one ends the process
    completed = run_seewhy(
        *(f"train demo {options} --output {name}" for name in names),
        directory=tmp_path,
        signals=f"{signal.SIGKILL:d} {signal.SIGINT:d} {signal.SIGTERM:d}",
    )
    assert completed.returncode == -signal.SIGKILL, completed.stderr
    kept = "Files written so far are kept. Resume with: seewhy resume"
    assert re.findall(f"{kept} \\w+|exit code .*", completed.stderr) == [
        f"{kept} SIGTERM",
        "exit code 143",
        f"{kept} SIGINT",
        "exit code 130",
    ]
    for name in names:
        assert not (tmp_path / name / "summary.json").exists()
        checkpoint = load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")
        assert 0 < checkpoint["state"]["step"] <= 2 * 6 + 1
    completed = run_seewhy(
        f"train demo {options} --output whole",
        *(f"resume {name}" for name in names),
        directory=tmp_path,
    )
    assert re.findall("exit code .*", completed.stderr) == ["exit code 0"] * 4, completed.stderr
    whole = open_run(tmp_path / "whole")
    for name in names:
        assert_same_run(open_run(tmp_path / name), whole)


def stop_before_the_evaluation(state: TrainState, plan: TrainingPlan) -> Iterator[Any]:
    for event in train(state, plan):
        if isinstance(event, EpochStats):
            raise Stop
        yield event


@pytest.mark.train
def test_resume_after_the_probe(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are in the cache or not: the result is the same."""
    recipe = replace(recipe, epochs=1, probe="logistic:c=0.5", ema=0.9)
    whole = fit(recipe, data, quiet=True)
    for stop in (0, 3):
        path = tmp_path / str(stop)
        with dying(stop_at(stop) if stop else stop_before_the_evaluation):
            fit(recipe, data, path, quiet=True, checkpoint=EVERY_STEP)
        monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "empty" / str(stop)))
        resumed = resume(path, data, quiet=True)
        assert_same_run(resumed, whole)
        assert resumed.probe is not None
        assert whole.probe is not None
        assert resumed.probe.c == whole.probe.c
