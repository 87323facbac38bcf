"""`trust`: which method and layer explain a model best, measured on its images."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seewhy.attribution.bootstrap import BootstrapSummary, bootstrap_summary
from seewhy.attribution.explanation import Explanation, explain_prepared, names_for, resolve_methods
from seewhy.attribution.faithfulness import (
    PERCENTILES,
    deletion,
    insertion,
    random_maps,
    road_combined,
)
from seewhy.attribution.layers import Layers
from seewhy.attribution.localization import pointing_game, relevance_mass_accuracy
from seewhy.attribution.methods import BoundMethod, Methods
from seewhy.attribution.mosaics import MAX_MOSAICS, MosaicScore, make_mosaics, score_mosaics
from seewhy.attribution.sanity import SanityCheck, randomize
from seewhy.attribution.statuses import OK, PIXELS, RESIDUE, Key, failure_warnings, status_warnings
from seewhy.attribution.target import (
    ForwardPass,
    PreparedInputs,
    Relative,
    Target,
    TargetSpec,
    prepare,
    run_forward,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike

STEPS = 16  # in a deletion or insertion curve
POINTING_TOLERANCE = 0.03  # fraction of the image's side, as 15 of 500 pixels in the paper
MARGIN = 1.2  # of an estimate of the time that all maps take
RANDOM_MAPS = 5  # per image; their mean is the chance level


@dataclass(frozen=True, eq=False)
class TrustScore:
    """Measurements of the maps of one method at one layer.

    Args:
        layer: Name of the layer, or "pixels".
        method: The method with its settings.
        gain: Area between the insertion and deletion curves, minus that of random maps of the same
            resolution; 0 is the chance level.
        road: ROAD, least minus most relevant first, halved; 0 is the chance level. None if it is
            not measured.
        sanity: Whether the maps depend on the learned weights.
        mosaic: Whether the maps point at the image of the explained class among images of other
            classes; None where too few images are recognized.
        pointing: Fraction of images with the map's maximum on the object, or within 3% of the
            image's side from it; None without masks.
        relevance_mass: Mean fraction of positive attribution on the object; None without masks.
        non_empty: Fraction of maps that are not empty.
    """

    layer: str
    method: str
    gain: BootstrapSummary
    road: BootstrapSummary | None
    sanity: SanityCheck
    mosaic: MosaicScore | None
    pointing: float | None
    relevance_mass: float | None
    non_empty: float

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """The checks that are not passed: "gain", "random" and "mosaic".

        The gain and the attribution on the right image of mosaics must be above chance with 95%
        confidence, and the maps must change with random weights.
        """
        passed = {
            "gain": self.gain.interval[0] > 0,
            "random": self.sanity.passed,
            "mosaic": self.mosaic is None or self.mosaic.passed,
        }
        return tuple(name for name, each in passed.items() if not each)

    @property
    def trusted(self) -> bool:
        """Whether all checks are passed."""
        return not self.failed_checks


class TimeLimitWarning(UserWarning):
    """`trust` left out maps for lack of time.

    Args:
        measured: Number of maps that were measured.
        maps: Number of all maps.
        seconds: Estimate of the time that all of them take.
    """

    def __init__(self, measured: int, maps: int, seconds: float) -> None:
        super().__init__(measured, maps, seconds)
        self.measured, self.maps, self.seconds = measured, maps, seconds

    def __str__(self) -> str:
        return (
            f"{self.measured} of {self.maps} maps were measured in the time, those of the last "
            f"layers; to measure all, pass seconds={self.seconds:.0f}, fewer images, or fewer "
            "layers"
        )


def trust(
    classifier: ClassifierLike,
    images: Tensor,
    methods: Methods = "auto",
    layers: Layers = "auto",
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
    masks: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    steps: int = STEPS,
    noise_maps: int = RANDOM_MAPS,
    with_road: bool = True,
    seconds: float = math.inf,
) -> tuple[TrustScore, ...]:
    """Measure the maps of every method at every layer on the same images.

    Insertion and deletion curves (Petsiuk et al. 2018) are compared with those of random maps of
    the same resolution. ROAD is that of Rong et al. 2022, the sanity check that of Adebayo et al.
    2018 with all weights randomized at once. In mosaics of four images (see `mosaic_game`) the maps
    of one image's class must be on that image, whatever `target` is; there are none for a function.
    Methods that fail, and maps that are only numerical residue, are left out with a warning.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; at least two.
        methods: As in `explain`, or "auto": those of AUTO_METHODS that can explain the model.
        layers: As in `explain`.
        target: As in `explain`.
        labels: True classes (N,) int64, for the target "true".
        masks: (N, H, W) bool, True on the object, if known.
        progress: Called with 1 after each method and layer.
        steps: Points of a deletion or insertion curve.
        noise_maps: Random maps per image, whose mean is the chance level.
        with_road: Whether to measure ROAD, on which no check depends. Its imputation takes time.
        seconds: Time to take. By the pace so far, the maps for which it does not suffice are left
            out with a TimeLimitWarning, those of the first layers first; one map is measured in
            any case.

    Returns:
        One score per layer and method; trusted ones first, then by gain.

    Raises:
        SeewhyError: As `explain`, for fewer images than two, and if no map is left.
    """
    if len(images) < 2:
        raise SeewhyError(f"trust needs at least 2 images for its intervals, found {len(images)}")
    began = time.monotonic()
    inputs = prepare(classifier, images, target, labels)
    bound = resolve_methods(methods, inputs, layers)
    explanation = without_residue(explain_prepared(inputs, bound, names_for(bound, inputs, layers)))
    forward = run_forward(replace(inputs, target=TargetSpec(explanation.weights)))
    checks = randomize(inputs, bound, explanation, steps=1)
    mosaics = _mosaic_scores(inputs, bound, explanation)
    chance: dict[torch.Size, Tensor] = {}
    scores: list[TrustScore] = []
    all_areas = len(explanation.maps) + noise_maps * len(
        {maps.shape for maps in explanation.maps.values()}
    )
    areas, prepared = 0, time.monotonic()  # between curves, computed so far
    order = list(explanation.layers)
    for key in sorted(explanation.maps, key=lambda key: -order.index(key[0])):
        maps, now = explanation.maps[key], time.monotonic()
        first = maps.shape not in chance
        pace, more = (now - prepared) / max(1, areas), 1 + noise_maps * first
        if scores and now + pace * more > began + seconds:
            needed = (prepared - began) + pace * all_areas
            rounded = 60 * math.ceil(MARGIN * needed / 60)
            warning = TimeLimitWarning(len(scores), len(explanation.maps), rounded)
            warnings.warn(warning, stacklevel=2)
            break
        areas += more
        if first:
            noise = random_maps(maps, noise_maps, seed=0)
            of_noise = [curve_area(forward, each, steps) for each in noise]
            chance[maps.shape] = torch.stack(of_noise).mean(0)
        finite = maps.nan_to_num(0, 0, 0)  # `non_empty` counts the others
        measures = {"gain": curve_area(forward, finite, steps) - chance[maps.shape]}
        if with_road:
            measures["road"] = road_combined(forward, finite)
        summaries = bootstrap_summary(measures)
        scores.append(_score(key, explanation, summaries, checks[key], mosaics.get(key), masks))
        if progress is not None:
            progress(1)
    return tuple(sorted(scores, key=lambda score: (not score.trusted, -score.gain.mean)))


def passes_of_trust(
    maps: int, layers: int, steps: int, noise_maps: int, with_road: bool = True
) -> int:
    """Forward passes per image of `trust`, for a number of maps at a number of layers."""
    curves = 2 * steps  # deletion and insertion
    of_road = 2 * len(PERCENTILES) if with_road else 0
    return maps * (curves + of_road + 1) + layers * noise_maps * curves


def without_residue(explanation: Explanation) -> Explanation:
    """The explanation without maps that are mostly residue; warns about them and failed methods."""
    residue = {
        key: status
        for key, status in explanation.statuses.items()
        if 2 * status.kinds.count(RESIDUE) > len(status.kinds)
    }
    left_out = (*failure_warnings(explanation.failures), *status_warnings(residue))
    maps = {key: maps for key, maps in explanation.maps.items() if key not in residue}
    if not maps:
        raise SeewhyError("; ".join(left_out))
    if left_out:
        warnings.warn("; ".join(left_out), stacklevel=3)
    return replace(explanation, maps=maps)


def _mosaic_scores(
    inputs: PreparedInputs, methods: Sequence[BoundMethod], explanation: Explanation
) -> dict[Key, MosaicScore]:
    """Scores of the mosaic game; none if the images make no mosaics.

    A quarter as many mosaics as images, which are four times as large, but at least 8.
    """
    count = min(MAX_MOSAICS, max(8, len(inputs.images) // 4))
    mosaics = make_mosaics(inputs, explanation.logits, count)
    if mosaics is None:
        return {}
    names = [layer for layer in explanation.layers if layer != PIXELS]
    try:
        return score_mosaics(mosaics, inputs, methods, names)
    except SeewhyError:  # all methods fail for images of this size
        return {}


def _score(
    key: tuple[str, str],
    explanation: Explanation,
    summaries: Mapping[str, BootstrapSummary],
    check: SanityCheck,
    mosaic: MosaicScore | None,
    masks: Tensor | None,
) -> TrustScore:
    maps = explanation.maps[key].nan_to_num(0, 0, 0)
    kinds = explanation.statuses[key].kinds
    pointing = relevance_mass = None
    if masks is not None:
        tolerance = round(POINTING_TOLERANCE * masks.shape[1])
        pointing = pointing_game(maps, masks, tolerance).float().mean().item()
        relevance_mass = relevance_mass_accuracy(maps, masks).mean().item()
    return TrustScore(
        *key,
        gain=summaries["gain"],
        road=summaries.get("road"),
        sanity=check,
        mosaic=mosaic,
        pointing=pointing,
        relevance_mass=relevance_mass,
        non_empty=kinds.count(OK) / len(kinds),
    )


def curve_area(forward: ForwardPass, maps: Tensor, steps: int) -> Tensor:  # (N,)
    """Area between the insertion and deletion curves; large for a faithful map."""
    return insertion(forward, maps, steps).auc - deletion(forward, maps, steps).auc
