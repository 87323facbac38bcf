"""Summary of a model: its layers, their shapes, parameters, and multiply-adds."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seewhy._torch_compat import uncompiled
from seewhy.errors import SeewhyError, first_line
from seewhy.models.inspection import (
    check_observable,
    device_of,
    evaluating,
    input_dtype,
    layer_path,
    layer_types,
    named_layers,
    unwrap_model,
)
from seewhy.models.memory import is_out_of_memory
from seewhy.models.registry import blank_sample, build_model

LARGEST_IMAGE = 10**9  # values: 4 GB as float32; the sample for a new model is twice as large
ROOT = "(model)"  # name of the row of the whole model
CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class LayerSummary:
    """One module, in the order of the forward pass; shapes are those of one image.

    A module with others inside is a block. Its numbers are the sums of its layers.
    """

    name: str  # path in the model, such as layer1.0.conv1; "(model)" for the model itself
    type: str  # class name, such as Conv2d
    depth: int  # 0 for the model itself, 1 for its parts
    is_block: bool
    kernel: tuple[int, ...]  # empty for a layer without a kernel
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int  # 0 when a layer is used again
    share: float  # of the model's parameters, in [0, 1]
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """Layers and totals of a model for a batch of images in float32.

    Megabytes are those of torchinfo: 1 MB is 10^6 bytes, and activations are the outputs of the
    layers with parameters, counted twice, because training holds their gradients too.
    """

    title: str
    image_shape: tuple[int, int, int]  # (C, H, W)
    batch_size: int
    layers: tuple[LayerSummary, ...]  # the first one is the model itself
    parameters: int
    trainable: int  # parameters that require a gradient
    multiply_adds: int
    parameters_mb: float
    activations_mb: float
    input_mb: float

    def __repr__(self) -> str:
        return (
            f"ModelSummary({self.title}: {self.parameters:,} parameters, {self.multiply_adds:,} "
            f"multiply-adds for {self.batch_size:,} x {shape_text(self.image_shape)})"
        )

    @property
    def total_mb(self) -> float:
        """Parameters, activations with their gradients, and input."""
        return self.parameters_mb + self.activations_mb + self.input_mb


@dataclass
class _Call:
    """A module that the forward pass ran, or that only holds some that ran."""

    name: str
    module: nn.Module
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    output_bytes: int = 0
    multiply_adds: int = 0
    again: bool = False  # whether the module ran before


def model_summary(
    model: str | nn.Module,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    batch_size: int = 1,
) -> ModelSummary:
    """Summarize a model's layers by a forward pass of one blank image.

    Multiply-adds of a convolution or a linear layer are its weights and biases, times the number
    of positions or tokens where they are applied; other layers count their weights and biases once
    per image. So BatchNorm counts 2C, and operations without parameters (pooling, additions,
    attention products) are not counted. For convolutional models, this is the number of torchinfo.
    The model's mode and device and torch's generator are unchanged.

    Args:
        model: A module, or the name of a model such as "resnet18".
        image_shape: (C, H, W) of the image.
        num_classes: Number of classes of a model given by name.
        batch_size: Number of images that multiply-adds, activations, and input are counted for.

    Raises:
        SeewhyError: If the model does not accept the image, or the two do not fit into memory.
    """
    if batch_size < 1:
        raise SeewhyError(f"batch_size must be at least 1, found {batch_size}")
    title = model if isinstance(model, str) else type(model).__name__
    with prepared(model, image_shape, num_classes) as (module, image):
        calls = _forward(title, module, image)
        parameters = list(module.parameters())
        owned = _owned_parameters(module, calls)
        total = sum(parameter.numel() for parameter in parameters)
        layers = _layers(calls, layer_types(module), owned, total, batch_size)
        leaves = [call for call, row in zip(calls, layers, strict=True) if not row.is_block]
        activations = sum(call.output_bytes for call in leaves if owned[call.name])
        return ModelSummary(
            title=title,
            image_shape=image_shape,
            batch_size=batch_size,
            layers=layers,
            parameters=total,
            trainable=sum(each.numel() for each in parameters if each.requires_grad),
            multiply_adds=layers[0].multiply_adds,
            parameters_mb=sum(parameter.nbytes for parameter in parameters) / 1e6,
            activations_mb=2 * activations * batch_size / 1e6,
            input_mb=image.nbytes * batch_size / 1e6,
        )


@contextmanager
def prepared(
    model: str | nn.Module, image_shape: tuple[int, int, int], num_classes: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """A model in evaluation mode, built if it is a name, and a blank image (1, C, H, W) for it.

    Raises SeewhyError for an impossible image shape, and if memory runs out inside the block.
    """
    title = model if isinstance(model, str) else type(model).__name__
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise SeewhyError(
            f"image_shape must be (channels, height, width), each at least 1, found {image_shape}"
        )
    if math.prod(image_shape) > LARGEST_IMAGE:
        raise _too_large(title, image_shape)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.device("cpu"))  # not the default device
            stack.enter_context(torch.no_grad())
            stack.enter_context(uncompiled())
            if isinstance(model, str):
                model = build_model(model, num_classes, blank_sample(*image_shape))
            model = stack.enter_context(evaluating(unwrap_model(model)))
            check_observable(model)
            dtype = input_dtype(model) or torch.float32
            yield model, torch.zeros(1, *image_shape, dtype=dtype, device=device_of(model))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(title, image_shape) from error


def first_tensor(value: object) -> Tensor | None:
    """A tensor, or the first one in a tuple, list or dict."""
    if isinstance(value, Tensor):
        return value
    parts: object = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | tuple | list):
        return None
    tensors = (first_tensor(part) for part in parts)  # type: ignore[attr-defined]
    return next((tensor for tensor in tensors if tensor is not None), None)


def shape_text(shape: tuple[int, ...], empty: str = "-") -> str:
    """A shape as in 64x32x32."""
    return "x".join(map(str, shape)) or empty


def _forward(title: str, model: nn.Module, image: Tensor) -> list[_Call]:
    """Run the model and return the modules that ran, in the order in which they began."""
    calls: list[_Call] = []
    running: list[_Call] = []
    seen: set[nn.Module] = set()

    def begin(name: str, module: nn.Module) -> None:
        call = _Call(name, module, again=module in seen)
        seen.add(module)
        calls.append(call)
        running.append(call)

    def end(module: nn.Module, inputs: object, output: object) -> None:
        call = running.pop()
        given, made = first_tensor(inputs), first_tensor(output)
        call.input_shape = () if given is None else tuple(given.shape[1:])
        if made is not None:
            call.output_shape, call.output_bytes = tuple(made.shape[1:]), made.nbytes
            call.multiply_adds = _multiply_adds(module, made)

    with ExitStack() as stack:
        for name, module in named_layers(model).items():
            hooks = (
                module.register_forward_pre_hook(lambda module, _, name=name: begin(name, module)),
                module.register_forward_hook(
                    lambda module, args, kwargs, output: end(module, [args, kwargs], output),
                    with_kwargs=True,
                ),
            )
            for hook in hooks:
                stack.callback(hook.remove)
        try:
            model(image)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            shape = shape_text(tuple(image.shape[1:]))
            raise SeewhyError(
                f"{title} cannot take an image of {shape}: {first_line(error)}"
            ) from error
    return _with_containers(model, calls)


def _with_containers(model: nn.Module, calls: list[_Call]) -> list[_Call]:
    """Add modules that did not run themselves, such as a ModuleList, before what ran inside."""
    complete: list[_Call] = []
    ran, listed = {call.name for call in calls}, set()
    path: list[str] = []  # of the call before
    for call in calls:
        parents = [call.name[:end] for end, sign in enumerate(call.name) if sign == "."]
        for parent in parents:
            if parent not in ran and parent not in path:
                module, again = model.get_submodule(parent), parent in listed
                complete.append(_Call(parent, module, again=again))
                listed.add(parent)
        complete.append(call)
        path = [*parents, call.name]
    return complete


def _owned_parameters(model: nn.Module, calls: list[_Call]) -> Counter[str]:
    """Parameters of each module that are not in a module inside it that ran, by name."""
    names = {call.name for call in calls}
    owned: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        owner = layer_path(name, model).rpartition(".")[0]
        while owner not in names:
            owner = owner.rpartition(".")[0]
        owned[owner] += parameter.numel()
    return owned


def _layers(
    calls: list[_Call],
    types: Mapping[str, str],
    owned: Mapping[str, int],
    total: int,
    batch_size: int,
) -> tuple[LayerSummary, ...]:
    """The rows of the summary; a block's numbers are the sums of the deeper rows after it."""
    depths = [call.name.count(".") + 1 if call.name else 0 for call in calls]
    rows: list[LayerSummary] = []
    loose: list[LayerSummary] = []  # rows that no block has taken yet, the next one last
    for call, depth in zip(reversed(calls), reversed(depths), strict=True):
        inside = []
        while loose and loose[-1].depth > depth:
            inside.append(loose.pop())
        parameters = 0 if call.again else owned[call.name]
        parameters += sum(row.parameters for row in inside)
        multiply_adds = call.multiply_adds * batch_size
        multiply_adds += sum(row.multiply_adds for row in inside)
        row = LayerSummary(
            name=call.name or ROOT,
            type=types[call.name],
            depth=depth,
            is_block=bool(inside),
            kernel=_kernel(call.module),
            input_shape=call.input_shape,
            output_shape=call.output_shape,
            parameters=parameters,
            share=parameters / total if total else 0.0,
            multiply_adds=multiply_adds,
        )
        rows.append(row)
        loose.append(row)
    return tuple(reversed(rows))


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    """Multiply-adds of a layer for one image, as `model_summary` defines them."""
    if isinstance(module, CONVOLUTIONS):
        weights, width = _named_weights(module), module.out_channels
    elif isinstance(module, nn.Linear):
        weights, width = _named_weights(module), module.out_features
    elif isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        weights = sum(parameter.numel() for parameter in module.parameters())
        width = output.shape[-1]
    else:
        return _named_weights(module)
    return weights * (output.numel() // width)


def _named_weights(module: nn.Module) -> int:
    tensors = (getattr(module, name, None) for name in ("weight", "bias"))
    return sum(each.numel() for each in tensors if isinstance(each, Tensor))


def _kernel(module: nn.Module) -> tuple[int, ...]:
    size = getattr(module, "kernel_size", None)
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, tuple | list) else ()


def _too_large(title: str, image_shape: tuple[int, ...]) -> SeewhyError:
    return SeewhyError(
        f"{title} and an image of {shape_text(image_shape)} do not fit into memory; "
        "choose a smaller image or model"
    )
