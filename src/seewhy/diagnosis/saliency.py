"""What a network looks at in its errors: maps at every stage, for the class it says and for the true one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import explain
from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.scores import TrustScore, trust
from seewhy.data.dataset import Split
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.shortcuts import ClassAttribution, mean_attribution_by_class
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier

MAX_MAP_SIDE = 12  # a side of a map that is kept: finer ones are averaged, which at the size of a page is hardly seen
TARGETS = (
    "predicted",
    "true",
)  # their difference is that of the maps; Grad-CAM's and HiResCAM's is that of the scores' difference
_PIXELS = 2**18  # of the images whose activations are held at once


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """Signed maps of M images by method, target and layer, in whole numbers: 127 is the largest magnitude of an image's
    two maps by one method at one layer, so that the two can be compared and subtracted."""

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # height and width of the maps of each layer
    values: tuple[Tensor, ...]  # of each layer: (M, methods, 2 targets, h, w) int8

    def take(self, rows: Tensor) -> "LayerMaps":
        """The maps of some of the images."""
        return replace(self, values=tuple(values[rows] for values in self.values))


def layer_maps(
    classifier: ClassifierLike,
    split: Split,
    index: Tensor,  # (M,) int64
    predicted: Tensor,  # (M,) int64
    methods: Sequence[str],
    layers: Sequence[str],
) -> LayerMaps:
    """Maps of the images at `index` for the `predicted` class of each and for its true one, by methods of a layer."""
    if not len(
        index
    ):  # as many maps as there are images, of the sizes that those of an image would have
        one = layer_maps(classifier, split, torch.tensor([0]), split.labels[:1], methods, layers)
        return one.take(index)
    bound = bind_methods(methods)
    parts: list[list[Tensor]] = []
    height, width = split.images.shape[2:]
    for rows in torch.split(torch.arange(len(index)), max(1, _PIXELS // (height * width))):
        some = split.take(index[rows])
        by_target = []
        for goal in (predicted[rows], some.labels):
            captures = capture_layers(classifier, some.images, list(layers), goal)
            by_target.append(
                [
                    torch.stack([_small(method.function(captures[name])) for method in bound], 1)
                    for name in layers
                ]
            )
        parts.append(
            [_whole_numbers(torch.stack(pair, 2)) for pair in zip(*by_target, strict=True)]
        )
    values = tuple(torch.cat(part) for part in zip(*parts, strict=True))
    return LayerMaps(
        tuple(methods), tuple(layers), tuple((v.shape[-2], v.shape[-1]) for v in values), values
    )


def _small(maps: Tensor) -> Tensor:
    """Maps (N, h, w) on the CPU with no side above LARGEST; what is not finite shows nothing."""
    maps = maps.detach().float().cpu().nan_to_num(0, 0, 0)
    height, width = (min(side, MAX_MAP_SIDE) for side in maps.shape[1:])
    return maps if maps.shape[1:] == (height, width) else resize_maps(maps, (height, width))


def _whole_numbers(maps: Tensor) -> Tensor:  # (M, methods, targets, h, w)
    largest = maps.abs().amax((2, 3, 4), keepdim=True)
    return (127 * maps / largest.where(largest > 0, 1)).round().to(torch.int8)


SALIENCY_METHODS = (
    "grad-cam",
    "hires-cam",
    "layer-cam",
)  # which share their passes through the network
MIN_MAP_SIDE = 7  # places a side: coarser maps say little of where, however faithful
ATTRIBUTION_SIDE = 32  # places a side of the evidence, which is a mean of many maps
TRUST_IMAGES, ATTRIBUTION_IMAGES = 48, 1000  # test images that are drawn for these questions


@dataclass(frozen=True, eq=False)
class Saliency:
    """Maps of the errors, and what was measured of such maps."""

    scores: tuple[TrustScore, ...]  # the most trusted layer and method first
    images: int  # that they were measured on
    best: TrustScore  # whose maps are shown first: the most faithful that are trusted and not too coarse
    maps: LayerMaps  # of the errors
    class_attribution: ClassAttribution  # mean map per class, over correctly classified images


def measure_saliency(
    classifier: ClassifierLike, test: Split, predictions: Predictions, errors: Tensor
) -> Saliency:
    """Measure which maps to believe, then make those of the `errors`. Raises SeewhyError for a network that has none."""
    # fp32: gradients in half precision would coarsen the maps
    classifier = replace(as_classifier(classifier), classes=predictions.classes, precision="fp32")
    layers = resolve_layers(classifier.model, test.images[:1], "auto")
    some = test.take(random_indices(len(test), TRUST_IMAGES))
    scores = trust(
        classifier,
        some.images,
        SALIENCY_METHODS,
        layers,
        labels=some.labels,
        masks=some.masks,
    )
    best = _best(classifier, some.images[:1], scores)
    methods = list(dict.fromkeys((SALIENCY_METHODS[0], best.method, *SALIENCY_METHODS)))
    maps = layer_maps(classifier, test, errors, predictions.predicted[errors], methods, layers)
    return Saliency(
        scores, len(some), best, maps, _class_attribution(classifier, test, predictions, best)
    )


def random_indices(images: int, count: int) -> Tensor:
    """Which of so many images are asked: at random, but the same each time; in order, as they may lie on disk."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(0))[:count].sort().values


def _best(classifier: Classifier, image: Tensor, scores: tuple[TrustScore, ...]) -> TrustScore:
    captures = capture_layers(classifier, image, [*dict.fromkeys(score.layer for score in scores)])
    fine = {
        layer
        for layer, captured in captures.items()
        if min(captured.activation.shape[2:]) >= MIN_MAP_SIDE
    }
    return next((score for score in scores if score.trusted and score.layer in fine), scores[0])


def _class_attribution(
    classifier: Classifier, test: Split, predictions: Predictions, best: TrustScore
) -> ClassAttribution:
    asked = predictions.correct.nonzero().flatten()
    if not len(asked):
        asked = torch.arange(len(test))
    some = test.take(asked[random_indices(len(asked), ATTRIBUTION_IMAGES)])
    explanation = explain(
        classifier, some.images, best.method, [best.layer], "true", labels=some.labels, warn=False
    )
    maps = explanation.at(best.layer).nan_to_num(0, 0, 0)
    size = [min(ATTRIBUTION_SIDE, side) for side in some.images.shape[2:]]
    return mean_attribution_by_class(maps, some.labels, predictions.classes, size)
