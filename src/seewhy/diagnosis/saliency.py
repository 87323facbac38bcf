"""Saliency: attribution maps of errors for the predicted and the true class, and their scores."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from seewhy.attribution.explanation import explain, resolve_methods
from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.scores import RANDOM_MAPS, STEPS, TrustScore, passes_of_trust, trust
from seewhy.attribution.statuses import PIXELS
from seewhy.attribution.target import Relative, forward_pass, prepare
from seewhy.data.dataset import Split
from seewhy.diagnosis.budget import affordable, images_within
from seewhy.diagnosis.error_maps import MapPairs, map_pairs
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.shortcuts import ClassAttribution, mean_attribution_by_class
from seewhy.models.batching import batch_size
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.inspection import unwrap_model

MIN_MAP_SIDE = 7  # of a default map: coarser maps localize poorly, even if faithful
ATTRIBUTION_SIDE = 32  # largest side of the mean maps per class
TRUST_IMAGES, ATTRIBUTION_IMAGES = 48, 1000  # sampled from the test split

TRUST_SHARE = 0.7  # of the time, usually


class _Way(NamedTuple):
    """How `trust` is measured."""

    all_layers: bool  # or the last one
    methods: Literal["all", "cheap", "first"]
    steps: int  # points of a curve
    noise_maps: int
    with_road: bool = False


# The most thorough way is taken that leaves time for enough images; else the last one.
_WAYS = (
    _Way(True, "all", STEPS, RANDOM_MAPS, with_road=True),
    _Way(False, "all", STEPS, RANDOM_MAPS, with_road=True),
    _Way(False, "all", STEPS // 2, 2),
    _Way(False, "cheap", STEPS // 2, 2),
    _Way(False, "cheap", STEPS // 4, 1),
    _Way(False, "first", STEPS // 4, 1),
)
_ENOUGH, _ENOUGH_ERRORS = 12, 48  # images that are measured, and errors that are explained
_COSTLY = "lrp"  # has passes of its own; left out where time is short
# Besides the curves: of each image, the maps of the model and of the random model; of a mosaic of
# four images, maps, and the logits with and without the explained image.
_EXPLAINED, _PREDICTED = 2 + 4, 4 + 4
_PACE_SHARE = 0.1  # of the time, at most, to measure the pace of a batch
_PLANNED = 0.85  # of the time of `trust`; its pace may be slower than that of one batch
_ERROR_SHARE, _CLASS_SHARE = 0.25, 0.15  # of the time, at most, of a limited time


@dataclass(frozen=True, eq=False)
class Saliency:
    """Maps of errors, trust scores, and mean maps per class."""

    scores: tuple[TrustScore, ...]  # per method and layer, the most trusted first
    images: int  # number of images behind the scores
    best: TrustScore  # the most faithful, trusted, and not too coarse
    shown: TrustScore  # of the maps that are shown first, to be seen at a glance; see `first_shown`
    maps: MapPairs  # of the errors
    class_attribution: ClassAttribution  # over correctly classified images


@dataclass(frozen=True)
class SaliencyPlan:
    """How many images are explained, and how `trust` is measured."""

    layers: tuple[str, ...]
    methods: tuple[str, ...]
    measured_layers: tuple[str, ...]
    measured_methods: tuple[str, ...]
    errors: int  # at most
    class_images: int
    trust_images: int
    steps: int
    noise_maps: int
    with_road: bool
    seconds: float = math.inf  # for all of it
    trust_seconds: float = math.inf  # of these


def plan_saliency(
    classifier: ClassifierLike, test: Split, errors: int, seconds: float = math.inf
) -> SaliencyPlan:
    """Choose what `measure_saliency` can do in the seconds, by the time of one batch.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode.
        test: The split that was predicted.
        errors: Number of errors to explain, at most.
        seconds: Time for all of it; infinity for no limit.

    Raises:
        SeewhyError: For a model without a layer to explain.
    """
    classifier = replace(as_classifier(classifier), precision="fp32")
    layers = tuple(resolve_layers(classifier.model, test.images[:1], "auto"))
    inputs = prepare(classifier, test.images[:1], Relative.PREDICTED)
    methods = tuple(method.text for method in resolve_methods("auto", inputs, layers))
    if math.isinf(seconds):
        return SaliencyPlan(
            layers,
            methods,
            layers,
            methods,
            errors,
            ATTRIBUTION_IMAGES,
            TRUST_IMAGES,
            STEPS,
            RANDOM_MAPS,
            with_road=True,
        )
    end = time.monotonic() + seconds
    pace = partial(_pace, classifier, test.images, _PACE_SHARE * seconds)
    forward, per_map = pace((), ()), pace(methods, layers)
    left = end - time.monotonic()
    explained = affordable(_ERROR_SHARE * left, 2 * per_map, errors, least=1)
    cheap = tuple(method for method in methods if method != _COSTLY) or methods
    if explained < min(errors, _ENOUGH_ERRORS) and methods != cheap:
        methods, per_map = cheap, pace(cheap, layers)
        left = end - time.monotonic()
        explained = affordable(_ERROR_SHARE * left, 2 * per_map, errors, least=1)
    class_images = affordable(_CLASS_SHARE * left, per_map, ATTRIBUTION_IMAGES, least=1)
    end_of_trust = end - per_map * (2 * explained + min(class_images, len(test)))
    choices = {"all": methods, "cheap": cheap, "first": methods[:1]}
    paces = {(methods, layers): per_map}
    for way in _WAYS:
        measured = choices[way.methods], layers if way.all_layers else layers[-1:]
        if measured not in paces:
            paces[measured] = pace(*measured)
        passes = passes_of_trust(
            _count_maps(*measured), len(measured[1]), way.steps, way.noise_maps, way.with_road
        )
        per_image = (passes + _PREDICTED) * forward + _EXPLAINED * paces[measured]
        trust_seconds = end_of_trust - time.monotonic()
        trust_images = affordable(_PLANNED * trust_seconds, per_image, TRUST_IMAGES, least=2)
        if trust_images >= min(_ENOUGH, len(test)):
            break
    return SaliencyPlan(
        layers,
        methods,
        measured_layers=measured[1],
        measured_methods=measured[0],
        errors=explained,
        class_images=class_images,
        trust_images=trust_images,
        steps=way.steps,
        noise_maps=way.noise_maps,
        with_road=way.with_road,
        seconds=end - time.monotonic(),
        trust_seconds=trust_seconds,
    )


def _count_maps(methods: Sequence[str], layers: Sequence[str]) -> int:
    """Number of maps of an image."""
    return sum(len(layers) if method.explains == "layer" else 1 for method in bind_methods(methods))


def _pace(
    classifier: Classifier,
    images: Tensor,
    seconds: float,
    methods: Sequence[str],
    layers: Sequence[str],
) -> float:
    """Seconds per image of maps, or of logits without methods.

    The better of two times, of a batch of the images if these take less than `seconds`. Of an image
    that takes a quarter of them, it is a single time.
    """

    def timed(size: int) -> float:
        began = time.monotonic()
        if methods:
            explain(classifier, images[:size], methods, layers, warn=False)
        else:
            forward_pass(classifier, images[:size])
        return (time.monotonic() - began) / size

    of_one = timed(1)
    if of_one > seconds / 4:
        return of_one
    of_one = min(of_one, timed(1))
    size = min(len(images), batch_size(unwrap_model(classifier.model), images))
    return min(timed(size), timed(size)) if 1 < size < seconds / (2 * of_one) else of_one


def measure_saliency(
    classifier: ClassifierLike,
    test: Split,
    predictions: Predictions,
    errors: Tensor,
    progress: Callable[[float], None] = lambda fraction: None,
    plan: SaliencyPlan | None = None,
) -> Saliency:
    """Measure trust scores, and compute the maps of errors.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode.
        test: The split that was predicted.
        predictions: Predictions of that split.
        errors: (M,) int64, the images to explain.
        progress: Called with fractions of the work as they are done.
        plan: From `plan_saliency`; everything by default.

    Raises:
        SeewhyError: For a model without a layer to explain.
    """
    began = time.monotonic()
    # fp32: gradients in half precision would coarsen the maps
    classifier = replace(as_classifier(classifier), classes=predictions.classes, precision="fp32")
    plan = plan_saliency(classifier, test, len(errors)) if plan is None else plan
    layers = plan.layers
    sample = test.take(sample_indices(len(test), plan.trust_images))
    maps = _count_maps(plan.measured_methods, plan.measured_layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # maps that are left out are not shown either
        scores = trust(
            classifier,
            sample.images,
            plan.measured_methods,
            plan.measured_layers,
            labels=sample.labels,
            masks=sample.masks,
            progress=lambda count: progress(TRUST_SHARE * count / maps),
            steps=plan.steps,
            noise_maps=plan.noise_maps,
            with_road=plan.with_road,
            seconds=plan.trust_seconds,
        )
    best = _best_score(classifier, sample.images[:1], scores)
    shown = first_shown(scores, layers[-1])
    # maps of all errors up to the last of these; see `maps_data`
    methods = list(dict.fromkeys((plan.methods[0], shown.method, best.method, *plan.methods)))
    predicted = predictions.predicted[errors]
    left = plan.seconds - (time.monotonic() - began)
    share = _ERROR_SHARE / (_ERROR_SHARE + _CLASS_SHARE)
    maps_of_errors = map_pairs(classifier, test, errors, predicted, methods, layers, share * left)
    left = plan.seconds - (time.monotonic() - began)
    return Saliency(
        scores=scores,
        images=len(sample),
        best=best,
        shown=shown,
        maps=maps_of_errors,
        class_attribution=_class_attribution(
            classifier, test, predictions, best, plan.class_images, left
        ),
    )


def first_shown(scores: Sequence[TrustScore], last: str) -> TrustScore:
    """The score of the maps to show first: the best of the last layer and of those of no layer.

    Trusted maps come before all others. Maps of early layers are fine lines that look empty at a
    glance, even if they are more faithful. If the maps of the last layer are mostly empty, or
    measured worse than random ones: the first of all scores.
    """
    of_last = [score for score in scores if score.layer in (last, PIXELS) and score.non_empty > 0.5]
    best = max(of_last, key=lambda score: (score.trusted, score.gain.mean), default=None)
    return scores[0] if best is None or best.gain.interval[1] < 0 else best


def sample_indices(total: int, count: int) -> Tensor:
    """The first `count` of `total` indices in a random order; sorted, for images on disk."""
    return sample_order(total)[:count].sort().values


def sample_order(total: int) -> Tensor:
    """A random order of `total` indices, with a fixed seed."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))


def _best_score(
    classifier: Classifier, image: Tensor, scores: tuple[TrustScore, ...]
) -> TrustScore:
    """The first score that is trusted and whose maps are not too coarse; else the first one."""
    methods = list(dict.fromkeys(score.method for score in scores))
    layers = [score.layer for score in scores if score.layer != PIXELS]
    maps = explain(classifier, image, methods, list(dict.fromkeys(layers)), warn=False).maps
    fine = {key for key, values in maps.items() if min(values.shape[1:]) >= MIN_MAP_SIDE}
    trusted = (score for score in scores if score.trusted)
    return next((score for score in trusted if (score.layer, score.method) in fine), scores[0])


def _class_attribution(
    classifier: Classifier,
    test: Split,
    predictions: Predictions,
    best: TrustScore,
    count: int,
    seconds: float,
) -> ClassAttribution:
    indices = predictions.correct.nonzero().flatten()
    if not len(indices):
        indices = torch.arange(len(test))
    indices = indices[sample_order(len(indices))[:count]]
    parts, labels = [], []
    for rows in images_within(seconds, len(indices)):
        sample = test.take(indices[rows].sort().values)
        explanation = explain(
            classifier,
            sample.images,
            best.method,
            [best.layer],
            Relative.TRUE,
            labels=sample.labels,
            warn=False,
        )
        parts.append(explanation.at(best.layer).nan_to_num(0, 0, 0))
        labels.append(sample.labels)
    size = [min(ATTRIBUTION_SIDE, side) for side in test.images.shape[2:]]
    return mean_attribution_by_class(torch.cat(parts), torch.cat(labels), predictions.classes, size)
