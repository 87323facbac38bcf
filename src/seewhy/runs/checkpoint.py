"""How often a training in progress is kept."""

import hashlib
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy.errors import SeewhyError
from seewhy.files import make_directory, write_atomically, write_error


@dataclass(frozen=True)
class CheckpointPolicy:
    """How often a training in progress is kept in its directory, besides at its best and at its end."""

    checkpoint_seconds: float = 60.0
    """Write checkpoints/last.pt after so many seconds; with several processes at the end of an epoch."""
    checkpoint_epochs: int = 0
    """Keep a checkpoint of its own after every so many epochs; 0 for none."""

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0 or self.checkpoint_epochs < 0:
            raise SeewhyError(
                "checkpoint_seconds and checkpoint_epochs must be 0 or more, "
                f"found {self.checkpoint_seconds} and {self.checkpoint_epochs}"
            )


if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
DIGEST = (
    hashlib.sha256().digest_size
)  # bytes at the end of a file; what comes before is torch.save's


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that could be read, and what was wrong with newer ones."""

    path: Path
    content: dict[str, Any]
    damaged: dict[Path, str]


def write_checkpoint(directory: Path, content: dict[str, Any], also: Sequence[str] = ()) -> None:
    """Write `content` as last.pt, keep the one that was as previous.pt, and give the new one the names `also` too."""
    import torch  # here, so that the command line starts without it

    make_directory(directory)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    last, previous = directory / "last.pt", directory / "previous.pt"
    if last.exists():
        _also(last, previous)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())
        for name in (
            also
        ):  # before last.pt: a best.pt that is newer than it is known to be so, an older one is not
            _also(temporary, directory / name)

    write_atomically(last, write)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a file of write_checkpoint holds, tensors on the CPU. Raises SeewhyError for one that is damaged or no checkpoint."""
    import torch

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SeewhyError(f"{path} cannot be read ({error.strerror or error})") from error
    content, digest = memoryview(data)[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise SeewhyError(f"{path} is damaged: its checksum does not fit its content")
    try:
        values: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError) as error:
        raise SeewhyError(f"{path} is no checkpoint ({error})") from error
    if values.get("format") != FORMAT:
        raise SeewhyError(
            f"{path} is of format {values.get('format')}, and this version reads {FORMAT}"
        )
    return values


def newest_checkpoint(directory: Path) -> LoadedCheckpoint:
    """The last checkpoint that is whole: last.pt, else previous.pt. Raises SeewhyError where there is none."""
    damaged: dict[Path, str] = {}
    for path in (directory / "last.pt", directory / "previous.pt"):
        try:
            return LoadedCheckpoint(path, read_checkpoint(path), damaged)
        except SeewhyError as error:
            damaged[path] = str(error)
    raise SeewhyError(f"no checkpoint to resume from: {'; '.join(damaged.values())}; train again")


def best_weights(directory: Path, step: int) -> "dict[str, Tensor] | None":
    """The weights in best.pt, or None where it is of a later step than `step`: then that epoch is still to come again.

    Raises SeewhyError where it is damaged or missing.
    """
    state = read_checkpoint(directory / "best.pt")["state"]
    weights: dict[str, Tensor] = state["ema"] or state["slow"] or state["model"]
    return weights if state["step"] <= step else None


def _also(path: Path, name: Path) -> None:
    """Give a file a second name, as a link where the file system has them, replacing what had it."""
    temporary = name.with_name(f".{name.stem}-{os.getpid()}{name.suffix}")
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
