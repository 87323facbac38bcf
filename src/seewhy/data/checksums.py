"""Checksums of large arrays, block by block: a block is verified when it is first read.

So an array that is larger than the memory opens at once, and each byte is verified once.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

SUFFIX = ".crc"  # of the file of checksums, after the name of the array's file
_BLOCK_BYTES = 2**16  # at least a row: what a random access reads in addition is small

# What tells nothing about the values: properties and methods.
_PROPERTIES = "shape dtype device ndim layout is_cuda is_mps is_sparse is_meta requires_grad nbytes"
_METHODS = "__len__ numel size dim stride element_size is_contiguous is_floating_point is_pinned"
_METADATA = {
    *(getattr(Tensor, name).__get__ for name in _PROPERTIES.split()),
    *(getattr(Tensor, name) for name in _METHODS.split()),
}


class CheckedTensor(Tensor):
    """A tensor whose blocks of rows are verified before an operation reads them.

    Results are plain tensors, but a slice of consecutive rows or a crop of all is read, and
    verified, later.
    """

    _plain: Tensor
    _blocks: "Blocks"
    _first: int  # row of the array at which this slice begins

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            return func(*map(_unverified, args), **kwargs)
        if func is Tensor.__getitem__ and isinstance(args[0], CheckedTensor):
            return _rows(args[0], _verified(args[1]))
        return func(
            *map(_verified, args), **{name: _verified(value) for name, value in kwargs.items()}
        )


def _unverified(value: Any) -> Any:
    return value._plain if isinstance(value, CheckedTensor) else value


def _verified(value: Any) -> Any:
    """`value` with plain tensors, all of whose rows are verified."""
    if isinstance(value, CheckedTensor):
        plain = value._plain
        value._blocks.verify_rows(np.arange(value._first, value._first + len(plain)))
        return plain
    if isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
        return type(value)(map(_verified, value))
    return value


def _rows(tensor: CheckedTensor, index: Any) -> Tensor:
    """`tensor[index]`."""
    plain, first = tensor._plain, tensor._first
    if isinstance(index, slice) and index.step in (None, 1):
        return _checked(plain[index], tensor._blocks, first + index.indices(len(plain))[0])
    if _keeps_all_rows(index):
        return _checked(plain[index], tensor._blocks, first)
    result = plain[index]  # first, for its errors
    if not tensor._blocks.done:
        tensor._blocks.verify_rows(first + _rows_in(index, len(plain)))
    return result


def _keeps_all_rows(index: Any) -> bool:
    """Whether an index selects pixels of all images, without copying any."""
    return (
        isinstance(index, tuple)
        and all(isinstance(each, slice | int) or each is ... for each in index)
        and index[:1] == (slice(None),)
    )


def _rows_in(index: Any, count: int) -> np.ndarray:
    """The numbers of the rows that an index of a tensor with `count` rows selects."""
    rows = index[0] if isinstance(index, tuple) and index else index
    if isinstance(rows, Tensor):
        rows = rows.cpu().numpy()
        if rows.dtype != np.bool_:  # as in each training step
            return np.where(rows < 0, rows + count, rows).ravel()
    return np.atleast_1d(np.arange(count)[rows]).ravel()


def _checked(plain: Tensor, blocks: "Blocks", first: int) -> CheckedTensor:
    tensor: CheckedTensor = plain.as_subclass(CheckedTensor)
    tensor._plain, tensor._blocks, tensor._first = plain, blocks, first
    return tensor


class Blocks:
    """The blocks of an array, and which of them have been verified."""

    def __init__(
        self, array: Tensor, checksums: np.ndarray, on_damage: Callable[[int], Exception]
    ) -> None:
        self.rows = rows_per_block(array[0].numel())
        self.bytes = array.view(torch.uint8).numpy().data.cast("B")
        self.size = self.rows * array[0].numel()  # bytes of a block
        self.checksums, self.on_damage = checksums, on_damage
        self.waiting = np.ones(len(checksums), dtype=bool)
        self.done = False

    def verify_rows(self, rows: np.ndarray) -> None:
        """Verify the blocks of `rows`; raises the error that `on_damage` makes of a bad row."""
        if self.done:
            return
        blocks = np.unique(rows // self.rows)
        for block in blocks[self.waiting[blocks]].tolist():
            content = self.bytes[block * self.size : (block + 1) * self.size]
            if zlib.crc32(content) != self.checksums[block]:
                raise self.on_damage(block * self.rows)
            self.waiting[block] = False
        self.done = not self.waiting.any()


def rows_per_block(row_bytes: int) -> int:
    """Rows that share a checksum."""
    return max(1, _BLOCK_BYTES // row_bytes)


def checked_tensor(
    array: Tensor,  # (N, ...) of one byte each, contiguous, on the CPU
    checksums: np.ndarray,
    on_damage: Callable[[int], Exception],
) -> Tensor:
    """`array`, verified when it is read.

    Args:
        array: Its rows are those that `checksummed` wrote.
        checksums: From `read_checksums`.
        on_damage: Makes the error for the first row of a damaged block.
    """
    return _checked(array, Blocks(array, checksums, on_damage), 0)


def verify(tensor: Tensor) -> None:
    """Verify all blocks of a tensor of `checked_tensor`."""
    _verified(tensor)


class ChecksummedFile:
    """A file that is written, with a checksum of each of its blocks."""

    def __init__(self, file: BinaryIO, block_bytes: int) -> None:
        self.file, self.block_bytes = file, block_bytes
        self.checksums: list[int] = []
        self.filled = self.checksum = 0

    def write(self, rows: np.ndarray) -> None:
        """Append rows of the array."""
        rest = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        self.file.write(rest)
        while len(rest):
            part, rest = self._split(rest)
            self.checksum = zlib.crc32(part, self.checksum)
            self.filled += len(part)
            if self.filled == self.block_bytes:
                self.end_block()

    def _split(self, data: memoryview) -> tuple[memoryview, memoryview]:
        fits = self.block_bytes - self.filled
        return data[:fits], data[fits:]

    def end_block(self) -> None:
        """Add the checksum of the bytes since the last block, if there are any."""
        if self.filled:
            self.checksums.append(self.checksum)
        self.filled = self.checksum = 0


@contextmanager
def checksummed(file: BinaryIO, checksums: BinaryIO, row_bytes: int) -> Iterator[ChecksummedFile]:
    """Yield a writer into `file`; the checksums of its blocks are written when the block ends."""
    writer = ChecksummedFile(file, rows_per_block(row_bytes) * row_bytes)
    yield writer
    writer.end_block()
    checksums.write(np.array(writer.checksums, dtype="<u4").tobytes())


def read_checksums(path: Path, rows: int, row_bytes: int) -> np.ndarray:
    """The checksums of an array of `rows`. Raises ValueError if there are too few or too many."""
    checksums = np.fromfile(path, dtype="<u4")
    expected = -(-rows // rows_per_block(row_bytes))
    if len(checksums) != expected:
        raise ValueError(f"{path.name} has {len(checksums):,} checksums, not {expected:,}")
    return checksums
