"""The layers that "auto" selects: recorded in a forward pass, and the last of each resolution."""

import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy.attribution.hooks import (
    forward_hooks,
    gradients_at,
    main_tensor,
    named_parts,
    record_outputs,
)
from seewhy.attribution.layouts import Layout, TokenOrder, is_proportional, token_order
from seewhy.attribution.maps import is_residue
from seewhy.attribution.placement import is_misplaced, plant
from seewhy.attribution.target import run_model
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inspection import passes_gradient, unwrap_model
from seewhy.models.summary import CONVOLUTIONS

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
    is_bare: bool  # its output is that of a convolution or linear layer
    is_activated: bool = False  # an activation function reads its output; only of single layers
    is_misplaced: bool = False  # its positions are not where the layout says


LayerRecords = dict[str, LayerRecord]  # by name, in the order in which they finish


def record_layers(classifier: Classifier, image: Tensor) -> LayerRecords:
    """Run the model on an image (1, C, H, W) and record its modules.

    The batch contains the image twice, once with patches, which show whether the positions of a
    layer are where they seem. An output of batch size 1 does not depend on the image, such as a
    table of position embeddings.
    """
    model = classifier.model
    images = plant(image)
    recorder = _Recorder(images, token_order(model))
    parts = named_parts(model)
    inside = {  # of a convolution: its padding, or the parametrization of its weight
        f"{name}.{child}"
        for name, module in parts.items()
        if _is_linear(unwrap_model(module))
        for child, _ in module.named_modules()
        if child
    }
    observed = {name: module for name, module in parts.items() if name not in inside}
    with torch.no_grad(), forward_hooks(observed, recorder.record), _ActivationInputs(recorder):
        run_model(classifier, images)
    return recorder.records


class _Recorder:
    """The modules of a forward pass by name, and which of them return the same tensor."""

    def __init__(self, images: Tensor, order: TokenOrder) -> None:
        self.images, self.order = images, order
        self.records: LayerRecords = {}
        # By id of a tensor: the tensor, so that the id is not reused, and who returned it.
        self.returned: dict[int, tuple[weakref.ref[Tensor], list[str]]] = {}

    def record(self, name: str, module: nn.Module, output: object) -> None:
        """Record a module; of several runs, the last one counts."""
        self.records.pop(name, None)
        tensor = main_tensor(output, len(self.images))
        if tensor is None:
            return
        layout = self.order.layout(name, tensor.shape, self.images.shape)
        if layout is None and tensor.ndim == 4 and tensor.shape == (2, tensor.shape[1], 1, 1):
            layout = SINGLE_POSITION
        if layout is None:
            return
        names = self.same_output(tensor)
        # A wrapper that pads returns the convolution's own tensor.
        of_convolution = any(
            self.records[other].is_bare for other in names if other in self.records
        )
        record = _layer_record(unwrap_model(module), layout, tensor, of_convolution)
        record = replace(record, is_misplaced=is_misplaced(layout, tensor, self.images))
        self.records[name] = record
        names.append(name)

    def same_output(self, tensor: Tensor) -> list[str]:
        """The modules that returned this tensor; a list to add to."""
        reference, names = self.returned.get(id(tensor), (None, []))
        if reference is None or reference() is not tensor:
            names = []
            self.returned[id(tensor)] = weakref.ref(tensor), names
        return names

    def activated(self, tensor: Tensor) -> None:
        """An activation function reads the tensor."""
        names = [name for name in self.same_output(tensor) if name in self.records]
        # Only of a single layer such as BatchNorm; a block may be read by an activation too.
        if names and self.records[names[0]].is_leaf:
            for name in names:
                self.records[name] = replace(self.records[name], is_activated=True)


class _ActivationInputs(TorchFunctionMode):
    """Context that tells a recorder which tensors activation functions read."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").rstrip("_") in _ACTIVATIONS and args:
            self.recorder.activated(args[0])
        return func(*args, **(kwargs or {}))


_ACTIVATIONS = frozenset(("relu", "relu6", "hardtanh", "hardswish", "silu", "gelu", "leaky_relu"))


_LINEAR = (nn.Linear, *CONVOLUTIONS)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, _LINEAR)


def _layer_record(
    module: nn.Module, layout: Layout, output: Tensor, of_convolution: bool
) -> LayerRecord:
    has_weight = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    is_leaf = _is_linear(module) or not any(True for _ in module.children())
    is_container = type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    weighted = [part for part in module.modules() if _is_linear(part)]
    any_weight = any(parameter.ndim > 1 for parameter in module.parameters())
    is_bare = (is_leaf and (has_weight or _is_linear(module))) or (
        of_convolution and len(weighted) == 1
    )
    return LayerRecord(
        type=type(module).__name__,
        channels=output.shape[1] if layout.form == "NCHW" else output.shape[-1],
        layout=layout,
        has_weight=has_weight or _is_linear(module),
        is_leaf=is_leaf,
        is_container=is_container,
        is_block=not is_leaf and not is_container and any_weight,
        is_bare=is_bare,
    )


def select_layers(classifier: Classifier, image: Tensor, records: LayerRecords) -> list[str]:
    """The layers that "auto" selects (see `list_layers`) for an image (1, C, H, W)."""
    records = {name: record for name, record in records.items() if not record.is_misplaced}
    trunk = _without_branches(records)
    grids = dict.fromkeys(
        record.layout.grid
        for record in trunk.values()
        if record.layout != SINGLE_POSITION and (record.has_weight or record.is_block)
    )
    # A grid of another aspect ratio may be that of attention weights or of windows.
    proportional = [grid for grid in grids if is_proportional(grid, *image.shape[2:])]
    by_size = sorted(proportional or grids, key=lambda grid: -grid[0] * grid[1])
    stages = [
        {name: record for name, record in trunk.items() if record.layout.grid == grid}
        for grid in by_size
    ]
    # The convolution that embeds the patches is no stage.
    deep = [stage for stage in stages if not stage[_last_layer(stage)].is_bare]
    blocks = _repeated_blocks(classifier.model, trunk) if len(deep) <= 1 else {}
    candidates = list(blocks) or [_last_layer(stage) for stage in stages]
    effects = _effects(classifier, image, {name: records[name] for name in candidates})
    if effects and set(effects.values()) != {Effect.VARIES}:
        effects = _effects(classifier, image, records)  # of the layers that may be used instead
    if blocks:
        names = list(_with_effect(blocks, effects))
    else:
        used = [_with_effect(stage, effects) for stage in stages]
        names = [
            _innermost_stage(name if name in layers else _last_layer(layers), records)
            for name, layers in zip(candidates, used, strict=True)
            if layers
        ]
    selected = [_without_residue(name, records, effects) for name in names[-MAX_AUTO_LAYERS:]]
    return list(dict.fromkeys(selected))


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

    A bare convolution is the last choice. So is a normalization between a block and an activation
    function, as in DenseNet, because nothing observes the output of a function.
    """
    names = list(stage)
    bare = [name for name in names if stage[name].is_bare]
    while names[-1] in bare and len(names) > len(bare):
        bare.remove(names.pop())
    behind_blocks = list(names)
    while behind_blocks and stage[behind_blocks[-1]].is_activated:
        behind_blocks.pop()
    if behind_blocks and not stage[behind_blocks[-1]].is_leaf:
        names = behind_blocks
    working = [name for name in names if name in bare or not stage[name].is_leaf]
    return working[-1] if working and working[-1] not in bare else names[-1]


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


class Effect(Enum):
    """How the score depends on the spatial positions of a layer."""

    NONE = "no path"
    ZERO = "no gradient"
    CANCELS = "gradient times activation cancels"
    VARIES = "a gradient"


def _effects(classifier: Classifier, image: Tensor, records: LayerRecords) -> dict[str, Effect]:
    """The effect of each layer on the score of the predicted class.

    Empty for a model without gradients, such as a quantized one; methods that need them raise an
    error.
    """
    model = classifier.model
    # At equal positions, as of a plain image, a LayerNorm behind the pooling would cancel, too.
    image = plant(image)[1:]
    try:
        with record_outputs(model, list(records), len(image)) as outputs:
            score = run_model(classifier, image).amax(1).sum()
            if not passes_gradient(model, score):
                return {}
            tensors = {name: outputs[name] for name in records if name in outputs}
            gradients = gradients_at(score, list(tensors.values()))
    except SeewhyError:
        return {}
    effects = dict.fromkeys(records, Effect.NONE)
    for (name, output), gradient in zip(tensors.items(), gradients, strict=True):
        if gradient is None:
            continue
        to_grid = records[name].layout.to_grid
        activation, slope = to_grid(output.detach()), to_grid(gradient)
        effects[name] = Effect.VARIES if slope.count_nonzero() else Effect.ZERO
        if is_residue(activation, slope, "fp32").all():
            effects[name] = Effect.CANCELS
    return effects


def _with_effect(layers: LayerRecords, effects: Mapping[str, Effect]) -> LayerRecords:
    """The layers with a gradient at their spatial positions.

    If there are none, as with a zero-initialized head: the layers that the logits depend on; all
    layers of a model without gradients.
    """
    if not effects:
        return layers
    known = {name: effects[name] for name in layers if name in effects}
    strongest = [name for name in known if known[name] in (Effect.VARIES, Effect.CANCELS)]
    connected = [name for name in known if known[name] != Effect.NONE]
    return {name: layers[name] for name in strongest or connected}


def _without_residue(name: str, records: LayerRecords, effects: Mapping[str, Effect]) -> str:
    """The layer, or another of its grid at which gradient times activation does not cancel.

    The normalization that reads the layer; if it is no module, a layer before the residual sum.
    """
    if effects.get(name) != Effect.CANCELS:
        return name
    order, grid = list(records), records[name].layout.grid
    position = order.index(name)
    usable = [
        other
        for other in order
        if records[other].layout.grid == grid and effects.get(other) == Effect.VARIES
    ]
    behind = [
        other
        for other in usable
        if order.index(other) > position
        and records[other].is_leaf
        and not records[other].has_weight
    ]
    before = [
        other for other in usable if order.index(other) < position and not records[other].is_bare
    ]
    return next(iter(behind), before[-1] if before else name)
