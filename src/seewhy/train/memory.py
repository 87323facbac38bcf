"""The memory of a training step, estimated before the first one."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from seewhy.errors import SeewhyError
from seewhy.models.inference import autocasting
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.memory import is_out_of_memory, saved_bytes
from seewhy.train.batches import resize_images
from seewhy.train.plan import TrainingPlan

GB = 10**9
PROBED = 2  # images; one alone may be a special case of a model
OVERHEAD = (
    1.3  # gradients of activations and buffers: 1.0 to 1.4 for ResNet-18, DavidNet and VGG-16
)
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def check_memory(plan: TrainingPlan, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Raise SeewhyError if a training step needs more memory than is available.

    The activations are those that autograd saves in a forward pass of two images. The gradients and
    the optimizer's state are counted as two copies of the weights.
    """
    available = available_memory(plan.device)
    if available is None:
        return
    images = math.ceil(plan.batch_size / plan.world.size)
    per_image = activation_bytes(plan, model)
    parameters = {
        parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    fixed = 2 * sum(parameter.nbytes for parameter in parameters)
    needed = OVERHEAD * images * per_image + fixed
    if needed <= available:
        return
    fitting = int((available - fixed) / (OVERHEAD * per_image)) * plan.world.size
    shape = "x".join(map(str, plan.data.image_shape))
    raise SeewhyError(
        f"a step of {plan.recipe.model} with a batch of {plan.batch_size} images of {shape} needs "
        f"about {needed / GB:.1f} GB of memory, and {available / GB:.1f} GB are available; "
        f"{_remedy(plan, fitting)}"
    )


def _remedy(plan: TrainingPlan, fitting: int) -> str:
    """What to change, if `fitting` images fit into memory."""
    if fitting < 2:
        return "use a smaller model or smaller images"
    batch = 2 ** int(math.log2(min(fitting, plan.batch_size)))
    steps = math.ceil(plan.batch_size * plan.grad_accum_steps / batch)
    return (
        f"use batch_size={batch} and grad_accum_steps={steps}, so that an update still sees "
        f"{batch * steps} images, or smaller images or a smaller model"
    )


def activation_bytes(plan: TrainingPlan, model: nn.Module) -> float:
    """Bytes that autograd saves for the backward pass of one image, at the largest image size.

    0 if the model cannot run: the first step says why.
    """
    images = plan.train_center.images[:PROBED].to(device_of(model)).float() / 255
    images = images.to(memory_format=torch.channels_last)
    images = resize_images(images, max(plan.resolution_factors))
    try:
        with (
            torch.random.fork_rng([device_of(model)] if images.is_cuda else []),
            evaluating(model),
            torch.enable_grad(),
            saved_bytes(model) as total,
            autocasting(plan.precision, images.device),
        ):
            model(images)
    except Exception as error:
        if not is_out_of_memory(error):
            return 0.0
        return math.inf
    return total[0] / len(images)


def available_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated on the device; None if it is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [each for each in (_free_memory(), _free_in_group(), _free_addresses()) if each]
    return min(known) if known else None


def _free_memory() -> int | None:
    """Memory of the machine that can be used without swapping, on Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def _free_in_group() -> int | None:
    """Memory left in a container's limit."""
    for limit, use in zip(_LIMITS, _USES, strict=True):
        try:
            return int(Path(limit).read_text()) - int(Path(use).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None


def _free_addresses() -> int | None:
    """Address space left under `ulimit -v`."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit - used
