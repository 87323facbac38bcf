"""What a model consists of: its layers, their shapes, parameters and multiply-adds."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.registry import blank_sample, build_model

LARGEST_IMAGE = (
    10**9
)  # values: 4 GB as float32, and the sample that a network is made for is twice as much
GAP = 2  # spaces between columns
NARROWEST = {"layer": 16, "type": 13}  # to which these may be cut before a column is left out
UNITS = ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))


@dataclass(frozen=True)
class LayerSummary:
    """One layer, in the order of the forward pass; shapes are those of one image."""

    name: str  # the path in the model: layer1.0.conv1
    type: str  # the class: Conv2d
    kernel: tuple[int, ...]  # empty where the layer has none
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int  # 0 where a layer is used again
    share: float  # of the model's parameters, in [0, 1]
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """A model's layers and their totals, for one image in float32; a megabyte (MB) is 10^6 bytes."""

    title: str
    image_shape: tuple[int, int, int]  # (C, H, W)
    layers: tuple[LayerSummary, ...]
    parameters: int
    trainable: int  # parameters that require a gradient
    multiply_adds: int
    parameters_mb: float
    activations_mb: float  # outputs of layers with parameters, and their gradients
    input_mb: float


def model_summary(
    model: str | nn.Module, image_shape: tuple[int, int, int] = (3, 32, 32), num_classes: int = 10
) -> ModelSummary:
    """Send one blank image (C, H, W) through a model, or through the one that a string such as `resnet18` names.

    Multiply-adds are counted as torchinfo does: for each layer its weights and biases times the positions they are applied
    at. So BatchNorm counts with its 2C, and what has no parameters (pooling, additions, attention's products) with nothing.
    The model's mode and device and torch's generator are left as they were. Raises SeewhyError where the model cannot
    take the shape, or both do not fit into memory.
    """
    title = model if isinstance(model, str) else type(model).__name__
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise SeewhyError(
            f"an image shape is (channels, height, width), each at least 1, found {image_shape}"
        )
    if math.prod(image_shape) > LARGEST_IMAGE:
        raise _too_large(title, image_shape)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
        ):  # a named model is made on the CPU, whatever the default is
            net = (
                build_model(model, num_classes, blank_sample(*image_shape))
                if isinstance(model, str)
                else model
            )
            image = torch.zeros(1, *image_shape, device=device_of(net))
            statistics = _torchinfo(title, net, image)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise _too_large(title, image_shape) from error
    parameters = list(net.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    return ModelSummary(
        title=title,
        image_shape=image_shape,
        layers=_layers(net, statistics.summary_list, total),
        parameters=total,
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        multiply_adds=statistics.total_mult_adds,
        parameters_mb=sum(parameter.nbytes for parameter in parameters) / 1e6,
        activations_mb=statistics.total_output_bytes / 1e6,
        input_mb=image.nbytes / 1e6,
    )


def format_summary(summary: ModelSummary, width: int = 80) -> str:
    """The summary as text, no line wider than `width` (at least 40).

    `%` is the layer's share of the parameters, `madds` are multiply-adds. Where room is short, types and layers' paths are cut,
    then columns are left out and named at the end; 80 columns hold all of a network such as resnet18.
    """
    columns = {header: [header, *cells] for header, cells in _columns(summary).items()}
    needed = _narrowest(columns)
    left_out = []
    for header in ("input", "type", "%", "madds"):  # the least telling first
        if _narrowest(columns) > width:
            left_out.append(header)
            del columns[header]
    _cut_to(columns, width)
    widths = [max(map(len, cells)) for cells in columns.values()]
    lines = []
    for row in zip(*columns.values(), strict=True):
        cells = [
            cell.ljust(w) if header in NARROWEST else cell.rjust(w)
            for header, cell, w in zip(columns, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * _table_width(columns)
    title = _shortened(f"{summary.title}, image {_shape(summary.image_shape)}", width)
    note = f"left out to fit {width} columns: {', '.join(left_out)}; a terminal of {needed} columns shows them"
    notes = ["", *textwrap.wrap(note, width)] if left_out else []
    return "\n".join([title, "", lines[0], rule, *lines[1:], rule, *_totals(summary), *notes])


def _torchinfo(title: str, net: nn.Module, image: torch.Tensor) -> Any:
    import torchinfo

    try:
        with evaluating(net):  # torchinfo resets the mode of the whole model, not of each submodule
            return torchinfo.summary(net, input_data=image, verbose=0)
    except RuntimeError as error:
        cause = error.__cause__ or error
        if _is_out_of_memory(cause):
            raise _too_large(title, tuple(image.shape[1:])) from error
        first_line = str(cause).strip().partition("\n")[0]
        raise SeewhyError(
            f"{title} cannot take an image of {_shape(tuple(image.shape[1:]))}: {first_line}"
        ) from error
    finally:
        torchinfo.torchinfo.clear_cached_forward_pass()  # it would keep the model in memory


def _is_out_of_memory(error: BaseException) -> bool:
    """On the CPU torch says it in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(
        error
    )


def _too_large(title: str, image_shape: tuple[int, ...]) -> SeewhyError:
    return SeewhyError(
        f"{title} and an image of {_shape(image_shape)} do not fit into memory; choose a smaller image or network"
    )


def _layers(net: nn.Module, infos: Sequence[Any], total: int) -> tuple[LayerSummary, ...]:
    """Modules without children, and those with parameters of their own."""
    paths = {id(module): name for name, module in net.named_modules()}
    rows = []
    for info in infos:
        own = info.num_params if info.is_leaf_layer else info.leftover_params()
        if not info.is_leaf_layer and own <= 0:
            continue
        parameters = 0 if info.is_recursive else own
        rows.append(
            LayerSummary(
                name=paths[info.layer_id] or "(model)",
                type=info.class_name,
                kernel=_kernel(info.kernel_size),
                input_shape=tuple(info.input_size[1:]),
                output_shape=tuple(info.output_size[1:]),
                parameters=parameters,
                share=parameters / total if total else 0.0,
                multiply_adds=info.macs if info.is_leaf_layer else 0,
            )
        )
    return tuple(rows)


def _kernel(size: int | list[int] | None) -> tuple[int, ...]:
    if size is None:
        return ()
    return (size, size) if isinstance(size, int) else tuple(size)


def _columns(summary: ModelSummary) -> dict[str, list[str]]:
    layers = summary.layers
    return {
        "layer": [layer.name for layer in layers],
        "type": [
            f"{layer.type} {_shape(layer.kernel)}" if layer.kernel else layer.type
            for layer in layers
        ],
        "input": [_shape(layer.input_shape) for layer in layers],
        "output": [_shape(layer.output_shape) for layer in layers],
        "params": [f"{layer.parameters:,}" if layer.parameters else "-" for layer in layers],
        "%": [f"{100 * layer.share:.1f}" if layer.parameters else "-" for layer in layers],
        "madds": [_three_digits(layer.multiply_adds) for layer in layers],
    }


def _narrowest(columns: dict[str, list[str]]) -> int:
    """The width of the table when every column is cut as far as it may be."""
    longest = {header: max(map(len, cells)) for header, cells in columns.items()}
    return sum(min(size, NARROWEST.get(header, size)) for header, size in longest.items()) + GAP * (
        len(columns) - 1
    )


def _cut_to(columns: dict[str, list[str]], width: int) -> None:
    """Cut types, then layers' paths, until the table fits `width`."""
    if "type" in columns:
        longest = max(map(len, columns["type"]))
        room = max(longest - max(_table_width(columns) - width, 0), NARROWEST["type"])
        columns["type"] = [_shortened_type(text, room) for text in columns["type"]]
    longest = max(map(len, columns["layer"]))
    room = max(longest - max(_table_width(columns) - width, 0), 8)
    columns["layer"] = [_shortened(name, room) for name in columns["layer"]]


def _totals(summary: ModelSummary) -> list[str]:
    return [
        f"parameters     {summary.parameters:,}",
        f"  trainable    {summary.trainable:,}",
        f"multiply-adds  {summary.multiply_adds / 1e6:,.2f} M",
        f"memory, MB     {summary.parameters_mb:,.2f} parameters",
        f"               {summary.activations_mb:,.2f} activations",
        f"               {summary.input_mb:,.2f} input",
    ]


def _three_digits(count: int) -> str:
    """A count in at most five characters: 128, 5.13k, 37.7M, 1.16G."""
    if count < 1000:
        return str(count or "-")
    size, unit = next(((size, unit) for size, unit in UNITS if count < 999.5 * size), UNITS[-1])
    value = count / size
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"


def _table_width(columns: dict[str, list[str]]) -> int:
    return sum(max(map(len, cells)) for cells in columns.values()) + GAP * (len(columns) - 1)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "-"


def _shortened(text: str, width: int) -> str:
    """`text`, with its beginning cut where it is longer than `width`: the end of a layer's path is what tells it apart."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _shortened_type(text: str, width: int) -> str:
    """`text`, a class and perhaps its kernel, with the class cut at its end where both are longer than `width`."""
    name, space, kernel = text.partition(" ")
    room = max(width - len(space + kernel), 2)
    return (name if len(name) <= room else name[: room - 1] + "…") + space + kernel
