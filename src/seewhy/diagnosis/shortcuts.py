"""Shortcuts: mean attribution per class, and regions that only one class relies on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.maps import check_finite, resize_maps
from seewhy.models.inspection import check_labels

_CHUNK = 250  # full-size maps held at once
_PEAK_SIDE = 1 / 8  # of the map's height and width
_MIN_IMAGES = 10  # per class; a mean over fewer images is too noisy
_MIN_SPREAD = 0.02  # without it, tiny differences between similar classes would be suspected
# regions as top, bottom, left, and right, as fractions of the height and the width
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
    """The box, an eighth of each side, where a class most exceeds the median of the others."""

    top: int  # in pixels; the next three as well
    left: int
    height: int
    width: int
    share: float  # of the class's attribution, in [0, 1]
    median_of_others: float  # median share over the other classes


@dataclass(frozen=True, eq=False)
class ClassAttribution:
    """Mean attribution of each of K classes over its images, and its fraction in R regions."""

    classes: tuple[str, ...]
    images: Tensor  # (K,) int64, images with any positive attribution
    mean_maps: Tensor  # (K, H, W) float32, each with sum 1; zero for a class without images
    regions: tuple[str, ...]  # R names; regions overlap, so shares do not sum to 1
    shares: Tensor  # (K, R) float32 in [0, 1], mean fraction of the attribution in each region
    spreads: Tensor  # (K, R) float32, standard deviation of that share over the images
    peaks: tuple[Peak | None, ...]  # of each class; None for a class without images


@dataclass(frozen=True)
class Shortcut:
    """A region that holds significantly more of the attribution for one class than for others."""

    name: str  # of the class
    region: str
    share: float  # of the attribution for the class, in [0, 1]
    median_of_others: float  # median share over the other classes
    deviations: float  # distance between the two, in spreads
    peak: Peak  # where to look


def mean_attribution_by_class(
    maps: Tensor, labels: Tensor, classes: tuple[str, ...], size: Sequence[int] | None = None
) -> ClassAttribution:
    """Average the positive part of attribution maps per class.

    Each map is resized and scaled to the sum 1, so that no image dominates. Regions are the border
    (an eighth of each side), the center (the middle half of each side), and the four corners (a
    quarter of each side).

    Args:
        maps: (N, h, w) float.
        labels: (N,) int64, the class that each map explains.
        classes: The K class names.
        size: Height and width of the mean maps, as of the images; by default those of the maps.

    Raises:
        SeewhyError: For maps that are not finite, and labels of the wrong shape or range.
    """
    check_finite(maps)
    check_labels(labels, len(maps), len(classes))
    size = maps.shape[1:] if size is None else size
    weights = _regions(size)
    region_weights = torch.stack(list(weights.values())).flatten(1)  # (R, H*W)
    nonzero_labels, parts = [], []
    sums = torch.zeros(len(classes), math.prod(size), dtype=torch.float64)
    for chunk, chunk_labels in zip(
        torch.split(maps.detach(), _CHUNK), torch.split(labels.cpu().long(), _CHUNK), strict=True
    ):
        positive = resize_maps(chunk, size).clamp_min(0).flatten(1).cpu().double()
        nonzero = positive.sum(1) > 0
        normalized = positive[nonzero] / positive[nonzero].sum(1, keepdim=True)
        sums.index_add_(0, chunk_labels[nonzero], normalized)
        nonzero_labels.append(chunk_labels[nonzero])
        parts.append(normalized @ region_weights.T)
    counts, shares, spreads = _by_class(torch.cat(parts), torch.cat(nonzero_labels), len(classes))
    mean_maps = (sums / counts.clamp_min(1)[:, None]).reshape(-1, *size)
    return ClassAttribution(
        classes=tuple(classes),
        images=counts,
        mean_maps=mean_maps.float(),
        regions=tuple(weights),
        shares=shares.float(),
        spreads=spreads.float(),
        peaks=_peaks(mean_maps, counts > 0),
    )


def suspected_shortcuts(
    attribution: ClassAttribution, threshold: float = 4.0
) -> tuple[Shortcut, ...]:
    """Find regions that a class relies on much more than the other classes do.

    The spread is the largest of that between the other classes (1.4826 times the median absolute
    deviation), the standard error for these numbers of images, and 0.02. The center is left out,
    because objects are expected there. A suspected shortcut may be legitimate: ships do have water
    below them.

    Args:
        attribution: Mean attribution of classes; those with less than 10 images are left out.
        threshold: Smallest distance from the median of the other classes, in spreads.

    Returns:
        Shortcuts, the largest distance first.
    """
    judged = (attribution.images >= _MIN_IMAGES).nonzero()[:, 0].tolist()
    shortcuts = []
    for index in judged if len(judged) > 1 else []:
        others = [other for other in judged if other != index]
        medians, deviations = _compare(attribution, index, others)
        peak = attribution.peaks[index]
        assert peak is not None  # the class has images
        for region, name in enumerate(attribution.regions):
            distance = float(deviations[region])
            if name != "center" and distance >= threshold:
                share, median = float(attribution.shares[index, region]), float(medians[region])
                class_name = attribution.classes[index]
                shortcuts.append(Shortcut(class_name, name, share, median, distance, peak))
    return tuple(sorted(shortcuts, key=lambda shortcut: -shortcut.deviations))


def _compare(attribution: ClassAttribution, index: int, others: list[int]) -> tuple[Tensor, Tensor]:
    """Median shares (R,) of other classes, and distances (R,) of a class from them in spreads."""
    shares, images = attribution.shares.double(), attribution.images.double()
    medians = shares[others].quantile(0.5, dim=0)
    between = 1.4826 * (shares[others] - medians).abs().quantile(0.5, dim=0)
    variances = attribution.spreads.double().square()  # over the images of a class
    mean_variance = variances[others].mean(0)
    # the larger one: few images may agree by chance
    variance = variances[index].maximum(mean_variance)
    standard_error = (
        variance / images[index] + mean_variance / images[others].quantile(0.5)
    ).sqrt()
    spread = torch.maximum(between, standard_error).clamp_min(_MIN_SPREAD)
    return medians, (shares[index] - medians) / spread


def _by_class(values: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count (K,), mean and standard deviation (K, R) of values (M, R) per class; 0 if none."""
    counts = labels.bincount(minlength=num_classes)
    empty = values.new_zeros(num_classes, values.shape[1])
    means = empty.index_add(0, labels, values) / counts.clamp_min(1)[:, None]
    squares = empty.index_add(0, labels, (values - means[labels]).square())
    return counts, means, (squares / (counts - 1).clamp_min(1)[:, None]).sqrt()


def _peaks(mean_maps: Tensor, present: Tensor) -> tuple[Peak | None, ...]:
    height, width = (max(1, round(side * _PEAK_SIDE)) for side in mean_maps.shape[1:])
    # sums over each box, by top and left
    boxes = F.avg_pool2d(mean_maps[:, None], (height, width), stride=1)[:, 0] * (height * width)
    medians = torch.zeros_like(boxes)
    medians[present] = _median_of_others(boxes[present])
    peaks: list[Peak | None] = []
    for box, median, has_images in zip(boxes, medians, present.tolist(), strict=True):
        top, left = divmod(int((box - median).argmax()), boxes.shape[2])
        share, other = float(box[top, left]), float(median[top, left])
        peaks.append(Peak(top, left, height, width, share, other) if has_images else None)
    return tuple(peaks)


def _median_of_others(values: Tensor) -> Tensor:  # (K, ...)
    """For each of K values (K, ...) the median of the others, 0 without others; sorts only once."""
    others = len(values) - 1
    if others < 1:
        return torch.zeros_like(values)
    ordered = values.sort(0)
    ranks = ordered.indices.argsort(0)

    def without(rank: int) -> Tensor:  # the value of this rank among the others
        above = ordered.values[min(rank + 1, others)]
        return torch.where(rank < ranks, ordered.values[rank], above)

    return (without((others - 1) // 2) + without(others // 2)) / 2


def _regions(size: Sequence[int]) -> dict[str, Tensor]:  # each (H, W) float64
    """Fraction of each pixel inside each region; in a small map a region ends inside a pixel."""
    border = {"border": 1 - _box(_INSIDE_BORDER, size)}
    return border | {name: _box(box, size) for name, box in _BOXES.items()}


def _box(box: tuple[float, float, float, float], size: Sequence[int]) -> Tensor:
    top, bottom, left, right = box
    return torch.outer(_coverage(top, bottom, size[0]), _coverage(left, right, size[1]))


def _coverage(start: float, end: float, count: int) -> Tensor:  # (count,) float64
    """Fraction of each of `count` pixels between `start` and `end`, as fractions of the row."""
    edges = torch.arange(count, dtype=torch.float64)
    return ((edges + 1).clamp_max(end * count) - edges.clamp_min(start * count)).clamp_min(0)
