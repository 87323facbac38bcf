"""What a network looks at, and how far that is to be believed."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.diagnosing.predictions import Predictions
from seewhy.explaining.capture import capture
from seewhy.explaining.explanation import explain
from seewhy.explaining.layers import resolve_layers
from seewhy.explaining.localisation import Evidence, evidence_location
from seewhy.explaining.trust import Verdict, trust
from seewhy.reporting.maps import StageMaps, stage_maps

METHODS = ("grad-cam", "hires-cam", "layer-cam")  # which share their passes through the network
FINE = 7  # places a side: coarser maps say little of where, however faithful
GRID = 32  # places a side of the evidence, which is a mean of many maps
TRUSTED, LOCATED = 48, 1000  # test images that are drawn for these questions


@dataclass(frozen=True, eq=False)
class Looks:
    """Maps of the mistakes, and what was measured of such maps."""

    verdicts: tuple[Verdict, ...]  # the most trusted layer and method first
    images: int  # that they were measured on
    best: Verdict  # whose maps are shown first: the most faithful that are trusted and not too coarse
    maps: StageMaps  # of the mistakes
    evidence: Evidence  # where it lies for each class, in images that are classified correctly


def looks(model: nn.Module, test: Split, result: Predictions, mistakes: Tensor) -> Looks:
    """Measure which maps to believe, then make those of the `mistakes`. Raises SeewhyError for a network that has none."""
    layers = resolve_layers(model, test.images[:1], "auto")
    some = test.take(drawn(len(test), TRUSTED))
    verdicts = trust(model, some.images, METHODS, layers, labels=some.labels, classes=result.classes, masks=some.masks)
    best = _best(model, some.images[:1], verdicts)
    methods = list(dict.fromkeys((METHODS[0], best.method, *METHODS)))
    maps = stage_maps(model, test, mistakes, result.predicted[mistakes], methods, layers, len(result.classes))
    return Looks(verdicts, len(some), best, maps, _evidence(model, test, result, best))


def drawn(images: int, count: int) -> Tensor:
    """Which of so many images are asked: at random, but the same each time; in order, as they may lie on disk."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(0))[:count].sort().values


def _best(model: nn.Module, image: Tensor, verdicts: tuple[Verdict, ...]) -> Verdict:
    captures = capture(model, image, [*dict.fromkeys(verdict.layer for verdict in verdicts)])
    fine = {layer for layer, captured in captures.items() if min(captured.activation.shape[2:]) >= FINE}
    return next((verdict for verdict in verdicts if verdict.trusted and verdict.layer in fine), verdicts[0])


def _evidence(model: nn.Module, test: Split, result: Predictions, best: Verdict) -> Evidence:
    asked = result.correct.nonzero().flatten()
    if not len(asked):
        asked = torch.arange(len(test))
    some = test.take(asked[drawn(len(asked), LOCATED)])
    explanation = explain(model, some.images, best.method, [best.layer], "true", labels=some.labels, warn=False)
    maps = explanation.at(best.layer).nan_to_num(0, 0, 0)
    size = [min(GRID, side) for side in some.images.shape[2:]]
    return evidence_location(maps, some.labels, result.classes, size)
