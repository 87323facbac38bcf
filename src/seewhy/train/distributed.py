"""Several processes that train one network, as `torchrun` starts them."""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seewhy.errors import SeewhyError
from seewhy.train.world import World, world_size

T = TypeVar("T")


@contextmanager
def distributed_session(device: str) -> Iterator[tuple[World, str]]:
    """The world that torchrun's environment describes, and the device of this process in it.

    Each process takes the GPU of its local rank where `device` leaves it open. Alone, nothing is joined.
    """
    size = world_size()
    if size == 1 or dist.is_initialized():  # by an earlier training, too
        yield (
            World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World(),
            device,
        )
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise SeewhyError(
                f"there are more processes on this machine than its {gpus} GPUs; start as many, or take --device cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    except (RuntimeError, ValueError) as error:
        raise SeewhyError(
            f"WORLD_SIZE is {size}, but the processes did not meet ({error}); start them with torchrun"
        ) from error
    atexit.register(
        dist.destroy_process_group
    )  # not sooner: processes that part do not all meet again
    yield World(dist.get_rank(), size), device


def all_reduce_mean(tensors: Sequence[Tensor], world: World) -> None:
    """Replace each tensor by its mean over all processes, through one exchange."""
    if world.size == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world.size
    for tensor, part in zip(
        tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True
    ):
        tensor.copy_(part.view(tensor.shape))


def broadcast_from_rank0(make: Callable[[], T], world: World) -> T:
    """What `make` gives in the first process, in all of them; and its SeewhyError, too."""
    if world.size == 1:
        return make()
    answer: list[Any] = [None, ""]
    if world.is_first:
        try:
            answer[0] = make()
        except SeewhyError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer)
    if answer[1]:
        raise SeewhyError(answer[1])
    return cast(T, answer[0])


def all_reduce_sum(values: Tensor, world: World) -> Tensor:
    """The sum over all processes."""
    if world.size == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


@contextmanager
def sync_batch_norm(model: nn.Module, world: World) -> Iterator[None]:
    """Inside the block every BatchNorm of `model` sees the batch of all processes as one.

    torch's SyncBatchNorm does so on GPUs only; this one runs wherever processes can exchange tensors.
    """
    norms = (
        [module for module in model.modules() if isinstance(module, _BatchNorm)]
        if world.size > 1
        else []
    )
    for norm in norms:
        norm.forward = partial(_synced_batch_norm, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Sum(torch.autograd.Function):
    """The sum over all processes; each of them gets the gradient of what all make of it."""

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


def _synced_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        own = norm.running_mean is None  # then a batch is normalized by itself, as torch does
        return F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, own, 0.0, norm.eps
        )
    values = x.float()
    across = [axis for axis in range(x.ndim) if axis != 1]
    count = torch.full((1,), values.numel() / values.shape[1], device=x.device)
    sums: Tensor = _Sum.apply(torch.cat([values.sum(across), count]))  # type: ignore[no-untyped-call]
    total = sums[-1].detach()
    mean = sums[:-1] / total
    shape = [1, -1] + [1] * (x.ndim - 2)
    centered = values - mean.view(shape)
    variance: Tensor = _Sum.apply(centered.square().sum(across)) / total  # type: ignore[no-untyped-call]
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            momentum = (
                norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.float()
            )
            norm.running_mean.lerp_(mean.detach(), momentum)
            norm.running_var.lerp_(variance.detach() * total / (total - 1), momentum)
    output = centered * (variance + norm.eps).rsqrt().view(shape)
    if norm.weight is not None:
        output = output * norm.weight.view(shape)
    if norm.bias is not None:
        output = output + norm.bias.view(shape)
    return output.to(x.dtype)
