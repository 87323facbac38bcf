"""A run: a trained model with its history, and the directory that holds both."""

import csv
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from seewhy.data.dataset import Dataset
from seewhy.diagnose.predictions import Predictions, confusion
from seewhy.environment import environment
from seewhy.errors import SeewhyError
from seewhy.files import unwritable, write_atomically, write_text
from seewhy.models import blank_sample, blueprint, build
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe, read_recipe, to_toml

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Run:
    """A training that has ended: what was trained, how it went, and where it is written."""

    recipe: Recipe
    model: nn.Module
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    history: tuple[EpochStats, ...]
    test: Predictions | None  # of the test split; None for an opened run
    summary: Mapping[str, Any]  # what summary.json holds
    directory: Path | None

    def __repr__(self) -> str:
        low, high = self.summary["interval"]
        return (
            f"Run({self.recipe.name} on {self.summary['data']}: {100 * self.summary['accuracy']:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}] of {self.summary['images']:,} test images, {self.summary['seconds']:.0f} s)"
        )


def new_directory(name: str, root: str | Path = "runs") -> Path:
    """A path below `root` that is free: date, time and name, with a number where two start in one minute."""
    stem = f"{datetime.now():%Y%m%d-%H%M}-{name}"
    candidates = (Path(root) / (stem if number == 1 else f"{stem}-{number}") for number in range(1, 10_000))
    return next(path for path in candidates if not path.exists())


def check_free(directory: Path) -> None:
    """Raise SeewhyError if there is anything at `directory`: a run directory is never reused silently."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SeewhyError(f"{directory} exists already and nothing in it was touched; name another directory, or remove it")


def create_directory(directory: Path, recipe: Recipe, data: Dataset, device: torch.device, precision: str) -> None:
    """Make the directory and write what is known before training; `runs/latest` then points to it."""
    check_free(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from error
    write_text(directory / "recipe.toml", to_toml(recipe))
    write_text(directory / "command.txt", shlex.join(["seewhy", *sys.argv[1:]]) + "\n" if _from_command_line() else "Python\n")
    described = {"name": data.name, "fingerprint": data.fingerprint, "image_shape": data.image_shape, "skipped": data.skipped}
    sizes = {"train": len(data.train), "test": len(data.test), "validation": len(data.validation or ())}
    write_json(directory / "env.json", environment(device, precision) | {"data": described | {"images": sizes}})
    write_status(directory, "running")
    _point_latest(directory)


def append_metrics(directory: Path, row: EpochStats) -> None:
    """Add one epoch to metrics.jsonl."""
    try:
        with (directory / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
    except OSError as error:
        raise unwritable(directory / "metrics.jsonl", error) from error


def write_status(directory: Path, status: str, detail: str = "") -> None:
    """Say in status.json whether the run is `running`, `finished`, `interrupted` or `failed`."""
    write_json(directory / "status.json", {"status": status, "detail": detail, "time": datetime.now().isoformat("T", "seconds")})


def write_model(path: Path, model: nn.Module, recipe: Recipe, classes: Sequence[str], image_shape: Sequence[int]) -> None:
    """Write weights as safetensors that say in their metadata which network they are of."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = json.dumps({"model": recipe.model, "classes": list(classes), "image_shape": list(image_shape)})
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata={"seewhy": about}))


def write_results(directory: Path, run: Run) -> None:
    """Write what is known after training: weights, summary, predictions, tables."""
    write_model(directory / "model.safetensors", run.model, run.recipe, run.classes, run.image_shape)
    write_json(directory / "summary.json", dict(run.summary))
    if run.test is not None:
        arrays = {"logits": run.test.logits.numpy(), "labels": run.test.labels.numpy(), "classes": np.array(run.classes)}
        write_atomically(directory / "predictions.npz", lambda path: _save_arrays(path, arrays))
        counts = confusion(run.test).tolist()
        rows = [[name, *row] for name, row in zip(run.classes, counts, strict=True)]
        write_csv(directory / "confusion.csv", ["true \\ predicted", *run.classes], rows)


def write_errors(path: Path, result: Predictions, names: Sequence[str]) -> None:
    """Every misclassified image, the most confident first."""
    wrong = (~result.correct).nonzero().flatten()
    wrong = wrong[result.confidence[wrong].argsort(descending=True)]
    rows = [
        [
            names[index],
            result.classes[result.labels[index]],
            result.classes[result.predicted[index]],
            f"{result.confidence[index]:.6f}",
            f"{result.losses[index]:.6f}",
        ]
        for index in wrong.tolist()
    ]
    write_csv(path, ["name", "true", "predicted", "confidence", "loss"], rows)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])

    write_atomically(path, write)


def open_run(directory: str | Path, device: str | torch.device = "cpu") -> Run:
    """Read a run back: recipe, weights, history and summary. Raises SeewhyError where something is missing or damaged."""
    directory = Path(directory)
    if not (directory / "recipe.toml").is_file():
        found = "no such directory" if not directory.exists() else "it holds no recipe.toml"
        raise SeewhyError(f"{directory} is not a run directory ({found}); runs are below runs/, the newest is runs/latest")
    summary = _read_json(directory / "summary.json")
    recipe = read_recipe(directory / "recipe.toml")
    model, about = open_model(directory / "model.safetensors", device)
    history = _read_history(directory / "metrics.jsonl")
    return Run(recipe, model, tuple(about["classes"]), tuple(about["image_shape"]), history, None, summary, directory)


def open_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The network in a model.safetensors, in evaluation mode, and its metadata: model, classes, image_shape."""
    path = Path(path)
    if not path.is_file():
        raise SeewhyError(f"{path} does not exist: the run has not finished, or its weights were removed; train it again")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise SeewhyError(f"{path} is damaged or no safetensors file ({error}); restore it, or train again") from error
    if "seewhy" not in metadata:
        raise SeewhyError(f"{path} does not say which network it is of, so it is not of a seewhy run; name one that is")
    about = json.loads(metadata["seewhy"])
    with torch.random.fork_rng(devices=[]):
        model = build(blueprint(about["model"]), len(about["classes"]), blank_sample(*about["image_shape"]))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise SeewhyError(f"{path} does not fit the network {about['model']!r} that it names: {reason}") from error
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval(), about


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeewhyError(f"{path} does not exist: the run has not finished; see status.json beside it") from None
    except ValueError as error:
        raise SeewhyError(f"{path} is damaged ({error}); restore it, or train again") from error
    return dict(value)


def _read_history(path: Path) -> tuple[EpochStats, ...]:
    try:
        return tuple(EpochStats(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, TypeError) as error:
        raise SeewhyError(f"{path} is damaged ({error}); restore it, or train again") from error


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a file, because savez would append .npz to a path
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _from_command_line() -> bool:
    return Path(sys.argv[0]).name in ("seewhy", "__main__.py")


def _point_latest(directory: Path) -> None:
    """Let `latest` beside the directory point to it, where the file system has links."""
    latest, temporary = directory.parent / "latest", directory.parent / f".latest-{os.getpid()}"
    if latest.exists() and not latest.is_symlink():
        return
    try:
        temporary.symlink_to(directory.name)
        temporary.replace(latest)
    except OSError:
        temporary.unlink(missing_ok=True)
