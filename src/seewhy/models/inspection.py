"""Asking anybody's model questions, and leaving it exactly as it was."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError


@contextmanager
def inspecting(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the block gradients flow through `model` to its inputs and layers, but not to its weights.

    A `no_grad`, `inference_mode` or `autocast` around the block does not reach into it, and compiled parts run as they were
    written, so that their layers can be hooked. Afterwards `requires_grad`, `.grad` and torch's random generators are as before,
    also after an exception. Modes are never touched: raises SeewhyError where a submodule is in training mode, in which BatchNorm
    would mix the images of a batch, and for weights that were made under `inference_mode`, which carry no gradient.
    """
    check_eval_mode(model)
    _check_weights(model)
    device = device_of(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(
            torch.autocast(device.type, enabled=False)
        )  # in the caller's a backward pass would be rounded too
        if (
            "torch._dynamo" in sys.modules
        ):  # which loads for seconds; before it has, nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield model
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put `model` in evaluation mode; on exit every submodule is back in the mode it was in."""
    training = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in training.items():
            module.training = mode  # train(mode) would reset submodules that were frozen one by one


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the CPU for a model without either."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def check_eval_mode(model: nn.Module) -> None:
    """Raise SeewhyError if `model` or a part of it is in training mode."""
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        where = f"its part {training!r}" if training else "it"
        raise SeewhyError(
            f"the model must be in evaluation mode, but {where} is in training mode, in which BatchNorm mixes the images of a "
            "batch and dropout is random; call model.eval() first"
        )


def _check_weights(model: nn.Module) -> None:
    """Raise SeewhyError for weights that are not there yet, or that no gradient can go through."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SeewhyError(
            "the model has no weights yet, only their shapes (device meta); load it, or model.to_empty() and fill it"
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise SeewhyError(
            "the model was made under torch.inference_mode, so that no gradient can go through its weights; "
            "make or load it outside of that block (running it inside is fine)"
        )


def unwrap_model(model: nn.Module) -> nn.Module:
    """The network that torch.compile, DistributedDataParallel or DataParallel is wrapped around."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def extract_logits(output: object) -> Tensor:  # (N, K)
    """The logits in what a model returns: a tensor, the first one of a tuple or list, or `logits` of a dict or an object."""
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits", next(iter(output.values()), None))
    elif hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, tuple | list):
        found = next((part for part in output if isinstance(part, Tensor)), None)
    if not isinstance(found, Tensor) or found.ndim != 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise SeewhyError(
            f"the model must return logits (N, K), or a tuple, dict or object that holds them; found {shape}"
        )
    return found


def check_images(images: Tensor) -> None:
    """Raise SeewhyError unless `images` are (N, C, H, W) uint8, or float in [0, 1]."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.numel() == 0:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise SeewhyError(
            f"images must be a tensor (N, C, H, W) with N of at least 1, found {shape}"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise SeewhyError(
            f"images must be uint8, or float with values in [0, 1], found {images.dtype}"
        )
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # also where one is not a number
        raise SeewhyError(
            f"images must have values in [0, 1], found {low:.3g} to {high:.3g}; where they are normalized, give the pixels and "
            "put mean and std into the model: torch.nn.Sequential(seewhy.Normalize(mean, std), model).eval()"
        )


def prepare_images(images: Tensor, model: nn.Module) -> Tensor:
    """Checked images as float in [0, 1] on the model's device: uint8 becomes float32, floats keep their dtype."""
    check_images(images)
    images = images.detach().to(device_of(model))
    if images.dtype == torch.uint8:
        images = images.to(torch.float32, memory_format=memory_format_of(model)).div_(255)
    return images.clone() if images.is_inference() else images


def memory_format_of(model: nn.Module) -> torch.memory_format:
    """How a model wants its images in memory: channels last where its convolutions are, as those of a run.

    Elsewhere contiguous, since a network may take a `view` that needs it.
    """
    kernels = (each for each in model.parameters() if each.ndim == 4 and not each.is_contiguous())
    last = any(each.is_contiguous(memory_format=torch.channels_last) for each in kernels)
    return torch.channels_last if last else torch.contiguous_format
