"""Does a map depend on what the network has learned? Randomize the network from its output down, and look again."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from seewhy.attribution.explanation import explain
from seewhy.attribution.hooks import forward_hooks
from seewhy.attribution.layers import Layers, resolve_layers
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.target import Target, outputs
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inspection import inspecting, prepare_images, unwrap_model

SURVIVES = 0.5  # a mean rank correlation with the map of a network without knowledge from which on a method fails


@dataclass(frozen=True, eq=False)
class SanityCheck:
    """How alike the maps of one method at one layer stay while the network is randomized."""

    randomized: tuple[
        str, ...
    ]  # at each step, the last module that was randomized, besides all those behind it
    similarity: Tensor  # (steps, N) float32, Spearman's rank correlation of absolute values; NaN where a map is constant
    passed: (
        bool  # with everything randomized the mean similarity is below 0.5, where it can be told
    )

    @property
    def final(self) -> float:
        """Mean similarity to the maps of a wholly randomized network; NaN where all of those are constant."""
        return self.similarity[-1].nanmean().item()


def sanity_check(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    methods: str | Callable[..., Tensor] | Sequence[str | Callable[..., Tensor]] = "grad-cam",
    layers: Layers = "auto",
    target: Target = "predicted",
    *,
    steps: int = 8,
    seed: int = 0,
    labels: Tensor | None = None,
) -> dict[tuple[str, str], SanityCheck]:
    """The cascading randomization of Adebayo et al. 2018 (arXiv 1810.03292, section 3.1), by layer and method.

    A copy of the model is initialized anew from its output to its input, in at most `steps` stops, and the same class is
    explained at each. A map that stays as it was does not come from what was learned. Raises SeewhyError as `explain` does.
    """
    if steps < 1:
        raise SeewhyError(f"steps must be at least 1, found {steps}")
    classifier = as_classifier(classifier)
    model, device = unwrap_model(classifier.model), classifier.device
    names = (
        resolve_layers(model, images, layers)
        if any(each.of_layer for each in bind_methods(methods))
        else "auto"
    )
    before = explain(classifier, images, methods, names, target, labels=labels, warn=False)
    order = weighted_modules(model, images)[::-1]
    stops = torch.linspace(0, len(order), min(steps, len(order)) + 1).round().long().tolist()
    changed = replace(classifier, model=copy.deepcopy(model))
    similarities: dict[tuple[str, str], list[Tensor]] = {key: [] for key in before.maps}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start, stop in pairwise(stops):
            for name in order[start:stop]:
                reinitialize(changed.model.get_submodule(name))
            after = explain(changed, images, methods, names, before.weights, warn=False)
            for key, maps in after.maps.items():
                similarities[key].append(rank_correlation(before.maps[key].abs(), maps.abs()))
    randomized = tuple(order[stop - 1] for stop in stops[1:])
    return {key: _result(randomized, torch.stack(found)) for key, found in similarities.items()}


def weighted_modules(model: nn.Module, images: Tensor) -> list[str]:
    """The modules with weights of their own, in the order in which they first run."""
    seen: dict[str, None] = {}

    def note(name: str, module: nn.Module, output: object) -> None:
        seen.setdefault(name)

    weighted = {
        name: each
        for name, each in model.named_modules()
        if any(True for _ in each.parameters(recurse=False))
    }
    with inspecting(model), torch.no_grad(), forward_hooks(weighted, note):
        outputs(model, prepare_images(images[:1], model))
    return list(seen)


@torch.no_grad()
def reinitialize(module: nn.Module) -> None:
    """Give a module's own weights random values: its own initialization, or else normal ones of the same spread."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        spread = parameter.std() if parameter.numel() > 1 else parameter.abs().sum()
        parameter.copy_(torch.randn(parameter.shape) * spread.cpu())


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:  # (N,) float32 in [-1, 1]
    """Spearman's rank correlation of maps (N, h, w) with others, image by image; equal values share their mean rank.

    NaN where one of the two is constant.
    """
    ranks = torch.stack([_ranks(one.flatten(1)), _ranks(other.flatten(1))]).double()
    centered = ranks - ranks.mean(-1, keepdim=True)
    norms = centered.norm(dim=-1)
    products = (centered[0] * centered[1]).sum(-1)
    return torch.where((norms > 0).all(0), products / norms.prod(0), torch.nan).float()


def _ranks(values: Tensor) -> Tensor:  # (N, P) float64
    """Ranks in each row, the mean rank where values are equal."""
    ordered = values.sort(dim=1).values.contiguous()
    below = torch.searchsorted(ordered, values.contiguous())
    upto = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + upto - 1).double() / 2


def _result(randomized: tuple[str, ...], similarity: Tensor) -> SanityCheck:
    final = similarity[-1].nanmean()
    return SanityCheck(randomized, similarity, bool(final < SURVIVES) or bool(final.isnan()))
