"""Layers with spatial output: `list_layers`, and their names."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor, nn

from seewhy.attribution.hooks import named_parts
from seewhy.attribution.layer_selection import SINGLE_POSITION, record_layers, select_layers
from seewhy.attribution.target import PreparedInputs, prepare
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inspection import check_observable, inspecting, layer_path, unwrap_model

Layers = str | nn.Module | Sequence[str | nn.Module]


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
    Where only a normalization such as LayerNorm reads a layer, gradient times activation cancels,
    and it selects the normalization.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; the first one is enough.

    Raises:
        SeewhyError: For a model in training mode, and for images that do not fit it.
    """
    whole_batch = isinstance(images, Tensor) and images.ndim == 4
    return _list_layers(prepare(classifier, images[:1] if whole_batch else images))


def _list_layers(inputs: PreparedInputs) -> tuple[Layer, ...]:
    classifier, image = inputs.classifier, inputs.images[:1]
    check_observable(classifier.model)
    with inspecting(classifier.model):
        records = record_layers(classifier, image)
        auto = select_layers(classifier, image, records)
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
    check_observable(inputs.model)
    listed = [layers] if isinstance(layers, str | nn.Module) else layers
    if not isinstance(listed, Iterable):
        raise SeewhyError(
            f"layers must be 'auto', the name of a layer, or a list of names, found {layers!r}; "
            "seewhy.attribution.list_layers(model, images) lists them"
        )
    listed = list(listed)
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
            return layer_path(layer, model) or layer
    raise SeewhyError(
        f"unknown layer {layer!r}{did_you_mean(str(layer), parts)}; `seewhy layers MODEL` lists "
        "the layers (in Python list_layers(model, images))"
    )
