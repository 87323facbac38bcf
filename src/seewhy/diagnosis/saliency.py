"""Saliency: attribution maps of errors for the predicted and the true class, and their scores."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import explain
from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.scores import RANDOM_MAPS, STEPS, TrustScore, passes_of_trust, trust
from seewhy.attribution.target import Relative, forward_pass
from seewhy.data.dataset import Split
from seewhy.diagnosis.budget import affordable
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.shortcuts import ClassAttribution, mean_attribution_by_class
from seewhy.models.batching import batch_size
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.inspection import unwrap_model

SALIENCY_METHODS = ("grad-cam", "hires-cam", "layer-cam")  # share one forward and one backward pass
TARGETS = ("predicted", "true")  # the class of the first and of the second map of an error
MAX_MAP_SIDE = 12  # larger maps are downsized to it, hardly visible in a report
MIN_MAP_SIDE = 7  # of a default map: coarser maps localize poorly, even if faithful
ATTRIBUTION_SIDE = 32  # largest side of the mean maps per class
TRUST_IMAGES, ATTRIBUTION_IMAGES = 48, 1000  # sampled from the test split

TRUST_SHARE = 0.7  # of the time, usually

# How `trust` is measured, the most thorough first: all layers or the last one, methods, points of a
# curve, random maps. A way is taken if it leaves time for enough images; else the last one.
_WAYS = (
    (True, SALIENCY_METHODS, STEPS, RANDOM_MAPS),
    (False, SALIENCY_METHODS, STEPS, RANDOM_MAPS),
    (False, SALIENCY_METHODS, STEPS // 2, 2),
    (False, SALIENCY_METHODS[:1], STEPS // 4, 1),
)
_ENOUGH = 8
_PACE_SHARE = 0.1  # of the time, at most, to measure the pace of a batch
_ERROR_SHARE, _CLASS_SHARE = 0.25, 0.15  # of the time, at most, of a limited time

_PIXELS = 2**18  # pixels per batch


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """Signed maps of M images by method, target, and layer, as int8.

    The two maps of an image by one method at one layer share a scale, with 127 as the largest
    magnitude, so that they can be compared and subtracted.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # height and width of the maps, per layer
    values: tuple[Tensor, ...]  # (M, methods, targets, h, w) int8, per layer

    def take(self, rows: Tensor) -> "LayerMaps":
        """The maps of the images `rows` (R,) int64."""
        return replace(self, values=tuple(values[rows] for values in self.values))


@dataclass(frozen=True, eq=False)
class Saliency:
    """Maps of errors, trust scores, and mean maps per class."""

    scores: tuple[TrustScore, ...]  # per method and layer, the most trusted first
    images: int  # number of images behind the scores
    best: TrustScore  # the most faithful, trusted, and not too coarse
    shown: TrustScore  # of the maps that are shown first: of the last layer, to be seen at a glance
    maps: LayerMaps  # of the errors
    class_attribution: ClassAttribution  # over correctly classified images


@dataclass(frozen=True)
class SaliencyPlan:
    """How many images are explained, and how `trust` is measured."""

    layers: tuple[str, ...]
    measured_layers: tuple[str, ...]
    measured_methods: tuple[str, ...]
    errors: int  # at most
    class_images: int
    trust_images: int
    steps: int
    noise_maps: int


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
    if math.isinf(seconds):
        return SaliencyPlan(
            layers,
            layers,
            SALIENCY_METHODS,
            errors,
            ATTRIBUTION_IMAGES,
            TRUST_IMAGES,
            STEPS,
            RANDOM_MAPS,
        )
    began = time.monotonic()
    forward, backward = _pace(classifier, test.images[:1], layers)
    size = min(len(test), batch_size(unwrap_model(classifier.model), test.images))
    if 2 * size * (forward + backward) < _PACE_SHARE * seconds:
        forward, backward = _pace(classifier, test.images[:size], layers)
    left = seconds - (time.monotonic() - began)
    explained = affordable(_ERROR_SHARE * left, 2 * backward, errors, least=1)
    class_images = affordable(_CLASS_SHARE * left, backward, ATTRIBUTION_IMAGES, least=1)
    left -= 2 * backward * explained + backward * min(class_images, len(test))
    for all_layers, methods, steps, noise_maps in _WAYS:
        measured = layers if all_layers else layers[-1:]
        maps = len(methods) * len(measured)
        passes = passes_of_trust(maps, len(measured), steps, noise_maps)
        per_image = forward * passes + 3 * backward  # also of the random model, and of mosaics
        count = affordable(left, per_image, TRUST_IMAGES, least=2)
        if count >= min(_ENOUGH, len(test)):
            break
    return SaliencyPlan(
        layers, measured, methods, explained, class_images, count, steps, noise_maps
    )


def _pace(classifier: Classifier, images: Tensor, layers: Sequence[str]) -> tuple[float, float]:
    """Seconds per image of a forward pass, and of maps at the layers; the better of two."""
    forward, backward = [], []
    for _ in range(2):
        began = time.monotonic()
        forward_pass(classifier, images)
        middle = time.monotonic()
        capture_layers(classifier, images, list(layers))
        forward.append(middle - began)
        backward.append(time.monotonic() - middle)
    return min(forward) / len(images), min(backward) / len(images)


def layer_maps(
    classifier: ClassifierLike,
    split: Split,
    index: Tensor,
    predicted: Tensor,
    methods: Sequence[str],
    layers: Sequence[str],
) -> LayerMaps:
    """Compute maps of images for the predicted and for the true class.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode.
        split: Images with their true classes.
        index: (M,) int64, the images to explain.
        predicted: (M,) int64, the predicted class of each.
        methods: Methods that need a layer, such as "grad-cam".
        layers: Names of layers.
    """
    if not len(index):  # the sizes are those of a map of any image
        one = layer_maps(classifier, split, torch.tensor([0]), split.labels[:1], methods, layers)
        return one.take(index)
    bound = bind_methods(methods)
    parts: list[list[Tensor]] = []
    height, width = split.images.shape[2:]
    for rows in torch.split(torch.arange(len(index)), max(1, _PIXELS // (height * width))):
        batch = split.take(index[rows])
        by_target = []
        for target in (predicted[rows], batch.labels):
            captures = capture_layers(classifier, batch.images, list(layers), target)
            by_target.append(
                [
                    torch.stack([_shrink(method.function(captures[name])) for method in bound], 1)
                    for name in layers
                ]
            )
        by_layer = zip(*by_target, strict=True)
        parts.append([_quantize(torch.stack(pair, 2)) for pair in by_layer])
    values = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    sizes = tuple((maps.shape[-2], maps.shape[-1]) for maps in values)
    return LayerMaps(tuple(methods), tuple(layers), sizes, values)


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
    # fp32: gradients in half precision would coarsen the maps
    classifier = replace(as_classifier(classifier), classes=predictions.classes, precision="fp32")
    plan = plan_saliency(classifier, test, len(errors)) if plan is None else plan
    layers = plan.layers
    sample = test.take(sample_indices(len(test), plan.trust_images))
    maps = len(plan.measured_methods) * len(plan.measured_layers)
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
        )
    best = _best_score(classifier, sample.images[:1], scores)
    shown = first_shown(scores, layers[-1])
    preferred = (SALIENCY_METHODS[0], shown.method, best.method)
    methods = list(dict.fromkeys((*preferred, *SALIENCY_METHODS)))
    predicted = predictions.predicted[errors]
    return Saliency(
        scores=scores,
        images=len(sample),
        best=best,
        shown=shown,
        maps=layer_maps(classifier, test, errors, predicted, methods, layers),
        class_attribution=_class_attribution(
            classifier, test, predictions, best, plan.class_images
        ),
    )


def first_shown(scores: Sequence[TrustScore], last: str) -> TrustScore:
    """The score of the maps to show first: the best of the last layer.

    Maps of early layers are fine lines that look empty at a glance, even if they are more faithful.
    If the maps of the last layer are mostly empty, or measured worse than random ones: the first of
    all scores.
    """
    of_last = [score for score in scores if score.layer == last and score.non_empty > 0.5]
    best = max(of_last, key=lambda score: score.gain.mean, default=None)
    return scores[0] if best is None or best.gain.interval[1] < 0 else best


def sample_indices(total: int, count: int) -> Tensor:
    """The first `count` of `total` indices in a random order; sorted, for images on disk."""
    return sample_order(total)[:count].sort().values


def sample_order(total: int) -> Tensor:
    """A random order of `total` indices, with a fixed seed."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))


def _shrink(maps: Tensor) -> Tensor:
    """Maps (N, h, w) on the CPU, no side above MAX_MAP_SIDE, zero where they are not finite."""
    maps = maps.detach().float().cpu().nan_to_num(0, 0, 0)
    height, width = (min(side, MAX_MAP_SIDE) for side in maps.shape[1:])
    return maps if maps.shape[1:] == (height, width) else resize_maps(maps, (height, width))


def _quantize(maps: Tensor) -> Tensor:  # (M, methods, targets, h, w) int8
    largest = maps.abs().amax((2, 3, 4), keepdim=True)
    return (127 * maps / largest.where(largest > 0, 1)).round().to(torch.int8)


def _best_score(
    classifier: Classifier, image: Tensor, scores: tuple[TrustScore, ...]
) -> TrustScore:
    """The first score that is trusted, at a layer that is not too coarse; else the first one."""
    captures = capture_layers(classifier, image, [*dict.fromkeys(score.layer for score in scores)])
    fine = {
        layer
        for layer, capture in captures.items()
        if min(capture.activation.shape[2:]) >= MIN_MAP_SIDE
    }
    return next((score for score in scores if score.trusted and score.layer in fine), scores[0])


def _class_attribution(
    classifier: Classifier, test: Split, predictions: Predictions, best: TrustScore, count: int
) -> ClassAttribution:
    indices = predictions.correct.nonzero().flatten()
    if not len(indices):
        indices = torch.arange(len(test))
    sample = test.take(indices[sample_indices(len(indices), count)])
    explanation = explain(
        classifier,
        sample.images,
        best.method,
        [best.layer],
        Relative.TRUE,
        labels=sample.labels,
        warn=False,
    )
    maps = explanation.at(best.layer).nan_to_num(0, 0, 0)
    size = [min(ATTRIBUTION_SIDE, side) for side in sample.images.shape[2:]]
    return mean_attribution_by_class(maps, sample.labels, predictions.classes, size)
