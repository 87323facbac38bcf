"""Which device to compute on, and in which number format."""

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from seewhy.errors import SeewhyError


def find_device(name: str = "auto") -> torch.device:
    """`auto` is the first of cuda, mps and cpu that is there. Raises SeewhyError for a device that is not."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        torch.Generator(device)  # meta, for one, has tensors but no random numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SeewhyError(
            f"device {name!r} cannot be used here ({reason}); possible: auto, cpu, cuda, mps"
        ) from error
    return device


def find_precision(name: str, device: torch.device) -> str:
    """`bf16`, `fp16` or `fp32`: for `auto`, bf16 where the hardware multiplies it natively (AVX512-BF16, AMX, recent GPUs)."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    return "fp32"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python for the block and restore them after it."""
    every_gpu = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (a user's augmentation may draw from it)
    with torch.random.fork_rng(devices=every_gpu):
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


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # numbers of malloc.h


@contextmanager
def retain_freed_memory(device: torch.device) -> Iterator[None]:
    """Inside the block, large tensors that are freed on the CPU stay with the process, where the system's malloc is glibc's.

    By default each goes back to the kernel, which clears it page by page when the next step asks for as much: a tenth of the
    time of a step. Afterwards what is free is given back, and what is asked for beyond it is the kernel's once more.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 * 2**20)):
        libc.mallopt(parameter, value)
    try:
        yield
    finally:  # where glibc's own adjustment ends once large blocks have been freed
        for parameter, value in (
            (MMAP_MAX, 65_536),
            (MMAP_THRESHOLD, 32 * 2**20),
            (TRIM_THRESHOLD, 64 * 2**20),
            (TOP_PAD, 2**17),
        ):
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has none that goes by no name
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
