"""Sanity checks: does a map change when the weights of the model are randomized?"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from seewhy.attribution.explanation import Explanation, View, explain_prepared, names_for
from seewhy.attribution.hooks import forward_hooks
from seewhy.attribution.layers import Layers
from seewhy.attribution.methods import BoundMethod, Methods, bind_methods
from seewhy.attribution.statuses import PIXELS
from seewhy.attribution.target import (
    PreparedInputs,
    Relative,
    Target,
    TargetSpec,
    prepare,
    run_model,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inspection import check_observable, inspecting, layer_path

MAX_SIMILARITY = 0.5  # a method fails at this mean rank correlation with the maps of a random model


@dataclass(frozen=True, eq=False)
class SanityCheck:
    """Similarity of the maps of one method at one layer while the model is randomized.

    Args:
        randomized: At each step, the module up to which the weights are random, output first.
        similarity: (steps, N) float32 in [-1, 1], Spearman's rank correlation of the absolute
            values with those of the trained model; NaN where a map is constant.
        passed: Whether the mean similarity to the maps of the random model is below 0.5, or cannot
            be computed.
    """

    randomized: tuple[str, ...]
    similarity: Tensor
    passed: bool

    @property
    def final_similarity(self) -> float:
        """Mean similarity once all weights are random; NaN if all those maps are constant."""
        return self.similarity[-1].nanmean().item()


def sanity_check(
    classifier: ClassifierLike,
    images: Tensor,
    methods: Methods = "grad-cam",
    layers: Layers = "auto",
    target: Target = Relative.PREDICTED,
    *,
    steps: int = 8,
    seed: int = 0,
    labels: Tensor | None = None,
) -> dict[tuple[str, str], SanityCheck]:
    """Cascading randomization (Adebayo et al. 2018, arXiv 1810.03292, section 3.1).

    A copy of the model is reinitialized from the output to the input, and the same class is
    explained after each step. A map that does not change does not depend on the learned weights.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        methods: As in `explain`.
        layers: As in `explain`.
        target: As in `explain`.
        steps: Maximum number of steps from the trained to the random model.
        seed: Seed of the random weights.
        labels: True classes (N,) int64, for the target "true".

    Returns:
        Results by (layer, method).

    Raises:
        SeewhyError: As `explain`, and for fewer steps than 1.
    """
    if steps < 1:
        raise SeewhyError(f"steps must be at least 1, found {steps}")
    bound = bind_methods(methods)
    inputs = prepare(classifier, images, target, labels)
    explanation = explain_prepared(inputs, bound, names_for(bound, inputs, layers))
    return randomize(inputs, bound, explanation, steps, seed)


def randomize(
    inputs: PreparedInputs,
    methods: list[BoundMethod],
    explanation: Explanation,
    steps: int,
    seed: int = 0,
    views: Sequence[View] = (),
) -> dict[tuple[str, str], SanityCheck]:
    """`sanity_check` for prepared inputs and their explanation, which may average over views."""
    check_observable(inputs.model)
    names = [layer for layer in explanation.layers if layer != PIXELS]
    modules = weighted_modules(inputs)[::-1]
    stops = torch.linspace(0, len(modules), min(steps, len(modules)) + 1).round().long().tolist()
    model, device = copy.deepcopy(inputs.model), inputs.images.device
    changed = replace(
        inputs,
        classifier=replace(inputs.classifier, model=model),
        target=TargetSpec(explanation.weights),
    )
    similarities: dict[tuple[str, str], list[Tensor]] = {key: [] for key in explanation.maps}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start, stop in pairwise(stops):
            for name in modules[start:stop]:
                reinitialize(model.get_submodule(name))
            maps: Mapping[tuple[str, str], Tensor] = {}
            with suppress(SeewhyError):  # all methods fail for the random model
                maps = explain_prepared(changed, methods, names, views).maps
            for key, trained in explanation.maps.items():
                unknown = torch.full((len(trained),), torch.nan)
                similarities[key].append(
                    rank_correlation(trained.abs(), maps[key].abs()) if key in maps else unknown
                )
    randomized = tuple(layer_path(modules[stop - 1], model) for stop in stops[1:])
    return {
        key: _sanity_check(randomized, torch.stack(values)) for key, values in similarities.items()
    }


def weighted_modules(inputs: PreparedInputs) -> list[str]:
    """Modules with their own weights, in the order in which they first run."""
    order: dict[str, None] = {}
    model = inputs.model

    def record(name: str, module: nn.Module, output: object) -> None:
        order.setdefault(name)

    weighted = {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    with inspecting(model), torch.no_grad(), forward_hooks(weighted, record):
        run_model(inputs.classifier, inputs.images[:1])
    return list(order)


@torch.no_grad()
def reinitialize(module: nn.Module) -> None:
    """Randomize a module's own weights: `reset_parameters`, or else normal with the same spread."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        spread = parameter.std() if parameter.numel() > 1 else parameter.abs().sum()
        parameter.copy_(torch.randn(parameter.shape) * spread.cpu())


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation of the maps (N, h, w) of each image, on the CPU.

    Returns:
        (N,) float32 in [-1, 1]; NaN where one of the two is constant.
    """
    ranks = average_ranks(torch.stack([one.flatten(1), other.flatten(1)]).cpu())
    centered = ranks - ranks.mean(-1, keepdim=True)
    norms = centered.norm(dim=-1)
    products = (centered[0] * centered[1]).sum(-1)
    return torch.where((norms > 0).all(0), products / norms.prod(0), torch.nan).float()


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last dimension; equal values share the mean of theirs.

    Returns:
        Float64 of the same shape; NaN in a row with a NaN. Equal to scipy.stats.rankdata, which
        takes seconds to import.
    """
    ordered = values.sort(-1).values
    lower, upper = (
        torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True)
    )
    ranks = (lower + upper + 1).double() / 2
    return ranks.masked_fill(values.isnan().any(-1, keepdim=True), torch.nan)


def _sanity_check(randomized: tuple[str, ...], similarity: Tensor) -> SanityCheck:
    mean = similarity[-1].nanmean()
    return SanityCheck(randomized, similarity, bool(mean < MAX_SIMILARITY) or bool(mean.isnan()))
