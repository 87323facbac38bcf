"""Find models with published weights, by what the packages say of them without a network."""

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from seewhy.errors import SeewhyError
from seewhy.models.external import imported
from seewhy.models.hub import cached_models
from seewhy.models.published import LAYOUTS
from seewhy.models.registry import blank_sample, build_model

FIELDS = ("size", "classes", "parameters", "accuracy")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}
_FORM = re.compile(r"(\w+)(<=|>=|<|>|=)([\d.]+)([KMB]?)", re.IGNORECASE)


@dataclass(frozen=True)
class PublishedModel:
    """A model with published weights; None where the packages do not say."""

    spec: str
    size: int | None = None  # height and width of the images in pixels
    classes: int | None = None
    parameters: int | None = None
    accuracy: float | None = None  # top-1 on ImageNet, in percent


def find_published(query: str) -> tuple[list[PublishedModel], list[str]]:
    """Find models with published weights.

    Args:
        query: Words that the name contains, and limits such as `size<=224`, `parameters<10M` or
            `accuracy>80`, separated by spaces. A model whose value is not known is not within a
            limit.

    Returns:
        The models, and a remark on each package that could not be asked.

    Raises:
        SeewhyError: For an unknown field, or a limit without a number.
    """
    fits = [_condition(term) for term in query.split()]
    found, remarks = [], []
    for source in (_ours, _cached, _torchvision, _timm):
        try:
            found += [model for model in source() if all(fit(model) for fit in fits)]
        except SeewhyError as error:  # not installed, or broken
            remarks.append(str(error))
    return found, remarks


def _condition(term: str) -> Callable[[PublishedModel], bool]:
    match = _FORM.fullmatch(term)
    if match is None:
        if re.search("[<>=]", term):
            raise SeewhyError(
                f"limit {term!r} is not FIELD<NUMBER; possible fields: {', '.join(FIELDS)}, as in "
                "'size<=224' or 'parameters<10M'"
            )
        return lambda model: term.lower() in model.spec.lower()
    name, sign, number, unit = match.groups()
    if name not in FIELDS:
        raise SeewhyError(f"unknown field {name!r} in {term!r}; possible: {', '.join(FIELDS)}")
    try:
        limit = float(number) * _UNITS[unit.upper()]
    except ValueError:
        raise SeewhyError(f"{number!r} in {term!r} is not a number") from None

    def within(model: PublishedModel) -> bool:
        value = getattr(model, name)
        return value is not None and _COMPARISONS[sign](value, limit)

    return within


@cache
def _ours() -> tuple[PublishedModel, ...]:
    """Our models, whose published weights are read from a file."""
    found = []
    for name in sorted(LAYOUTS):
        with torch.device("meta"):
            model = build_model(name, 1000, blank_sample(3, 65, 65))  # of ImageNet's stem
        parameters = sum(parameter.numel() for parameter in model.parameters())
        found.append(PublishedModel(f"{name}:weights=FILE", 224, 1000, parameters))
    return tuple(found)


def _cached() -> Iterator[PublishedModel]:
    """The models in the local cache of the hub, apart from timm's."""
    for name in cached_models():
        if not name.startswith("timm/"):
            yield PublishedModel(f"hf:{name}")


def _torchvision() -> Iterator[PublishedModel]:
    models: Any = imported("torchvision").models
    for name in models.list_models(module=models):
        weights = models.get_model_weights(name).DEFAULT
        metrics = weights.meta.get("_metrics", {}).get("ImageNet-1K", {})
        yield PublishedModel(
            f"torchvision:{name}",
            weights.transforms().crop_size[0],
            len(weights.meta["categories"]),
            weights.meta.get("num_params"),
            metrics.get("acc@1"),
        )


def _timm() -> Iterator[PublishedModel]:
    timm: Any = imported("timm")
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        yield PublishedModel(f"timm:{name}", config.input_size[-1], config.num_classes or None)
