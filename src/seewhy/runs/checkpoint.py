"""Checkpoints: the complete state of a run, in files with a checksum.

torch is imported inside functions, because the command line imports `CheckpointPolicy`.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy.errors import SeewhyError
from seewhy.files import (
    is_stream,
    make_directory,
    problem_of_path,
    temporary_path,
    write_atomically,
    write_error,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
DIGEST_BYTES = hashlib.sha256().digest_size  # at the end of a file, after the bytes of torch.save


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to write checkpoints, in addition to the best epoch and the end."""

    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; with several processes, they are written only between epochs."""
    checkpoint_epochs: int = 0
    """Epochs between checkpoints that are kept; 0 keeps none."""

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0 or self.checkpoint_epochs < 0:
            raise SeewhyError(
                "checkpoint_seconds and checkpoint_epochs must be 0 or more, "
                f"found {self.checkpoint_seconds} and {self.checkpoint_epochs}"
            )


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """The newest checkpoint that can be read."""

    path: Path
    content: dict[str, Any]
    damaged: dict[Path, str]  # newer checkpoints that cannot be read, with the reasons


def save_checkpoint(directory: Path, content: dict[str, Any], names: Sequence[str] = ()) -> None:
    """Write `content` as last.pt and as each of `names`; the last.pt before becomes previous.pt."""
    import torch

    make_directory(directory)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    last = directory / LAST
    if last.exists():
        _link(last, directory / PREVIOUS)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())
        # before last.pt: resuming detects a best.pt that is newer than last.pt, but not an older
        # one
        for name in names:
            _link(temporary, directory / name)

    write_atomically(last, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, with tensors on the CPU.

    Raises SeewhyError if the file is missing, damaged, or not a checkpoint.
    """
    import torch

    from seewhy.serialization import reading

    if is_stream(path):
        raise SeewhyError(f"{problem_of_path(path)}, and no checkpoint")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SeewhyError(f"{path} cannot be read ({error.strerror or error})") from error
    content, digest = memoryview(data)[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise SeewhyError(f"{path} is damaged: its checksum does not match")
    with reading(path, "it is not a checkpoint"):
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise SeewhyError(f"it has format {found!r:.40}; this version reads {FORMAT}")
        _check_content(values)
    return values


def _check_content(values: dict[str, Any]) -> None:
    """Raise an error unless a checkpoint has its parts, of their types."""
    kinds = {"state": dict, "history": list, "recipe": dict}
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise TypeError(f"{name} must be a {kind.__name__}, found {values[name]!r:.40}")
    state = values["state"]
    if type(state["step"]) is not int or state["step"] < 0:
        raise ValueError(f"step must be a whole number, found {state['step']!r:.40}")
    for name in ("model", "ema", "slow"):
        weights = state[name]
        if not (weights is None and name != "model") and not isinstance(weights, dict):
            raise TypeError(f"{name} must be weights by name, found {weights!r:.40}")


def checkpoint_files(directory: Path) -> list[Path]:
    """The checkpoints in a directory, the newest first."""
    order = [LAST, PREVIOUS, BEST]
    kept = sorted((path.name for path in directory.glob("epoch-*.pt")), reverse=True)
    return [directory / name for name in [*order, *kept] if (directory / name).exists()]


def newest_checkpoint(directory: Path) -> LoadedCheckpoint:
    """Read last.pt, or another one if that is damaged. Raises SeewhyError if all are."""
    damaged: dict[Path, str] = {}
    candidates = [directory / LAST, directory / PREVIOUS, *checkpoint_files(directory)]
    for path in dict.fromkeys(candidates):
        try:
            return LoadedCheckpoint(path, load_checkpoint(path), damaged)
        except SeewhyError as error:
            damaged[path] = str(error)
    raise SeewhyError(f"no checkpoint to resume from: {'; '.join(damaged.values())}; train again")


def best_weights(directory: Path, step: int) -> "dict[str, Tensor] | None":
    """The weights in best.pt; None if they are newer than `step`, as that epoch is repeated.

    Raises SeewhyError if the file is missing or damaged.
    """
    state = load_checkpoint(directory / BEST)["state"]
    return weights_of(state) if state["step"] <= step else None


def weights_of(state: dict[str, Any]) -> "dict[str, Tensor]":
    """The weights in the state of a checkpoint that are evaluated: the averaged ones, if any."""
    weights: dict[str, Tensor] = state["ema"] or state["slow"] or state["model"]
    return weights


def _link(path: Path, name: Path) -> None:
    """Hard-link a file to a second name and replace any file there; a copy without hard links."""
    temporary = temporary_path(name)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        temporary.replace(name)
    except OSError as error:
        raise write_error(name, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
