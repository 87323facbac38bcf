"""The software and hardware that a run was trained with."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from seewhy import __version__
from seewhy.errors import SeewhyError

PACKAGES = ("torch", "numpy", "datasets", "pillow")


@dataclass(frozen=True)
class Resumption:
    """Where and when an interrupted run was resumed."""

    step: int  # completed batches
    device: str
    time: str  # ISO 8601, local
    lr: float | None = None  # peak learning rate from there on, if it was changed


@dataclass(frozen=True)
class WeightsFile:
    """The file of weights that a run began with, so that it can be recognized."""

    path: str  # as in the recipe
    sha256: str  # of its bytes, hexadecimal


@dataclass(frozen=True)
class Environment:
    """The software and hardware that a run was trained with."""

    python: str  # version
    platform: str
    packages: Mapping[str, str]  # version by name
    processor: str
    cores: int | None  # available to the process
    threads: int  # threads of torch on the CPU
    device: str  # "cpu", "cuda:0", "mps"
    accelerator: str | None  # name of the GPU
    precision: str  # fp32, bf16 or fp16
    git: str | None  # commit of the working directory
    resumed: tuple[Resumption, ...] = ()
    weights: WeightsFile | None = None  # if the recipe names one

    @property
    def hardware(self) -> str:
        """The GPU, or the processor of a run on the CPU."""
        return self.accelerator or self.processor or self.device


def current_environment(
    device: torch.device, precision: str, weights: Path | None = None
) -> Environment:
    """The environment of this process, for a run on `device` in `precision` from `weights`."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        packages={"seewhy": __version__} | {name: version(name) for name in PACKAGES},
        processor=_processor_name(),
        cores=_available_cores(),
        threads=torch.get_num_threads(),
        device=str(device),
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        precision=precision,
        git=_git_commit(),
        weights=None if weights is None else _weights_file(weights),
    )


def check_weights_file(environment: Environment) -> None:
    """Raise SeewhyError if the file of weights that a run began with has changed."""
    weights = environment.weights
    if weights is not None and Path(weights.path).is_file():
        found = _weights_file(Path(weights.path)).sha256
        if found != weights.sha256:
            raise SeewhyError(
                f"{weights.path} has changed since the run started; restore it, or start a new run"
            )


def _weights_file(path: Path) -> WeightsFile:
    try:
        with path.open("rb") as file:
            return WeightsFile(str(path), hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise SeewhyError(f"{path} cannot be read ({error.strerror}); check the path") from error


def _processor_name() -> str:
    """The marketing name of the processor, if available."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _available_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _git_commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()
