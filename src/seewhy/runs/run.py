"""A run: a trained model with its history, and the directory that holds both."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.files import make_directory, unwritable
from seewhy.runs.weights import load_model
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe, restore_recipe

SCHEMA_VERSION = 1
RANGE_TEST = "range_test.json"
AUTOMATIC_NAME = re.compile(
    r"\d{8}-\d{4}-"
)  # how new_directory calls a run; `latest` links to such ones only


@dataclass(frozen=True)
class RunResult:
    """How a finished training turned out: what summary.json holds."""

    accuracy: float  # of the test split, in [0, 1], with the recipe's test-time augmentation
    plain_accuracy: float  # without
    interval: tuple[float, float]  # 95%
    images: int  # in the test split
    test_loss: float  # cross entropy in nats
    selected_on: str  # "last epoch", or "validation" where there was such a split
    selected_epoch: float
    epochs: float
    steps: int
    seconds: float  # of training, without evaluation
    images_per_second: float  # of training
    parameters: int
    optimizer_bytes: int  # that the optimizers remember from step to step, such as momentum


@dataclass(frozen=True, eq=False)
class Run:
    """A training: what was trained, how it went, and where it is written."""

    recipe: Recipe
    model: nn.Module  # in evaluation mode
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    history: tuple[EpochStats, ...]
    test: Predictions | None  # of the test split; None where the training did not come to its end
    result: RunResult | None  # None where the training did not come to its end
    setting: Mapping[
        str, Any
    ]  # what env.json holds: versions, hardware, device, precision, and the data under "data"
    directory: Path | None
    range_test: LRRangeTest | None = (
        None  # which found the learning rate, where the recipe did not give one
    )

    def __repr__(self) -> str:
        name = f"{self.recipe.name} on {self.setting['data']['name']}"
        if self.result is None:
            return f"Run({name}: ended after {len(self.history)} epochs, before it was finished)"
        low, high = self.result.interval
        return (
            f"Run({name}: {100 * self.result.accuracy:.2f}% [{100 * low:.2f}, {100 * high:.2f}] "
            f"of {self.result.images:,} test images, {self.result.seconds:.0f} s)"
        )


def new_directory(name: str, root: str | Path = "runs") -> Path:
    """Make an empty directory below `root`: date, time and name, with a number where two start in one minute."""
    stem = f"{datetime.now():%Y%m%d-%H%M}-{name}"
    for number in range(1, 10_000):
        path = Path(root) / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(path, error) from error
        return path
    raise SeewhyError(f"{root} already holds 10,000 runs of this minute; name a directory")


@contextmanager
def run_directory(name: str, output: Path | None = None) -> Iterator[Path]:
    """`output` if it is free, else a new directory; one that was made here and is empty at the end of the block goes again.

    So what could not even start leaves nothing behind.
    """
    if output is not None:
        check_empty(output)
        yield output
        return
    directory = new_directory(name)
    try:
        yield directory
    finally:
        for made in (directory, directory.parent):
            with suppress(OSError):
                made.rmdir()  # only an empty one goes


def check_empty(directory: Path) -> None:
    """Raise SeewhyError if there is anything at `directory`: a run directory is never reused silently."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SeewhyError(
            f"{directory} exists already and nothing in it was touched; name another directory, or remove it"
        )


class DirectoryLocked(SeewhyError):
    """Another process trains in that directory."""


@contextmanager
def lock_directory(directory: Path | None) -> Iterator[None]:
    """Inside the block no other process trains in `directory`; raises StillTraining where one does. Locks may be nested."""
    if directory is None:
        yield
        return
    directory = directory.resolve()
    make_directory(directory.parent)
    path = directory.with_name(f".{directory.name}.lock")
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DirectoryLocked(
            f"another process is still training {directory}; wait for it, or end it, and resume"
        ) from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()
        if not lock.is_locked:
            with suppress(OSError):
                path.unlink()


def open_run(directory: str | Path, device: str | torch.device = "cpu") -> Run:
    """Read a run back, its model on `device`; one that was interrupted has no result, but its weights serve all the same.

    Raises SeewhyError where something is missing or damaged.
    """
    directory = Path(directory)
    setting = read_setting(directory)
    model, about = load_model(directory / "model.safetensors", device)
    finished = (directory / "summary.json").exists()
    return Run(
        recipe=restore_recipe(directory / "recipe.toml"),
        model=model,
        classes=tuple(about["classes"]),
        image_shape=tuple(about["image_shape"]),
        history=read_history(directory),
        test=read_predictions(directory) if finished else None,
        result=read_result(directory) if finished else None,
        setting=setting,
        directory=directory,
        range_test=read_range_test(directory),
    )


def read_history(directory: Path) -> tuple[EpochStats, ...]:
    """The rows of metrics.jsonl."""
    with _reading(directory / "metrics.jsonl") as path:
        return tuple(
            EpochStats(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()
        )


def read_result(directory: Path) -> RunResult:
    """What summary.json of a finished run holds."""
    with _reading(directory / "summary.json") as path:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["interval"] = tuple(values["interval"])
        values.pop("schema_version")
        return RunResult(**values)


def read_predictions(directory: Path) -> Predictions:
    """What a finished run answered to the test split."""
    with _reading(directory / "predictions.npz") as path, np.load(path) as arrays:
        classes = tuple(arrays["classes"].tolist())
        return Predictions(
            torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["labels"]), classes
        )


def read_status(directory: Path) -> tuple[str, str]:
    """Status and detail of status.json: `running`, `finished`, `interrupted` or `failed`, and why; empty where there is none."""
    with _reading(directory / "status.json") as path:
        if not path.exists():
            return "", ""
        values = json.loads(path.read_text(encoding="utf-8"))
        return str(values["status"]), str(values["detail"])


def read_range_test(directory: Path) -> LRRangeTest | None:
    """The range test that found a run's learning rate, where there was one."""
    with _reading(directory / RANGE_TEST) as path:
        if not path.exists():
            return None
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values |= {name: tuple(values[name]) for name in ("rates", "losses", "smoothed")}
        return LRRangeTest(**values)


def read_setting(directory: Path) -> dict[str, Any]:
    """What env.json of a run says. Raises SeewhyError for a directory that is none."""
    if not (directory / "recipe.toml").is_file():
        found = "no such directory" if not directory.exists() else "it holds no recipe.toml"
        raise SeewhyError(
            f"{directory} is not a run directory ({found}); runs are below runs/, the newest is runs/latest"
        )
    with _reading(directory / "env.json") as path:
        setting = dict(json.loads(path.read_text(encoding="utf-8")))
        setting["data"]["load_args"], setting["data"]["fingerprint"], setting["precision"]
    return setting


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise SeewhyError(
            f"{path} is missing or damaged ({type(error).__name__}: {error}); restore it, or train again"
        ) from error
