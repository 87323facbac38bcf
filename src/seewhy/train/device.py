"""The device and number format to compute in, its random seeds, and its memory."""

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from seewhy.errors import SeewhyError, first_line


def find_device(name: str = "auto") -> torch.device:
    """The named device; "auto" is the first available of cuda, mps, and cpu.

    Raises:
        SeewhyError: If the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        torch.Generator(device)  # rejects meta, which has no random numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SeewhyError(
            f"device {name!r} is not available ({first_line(error)}); possible: auto, cpu, cuda, "
            "mps"
        ) from error
    return device


def find_precision(name: str, device: torch.device) -> str:
    """The number format for a recipe's precision: "bf16", "fp16", or "fp32".

    "auto" is bf16 if the hardware multiplies it natively (AVX512-BF16, AMX, recent GPUs).
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return "bf16" if features.get("avx512_bf16") or features.get("amx_bf16") else "fp32"
    return "fp32"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, NumPy, and Python for the block, then restore them."""
    gpus = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    # NumPy's and Python's, because a user's augmentation may draw from them
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=gpus):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # constants of malloc.h


@contextmanager
def retain_freed_memory(device: torch.device) -> Iterator[None]:
    """Keep freed CPU memory in the process for the block, if malloc is glibc's.

    By default glibc returns large blocks to the kernel, which zeroes their pages when the next step
    allocates them again. This takes 10% of a step. After the block, glibc behaves as before, and
    free memory is returned to the kernel.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 * 2**20)):
        libc.mallopt(parameter, value)
    try:
        yield
    finally:  # the limits of glibc's dynamic thresholds
        for parameter, value in (
            (MMAP_MAX, 65_536),
            (MMAP_THRESHOLD, 32 * 2**20),
            (TRIM_THRESHOLD, 64 * 2**20),
            (TOP_PAD, 2**17),
        ):
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process if it is glibc."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # on Windows
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
