"""The memory of a model: what a backward pass needs, and errors for want of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[list[int]]:
    """Bytes that autograd saves inside the block, weights excluded; valid after the block."""
    weights = {
        tensor.untyped_storage().data_ptr() for tensor in chain(model.parameters(), model.buffers())
    }
    sizes: dict[int, int] = {}
    total = [0]

    def pack(tensor: Tensor) -> tuple[Tensor, int]:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        # detach: the tensor itself would keep its own graph alive
        return tensor.detach(), tensor._version

    def unpack(packed: tuple[Tensor, int]) -> Tensor:
        tensor, version = packed
        if tensor._version != version:  # autograd's own check, which hooks bypass
            raise RuntimeError(
                "a tensor that the gradient needs was modified by an in-place operation"
            )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield total
    total[0] = sum(size for pointer, size in sizes.items() if pointer not in weights)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is out-of-memory; on the CPU this is known only from torch's message."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "DefaultCPUAllocator" in str(error)
