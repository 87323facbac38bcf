"""Freezing parameters after or until an epoch, and the statistics of BatchNorm."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from seewhy._torch_compat import BatchNorm
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.models.inspection import layer_path
from seewhy.notation import parse
from seewhy.train.layer_decay import layer_depths
from seewhy.train.recipe import Recipe


def training_spans(
    model: nn.Module, images: Tensor, recipe: Recipe, frozen: dict[str, float]
) -> dict[nn.Parameter, tuple[float, float]]:
    """The parameters that a recipe freezes for a time: when their training begins, and ends.

    Args:
        model: The model.
        images: (N, C, H, W) uint8; the first ones pass through the model.
        recipe: Its `freeze_layers` and `unfreeze_epochs` are used.
        frozen: From `frozen_after`, for its `freeze`.

    Returns:
        The epochs from which and until which each is trained, 0 and infinity for no limit.

    Raises:
        SeewhyError: For a name in `frozen` without trainable parameters, and if at some time there
            is none to train.
    """
    begins = dict(unfreezing(model, images, recipe.unfreeze_epochs))
    ends: dict[nn.Parameter, float] = {}
    first = first_layers(model, images, recipe.freeze_layers)
    for parameter, epoch in (*freezable(model, frozen), *first):
        ends[parameter] = min(epoch, ends.get(parameter, math.inf))
    spans: dict[nn.Parameter, tuple[float, float]] = {
        each: (begins.get(each, 0), ends.get(each, math.inf)) for each in (*begins, *ends)
    }
    trained = [spans.get(each, (0, math.inf)) for each in model.parameters() if each.requires_grad]
    for epoch in sorted({0, *(end for _, end in trained)}):  # fewer are trained from then on
        if epoch < recipe.epochs and not any(begin <= epoch < end for begin, end in trained):
            raise SeewhyError(
                f"{_settings(recipe)} leaves no parameter to train at epoch {epoch:g}; freeze "
                "fewer, or later"
            )
    return spans


def _settings(recipe: Recipe) -> str:
    """The settings that freeze parameters."""
    settings = {
        "freeze": " ".join(recipe.freeze),
        "freeze_layers": recipe.freeze_layers,
        "unfreeze_epochs": recipe.unfreeze_epochs,
    }
    return " with ".join(f"{name} {value}" for name, value in settings.items() if value)


def frozen_after(entries: Sequence[str]) -> dict[str, float]:
    """The epoch after which each named parameter or module is frozen.

    `("whiten:3",)` is `{"whiten": 3.0}`.

    Raises:
        SeewhyError: If an entry is not a name with an epoch.
    """
    epochs: dict[str, float] = {}
    for entry in entries:
        name, values, keywords = parse(entry)
        try:
            (epoch,) = map(float, values)
        except ValueError:
            epoch = -1.0
        if not name or keywords or not 0 <= epoch < float("inf"):
            raise SeewhyError(f"freeze takes names with an epoch, as in whiten:3, found {entry!r}")
        epochs[name] = epoch
    return epochs


def freezable(model: nn.Module, epochs: dict[str, float]) -> list[tuple[nn.Parameter, float]]:
    """The trainable parameters to freeze, each with the epoch after which it is frozen.

    Args:
        model: The model.
        epochs: Epoch by the name of a parameter or module, as `layer_path` or torch spells it.

    Raises:
        SeewhyError: For a name without trainable parameters.
    """
    trainable = [
        (name, layer_path(name, model), parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    result = []
    for prefix, epoch in epochs.items():
        matches = [
            (parameter, epoch)
            for name, path, parameter in trainable
            if f"{path}.".startswith(f"{prefix}.") or f"{name}.".startswith(f"{prefix}.")
        ]
        if not matches:
            modules = dict.fromkeys(path.split(".")[0] for _, path, _ in trainable)
            raise SeewhyError(
                f"freeze: the model has no trainable parameter {prefix!r}"
                f"{did_you_mean(prefix, modules)}; possible: {', '.join(modules)}"
            )
        result += matches
    return result


def first_layers(
    model: nn.Module, images: Tensor, fraction: float
) -> list[tuple[nn.Parameter, float]]:
    """The trainable parameters of the first layers, each with epoch 0: never trained.

    Args:
        model: The model; for its layers see `layer_depths`.
        images: (N, C, H, W) uint8; the first ones pass through the model.
        fraction: Of the layers, in [0, 1), rounded down.
    """
    if not fraction:
        return []
    depths = layer_depths(model, images)
    end = int(fraction * (max(depths.values()) + 1))
    return [
        (parameter, 0.0)
        for parameter, depth in depths.items()
        if parameter.requires_grad and depth < end
    ]


def unfreezing(model: nn.Module, images: Tensor, epochs: int) -> list[tuple[nn.Parameter, int]]:
    """The trainable parameters, each with the epoch at which its training begins.

    Gradual unfreezing (Howard & Ruder 2018, arXiv 1801.06146, section 3.3), from the last layer to
    the first one, in stages of as equal numbers of layers as possible.

    Args:
        model: The model; for its layers see `layer_depths`.
        images: (N, C, H, W) uint8; the first ones pass through the model.
        epochs: After which all layers train; 0 trains all of them at once.
    """
    if not epochs:
        return []
    depths = layer_depths(model, images)
    last = max(depths.values())
    return [
        (parameter, math.ceil(epochs * (last - depth) / max(last, 1)))
        for parameter, depth in depths.items()
        if parameter.requires_grad
    ]


def freeze_batch_norms(model: nn.Module) -> None:
    """Put every BatchNorm with running statistics into evaluation mode: it uses and keeps them."""
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.track_running_stats:
            module.eval()
