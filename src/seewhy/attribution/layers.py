"""Layers with spatial output: their layout, their names, and the selection by "auto"."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from seewhy.attribution.hooks import (
    forward_hooks,
    gradients_at,
    main_tensor,
    named_parts,
    record_outputs,
)
from seewhy.attribution.target import PreparedInputs, prepare, run_model
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inspection import inspecting, unwrap_model

Layers = str | nn.Module | Sequence[str | nn.Module]


@dataclass(frozen=True)
class Layout:
    """Layout of a layer's output: a grid of spatial positions, channels first or last, or tokens.

    Args:
        form: "NCHW", "NHWC", or "NLC" for tokens in row-major order.
        grid: Height and width (h, w) of the grid.
        prefix: Tokens before those of the grid, such as the class token.
    """

    form: Literal["NCHW", "NHWC", "NLC"]
    grid: tuple[int, int]
    prefix: int = 0

    def to_grid(self, output: Tensor) -> Tensor:
        """A layer's output, or its gradient, as (N, C, h, w)."""
        if self.form == "NCHW":
            return output
        if self.form == "NHWC":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, *self.grid)

    def to_output(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `to_grid`, with the prefix tokens of `like`, an output of one image."""
        if self.form == "NCHW":
            return values
        if self.form == "NHWC":
            return values.permute(0, 2, 3, 1)
        tokens = values.flatten(2).transpose(1, 2)
        return torch.cat([like[:, : self.prefix].expand(len(tokens), -1, -1), tokens], 1)


def layout_of(
    shape: Sequence[int], images: Sequence[int], prefix: int | None = None
) -> Layout | None:
    """Layout of a layer's output for images (N, C, H, W); None if it is not spatial.

    If both (h, w, C) and (C, h, w) fit the image, channels come first.

    Args:
        shape: Shape of the output, batch first.
        images: Shape of the images, (N, C, H, W).
        prefix: Number of prefix tokens, if known. Otherwise the smallest number that leaves a grid
            of the image's aspect ratio.
    """
    count, _, height, width = images
    if len(shape) not in (3, 4) or shape[0] != count:
        return None
    if len(shape) == 4:
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        fits_first = is_proportional(first, height, width)
        channels_last = is_proportional(last, height, width) and not fits_first
        grid = last if channels_last else first
        return Layout("NHWC" if channels_last else "NCHW", grid) if grid[0] * grid[1] > 1 else None
    for exact, tokens in product((True, False), range(9) if prefix is None else (prefix, 0)):
        positions = shape[1] - tokens
        rows = round((positions * height / width) ** 0.5) if positions > 1 else 0
        if rows and positions % rows == 0:
            grid = (rows, positions // rows)
            if is_proportional(grid, height, width, exact):
                return Layout("NLC", grid, tokens)
    return None


def is_proportional(grid: tuple[int, int], height: int, width: int, exact: bool = False) -> bool:
    """Whether a grid has the image's aspect ratio; up to rounding unless `exact`."""
    if max(grid) == 0 or grid[0] > height or grid[1] > width:
        return False
    slack = 1 if exact or height == width else max(height, width)
    return abs(grid[0] * width - grid[1] * height) < slack


def prefix_tokens(model: nn.Module) -> int | None:
    """Number of tokens before the patch tokens, if the model has it as an attribute (timm)."""
    counts = (getattr(module, "num_prefix_tokens", None) for module in model.modules())
    return next((count for count in counts if isinstance(count, int)), None)


@dataclass(frozen=True)
class Layer:
    """A layer with spatial output, at which maps can be computed.

    Args:
        name: As in `model.named_modules()`.
        type: Name of the module's class.
        channels: C.
        grid: Height and width (h, w) of its output.
        auto: Whether "auto" selects it.
    """

    name: str
    type: str
    channels: int
    grid: tuple[int, int]
    auto: bool


def list_layers(classifier: ClassifierLike, images: Tensor) -> tuple[Layer, ...]:
    """The layers with spatial output for images of this size, in the order in which they finish.

    "auto" selects the last layer with weights at each resolution, at most the last four. With a
    single resolution, as in a vision transformer, it selects the last four blocks. It skips layers
    that the score does not depend on, such as those after the last attention to a class token.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; the first one is enough.

    Raises:
        SeewhyError: For a model in training mode, and for images that do not fit it.
    """
    whole_batch = isinstance(images, Tensor) and images.ndim == 4
    return _list_layers(prepare(classifier, images[:1] if whole_batch else images))


def _list_layers(inputs: PreparedInputs) -> tuple[Layer, ...]:
    model, image = inputs.model, inputs.images[:1]
    with inspecting(model):
        records = record_layers(model, image)
        auto = select_layers(model, image, records)
    return tuple(
        Layer(name, record.type, record.channels, record.layout.grid, name in auto)
        for name, record in records.items()
        if record.layout != SINGLE_POSITION
    )


def resolve_layers(classifier: ClassifierLike, images: Tensor, layers: Layers) -> list[str]:
    """The names of the requested layers.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        layers: "auto", the name of a layer, a module, or several of these.

    Raises:
        SeewhyError: For a layer that the model does not have, and for "auto" if no layer has
            spatial output.
    """
    return layer_names(prepare(classifier, images), layers)


def layer_names(inputs: PreparedInputs, layers: Layers) -> list[str]:
    """`resolve_layers` for prepared inputs."""
    if isinstance(layers, str) and layers == "auto":
        names = [layer.name for layer in _list_layers(inputs) if layer.auto]
        if not names:
            raise SeewhyError(
                "no layer of this model has spatial output; gradients, rise and occlusion need none"
            )
        return names
    listed = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not listed:
        raise SeewhyError("no layers given; name at least one, or 'auto'")
    return list(dict.fromkeys(_layer_name(layer, inputs.model) for layer in listed))


def _layer_name(layer: str | nn.Module, model: nn.Module) -> str:
    parts = named_parts(model)
    if isinstance(layer, nn.Module):
        for name, part in parts.items():
            if unwrap_model(part) is unwrap_model(layer):
                return name
        raise SeewhyError(
            f"the module {type(layer).__name__} is not part of the model; pass one of its "
            "modules, or a name"
        )
    if layer:
        # Not `layer in parts`: that has only the first name of a shared module.
        with suppress(AttributeError):
            model.get_submodule(layer)
            return layer
    raise SeewhyError(
        f"unknown layer {layer!r}{did_you_mean(str(layer), parts)}; `seewhy layers MODEL` and "
        "seewhy.attribution.list_layers(model, images) list the layers"
    )


MAX_AUTO_LAYERS = 4
SINGLE_POSITION = Layout("NCHW", (1, 1))


@dataclass(frozen=True)
class LayerRecord:
    """A module with spatial output or a single position, recorded in a forward pass."""

    type: str
    channels: int
    layout: Layout
    has_weight: bool  # has a weight with at least two dimensions, as a convolution does
    is_leaf: bool  # has no submodules
    is_container: bool  # only calls its submodules in sequence
    is_block: bool  # has a forward of its own over submodules with weights


LayerRecords = dict[str, LayerRecord]  # by name, in the order in which they finish


@torch.no_grad()
def record_layers(model: nn.Module, image: Tensor) -> LayerRecords:
    """Run the model on an image (1, C, H, W) and record its modules.

    The batch contains the image twice. So an output of batch size 1 does not depend on the image,
    such as a table of position embeddings.
    """
    records: LayerRecords = {}
    prefix, pair = prefix_tokens(model), image.expand(2, -1, -1, -1)

    def record(name: str, module: nn.Module, output: object) -> None:
        records.pop(name, None)  # the last run of a module counts
        tensor = main_tensor(output)
        if tensor is None:
            return
        layout = layout_of(tensor.shape, pair.shape, prefix)
        if layout is None and tensor.ndim == 4 and tensor.shape == (2, tensor.shape[1], 1, 1):
            layout = SINGLE_POSITION
        if layout is not None:
            records[name] = _layer_record(unwrap_model(module), layout, tensor)

    with forward_hooks(named_parts(model), record):
        run_model(model, pair)
    return records


def _layer_record(module: nn.Module, layout: Layout, output: Tensor) -> LayerRecord:
    is_leaf = not any(True for _ in module.children())
    is_container = type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    any_weight = any(parameter.ndim > 1 for parameter in module.parameters())
    return LayerRecord(
        type=type(module).__name__,
        channels=output.shape[1] if layout.form == "NCHW" else output.shape[-1],
        layout=layout,
        has_weight=any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)),
        is_leaf=is_leaf,
        is_container=is_container,
        is_block=not is_leaf and not is_container and any_weight,
    )


def select_layers(model: nn.Module, image: Tensor, records: LayerRecords) -> list[str]:
    """The layers that "auto" selects (see `list_layers`) for an image (1, C, H, W)."""
    trunk = _without_branches(records)
    grids = dict.fromkeys(
        record.layout.grid
        for record in trunk.values()
        if record.layout != SINGLE_POSITION and (record.has_weight or record.is_block)
    )
    if len(grids) == 1 and (blocks := _repeated_blocks(model, trunk)):
        return list(_with_gradient(model, image, blocks) or blocks)[-MAX_AUTO_LAYERS:]
    # A grid of another aspect ratio may be that of attention weights or of windows.
    proportional = [grid for grid in grids if is_proportional(grid, *image.shape[2:])]
    by_size = sorted(proportional or grids, key=lambda grid: -grid[0] * grid[1])
    stages = [
        {name: record for name, record in trunk.items() if record.layout.grid == grid}
        for grid in by_size
    ]
    last = [_last_layer(stage) for stage in stages]
    reached = _with_gradient(model, image, {name: records[name] for name in last})
    if reached:  # otherwise the model has no gradient
        stages = [
            stage if name in reached else _with_gradient(model, image, stage)
            for name, stage in zip(last, stages, strict=True)
        ]
        last = [_last_layer(stage) for stage in stages if stage]
    return [_innermost_stage(name, records) for name in last][-MAX_AUTO_LAYERS:]


def _without_branches(records: LayerRecords) -> LayerRecords:
    """Remove layers inside a block whose output has a different grid.

    Such a layer may be a branch, or an intermediate step of downsampling. A module with more than
    half of all layers is the body of the model, not a block.
    """
    parents = {
        name: [name[:end] for end, sign in enumerate(name) if sign == "."] for name in records
    }
    sizes = Counter(parent for names in parents.values() for parent in names)

    def in_block_of_other_grid(name: str, parent: str) -> bool:
        block = records.get(parent)
        if block is None or block.is_container or sizes[parent] > len(records) / 2:
            return False
        return block.layout.grid != records[name].layout.grid

    return {
        name: record
        for name, record in records.items()
        if not any(in_block_of_other_grid(name, parent) for parent in parents[name])
    }


def _last_layer(stage: LayerRecords) -> str:
    """The last block of a stage, or the activation after its last convolution.

    A bare convolution is the last choice.
    """
    names = list(stage)
    convolutions = [name for name in names if stage[name].is_leaf and stage[name].has_weight]
    while names[-1] in convolutions and len(names) > len(convolutions):
        convolutions.remove(names.pop())
    working = [name for name in names if name in convolutions or not stage[name].is_leaf]
    return working[-1] if working and working[-1] not in convolutions else names[-1]


def _innermost_stage(name: str, records: LayerRecords) -> str:
    """Name of the last stage inside a Sequential of several stages; both have the same output."""
    parts = [other for other in records if other.rpartition(".")[0] == name]
    grids = {records[part].layout.grid for part in parts if not records[part].is_leaf}
    if records[name].type == "Sequential" and len(grids) > 1:
        return _innermost_stage(parts[-1], records)
    return name


def _repeated_blocks(model: nn.Module, records: LayerRecords) -> LayerRecords:
    """The longest sequence of siblings of one type: the blocks of a transformer."""
    longest: list[str] = []
    for parent, module in named_parts(model).items():
        container = unwrap_model(module)
        if not isinstance(container, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            continue
        names = [f"{parent}.{child}" for child, _ in container.named_children()]
        row: list[str] = []
        for name in filter(records.get, names):
            same_type = row and records[row[-1]].type == records[name].type
            row = [*row, name] if same_type else [name]
            longest = max(longest, row, key=len)
    return {name: records[name] for name in longest} if len(longest) > 1 else {}


def _with_gradient(model: nn.Module, image: Tensor, records: LayerRecords) -> LayerRecords:
    """The layers with a gradient of the predicted class at their spatial positions.

    If there are none, as with a zero-initialized head: the layers that the logits depend on. Empty
    for a model without gradients; methods that need them raise an error.
    """
    try:
        with record_outputs(model, list(records)) as outputs:
            score = run_model(model, image).amax(1).sum()
            gradients = gradients_at(score, [outputs[name] for name in records])
    except SeewhyError:
        return {}
    reached = {
        name: gradient
        for name, gradient in zip(records, gradients, strict=True)
        if gradient is not None
    }
    nonzero = [
        name
        for name, gradient in reached.items()
        if records[name].layout.to_grid(gradient).count_nonzero()
    ]
    return {name: records[name] for name in nonzero or reached}
