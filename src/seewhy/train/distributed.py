"""Training one model in several processes, started by torchrun."""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy._torch_compat import BatchNorm
from seewhy.errors import SeewhyError
from seewhy.train.world import World, world_size

T = TypeVar("T")
TIMEOUT = timedelta(minutes=5)  # of an exchange between processes; torch waits for 30 minutes


@contextmanager
def distributed_session(device: str) -> Iterator[tuple[World, str]]:
    """Join the processes that torchrun started.

    Args:
        device: Requested device; "auto" or "cuda" becomes the GPU of this process's local rank.

    Yields:
        The world (one process without torchrun) and the device of this process.

    Raises:
        SeewhyError: If there are too few GPUs, or the processes cannot connect.
    """
    size = world_size()
    if dist.is_initialized():  # by an earlier run of this process
        yield World(dist.get_rank(), dist.get_world_size()), device
        return
    if size == 1:
        yield World(), device
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpus:
            raise SeewhyError(
                f"more processes than GPUs on this machine ({gpus}); start {gpus}, or use "
                "--device cpu"
            )
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(device)
    try:
        backend = "nccl" if device.startswith("cuda") else "gloo"
        # both are documented, but not in the list of names that mypy reads
        store, rank, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
        store = dist.PrefixStore(_attempt(), store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise SeewhyError(
            f"WORLD_SIZE is {size}, but the processes could not connect ({error}); start them "
            "with torchrun"
        ) from error
    # only here: processes that have left cannot reconnect
    atexit.register(dist.destroy_process_group)
    try:
        yield World(dist.get_rank(), size), device
    except RuntimeError as error:
        if not _is_lost_process(error):
            raise
        raise SeewhyError(
            "another process has ended or did not answer for "
            f"{TIMEOUT.total_seconds() / 60:g} minutes; its output says why. Resume the run with "
            "torchrun and `seewhy resume RUN`"
        ) from error


def _attempt() -> str:
    """The start that the processes on one machine belong to: 1 after the first restart.

    torchrun keeps its store when it restarts them, with the addresses of those that have ended.
    """
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    # machines count their restarts differently
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"


def _is_lost_process(error: RuntimeError) -> bool:
    """Whether an exchange failed because of another process; gloo raises plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def all_reduce_mean(tensors: Sequence[Tensor], world: World) -> None:
    """Replace each tensor by its mean over all processes, with a single all-reduce."""
    if world.size == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world.size
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
        tensor.copy_(mean.view(tensor.shape))


def broadcast_from_rank0(make: Callable[[], T], world: World) -> T:
    """Call `make` in the first process, and return its result, or raise its SeewhyError, in all."""
    if world.size == 1:
        return make()
    message: list[Any] = [None, ""]  # result, error
    if world.is_first:
        try:
            message[0] = make()
        except SeewhyError as error:
            message[1] = str(error)
    dist.broadcast_object_list(message)
    if message[1]:
        raise SeewhyError(message[1])
    return cast(T, message[0])


def all_reduce_sum(values: Tensor, world: World) -> Tensor:
    """The sum over all processes."""
    if world.size == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


@contextmanager
def sync_batch_norm(model: nn.Module, world: World) -> Iterator[None]:
    """Synchronize the BatchNorm layers of `model` across processes inside the block.

    On a GPU this is torch's SyncBatchNorm; elsewhere, where torch has none, it is our own.
    """
    norms: list[BatchNorm] = []
    if world.size > 1:
        norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        on_gpu = any(tensor.is_cuda for tensor in (*norm.parameters(), *norm.buffers()))
        forward = _torch_sync_batch_norm(norm) if on_gpu else partial(_synced_batch_norm, norm)
        norm.forward = forward  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _torch_sync_batch_norm(norm: BatchNorm) -> Callable[[Tensor], Tensor]:
    """The forward pass of a SyncBatchNorm with the parameters and buffers of `norm`."""
    # the copy shares the tensors of `norm`
    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]

    def forward(images: Tensor) -> Tensor:
        result: Tensor = synced.train(norm.training)(images)
        return result

    return forward


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.contiguous().clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def _all_reduce_sum(values: Tensor) -> Tensor:
    result: Tensor = _AllReduceSum.apply(values)  # type: ignore[no-untyped-call]
    return result


def _synced_batch_norm(norm: BatchNorm, images: Tensor) -> Tensor:  # (B, C, ...)
    if not norm.training:
        # without running statistics, torch uses those of the batch
        return F.batch_norm(
            images,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            norm.running_mean is None,
            0.0,
            norm.eps,
        )
    values = images.float()
    axes = [axis for axis in range(images.ndim) if axis != 1]
    shape = [1, -1] + [1] * (images.ndim - 2)  # values per channel
    local_count = torch.full((1,), values.numel() / values.shape[1], device=images.device)
    sums = _all_reduce_sum(torch.cat([values.sum(axes), local_count]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centered = values - mean.view(shape)
    variance = _all_reduce_sum(centered.square().sum(axes)) / count
    _update_running_statistics(norm, mean.detach(), variance.detach() * count / (count - 1))
    output = centered * (variance + norm.eps).rsqrt().view(shape)
    if norm.weight is not None:
        output = output * norm.weight.view(shape)
    if norm.bias is not None:
        output = output + norm.bias.view(shape)
    return output.to(images.dtype)


@torch.no_grad()
def _update_running_statistics(norm: BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    weight: Tensor | float = 1 / norm.num_batches_tracked.float()  # of a cumulative average
    if norm.momentum is not None:
        weight = norm.momentum
    norm.running_mean.lerp_(mean, weight)
    norm.running_var.lerp_(variance, weight)
