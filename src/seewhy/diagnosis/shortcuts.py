"""Shortcuts: where the evidence for each class lies on average, and which classes rely on a region that the others do not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.maps import check_finite, resize_maps
from seewhy.errors import SeewhyError

_CHUNK = 250  # maps at full size held at once
_PEAK_SIDE = 1 / 8  # of the map's height and width
_FEWEST = 10  # images of a class below which its mean is too much a matter of luck to be judged
_LEAST_SPREAD = 0.02  # in the share of a region: classes agree no better than this, or a little more would stand out
# Regions as top, bottom, left and right, in shares of the height and the width.
_INSIDE_BORDER = (1 / 8, 7 / 8, 1 / 8, 7 / 8)
_BOXES = {
    "center": (1 / 4, 3 / 4, 1 / 4, 3 / 4),
    "top left": (0, 1 / 4, 0, 1 / 4),
    "top right": (0, 1 / 4, 3 / 4, 1),
    "bottom left": (3 / 4, 1, 0, 1 / 4),
    "bottom right": (3 / 4, 1, 3 / 4, 1),
}


@dataclass(frozen=True)
class Peak:
    """Where the evidence for a class exceeds that for the others most: a box of an eighth of each side, in pixels."""

    top: int
    left: int
    height: int
    width: int
    share: float  # of the class's evidence, in [0, 1]
    median_of_others: float  # median share over the other classes


@dataclass(frozen=True, eq=False)
class ClassAttribution:
    """Where the evidence for each of K classes lies, on average over its images."""

    classes: tuple[str, ...]
    images: Tensor  # (K,) int64, those with any evidence
    mean_maps: (
        Tensor  # (K, H, W) float32, each with sum 1, or 0 everywhere where a class has no images
    )
    regions: tuple[str, ...]  # R names; regions overlap, so that shares do not sum to 1
    shares: Tensor  # (K, R) float32 in [0, 1], mean share of the evidence in each region
    spreads: Tensor  # (K, R) float32, standard deviation of that share over the images of a class
    peaks: tuple[Peak | None, ...]  # of each class, None where it has no images


def mean_attribution_by_class(
    maps: Tensor, labels: Tensor, classes: tuple[str, ...], size: Sequence[int] | None = None
) -> ClassAttribution:
    """Mean place of the positive part of maps (N, h, w) float, by the class that each explains, labels (N,) int64.

    Each map is brought to `size` (height, width), that of the images, and to the sum 1, so that no image dominates.
    Regions are the border (an eighth of each side), the center (the middle half of each side) and the four corners (a quarter
    of each side). Raises SeewhyError for maps that are not finite, and for shapes, types and labels that do not fit.
    """
    check_finite(maps)
    _check_labels(labels, len(maps), len(classes))
    size = maps.shape[1:] if size is None else size
    weights = _regions(size)
    region_of_pixels = torch.stack(list(weights.values())).flatten(1)  # (R, H*W)
    kept, parts = [], []
    sums = torch.zeros(len(classes), math.prod(size), dtype=torch.float64)
    for some, whose in zip(
        torch.split(maps.detach(), _CHUNK), torch.split(labels.cpu(), _CHUNK), strict=True
    ):
        positive = resize_maps(some, size).clamp_min(0).flatten(1).cpu().double()
        seen = positive.sum(1) > 0
        maps_of_one = positive[seen] / positive[seen].sum(1, keepdim=True)
        sums.index_add_(0, whose[seen], maps_of_one)
        kept.append(whose[seen])
        parts.append(maps_of_one @ region_of_pixels.T)
    counts, shares, spreads = _by_class(torch.cat(parts), torch.cat(kept), len(classes))
    mean_maps = (sums / counts.clamp_min(1)[:, None]).reshape(-1, *size)
    return ClassAttribution(
        tuple(classes),
        counts,
        mean_maps.float(),
        tuple(weights),
        shares.float(),
        spreads.float(),
        _peaks(mean_maps, counts > 0),
    )


@dataclass(frozen=True)
class Shortcut:
    """A region that holds more of the evidence for one class than for the others."""

    name: str  # of the class
    region: str
    share: float  # of the evidence for the class, in [0, 1]
    median_of_others: float  # median share over the other classes
    deviations: (
        float  # how far the two are apart, in the spread that other classes and chance explain
    )
    peak: Peak  # where to look


def suspected_shortcuts(evidence: ClassAttribution, threshold: float = 4.0) -> tuple[Shortcut, ...]:
    """The regions that a class relies on more than the others do, `threshold` spreads or more beyond their median, worst first.

    The spread is the larger of the classes' own (1.4826 times the median absolute deviation), of what the number of images
    leaves to chance, and of 0.02. The center is where objects are expected, and not asked about; classes with fewer than 10
    images are left out. A finding is a question, not a verdict: ships do have water under them.
    """
    judged = (evidence.images >= _FEWEST).nonzero()[:, 0].tolist()
    findings = []
    for index in judged if len(judged) > 1 else []:
        usual, deviations = _against(evidence, index, [other for other in judged if other != index])
        peak = evidence.peaks[index]
        assert peak is not None  # the class has images
        for region, name in enumerate(evidence.regions):
            share, median, far = (
                float(values[region]) for values in (evidence.shares[index], usual, deviations)
            )
            if name != "center" and far >= threshold:
                findings.append(Shortcut(evidence.classes[index], name, share, median, far, peak))
    return tuple(sorted(findings, key=lambda finding: -finding.deviations))


def _against(evidence: ClassAttribution, index: int, others: list[int]) -> tuple[Tensor, Tensor]:
    """Median share (R,) of the other classes, and how many spreads (R,) that of class `index` lies above it."""
    shares, images = evidence.shares.double(), evidence.images.double()
    usual = shares[others].quantile(0.5, dim=0)
    between = 1.4826 * (shares[others] - usual).abs().quantile(0.5, dim=0)
    variance = evidence.spreads.double().square()  # over the images of a class
    theirs = variance[others].mean(0)
    own = variance[index].maximum(theirs)  # the larger: by luck a few images may agree
    luck = (own / images[index] + theirs / images[others].quantile(0.5)).sqrt()
    return usual, (shares[index] - usual) / torch.maximum(between, luck).clamp_min(_LEAST_SPREAD)


def _by_class(values: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of values (M, R): the number (K,), mean (K, R) and standard deviation (K, R) of those of each class; 0 where none."""
    counts = labels.bincount(minlength=classes)
    empty = values.new_zeros(classes, values.shape[1])
    means = empty.index_add(0, labels, values) / counts.clamp_min(1)[:, None]
    squares = empty.index_add(0, labels, (values - means[labels]).square())
    return counts, means, (squares / (counts - 1).clamp_min(1)[:, None]).sqrt()


def _peaks(mean_maps: Tensor, present: Tensor) -> tuple[Peak | None, ...]:
    height, width = (max(1, round(side * _PEAK_SIDE)) for side in mean_maps.shape[1:])
    boxes = F.avg_pool2d(mean_maps[:, None], (height, width), stride=1)[:, 0] * (
        height * width
    )  # sums, by top and left
    usual = torch.zeros_like(boxes)
    usual[present] = _median_of_others(boxes[present])
    peaks: list[Peak | None] = []
    for box, other, there in zip(boxes, usual, present.tolist(), strict=True):
        top, left = divmod(int((box - other).argmax()), boxes.shape[2])
        peaks.append(
            Peak(top, left, height, width, float(box[top, left]), float(other[top, left]))
            if there
            else None
        )
    return tuple(peaks)


def _median_of_others(values: Tensor) -> Tensor:  # (K, ...)
    """Of each of K values (K, ...) the median of the others, 0 where there are none; one sort for all of them."""
    others = len(values) - 1
    if others < 1:
        return torch.zeros_like(values)
    ordered = values.sort(0)
    ranks = ordered.indices.argsort(0)

    def without(place: int) -> Tensor:  # the value at `place` of those that are left
        return torch.where(
            place < ranks, ordered.values[place], ordered.values[min(place + 1, others)]
        )

    return (without((others - 1) // 2) + without(others // 2)) / 2


def _regions(size: Sequence[int]) -> dict[str, Tensor]:  # each (H, W) float64
    """How much of each pixel belongs to each region, in [0, 1]: on a small map a region ends inside a pixel."""
    return {"border": 1 - _box(_INSIDE_BORDER, size)} | {
        name: _box(box, size) for name, box in _BOXES.items()
    }


def _box(box: tuple[float, float, float, float], size: Sequence[int]) -> Tensor:
    top, bottom, left, right = box
    return torch.outer(_covered(top, bottom, size[0]), _covered(left, right, size[1]))


def _covered(start: float, end: float, count: int) -> Tensor:  # (count,) float64
    """How much of each of `count` pixels in a row lies between `start` and `end`, which are shares of the row."""
    at = torch.arange(count, dtype=torch.float64)
    return ((at + 1).clamp_max(end * count) - at.clamp_min(start * count)).clamp_min(0)


def _check_labels(labels: Tensor, maps: int, classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.shape != (maps,) or labels.dtype != torch.int64:
        found = (
            f"{tuple(labels.shape)} {labels.dtype}".replace("torch.", "")
            if isinstance(labels, Tensor)
            else type(labels).__name__
        )
        raise SeewhyError(
            f"labels must be a tensor ({maps},) int64, the class that each map explains, found {found}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise SeewhyError(
            f"labels must be from 0 to {classes - 1}, found {int(labels.min())} to {int(labels.max())}"
        )
