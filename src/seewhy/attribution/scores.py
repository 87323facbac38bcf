"""Which explanation of a network to believe: every method at every layer, measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attribution.explanation import Explanation, explain
from seewhy.attribution.faithfulness import (
    BootstrapSummary,
    bootstrap_summary,
    deletion,
    insertion,
    random_maps,
    road,
)
from seewhy.attribution.layers import Layers
from seewhy.attribution.localization import pointing_game, relevance_mass_accuracy
from seewhy.attribution.sanity import SanityCheck, sanity_check
from seewhy.attribution.target import ForwardPass, Target, forward_pass
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike

STEPS = 16  # of a deletion or insertion curve
TOLERANCE = (
    0.03  # of the image's side: the 15 pixels of the pointing game's authors on photographs of 500
)
ORDERS = 5  # random maps that say what chance is


@dataclass(frozen=True, eq=False)
class TrustScore:
    """What was measured of the maps of one method at one layer."""

    layer: str
    method: str
    gain: BootstrapSummary  # area between insertion and deletion curve, minus that of random maps of the same coarseness; 0 is chance
    road: BootstrapSummary  # ROAD, least minus most relevant first, halved; 0 is chance
    randomization: SanityCheck  # whether the maps depend on what the network has learned
    pointing: (
        float | None
    )  # share of images whose maximum lies on the object or within 3% of the side, where there are masks
    energy: float | None  # mean share of the heat on the object, where there are masks
    fine: float  # share of the maps with something on them

    @property
    def trusted(self) -> bool:
        """Better than chance with 95% confidence, and not the same for a network without knowledge."""
        return self.gain.interval[0] > 0 and self.randomization.passed


def trust(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]; N of at least 2
    methods: str | Callable[..., Tensor] | Sequence[str | Callable[..., Tensor]] = (
        "grad-cam",
        "hires-cam",
        "layer-cam",
    ),
    layers: Layers = "auto",
    target: Target = "predicted",
    *,
    labels: Tensor | None = None,
    masks: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[TrustScore, ...]:
    """Measure the maps of every method at every layer on the same images; those to be trusted first, by their gain.

    The insertion and deletion curves of Petsiuk et al. 2018 are compared with those of random maps of the same coarseness;
    ROAD is that of Rong et al. 2022; the randomization is that of Adebayo et al. 2018. `masks` (N, H, W) bool say where the
    object is. `progress` is called with 1 after each map. Raises SeewhyError as `explain` does.
    """
    if len(images) < 2:
        raise SeewhyError(
            f"trust compares means over images, so it needs at least 2, found {len(images)}"
        )
    explanation = explain(classifier, images, methods, layers, target, labels=labels, warn=False)
    question = forward_pass(classifier, images, explanation.weights)
    checks = sanity_check(
        classifier, images, methods, layers, explanation.weights, steps=1
    )  # all weights at once
    chances: dict[torch.Size, Tensor] = {}
    verdicts = []
    for key, maps in explanation.maps.items():
        if maps.shape not in chances:
            noise = [_area(question, each) for each in random_maps(maps, ORDERS, seed=0)]
            chances[maps.shape] = torch.stack(noise).mean(0)
        verdicts.append(_score(key, explanation, question, chances[maps.shape], checks[key], masks))
        if progress is not None:
            progress(1)
    return tuple(sorted(verdicts, key=lambda verdict: (not verdict.trusted, -verdict.gain.mean)))


def _score(
    key: tuple[str, str],
    explanation: Explanation,
    question: ForwardPass,
    chance: Tensor,
    check: SanityCheck,
    masks: Tensor | None,
) -> TrustScore:
    maps = explanation.maps[key].nan_to_num(0, 0, 0)  # `fine` says how many there are of these
    measured = bootstrap_summary(
        {"gain": _area(question, maps) - chance, "road": road(question, maps).combined}
    )
    kinds = explanation.statuses[key].kinds
    return TrustScore(
        *key,
        gain=measured["gain"],
        road=measured["road"],
        randomization=check,
        pointing=None
        if masks is None
        else pointing_game(maps, masks, round(TOLERANCE * masks.shape[1])).float().mean().item(),
        energy=None if masks is None else relevance_mass_accuracy(maps, masks).mean().item(),
        fine=kinds.count("fine") / len(kinds),
    )


def _area(question: ForwardPass, maps: Tensor) -> Tensor:  # (N,)
    """Between the insertion and the deletion curve: large where the map knows what matters."""
    return insertion(question, maps, STEPS).auc - deletion(question, maps, STEPS).auc
