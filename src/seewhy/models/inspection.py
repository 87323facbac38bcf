"""Running any model without side effects."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from seewhy._torch_compat import compiled_module, uncompiled
from seewhy.errors import SeewhyError, describe_value, first_line
from seewhy.models.memory import is_out_of_memory

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class NoGradientsError(SeewhyError):
    """No gradient of the logits reaches the pixels."""


@contextmanager
def inspecting(model: nn.Module) -> Iterator[nn.Module]:
    """Enable gradients with respect to the inputs and layers of `model`, but not its weights.

    `no_grad`, `inference_mode`, and `autocast` outside the block have no effect inside. Compiled
    parts run eagerly, so that their layers can be hooked. On exit, also after an exception,
    `requires_grad`, `.grad`, and torch's random generators are as before.

    Args:
        model: A model in evaluation mode.

    Raises:
        SeewhyError: If a submodule is in training mode, in which BatchNorm mixes the images of a
            batch, and if the weights were created under `inference_mode`.
    """
    check_eval_mode(model)
    _check_weights(model)
    device = device_of(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # the caller's autocast would also round the backward pass
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(uncompiled())
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield model
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put `model` in evaluation mode inside the block, and restore the mode of every submodule."""
    check_initialized(model)
    training = {part: part.training for part in model.modules() if hasattr(part, "training")}
    try:
        _evaluate(model)
        yield model
    finally:
        for module, mode in training.items():
            module.training = mode  # train(mode) would reset submodules that were frozen one by one


def _evaluate(model: nn.Module) -> None:
    """Call `eval`, but not of an exported program, which has only the mode that it was made in."""
    if not any(map(_is_exported, model.modules())):
        model.eval()
    elif not _is_exported(model):
        model.training = False
        for part in model.children():
            _evaluate(part)


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the CPU for a model without either."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def check_eval_mode(model: nn.Module) -> None:
    """Raise SeewhyError if `model` or one of its submodules is in training mode."""
    exported = {
        part for module in model.modules() if _is_exported(module) for part in module.modules()
    }
    training = next(
        (
            layer_path(name, model)
            for name, part in model.named_modules()
            if _is_training(part) and part not in exported
        ),
        None,
    )
    if training is not None:
        part = f"its layer {training!r}" if training else "it"
        raise SeewhyError(
            f"the model must be in evaluation mode, but {part} is in training mode, in which "
            "BatchNorm mixes the images of a batch and dropout is random; call model.eval() first"
        )


def _is_training(module: nn.Module) -> bool:
    """Whether a module is in training mode; False where the mode has no effect."""
    # quantize_dynamic replaces layers by new ones in training mode; torch.jit.freeze removes it
    return getattr(module, "training", False) and not _is_quantized(module)


def passes_gradient(model: nn.Module, score: Tensor) -> bool:
    """Whether the gradient of `score`, computed from logits of `model`, can be trusted.

    A quantized layer has none, but a path around it, such as a skip connection, may have one.
    """
    return score.requires_grad and not any(_is_quantized(module) for module in model.modules())


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn.quantized")


def check_initialized(model: nn.Module) -> None:
    """Raise SeewhyError if a lazy layer does not know its number of inputs yet."""
    for name, part in model.named_modules():
        parameters = part.parameters(recurse=False)
        if any(isinstance(each, nn.UninitializedParameter) for each in parameters):
            raise SeewhyError(
                f"the layer {layer_path(name, model)!r} ({type(part).__name__}) has no weights "
                "yet; call the model once with a batch of images, as in model(images), and train "
                "it or load its weights"
            )


def _check_weights(model: nn.Module) -> None:
    """Raise SeewhyError if the weights are missing or were created under `inference_mode`."""
    check_initialized(model)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SeewhyError(
            "the model has no weights yet, only their shapes (device meta); load its weights first"
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise SeewhyError(
            "the model was created under torch.inference_mode, so no gradient can flow through it; "
            "create or load it outside that block"
        )


def is_program(module: nn.Module) -> bool:
    """Whether a module is a TorchScript or torch.export program, which takes no hooks."""
    return bool(_program_kind(module))


def check_observable(model: nn.Module, parts: bool = False) -> None:
    """Raise SeewhyError if the layers of `model` cannot be observed, because it is a program.

    With `parts`, also if one of its modules is a program.
    """
    kinds = [_program_kind(module) for module in (model.modules() if parts else [model])]
    kind = next(filter(None, kinds), "")
    if kind:
        raise SeewhyError(
            f"the model is {kind}, whose layers cannot be observed; pass the nn.Module from which "
            "it was made, or use gradients, smooth-grad, integrated-gradients, rise or occlusion"
        )


def _program_kind(model: nn.Module) -> str:
    """What kind of program a model is; empty for modules that run as Python code."""
    if isinstance(model, torch.jit.ScriptModule):
        return "a TorchScript program"
    return "a torch.export program" if _is_exported(model) else ""


def _is_exported(module: nn.Module) -> bool:
    """Whether a module is that of an ExportedProgram, or one of its parts."""
    # `ExportedProgram.module()` gives it methods of its own that raise an error.
    return isinstance(module, torch.fx.GraphModule) and "eval" in vars(module)


def unwrap_model(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DistributedDataParallel, and DataParallel."""
    while True:
        inner = compiled_module(model)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def layer_path(name: str, model: nn.Module) -> str:
    """The name of a submodule without the wrappers around it, which get_submodule accepts too.

    Left out are the `_orig_mod` of torch.compile, and the `wrapped_child` of a model that names
    one, such as the `net` around the models of timm and torchvision.
    """
    steps = [step for step in name.split(".") if step != "_orig_mod"]
    wrapped = getattr(unwrap_model(model), "wrapped_child", None)
    return ".".join(steps[1:] if steps[0] == wrapped else steps) if steps else ""


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model by their `layer_path`, a wrapper for what it wraps; "" is the model.

    Hooks belong on the wrapper: torch.compile may not run those of the module inside.
    """
    layers: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        layers.setdefault(layer_path(name, model), module)
    return layers


def layer_types(model: nn.Module) -> dict[str, str]:
    """Class names of the modules of a model by their `layer_path`, without wrappers."""
    return {layer_path(name, model): type(each).__name__ for name, each in model.named_modules()}


def check_images(images: Tensor) -> None:
    """Raise SeewhyError unless `images` are (N, C, H, W) uint8, or float in [0, 1]."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.numel() == 0:
        array = "ndarray " if isinstance(images, np.ndarray) else ""
        raise SeewhyError(
            "images must be a tensor (N, C, H, W) with N of at least 1, uint8 or float in [0, 1], "
            f"found {array}{describe_value(images)}{_as_tensor(images)}"
        )
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        dtype = str(images.dtype).removeprefix("torch.")
        raise SeewhyError(f"images must be uint8, or float with values in [0, 1], found {dtype}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise SeewhyError(
            f"images must have values in [0, 1], found {low:.3g} to {high:.3g}; instead of "
            "normalizing them, put mean and std into the model: "
            "torch.nn.Sequential(seewhy.models.Normalize(mean, std), model).eval()"
        )


def _as_tensor(images: object) -> str:
    """`; pass …`: how other images become a tensor (N, C, H, W); empty if that is not known."""
    if isinstance(images, list | tuple) and images and all(map(torch.is_tensor, images)):
        return "; pass torch.stack(images)"
    if isinstance(images, str | PathLike):
        return "; `seewhy explain RUN FILE` reads image files"
    if not isinstance(images, Tensor | np.ndarray) or images.ndim not in (3, 4):
        return ""
    call = "images" if isinstance(images, Tensor) else "torch.from_numpy(images)"
    *_, height, _, channels = images.shape
    if channels in (1, 3) and images.shape[-3] not in (1, 3):  # (H, W, C), as Pillow and OpenCV
        call += ".permute(0, 3, 1, 2)" if images.ndim == 4 else ".permute(2, 0, 1)"
    return f"; pass {call}{'[None]' * (images.ndim == 3)}" if height else ""


def check_labels(labels: Tensor, count: int, num_classes: int | None = None) -> None:
    """Raise SeewhyError unless `labels` are class indices.

    Args:
        labels: (N,) of an integer dtype, each from 0 to `num_classes` - 1.
        count: Number of images or maps to label, N.
        num_classes: Number of classes; None does not limit the range.
    """
    if (
        not isinstance(labels, Tensor)
        or labels.shape != (count,)
        or labels.is_floating_point()
        or labels.dtype == torch.bool
    ):
        raise SeewhyError(
            f"labels must be a tensor ({count},) int64, one class index per image, "
            f"found {describe_value(labels)}"
        )
    if num_classes is not None and count:
        low, high = labels.aminmax()
        if low < 0 or high >= num_classes:
            raise SeewhyError(
                f"labels must be from 0 to {num_classes - 1}, because there are {num_classes} "
                f"classes, found {low} to {high}"
            )


def prepare_images(images: Tensor, model: nn.Module) -> Tensor:
    """Check images and convert them to the input of the model.

    Args:
        images: (N, C, H, W) uint8, or float in [0, 1].
        model: The model, which determines the device and the memory format.

    Returns:
        (N, C, H, W) float in [0, 1], in the dtype of the model's weights.
    """
    check_images(images)
    images = images.detach().to(device_of(model))
    dtype = input_dtype(model)
    if images.dtype == torch.uint8:
        format_ = memory_format_of(model)
        images = images.to(dtype or torch.float32, memory_format=format_).div_(255)
    elif dtype is not None:
        images = images.to(dtype)
    return images.clone() if images.is_inference() else images


def input_dtype(model: nn.Module) -> torch.dtype | None:
    """Dtype of the model's first floating-point weight, such as float16; None without weights."""
    tensors = chain(model.parameters(), model.buffers())
    return next((each.dtype for each in tensors if each.dtype in _FLOATS), None)


@contextmanager
def naming_images(images: Tensor) -> Iterator[None]:
    """Turn an error of the model inside the block into a SeewhyError that describes its images."""
    try:
        yield
    except SeewhyError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        shape = "x".join(map(str, images.shape[1:]))
        dtype = str(images.dtype).removeprefix("torch.")
        remedy = ""
        if isinstance(error, TypeError):  # a missing or an unexpected argument, mostly
            remedy = (
                "; for a model that takes others than images: Classifier(model, inputs=lambda "
                'images: {"images": images, "mask": mask})'
            )
        raise SeewhyError(
            f"the model cannot take images of {shape} {dtype}: {first_line(error)}{remedy}"
        ) from error


def memory_format_of(model: nn.Module) -> torch.memory_format:
    """Memory format of the model's convolutions: channels last for models of a run.

    Otherwise contiguous, because a model may call `view`, which needs it.
    """
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    channels_last = any(
        kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
        for kernel in kernels
    )
    return torch.channels_last if channels_last else torch.contiguous_format
