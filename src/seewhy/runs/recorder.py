"""What a training leaves behind: the files of a run directory, written as it goes on."""

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.predictions import Predictions, confusion_matrix, most_confident_errors
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.figures.style import save_figure
from seewhy.files import csv_text, make_directory, unwritable, write_atomically, write_text
from seewhy.runs.checkpoint import CheckpointPolicy, write_checkpoint
from seewhy.runs.environment import environment
from seewhy.runs.run import AUTOMATIC_NAME, RANGE_TEST, SCHEMA_VERSION, RunResult
from seewhy.runs.weights import save_model
from seewhy.train.averaging import Weights
from seewhy.train.loop import EpochStats, Event
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe, as_dict, to_toml
from seewhy.train.state import TrainState, state_dict
from seewhy.train.world import World


@dataclass(frozen=True, eq=False)
class ResumeState:
    """What is there before a training begins or goes on."""

    history: Sequence[EpochStats] = ()
    best: Weights | None = None  # of the best epoch, where one is selected
    range_test: LRRangeTest | None = None  # which found the learning rate


class Recorder:
    """Keeps the history and, with a validation split, the weights of the best epoch; writes both if there is a directory.

    Used as a context: what ends it early is said in status.json, and an interruption still leaves weights. Checkpoints are
    written after the first event, every so many seconds, at each new best epoch, and when asked.
    """

    def __init__(
        self,
        directory: Path | None,
        state: TrainState,
        data: Dataset,
        setting: Mapping[str, Any],
        checkpoint: CheckpointPolicy,
        world: World,
        before: ResumeState,
    ) -> None:
        self.directory, self.state, self.data, self.setting = directory, state, data, setting
        self.policy, self.world = checkpoint, world
        self.history, self.best, self.range_test = (
            list(before.history),
            before.best,
            before.range_test,
        )
        self.best_row = None if self.best is None else best_of(self.history)
        self.board: SummaryWriter | None = None
        self.written = -math.inf  # the first event is kept at once

    def __enter__(self) -> Self:
        if self.directory is not None:
            make_directory(self.directory)
            write_start(self.directory, self.state.recipe, self.setting, self.history)
            if self.range_test is not None:
                write_range_test(self.directory, self.range_test)
            purge = self.history[-1].step + 1 if self.history else None
            try:
                self.board = SummaryWriter(self.directory / "tensorboard", purge_step=purge)
            except OSError as error:
                write_status(self.directory, "failed", str(error))
                raise unwritable(self.directory / "tensorboard", error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.board is not None:
            _attempt(self.board.close)
        if self.directory is None:
            return
        if error is None:
            write_status(self.directory, "finished")
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted and self.history:
            self.keep_weights()
        write_status(
            self.directory,
            "interrupted" if interrupted else "failed",
            f"{type(error).__name__}: {error}",
        )

    def record(self, event: Event) -> None:
        """Take note of a step or an epoch that has ended."""
        ended = isinstance(event, EpochStats)
        names = self._epoch(event) if isinstance(event, EpochStats) else []
        due = time.monotonic() - self.written >= self.policy.checkpoint_seconds
        if names or (
            due and (ended or self.world.size == 1)
        ):  # in the middle of an epoch processes hold parts of the state
            self.checkpoint(*names)

    def checkpoint(self, *also: str) -> None:
        """Write a checkpoint, under the names `also` too; none of a state that is not finite, whose failure is still to show."""
        if self.directory is None or not self.state.totals.sound():
            return
        content = {
            "state": state_dict(self.state),
            "history": [asdict(row) for row in self.history],
            "recipe": as_dict(self.state.recipe),
        }
        write_checkpoint(self.directory / "checkpoints", content, also)
        self.written = time.monotonic()

    def keep_weights(self) -> None:
        """Give the model the weights of its best epoch where one was selected, else the averaged ones, and write them."""
        model, weights = self.state.model, self.best or self.state.averaged
        if weights is not None:
            model.load_state_dict(weights)
        if self.directory is not None:
            name, shape = self.state.recipe.model, self.data.image_shape
            save_model(self.directory / "model.safetensors", model, name, self.data.classes, shape)

    def stale(self) -> int:
        """How many evaluations there have been since the best epoch."""
        rows = [row for row in self.history if row.eval_accuracy is not None]
        return len(rows) - 1 - rows.index(self.best_row) if self.best_row in rows else 0

    def _epoch(self, row: EpochStats) -> list[str]:
        """Add a row, and return the names that a checkpoint of this moment deserves."""
        self.history.append(row)
        names = []
        if (
            self.data.validation is not None
            and best_of([*filter(None, [self.best_row]), row]) is row
        ):
            self.best_row = row
            weights = self.state.averaged or self.state.model.state_dict()
            self.best = {name: tensor.detach().clone() for name, tensor in weights.items()}
            names.append("best.pt")
        if self.policy.checkpoint_epochs and self.state.epoch % self.policy.checkpoint_epochs == 0:
            names.append(f"epoch-{self.state.epoch:04}.pt")
        if self.directory is not None:
            append_metrics(self.directory, row)
            _attempt(lambda: self._plot(row))
        return names

    def _plot(self, row: EpochStats) -> None:
        for name, value in asdict(row).items():
            if self.board is not None and value is not None and name not in ("step", "epoch"):
                self.board.add_scalar(name.replace("_", "/", 1), value, row.step)


def best_of(history: Sequence[EpochStats]) -> EpochStats | None:
    """The first row of the highest evaluated accuracy."""
    evaluated = [row for row in history if row.eval_accuracy is not None]
    return max(evaluated, key=lambda row: row.eval_accuracy or 0.0, default=None)


def describe_setting(data: Dataset, device: torch.device, precision: str) -> dict[str, Any]:
    """What a run was trained on and with, as plain values."""
    about = {
        "name": data.name,
        "load_args": dict(data.load_args),
        "fingerprint": data.fingerprint,
        "classes": list(data.classes),
        "image_shape": list(data.image_shape),
        "images": {name: len(split) for name, split in data.splits.items()},
        "skipped": list(data.skipped),
    }
    return environment(device, precision) | {"data": about}


def write_start(
    directory: Path, recipe: Recipe, setting: Mapping[str, Any], history: Sequence[EpochStats]
) -> None:
    """Write what is known before training goes on; `latest` beside the directory then points to it."""
    write_text(directory / "recipe.toml", to_toml(recipe))
    command = directory / "command.txt"
    if not command.exists():  # a training that is resumed keeps the command that began it
        write_text(
            command,
            shlex.join(["seewhy", *sys.argv[1:]]) + "\n" if _from_command_line() else "Python\n",
        )
    write_text(
        directory / "metrics.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in history)
    )
    write_json(directory / "env.json", setting)
    write_status(directory, "running")
    _point_latest(directory)


def write_range_test(directory: Path, found: LRRangeTest) -> None:
    """Write the range test that found the learning rate, and its figure."""
    write_json(directory / RANGE_TEST, asdict(found))
    save_figure(lr_finder_figure(found), directory / "figures" / "range_test")


def append_metrics(directory: Path, row: EpochStats) -> None:
    """Add one epoch to metrics.jsonl."""
    try:
        with (directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
    except OSError as error:
        raise unwritable(directory / "metrics.jsonl", error) from error


def write_status(directory: Path, status: str, detail: str = "") -> None:
    """Say in status.json whether the run is `running`, `finished`, `interrupted` or `failed`."""
    write_json(
        directory / "status.json",
        {"status": status, "detail": detail, "time": datetime.now().isoformat("T", "seconds")},
    )


def write_result(
    directory: Path, result: RunResult, test: Predictions, names: Sequence[str]
) -> None:
    """Write what is known after training, besides the weights: predictions, errors, confusion, and last the summary."""
    arrays = {
        "logits": test.logits.numpy(),
        "labels": test.labels.numpy(),
        "classes": np.array(test.classes),
    }
    write_atomically(directory / "predictions.npz", lambda path: _save_arrays(path, arrays))
    write_errors(directory / "errors.csv", test, names)
    rows = [
        [name, *row]
        for name, row in zip(test.classes, confusion_matrix(test).tolist(), strict=True)
    ]
    write_csv(directory / "confusion.csv", ["true \\ predicted", *test.classes], rows)
    write_json(directory / "summary.json", {"schema_version": SCHEMA_VERSION, **asdict(result)})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table atomically."""
    write_text(path, csv_text(header, rows), newline="")


def write_errors(path: Path, test: Predictions, names: Sequence[str]) -> None:
    """Every misclassified image, the most confident first."""
    rows = [
        [
            names[index],
            test.classes[test.labels[index]],
            test.classes[test.predicted[index]],
            f"{test.confidence[index]:.6f}",
            f"{test.losses[index]:.6f}",
        ]
        for index in most_confident_errors(test).tolist()
    ]
    write_csv(path, ["name", "true", "predicted", "confidence", "loss"], rows)


def _attempt(plot: Callable[[], object]) -> None:
    """TensorBoard is a view of metrics.jsonl: if its files cannot be written, that costs nobody a training."""
    try:
        plot()
    except OSError as error:
        print(
            f"seewhy: TensorBoard's files could not be written ({error}); metrics.jsonl has the same numbers",
            file=sys.stderr,
        )


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a file, because savez would append .npz to a path
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _from_command_line() -> bool:
    program = Path(sys.argv[0])
    return program.name == "seewhy" or program.parts[-2:] == ("seewhy", "__main__.py")


def _point_latest(directory: Path) -> None:
    """Let `latest` beside a run with an automatic name point to it, where the file system has links."""
    latest, temporary = directory.parent / "latest", directory.parent / f".latest-{os.getpid()}"
    ours = not latest.exists() or (
        latest.is_symlink() and AUTOMATIC_NAME.match(latest.readlink().name)
    )
    if not (AUTOMATIC_NAME.match(directory.name) and ours):
        return
    try:
        temporary.symlink_to(directory.name)
        temporary.replace(latest)
    except OSError:
        temporary.unlink(missing_ok=True)
