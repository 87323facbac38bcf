"""Runs that were killed, that collide, or whose loss became NaN: nothing is lost, nothing stuck."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from torch import Tensor

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.files import remove_fragments
from seewhy.runs.directory import (
    ENVIRONMENT,
    STATUS,
    WEIGHTS,
    read_environment,
    read_recipe,
    read_status,
    write_status,
)
from seewhy.runs.output import DirectoryLocked, claim_directory, lock_directory
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import open_run
from seewhy.runs.training import fit, resume
from seewhy.train.loop import NonFiniteError
from seewhy.train.recipe import Recipe

DEAD = 99_999_999  # more than any process id


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_run_killed_at_any_rename_can_go_on(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either it can be resumed, or it has not started and its directory can be used again."""
    short, replace_file = replace(recipe, epochs=0.2), Path.replace
    outcomes = []
    for fatal in range(100):
        directory, renames = tmp_path / f"{fatal}" / "run", iter(range(fatal))
        if os.fork() == 0:  # in the child

            def die(path: Path, target: Path, renames: Any = renames) -> Path:
                if next(renames, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return replace_file(path, target)

            monkeypatch.setattr(Path, "replace", die)
            fit(short, data, directory, quiet=True)
            os._exit(0)
        if os.wait()[1] == 0:
            break
        try:
            resume(directory, data, quiet=True)
            outcomes.append("resumed")
        except SeewhyError as error:
            outcomes.append(str(error).removeprefix(f"{directory} ").partition(";")[0])
            if "start it again with its command" in str(error):
                fit(short, data, directory, quiet=True)
        assert read_status(directory).status == "finished"
        assert '"finished"' in (directory / STATUS).read_text()
        assert not [path for path in directory.rglob("*") if path.name.startswith(".")]
        assert [path.name for path in directory.parent.iterdir()] == ["run"]
    assert list(dict.fromkeys(outcomes)) == [
        "ended before its first step",
        "resumed",
        "has already finished",
    ]


@pytest.mark.train
def test_two_fits_into_one_directory(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first holds the lock while it searches a learning rate, before any file exists."""

    def range_test(*_: object, **__: object) -> Any:
        with pytest.raises(Timeout):  # as another process would
            FileLock(tmp_path / ".run.lock").acquire(timeout=0)
        raise SeewhyError("no learning rate")

    monkeypatch.setattr("seewhy.runs.lr_search.find_lr", range_test)
    with pytest.raises(SeewhyError, match="no learning rate"):
        fit(replace(recipe, lr="find"), data, tmp_path / "run", quiet=True)
    assert not list(tmp_path.iterdir())


def test_claim_directory_refuses_files_and_other_processes(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".run.lock"),
        pytest.raises(DirectoryLocked),
        claim_directory(tmp_path / "run"),
    ):
        pass
    with claim_directory(tmp_path / "run"), claim_directory(tmp_path / "run"):
        assert (tmp_path / ".run.lock").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(SeewhyError, match="is not empty"), claim_directory(tmp_path / "run"):
        pass


def test_claim_directory_keeps_a_recipe_of_the_user(tmp_path: Path) -> None:
    """Only env.json, which comes first, shows that a directory is one of a run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("lr = 0.1")
    with pytest.raises(SeewhyError, match="is not empty"), claim_directory(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "recipe.toml").exists()


def test_fragments_of_dead_processes_are_removed_under_the_lock(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    (directory / "checkpoints").mkdir(parents=True)
    dead = [directory / f".summary-{DEAD}.json", directory / "checkpoints" / f".last-{DEAD}.pt"]
    kept = [directory / f".report-{os.getppid()}.html", directory / ".hidden", directory / "a-1.pt"]
    for path in (*dead, *kept):
        path.touch()
    with ExitStack() as stack:
        stack.enter_context(lock_directory(directory))
    assert not [path for path in dead if path.exists()]
    assert all(path.exists() for path in kept)
    remove_fragments(tmp_path / "missing")


@pytest.mark.train
def test_a_finished_run_that_still_says_running_is_repaired(directory: Path, data: Dataset) -> None:
    write_status(directory, "running")
    assert read_status(directory).status == "finished"
    with pytest.raises(SeewhyError, match="has already finished"):
        resume(directory, data)
    assert '"finished"' in (directory / STATUS).read_text()


@pytest.mark.train
def test_a_finished_run_that_cannot_be_written_says_that_it_has_finished(
    directory: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise SeewhyError("status.json could not be written (Read-only file system)")

    monkeypatch.setattr("seewhy.runs.resumption.write_status", refuse)
    with pytest.raises(SeewhyError, match="has already finished"):
        resume(directory, data)


@pytest.fixture
def nan_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`nan_at(step)` makes the input of the model NaN in that step, and so BatchNorm's statistics.

    Steps count from 1 and from the call; 0 is none.
    """

    def set_step(step: int) -> None:
        steps = iter(range(1, 10_000))

        def spoil(images: Tensor, factor: float) -> Tensor:
            return images.float() * (float("nan") if next(steps) == step else 1.0)

        monkeypatch.setattr("seewhy.train.loop.resize_images", spoil)

    return set_step


@pytest.mark.train
def test_weights_before_nan_are_kept_and_a_smaller_rate_goes_on(
    recipe: Recipe, data: Dataset, tmp_path: Path, nan_at: Callable[[int], None]
) -> None:
    directory = tmp_path / "run"
    nan_at(15)
    with pytest.raises(NonFiniteError, match=rf"`seewhy resume {directory} --lr 0\.05`"):
        fit(recipe, data, directory, quiet=True)
    run = open_run(directory)
    weights = run.model.state_dict()
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert evaluate(run, data).accuracy == pytest.approx(run.history[-1].eval_accuracy)
    nan_at(0)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(SeewhyError, match="lr must be"):
            resume(directory, data, quiet=True, lr=bad)
    resumed = resume(directory, data, quiet=True, lr=0.05)
    assert resumed.recipe.lr == read_recipe(directory).lr == 0.05
    assert max(row.lr for row in resumed.history[2:]) <= 0.05
    environment, _ = read_environment(directory)
    assert [each.lr for each in environment.resumed] == [0.05]


@pytest.mark.train
def test_a_run_with_another_rate_can_be_interrupted_before_its_next_checkpoint(
    recipe: Recipe, data: Dataset, tmp_path: Path, nan_at: Callable[[int], None]
) -> None:
    """The recipe has the new rate then, and the checkpoint the old one."""
    nan_at(15)
    with pytest.raises(NonFiniteError):
        fit(recipe, data, tmp_path / "run", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seewhy.runs.recorder.Recorder.checkpoint", lambda *_: None)
        nan_at(3)
        with pytest.raises(NonFiniteError):
            resume(tmp_path / "run", data, quiet=True, lr=0.05)
    nan_at(0)
    assert resume(tmp_path / "run", data, quiet=True).recipe.lr == 0.05


@pytest.mark.train
def test_weights_are_readable_as_the_other_files_are(directory: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in directory.iterdir() if path.is_file()}
    assert (directory / WEIGHTS).stat().st_mode & 0o777 == 0o644
    assert (directory / ENVIRONMENT).exists()
    assert modes == {0o644}
