"""Summary of a model: its layers, their shapes, parameters, and multiply-adds."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.registry import blank_sample, build_model

LARGEST_IMAGE = 10**9  # values: 4 GB as float32; the sample for a new model is twice as large
GAP = 2  # spaces between columns of the table
NARROWEST = {"layer": 16, "type": 13}  # columns that fold, with their minimum width
LEFT_OUT_FIRST = ("input", "type", "%", "madds")
UNITS = ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))


@dataclass(frozen=True)
class LayerSummary:
    """One layer, in the order of the forward pass; shapes are those of one image."""

    name: str  # path in the model, such as layer1.0.conv1
    type: str  # class name, such as Conv2d
    kernel: tuple[int, ...]  # empty for a layer without a kernel
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int  # 0 when a layer is used again
    share: float  # of the model's parameters, in [0, 1]
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """Layers and totals of a model for one image in float32; 1 MB is 10^6 bytes."""

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
    """Summarize a model's layers by a forward pass of one blank image.

    Multiply-adds are counted as in torchinfo: a layer's weights and biases times the number of
    positions where they are applied. So BatchNorm counts 2C, and operations without parameters
    (pooling, additions, attention products) are not counted. The model's mode and device and
    torch's generator are unchanged.

    Args:
        model: A module, or the name of a model such as "resnet18".
        image_shape: (C, H, W) of the image.
        num_classes: Number of classes of a model given by name.

    Raises:
        SeewhyError: If the model does not accept the image, or the two do not fit into memory.
    """
    title = model if isinstance(model, str) else type(model).__name__
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise SeewhyError(
            f"image_shape must be (channels, height, width), each at least 1, found {image_shape}"
        )
    if math.prod(image_shape) > LARGEST_IMAGE:
        raise _too_large(title, image_shape)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),  # not the default device
        ):
            if isinstance(model, str):
                model = build_model(model, num_classes, blank_sample(*image_shape))
            image = torch.zeros(1, *image_shape, device=device_of(model))
            statistics = _torchinfo(title, model, image)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise _too_large(title, image_shape) from error
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    return ModelSummary(
        title=title,
        image_shape=image_shape,
        layers=_layers(model, statistics.summary_list, total),
        parameters=total,
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        multiply_adds=statistics.total_mult_adds,
        parameters_mb=sum(parameter.nbytes for parameter in parameters) / 1e6,
        activations_mb=statistics.total_output_bytes / 1e6,
        input_mb=image.nbytes / 1e6,
    )


def format_summary(summary: ModelSummary, width: int = 80) -> str:
    """Format a summary as a text table.

    `%` is the layer's percentage of the parameters, `madds` are multiply-adds. If the table is too
    wide, types and layer names are folded, then columns are left out and listed below it. A model
    such as resnet18 fits into 80 columns.

    Args:
        summary: The result of `model_summary`.
        width: Maximum characters per line, at least 40.
    """
    columns = _columns(summary)
    needed = _narrowest(columns)
    left_out = []
    for header in LEFT_OUT_FIRST:
        if _narrowest(columns) > width:
            left_out.append(header)
            del columns[header]
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        color_system=None,
        force_jupyter=False,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(f"{summary.title}, image {_shape(summary.image_shape)}\n", overflow="fold")
    console.print(_table(columns, width))
    console.print("", *_totals(summary), sep="\n")
    if left_out:
        console.print(
            f"\nleft out to fit {width} columns: {', '.join(left_out)}; "
            f"{needed} columns show everything"
        )
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def _torchinfo(title: str, model: nn.Module, image: torch.Tensor) -> Any:
    import torchinfo

    try:
        with evaluating(model):  # torchinfo resets the mode of the model, not of each submodule
            return torchinfo.summary(model, input_data=image, verbose=0)
    except RuntimeError as error:
        cause = error.__cause__ or error
        if _is_out_of_memory(cause):
            raise _too_large(title, tuple(image.shape[1:])) from error
        first_line = str(cause).strip().partition("\n")[0]
        raise SeewhyError(
            f"{title} cannot take an image of {_shape(tuple(image.shape[1:]))}: {first_line}"
        ) from error
    finally:
        torchinfo.torchinfo.clear_cached_forward_pass()  # else the model stays in memory


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is out-of-memory; on the CPU this is known only from torch's message."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "DefaultCPUAllocator" in str(error)


def _too_large(title: str, image_shape: tuple[int, ...]) -> SeewhyError:
    return SeewhyError(
        f"{title} and an image of {_shape(image_shape)} do not fit into memory; "
        "choose a smaller image or model"
    )


def _layers(model: nn.Module, infos: Sequence[Any], total: int) -> tuple[LayerSummary, ...]:
    """Modules without children, and modules with parameters outside their children."""
    paths = {id(module): name for name, module in model.named_modules()}
    rows = []
    for info in infos:
        direct = info.num_params if info.is_leaf_layer else info.leftover_params()
        if not info.is_leaf_layer and direct <= 0:
            continue
        parameters = 0 if info.is_recursive else direct
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
    """The cells of each column, by header."""
    layers = summary.layers
    return {
        "layer": [layer.name for layer in layers],
        "type": [f"{layer.type} {_shape(layer.kernel, '')}".rstrip() for layer in layers],
        "input": [_shape(layer.input_shape) for layer in layers],
        "output": [_shape(layer.output_shape) for layer in layers],
        "params": [f"{layer.parameters:,}" if layer.parameters else "-" for layer in layers],
        "%": [f"{100 * layer.share:.1f}" if layer.parameters else "-" for layer in layers],
        "madds": [_three_digits(layer.multiply_adds) for layer in layers],
    }


def _widths(columns: Mapping[str, Sequence[str]]) -> dict[str, int]:
    return {header: max(map(len, [header, *cells])) for header, cells in columns.items()}


def _narrowest(columns: Mapping[str, Sequence[str]]) -> int:
    """Width of the table with layer names and types folded to their minimum."""
    widths = _widths(columns)
    folded = (min(width, NARROWEST.get(header, width)) for header, width in widths.items())
    return sum(folded) + GAP * (len(widths) - 1)


def _table(columns: Mapping[str, Sequence[str]], width: int) -> Table:
    """The table; rich folds text beyond `width`, types before layer names."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    widths = _widths(columns)
    excess = sum(widths.values()) + GAP * (len(widths) - 1) - width
    for header in columns:
        if header not in NARROWEST:
            table.add_column(header, justify="right", no_wrap=True)
        elif header == "type":
            room = max(widths[header] - max(excess, 0), NARROWEST[header])
            table.add_column(header, overflow="fold", max_width=room)
        else:
            table.add_column(header, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


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


def _shape(shape: Sequence[int], empty: str = "-") -> str:
    return "x".join(map(str, shape)) or empty
