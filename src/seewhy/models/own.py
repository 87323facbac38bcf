"""A model of one's own: any module, or a function that returns one."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError, describe_value, first_line
from seewhy.models.head import find_head, replace_head
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.outputs import are_probabilities
from seewhy.models.registry import MODELS
from seewhy.wording import counted

OwnModel = nn.Module | Callable[..., nn.Module]


@contextmanager
def using_model(model: OwnModel, name: str | None = None) -> Iterator[str]:
    """Register a model inside the block; yields its name in a recipe.

    Args:
        model: A module, which is copied and not changed, or a function that returns one. The
            function may take the number of classes, or (num_classes, sample) as an entry of MODELS.
        name: Name to register; by default the qualified name of the function, or of the module's
            class.

    Raises:
        SeewhyError: If it is neither, or the name is that of a model of seewhy.
    """
    if not isinstance(model, nn.Module) and not callable(model):
        raise SeewhyError(
            "model must be a torch.nn.Module or a function that returns one, found "
            f"{type(model).__name__}"
        )
    name = name or qualified_name(model)
    if name in MODELS:
        raise SeewhyError(f"the model {name} is registered in seewhy.MODELS; leave out model=")
    MODELS[name] = own_builder(model, name)
    try:
        yield name
    finally:
        MODELS.pop(name, None)


def qualified_name(model: OwnModel) -> str:
    """`package.module.name` of a function, or of the class of a module."""
    named: Any = type(model) if isinstance(model, nn.Module) else model
    if not hasattr(named, "__qualname__"):  # such as functools.partial
        named = type(named)
    return f"{named.__module__}.{named.__qualname__}"


def own_builder(model: OwnModel, name: str) -> Callable[..., nn.Module]:
    """An entry of MODELS that returns the model, with a head for the classes of the data."""
    if isinstance(model, nn.Module):
        module = model

        def copy(num_classes: int, sample: Split) -> nn.Module:
            return _fit_to_data(deepcopy(module), name, num_classes, sample)

        return copy
    function, positional = model, _positional_parameters(model)
    if [p.name for p in positional[:2]] == ["num_classes", "sample"]:

        @wraps(function)
        def entry(num_classes: int, sample: Split, **settings: Any) -> nn.Module:
            made = _called(name, lambda: function(num_classes, sample, **settings))
            return _fit_to_data(made, name, num_classes, sample)

        return entry
    takes_classes = any(p.name == "num_classes" or p.default is p.empty for p in positional)

    def build(num_classes: int, sample: Split) -> nn.Module:
        if not takes_classes:
            made = _called(name, function)
        elif any(p.name == "num_classes" and p.kind != p.POSITIONAL_ONLY for p in positional):
            made = _called(name, lambda: function(num_classes=num_classes))
        else:
            made = _called(name, lambda: function(num_classes))
        return _fit_to_data(made, name, num_classes, sample)

    return build


def _positional_parameters(function: Callable[..., nn.Module]) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of a builtin
        return []
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _called(name: str, make: Callable[[], object]) -> object:
    try:
        return make()
    except (SeewhyError, NotImplementedError):
        raise
    except Exception as error:
        raise SeewhyError(f"{name} fails: {type(error).__name__}: {first_line(error)}") from error


def _fit_to_data(model: object, name: str, num_classes: int, sample: Split) -> nn.Module:
    """The model, checked with two images, with another head if it has other classes."""
    if not isinstance(model, nn.Module):
        raise SeewhyError(
            f"{name} must return a torch.nn.Module, found {type(model).__name__}; it is called "
            "with the number of classes, or without arguments"
        )
    _check_weights(model, name)
    logits = _logits(model, name, sample)
    if logits.shape[1] == num_classes:
        return model
    images = sample.images[:1]
    try:
        find_head(model, images)
    except SeewhyError as error:
        raise SeewhyError(
            f"{name} has {logits.shape[1]} outputs, but the data has "
            f"{counted(num_classes, 'class')}: {error}"
        ) from error
    replace_head(model, num_classes, images)
    _logits(model, name, sample)
    return model


def _check_weights(model: nn.Module, name: str) -> None:
    """Raise SeewhyError unless the weights are float32 and on one device."""
    weights = list(model.parameters())
    if any(weight.is_meta for weight in weights):
        if device_of(nn.Linear(1, 1)).type == "meta":  # it is built without memory
            raise NotImplementedError("no images can pass through a model on meta")
        raise SeewhyError(f"{name} has no weights yet, only their shapes (device meta); load them")
    others = {weight.dtype for weight in weights if weight.dtype != torch.float32}
    if others:
        dtype = str(others.pop()).removeprefix("torch.")
        raise SeewhyError(
            f"{name} has weights in {dtype}, but training keeps them in float32; call "
            "model.float(), and set the recipe's precision to compute in bf16 or fp16"
        )
    devices = sorted({str(weight.device) for weight in weights})
    if len(devices) > 1:
        raise SeewhyError(
            f"{name} is on {len(devices)} devices ({', '.join(devices)}); move it to one"
        )


def _logits(model: nn.Module, name: str, sample: Split) -> Tensor:
    """The logits (N, K) of two images.

    Raises SeewhyError if the model cannot take the images, or returns something else.
    """
    images = sample.images[:2].to(device_of(model)).float() / 255
    try:
        with evaluating(model), torch.no_grad():
            output = model(images)
    except Exception as error:
        raise SeewhyError(
            f"{name} cannot take images of {'x'.join(map(str, images.shape[1:]))}: "
            f"{first_line(error)}; resize the images, or change the model"
        ) from error
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
        found = describe_value(output) if isinstance(output, Tensor) else type(output).__name__
        raise SeewhyError(
            f"{name} must return logits (N, K) for training, a tensor, found {found}; wrap it in a "
            "module that returns them"
        )
    if are_probabilities(output):
        raise SeewhyError(
            f"{name} returns probabilities, but the loss needs logits; remove its softmax"
        )
    return output
