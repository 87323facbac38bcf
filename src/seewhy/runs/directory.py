"""The files of a run directory: for each its name, its writer and its reader."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seewhy.data.dataset import DataOrigin
from seewhy.diagnosis.predictions import (
    AnyPredictions,
    MultiLabelPredictions,
    Predictions,
    confusion_matrix,
    most_confident_errors,
)
from seewhy.errors import SeewhyError, describe_value
from seewhy.escaping import csv_text, json_text
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.figures.style import write_figure
from seewhy.files import write_error, write_text
from seewhy.progress import note
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.runs.environment import Environment
from seewhy.runs.result import RunResult
from seewhy.serialization import from_plain, reading, write_arrays
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.probe import ProbeStats
from seewhy.train.recipe import Recipe, as_dict, from_dict, read_toml, to_toml

SCHEMA_VERSION = 1  # of summary.json

RECIPE = "recipe.toml"
COMMAND = "command.txt"
ENVIRONMENT = "env.json"
STATUS = "status.json"
HISTORY = "metrics.jsonl"
LR_RANGE_TEST = "lr_range_test.json"
PROBE = "probe.json"
CHECKPOINTS = "checkpoints"  # a directory, see checkpoint.py
WEIGHTS = "model.safetensors"  # see weights.py
PREDICTIONS = "predictions.npz"
DIAGNOSIS = "diagnosis.npz"
ERRORS = "errors.csv"
CONFUSION = "confusion.csv"
SUMMARY = "summary.json"  # written last: the run has finished
MODEL_CARD = "README.md"
FIGURES = "figures"
TENSORBOARD = "tensorboard"
FOLDS = "folds"  # run directories 1, 2, … of a cross-validation

# env.json comes first and status.json last: what lies between may be written again
WRITTEN_FIRST = (ENVIRONMENT, RECIPE, COMMAND, HISTORY, LR_RANGE_TEST, FIGURES)


# The directory as a whole


def check_run_directory(directory: Path) -> None:
    """Raise SeewhyError if `directory` is not a run directory."""
    if not (directory / RECIPE).is_file():
        reason = f"it contains no {RECIPE}"
        if not directory.exists():
            reason = "no such directory"
        elif directory.is_file():
            reason = "it is a file"
        raise SeewhyError(
            f"{directory} is not a run directory ({reason}); "
            "runs are below runs/, the newest is runs/latest"
        )


def has_started(directory: Path) -> bool:
    """Whether everything that precedes the first step was written."""
    return (directory / STATUS).exists()


def has_finished(directory: Path) -> bool:
    """Whether the run has a result."""
    return (directory / SUMMARY).exists()


# recipe.toml


def write_recipe(directory: Path, recipe: Recipe) -> None:
    """Write recipe.toml."""
    write_text(directory / RECIPE, to_toml(recipe))


def read_recipe(directory: Path) -> Recipe:
    """The recipe as written; its names may be unknown in this process.

    Settings of another version of seewhy are named and ignored.
    """
    with _reading(directory / RECIPE) as path:
        values = read_toml(path)
        if "model" not in values:
            raise ValueError("it has no model")
        unknown = [name for name in values if name not in as_dict(Recipe())]
        if unknown:
            note(f"seewhy: {path} has settings that are ignored: {', '.join(unknown)}")
        return from_dict({name: values[name] for name in values if name not in unknown})


# command.txt: the command that started the run


def write_command(directory: Path) -> None:
    """Write the command line of this process, unless a resumed run already has one."""
    path = directory / COMMAND
    if path.exists():
        return
    program = Path(sys.argv[0])
    is_cli = program.name == "seewhy" or program.parts[-2:] == ("seewhy", "__main__.py")
    write_text(path, f"{shlex.join(['seewhy', *sys.argv[1:]])}\n" if is_cli else "Python\n")


def read_command(directory: Path) -> list[str]:
    """The words of the command; empty if the file is missing."""
    with _reading(directory / COMMAND) as path:
        return shlex.split(path.read_text(encoding="utf-8")) if path.exists() else []


# env.json: the environment, the data under "data", and the policy under "checkpoint"


def write_environment(
    directory: Path, environment: Environment, data: DataOrigin, policy: CheckpointPolicy
) -> None:
    """Write env.json."""
    values = {"data": asdict(data), "checkpoint": asdict(policy)}
    _write_json(directory / ENVIRONMENT, asdict(environment) | values)


def read_environment(directory: Path) -> tuple[Environment, DataOrigin]:
    """The environment and the data of a run. Raises SeewhyError if it is not a run directory."""
    check_run_directory(directory)
    with _reading(directory / ENVIRONMENT) as path:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data = from_plain(DataOrigin, values.pop("data"))
        values.pop("checkpoint", None)
        return from_plain(Environment, values), data


def read_checkpoint_policy(directory: Path) -> CheckpointPolicy:
    """When the run writes checkpoints."""
    with _reading(directory / ENVIRONMENT) as path:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return from_plain(CheckpointPolicy, values.get("checkpoint", {}))


# status.json


class RunStatus(NamedTuple):
    """Status of a run."""

    status: str  # "running", "finished", "interrupted", "failed", or "" if it has not started
    detail: str  # why it was interrupted or failed


def write_status(directory: Path, status: str, detail: str = "") -> None:
    """Write status.json; for the values see `RunStatus`."""
    time = datetime.now().isoformat("T", "seconds")
    _write_json(directory / STATUS, {"status": status, "detail": detail, "time": time})


def read_status(directory: Path) -> RunStatus:
    """Status of a run; empty if it has not started."""
    if has_finished(directory):  # it may have been killed before it said so in status.json
        return RunStatus("finished", "")
    with _reading(directory / STATUS) as path:
        if not path.exists():
            return RunStatus("", "")
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunStatus(str(values["status"]), str(values["detail"]))


# metrics.jsonl: a row per epoch


def write_history(directory: Path, history: Sequence[EpochStats]) -> None:
    """Write all rows."""
    write_text(directory / HISTORY, "".join(map(_json_line, history)))


def append_epoch(directory: Path, row: EpochStats) -> None:
    """Add a row to the history."""
    try:
        with (directory / HISTORY).open("a", encoding="utf-8") as file:
            file.write(_json_line(row))
    except OSError as error:
        raise write_error(directory / HISTORY, error) from error


def read_history(directory: Path) -> tuple[EpochStats, ...]:
    """The rows, in the order of epochs."""
    with _reading(directory / HISTORY) as path:
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines and has_finished(directory):
            raise ValueError("it has no epochs")
        return tuple(from_plain(EpochStats, json.loads(line)) for line in lines)


def _json_line(row: EpochStats) -> str:
    return json.dumps(asdict(row), allow_nan=False) + "\n"


# lr_range_test.json: the range test that chose the learning rate, if any


def write_lr_range_test(directory: Path, test: LRRangeTest) -> None:
    """Write the range test and its figure."""
    _write_json(directory / LR_RANGE_TEST, asdict(test))
    write_figure(lr_finder_figure(test), directory / FIGURES / "lr_range_test.svg")


def read_lr_range_test(directory: Path) -> LRRangeTest | None:
    """The range test; None if there was none."""
    with _reading(directory / LR_RANGE_TEST) as path:
        if not path.exists():
            return None
        test = from_plain(LRRangeTest, json.loads(path.read_text(encoding="utf-8")))
        if not 0 < len(test.lrs) == len(test.losses) == len(test.smoothed):
            raise ValueError("the learning rates and losses differ in number")
        return test


# probe.json: the result of the probe, if any


def write_probe(directory: Path, probe: ProbeStats) -> None:
    """Write the result of the probe."""
    _write_json(directory / PROBE, asdict(probe))


def read_probe(directory: Path) -> ProbeStats | None:
    """The result of the probe; None if there was none."""
    with _reading(directory / PROBE) as path:
        if not path.exists():
            return None
        return from_plain(ProbeStats, json.loads(path.read_text(encoding="utf-8")))


# predictions.npz, errors.csv, confusion.csv: predictions of the test split


def write_predictions(directory: Path, predictions: AnyPredictions, names: Sequence[str]) -> None:
    """Write predictions.npz, errors.csv (most confident first) and confusion.csv.

    `names` are those of the test images. Of any number of labels, the errors are the images whose
    labels are not all right, and there is no confusion matrix.
    """
    arrays = {
        "logits": predictions.logits.numpy(),
        "labels": predictions.labels.numpy(),
        "classes": np.array(predictions.classes),
    }
    if isinstance(predictions, MultiLabelPredictions):
        arrays["thresholds"] = np.array(predictions.thresholds, dtype=np.float64)
    write_arrays(directory / PREDICTIONS, arrays)
    if isinstance(predictions, MultiLabelPredictions):
        _write_label_errors(directory, predictions, names)
        return
    classes = predictions.classes
    errors = [
        [
            names[index],
            classes[predictions.labels[index]],
            classes[predictions.predicted[index]],
            f"{predictions.confidence[index]:.6f}",
            f"{predictions.losses[index]:.6f}",
        ]
        for index in most_confident_errors(predictions).tolist()
    ]
    _write_csv(directory / ERRORS, ["name", "true", "predicted", "confidence", "loss"], errors)
    counts = confusion_matrix(predictions).tolist()
    rows = [[name, *row] for name, row in zip(classes, counts, strict=True)]
    _write_csv(directory / CONFUSION, ["true \\ predicted", *classes], rows)


def _write_label_errors(
    directory: Path, predictions: MultiLabelPredictions, names: Sequence[str]
) -> None:
    """Write errors.csv: images with a wrong label, those of the highest loss first."""
    wrong = (~predictions.correct).nonzero().flatten()
    wrong = wrong[predictions.losses[wrong].argsort(descending=True, stable=True)]
    classes = np.array(predictions.classes)
    rows = [
        [
            names[index],
            "|".join(classes[predictions.labels[index].numpy()]),
            "|".join(classes[predictions.predicted[index].numpy()]),
            f"{predictions.losses[index]:.6f}",
        ]
        for index in wrong.tolist()
    ]
    _write_csv(directory / ERRORS, ["name", "true", "predicted", "loss"], rows)


def read_predictions(directory: Path) -> AnyPredictions:
    """The predictions of a finished run on its test split."""
    with (
        _reading(directory / PREDICTIONS) as path,
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        logits, labels, classes = (arrays[name] for name in ("logits", "labels", "classes"))
        kinds = logits.dtype.kind, labels.dtype.kind, classes.dtype.kind
        if kinds == ("f", "b", "U") and (logits.ndim, labels.ndim, classes.ndim) == (2, 2, 1):
            return MultiLabelPredictions(
                torch.from_numpy(logits.astype(np.float32)),
                torch.from_numpy(labels),
                tuple(classes.tolist()),
                thresholds=tuple(arrays["thresholds"].astype(float).tolist()),
            )
        if kinds != ("f", "i", "U") or (logits.ndim, labels.ndim, classes.ndim) != (2, 1, 1):
            raise ValueError(
                f"found logits {describe_value(logits)}, labels {describe_value(labels)} and "
                f"classes {describe_value(classes)}"
            )
        return Predictions(
            torch.from_numpy(logits.astype(np.float32)),
            torch.from_numpy(labels.astype(np.int64)),
            tuple(classes.tolist()),
        )


# summary.json


def write_result(directory: Path, result: RunResult) -> None:
    """Write summary.json, which marks the run as finished: it comes last."""
    _write_json(directory / SUMMARY, {"schema_version": SCHEMA_VERSION, **asdict(result)})


def read_result(directory: Path) -> RunResult:
    """The result of a finished run."""
    with _reading(directory / SUMMARY) as path:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values.pop("schema_version")
        return from_plain(RunResult, values)


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """Turn any error in reading a file into a SeewhyError."""
    remedy = "restore it, use the version of seewhy that wrote it, or train again"
    with reading(path, remedy):
        yield path


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json_text(value, indent=2) + "\n")


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    write_text(path, csv_text(header, rows), newline="")
