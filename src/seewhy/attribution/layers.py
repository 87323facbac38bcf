"""How the output of a layer lies on the image."""

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
from seewhy.attribution.target import outputs
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inspection import check_images, inspecting, prepare_images, unwrap_model


@dataclass(frozen=True)
class Layout:
    """How a layer's output lies on the image: channels first, channels last, or tokens, perhaps with others before them."""

    form: Literal["NCHW", "NHWC", "NLC"]
    grid: tuple[int, int]
    prefix: int = 0  # tokens that belong to no place, such as the class token

    def to_grid(self, output: Tensor) -> Tensor:  # (N, C, h, w)
        """A layer's output, or its gradient, by place."""
        if self.form == "NCHW":
            return output
        if self.form == "NHWC":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, *self.grid)

    def to_output(self, values: Tensor, prefix: Tensor) -> Tensor:
        """The inverse of `to_grid`; `prefix` is an output of one image that lends the tokens which have no place."""
        if self.form == "NCHW":
            return values
        if self.form == "NHWC":
            return values.permute(0, 2, 3, 1)
        tokens = values.flatten(2).transpose(1, 2)
        return torch.cat([prefix[:, : self.prefix].expand(len(tokens), -1, -1), tokens], 1)


def layout_of(
    shape: Sequence[int], images: Sequence[int], prefixes: int | None = None
) -> Layout | None:
    """How an output of `shape` lies on images (N, C, H, W), or None where it has no places.

    `prefixes` is the number of tokens before the grid where the model says it; otherwise the fewest that leave a grid of the
    image's proportions. Where (h, w, C) and (C, h, w) both fit the image, channels come first.
    """
    count, _, height, width = images
    if len(shape) not in (3, 4) or shape[0] != count:
        return None
    if len(shape) == 4:
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        channels_last = is_proportional(last, height, width) and not is_proportional(
            first, height, width
        )
        grid = last if channels_last else first
        return Layout("NHWC" if channels_last else "NCHW", grid) if grid[0] * grid[1] > 1 else None
    for exact, prefix in product((True, False), range(9) if prefixes is None else (prefixes, 0)):
        places = shape[1] - prefix
        rows = round((places * height / width) ** 0.5) if places > 1 else 0
        if (
            rows
            and places % rows == 0
            and is_proportional((rows, places // rows), height, width, exact)
        ):
            return Layout("NLC", (rows, places // rows), prefix)
    return None


def is_proportional(grid: tuple[int, int], height: int, width: int, exact: bool = False) -> bool:
    """Whether the grid's cells are as high as wide; unless `exact`, within the rounding of odd sizes."""
    if max(grid) == 0 or grid[0] > height or grid[1] > width:
        return False
    slack = 1 if exact or height == width else max(height, width)
    return abs(grid[0] * width - grid[1] * height) < slack


def prefix_tokens(model: nn.Module) -> int | None:
    """How many tokens a transformer puts before those of its patches, where it says so as timm's do."""
    counts = (getattr(module, "num_prefix_tokens", None) for module in model.modules())
    return next((count for count in counts if isinstance(count, int)), None)


AT_MOST = 4  # layers that "auto" chooses

SINGLE_POSITION = Layout("NCHW", (1, 1))


@dataclass(frozen=True)
class LayerRecord:
    """What a forward pass shows of a module whose output has places, or is a single one."""

    type: str
    channels: int
    layout: Layout
    matrix: bool  # has a weight matrix of its own, as a convolution has
    leaf: bool  # has no modules in it
    plain: bool  # only calls what is in it, in turn
    block: bool  # calls what is in it, weight matrices among them, in a way of its own


LayerRecords = dict[str, LayerRecord]  # by name, in the order of finishing


@torch.no_grad()
def record_layers(model: nn.Module, image: Tensor) -> LayerRecords:
    """What goes through the modules with the image, twice: what is not by image, such as a table of positions, comes once."""
    found: LayerRecords = {}
    prefix, pair = prefix_tokens(model), image.expand(2, -1, -1, -1)

    def note(name: str, module: nn.Module, output: object) -> None:
        tensor, module = main_tensor(output), unwrap_model(module)
        layout = None if tensor is None else layout_of(tensor.shape, pair.shape, prefix)
        leaf, plain = (
            not any(True for _ in module.children()),
            type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict),
        )
        found.pop(name, None)  # of a module that runs again the last time counts
        if (
            tensor is not None
            and layout is None
            and tensor.ndim == 4
            and tensor.shape == (2, tensor.shape[1], 1, 1)
        ):
            layout = SINGLE_POSITION
        if tensor is not None and layout is not None:
            found[name] = LayerRecord(
                type=type(module).__name__,
                channels=tensor.shape[1] if layout.form == "NCHW" else tensor.shape[-1],
                layout=layout,
                matrix=any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)),
                leaf=leaf,
                plain=plain,
                block=not leaf
                and not plain
                and any(parameter.ndim > 1 for parameter in module.parameters()),
            )

    with forward_hooks(named_parts(model), note):
        outputs(model, pair)
    return found


def select_layers(model: nn.Module, image: Tensor, found: LayerRecords) -> list[str]:
    """What "auto" means (see `find_layers`) for an image (1, C, H, W), inside `untouched`."""
    outer = _outer(found)
    grids = dict.fromkeys(
        seen.layout.grid
        for seen in outer.values()
        if seen.layout != SINGLE_POSITION and (seen.matrix or seen.block)
    )
    if len(grids) == 1 and (blocks := _blocks(model, outer)):
        return list(_counting(model, image, blocks) or blocks)[-AT_MOST:]
    like_image = [
        grid for grid in grids if is_proportional(grid, *image.shape[2:])
    ]  # others may be of attention or of windows
    by_size = sorted(like_image or grids, key=lambda grid: -grid[0] * grid[1])
    stages = [
        {name: seen for name, seen in outer.items() if seen.layout.grid == grid} for grid in by_size
    ]
    chosen = [_last(stage) for stage in stages]
    counting = _counting(model, image, {name: found[name] for name in chosen})
    if counting:  # otherwise nothing is known
        rest = [
            stage if name in counting else _counting(model, image, stage)
            for name, stage in zip(chosen, stages, strict=True)
        ]
        chosen = [_last(stage) for stage in rest if stage]
    return [_end(name, found) for name in chosen][-AT_MOST:]


def _outer(found: LayerRecords) -> LayerRecords:
    """Without what is inside a block of another grid: it may be a branch, or a step on the way to the next grid.

    A module that holds more than half of all layers is not a block but the body of the network.
    """
    above = {name: [name[:end] for end, sign in enumerate(name) if sign == "."] for name in found}
    sizes = Counter(each for names in above.values() for each in names)

    def apart(name: str, other: str) -> bool:
        around = found.get(other)
        if around is None or around.plain or sizes[other] > len(found) / 2:
            return False
        return around.layout.grid != found[name].layout.grid

    return {
        name: seen
        for name, seen in found.items()
        if not any(apart(name, other) for other in above[name])
    }


def _last(stage: LayerRecords) -> str:
    """The last whole block of a grid, or what stands behind a convolution that follows it; no bare convolution if possible."""
    names = list(stage)
    convolutions = [name for name in names if stage[name].leaf and stage[name].matrix]
    while names[-1] in convolutions and len(names) > len(convolutions):
        convolutions.remove(names.pop())
    working = [name for name in names if name in convolutions or not stage[name].leaf]
    return working[-1] if working and working[-1] not in convolutions else names[-1]


def _end(name: str, found: LayerRecords) -> str:
    """The last stage in a plain sequence of several, whose output is the same, under the name that is like the others'."""
    parts = [other for other in found if other.rpartition(".")[0] == name]
    if (
        found[name].type == "Sequential"
        and len({found[part].layout.grid for part in parts if not found[part].leaf}) > 1
    ):
        return _end(parts[-1], found)
    return name


def _blocks(model: nn.Module, found: LayerRecords) -> LayerRecords:
    """The longest row of siblings of one type, which is what a transformer's blocks are."""
    longest: list[str] = []
    for parent, module in named_parts(model).items():
        if isinstance(unwrap_model(module), nn.Sequential | nn.ModuleList | nn.ModuleDict):
            names = [f"{parent}.{child}" for child, _ in unwrap_model(module).named_children()]
            row: list[str] = []
            for name in filter(found.get, names):
                row = [*row, name] if row and found[row[-1]].type == found[name].type else [name]
                longest = max(longest, row, key=len)
    return {name: found[name] for name in longest} if len(longest) > 1 else {}


def _counting(model: nn.Module, image: Tensor, layers: LayerRecords) -> LayerRecords:
    """Those of `layers` whose places count for the predicted class; if none do, as under a head of zeros, those on its way."""
    try:
        with record_outputs(model, list(layers)) as seen:
            score = outputs(model, image).amax(1).sum()
            gradients = gradients_at(score, [seen[name] for name in layers])
    except SeewhyError:  # of a network that has no gradient; whoever needs one will be told
        return {}
    reached = {
        name: gradient
        for name, gradient in zip(layers, gradients, strict=True)
        if gradient is not None
    }
    counting = [
        name
        for name, gradient in reached.items()
        if layers[name].layout.to_grid(gradient).count_nonzero()
    ]
    return {name: layers[name] for name in counting or reached}


Layers = str | nn.Module | Sequence[str | nn.Module]


@dataclass(frozen=True)
class Layer:
    """A layer whose output has places, so that it can be explained."""

    name: str  # as in model.named_modules()
    type: str
    channels: int
    grid: tuple[int, int]  # (h, w)
    auto: bool  # is one of those that "auto" chooses


def list_layers(classifier: ClassifierLike, images: Tensor) -> tuple[Layer, ...]:
    """The layers that can be named for images of this kind (N, C, H, W), in the order in which they finish.

    "auto" takes the last layer of each resolution with weights, of more than four the last four. Where there is but one
    resolution, as in a vision transformer, it takes the last four blocks. Layers whose places do not count for the predicted
    class, such as what follows the last attention of a class token, are left out. Raises SeewhyError for images or a model that
    cannot be asked.
    """
    check_images(images)
    model = unwrap_model(as_classifier(classifier).model)
    with inspecting(model):
        image = prepare_images(images[:1], model)
        found = record_layers(model, image)
        chosen = select_layers(model, image, found)
    placed = {name: seen for name, seen in found.items() if seen.layout != SINGLE_POSITION}
    return tuple(
        Layer(name, seen.type, seen.channels, seen.layout.grid, name in chosen)
        for name, seen in placed.items()
    )


def resolve_layers(classifier: ClassifierLike, images: Tensor, layers: Layers) -> list[str]:
    """The names of `layers`: "auto", a name, a module, or several of them. Raises SeewhyError for one that is not the model's."""
    model = unwrap_model(as_classifier(classifier).model)
    if isinstance(layers, str) and layers == "auto":
        chosen = [layer.name for layer in list_layers(model, images) if layer.auto]
        if not chosen:
            raise SeewhyError(
                "no layer of this model has an output with places; gradients, rise and occlusion need none"
            )
        return chosen
    listed = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not listed:
        raise SeewhyError("no layer is named; name one, or 'auto'")
    return list(dict.fromkeys(_name_of(layer, model) for layer in listed))


def _name_of(layer: str | nn.Module, model: nn.Module) -> str:
    parts = named_parts(model)
    if isinstance(layer, nn.Module):
        name = next(
            (name for name, part in parts.items() if unwrap_model(part) is unwrap_model(layer)),
            None,
        )
        if name is None:
            raise SeewhyError(
                f"the layer {type(layer).__name__} is not a part of the model; name one of its own, or give its name"
            )
        return name
    if layer:
        with suppress(AttributeError):
            model.get_submodule(
                layer
            )  # also where a module has several names, of which `parts` holds the first
            return layer
    raise SeewhyError(
        f"unknown layer {layer!r}{did_you_mean(str(layer), parts)}; `seewhy layers MODEL` and "
        "seewhy.find_layers(model, images) list those there are"
    )
