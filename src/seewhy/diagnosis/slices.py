"""Weak slices: groups of similar images with a significantly lower accuracy than the rest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.sanity import average_ranks
from seewhy.data.pixels import LUMA_WEIGHTS
from seewhy.diagnosis.clustering import k_means
from seewhy.diagnosis.components import principal_components
from seewhy.diagnosis.label_issues import short_name
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.statistics import hypergeometric_tail, wilson_interval
from seewhy.errors import SeewhyError, describe_value
from seewhy.models.features import check_finite_features
from seewhy.significance import holm

MIN_IMAGES = 20  # of a slice
TAIL = 0.1  # fraction of the images at either end of an attribute
COMPONENTS = 32  # principal components of the features, used for clustering

_BLOCK_VALUES = 2**24  # pixel values held as floats at once
_IMAGES_PER_CLUSTER, _MIN_CLUSTERS, _MAX_CLUSTERS = 150, 8, 60
_MIN_DEVIATION = 0.2  # of a cluster's median rank from 0.5, for an attribute in its description

# per attribute: comparative and superlative for low and high values
_WORDS = {
    "brightness": ("darker", "brighter", "darkest", "brightest"),
    "contrast": ("lower in contrast", "higher in contrast", "lowest-contrast", "highest-contrast"),
    "saturation": ("less saturated", "more saturated", "least saturated", "most saturated"),
    "warmth": ("cooler in color", "warmer in color", "coolest-colored", "warmest-colored"),
    "sharpness": ("blurrier", "sharper", "blurriest", "sharpest"),
}


def image_attributes(images: Tensor) -> dict[str, Tensor]:
    """Compute simple statistics of images, for pixels in [0, 1].

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        Values (N,) float32 by name: brightness and contrast, the mean and standard deviation of the
        luma; sharpness, the mean magnitude of its Laplacian; for color images also saturation, the
        mean range over channels, and warmth, mean red minus mean blue.
    """
    columns: dict[str, list[Tensor]] = {}
    for block in torch.split(images, max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))):
        pixels = block.cpu().float() / 255
        color = pixels.shape[1] == 3
        weights = torch.tensor(LUMA_WEIGHTS)[:, None, None]
        luma = (pixels * weights).sum(1) if color else pixels.mean(1)
        row = {
            "brightness": luma.mean((1, 2)),
            "contrast": luma.flatten(1).std(1, correction=0),
            "sharpness": _laplacian(luma).abs().mean((1, 2)),
        }
        if color:
            row["saturation"] = (pixels.amax(1) - pixels.amin(1)).mean((1, 2))
            row["warmth"] = (pixels[:, 0] - pixels[:, 2]).mean((1, 2))
        for name, values in row.items():
            columns.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in columns.items()}


def _laplacian(luma: Tensor) -> Tensor:  # (N, H, W)
    """Four times each pixel minus its neighbors; the border is replicated."""
    padded = F.pad(luma[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    columns = padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return 4 * luma - rows - columns


@dataclass(frozen=True, eq=False)
class Slice:
    """A group of images with a significantly lower accuracy than the rest, in [0, 1]."""

    description: str
    kind: str  # "similar images", "attribute" or "metadata"
    members: Tensor  # (M,) int64, indices in order
    images: int
    accuracy: float
    interval: tuple[float, float]  # 95%, of the accuracy
    rest_accuracy: float  # of all other images
    p_value: float  # one-sided Fisher test, corrected for all groups tested


@dataclass(frozen=True, eq=False)
class Group:
    """Images that were grouped without using the errors."""

    description: str
    kind: str
    members: Tensor  # (M,) int64


def weak_slices(
    predictions: Predictions,
    features: Tensor | None,
    attributes: Mapping[str, Tensor],
    significance: float = 0.05,
    seed: int = 0,
) -> tuple[Slice, ...]:
    """Find groups of similar images and extremes of attributes with significantly more errors.

    Similar images are k-means clusters of the whitened principal components of the features. The
    extremes of an attribute are the 10% of images with the lowest and the highest values. Groups
    are formed without using the errors, so the tests are valid: one-sided Fisher tests (Fisher
    1935), corrected for the number of groups (Holm 1979).

    Args:
        predictions: Predictions of N images.
        features: (N, D) float, as from `extract_features`; None for extremes of attributes alone.
        attributes: Values (N,) float by name, as from `image_attributes`.
        significance: Maximum corrected p-value of a slice, between 0 and 1.
        seed: Seed of k-means.

    Returns:
        Slices of at least 20 images, the one with the most excess errors first. A slice that shares
        more than half of its images with an earlier one is left out.

    Raises:
        SeewhyError: For wrong shapes, values that are not finite, and a significance out of range.
    """
    _check(predictions, features, attributes, significance)
    correct, labels = predictions.correct.cpu(), predictions.labels.cpu()
    attributes = {name: values.cpu().double() for name, values in attributes.items()}
    groups = _attribute_ends(attributes)
    if features is not None:
        groups = [
            *_clusters(features.cpu(), labels, attributes, predictions.classes, seed),
            *groups,
        ]
    groups = [group for group in groups if MIN_IMAGES <= len(group.members) < len(labels)]
    slices = [each for each in compare_groups(groups, correct) if each.p_value <= significance]
    return _without_overlap(sorted(slices, key=excess_errors))


def compare_groups(groups: Sequence[Group], correct: Tensor) -> list[Slice]:
    """The accuracy of each group and of the rest; p-values are corrected for all groups.

    Args:
        groups: Of at least one image and less than all.
        correct: (N,) bool.
    """
    errors = [int((~correct[group.members]).sum()) for group in groups]
    sizes = [len(group.members) for group in groups]
    total, all_errors = len(correct), int((~correct).sum())
    p_values = holm(hypergeometric_tail(total, all_errors, sizes, errors))
    return [
        Slice(
            description=group.description,
            kind=group.kind,
            members=group.members,
            images=size,
            accuracy=1 - wrong / size,
            interval=wilson_interval(size - wrong, size),
            rest_accuracy=1 - (all_errors - wrong) / (total - size),
            p_value=p_value,
        )
        for group, size, wrong, p_value in zip(groups, sizes, errors, p_values, strict=True)
    ]


def excess_errors(weak: Slice) -> float:
    """Minus the errors of a slice beyond those at the accuracy of the rest: the worst is first."""
    return weak.images * (weak.accuracy - weak.rest_accuracy)


def _clusters(
    features: Tensor,
    labels: Tensor,
    attributes: Mapping[str, Tensor],
    classes: tuple[str, ...],
    seed: int,
) -> list[Group]:
    """k-means clusters, described by their most frequent classes and most unusual attribute."""
    if len(features) < 2 * MIN_IMAGES:
        return []
    points = _whiten(features)
    count = min(max(len(points) // _IMAGES_PER_CLUSTER, _MIN_CLUSTERS), _MAX_CLUSTERS)
    distinct = len(torch.unique(points, dim=0)) if points.shape[1] else 1
    count = min(count, len(points) // MIN_IMAGES, distinct)
    if count < 2:
        return []
    cluster = k_means(points, count, seed)
    ranks = {name: _ranks(values) for name, values in attributes.items()}
    groups = []
    for index in range(count):
        members = (cluster == index).nonzero()[:, 0]
        if len(members):
            description = _describe_classes(labels[members], classes)
            description += _describe_attribute(members, ranks)
            groups.append(Group(description, "similar images", members))
    return groups


def _whiten(features: Tensor) -> Tensor:  # (N, at most 32) float32
    """Principal components of unit variance; those under 0.1% of the largest variance are noise."""
    if (features == features[0]).all():
        return features[:, :0].float()
    coordinates, variances = principal_components(features, COMPONENTS)
    kept = (variances > 1e-3 * variances[0]) & (variances > 1e-12)
    return (coordinates[:, kept] / variances[kept].sqrt()).float()


def _attribute_ends(attributes: Mapping[str, Tensor]) -> list[Group]:
    """The 10% with the lowest and highest values, unless ties make them much larger."""
    groups = []
    for name, values in attributes.items():
        count = round(TAIL * len(values))
        if count == 0:
            continue
        ordered = values.sort().values
        low, high = ordered[count - 1].item(), ordered[-count].item()
        lowest, highest = _WORDS.get(name, ("", "", f"lowest-{name}", f"highest-{name}"))[2:]
        ends = (
            (values <= low, f"{lowest} 10% of images ({name} ≤ {low:.3g})"),
            (values >= high, f"{highest} 10% of images ({name} ≥ {high:.3g})"),
        )
        for inside, description in ends:
            if inside.sum() <= 1.5 * count:
                groups.append(Group(description, "attribute", inside.nonzero()[:, 0]))
    return groups


def _describe_classes(labels: Tensor, classes: tuple[str, ...]) -> str:
    """The one or two most frequent classes, with their percentages."""
    shares, order = (labels.bincount(minlength=len(classes)).double() / len(labels)).sort(
        descending=True, stable=True
    )
    names = [
        f"{short_name(classes[index])} ({100 * share:.0f}%)"
        for share, index in zip(shares[:2].tolist(), order[:2].tolist(), strict=True)
    ]
    second = f" and {names[1]}" if len(names) > 1 and shares[1] >= 0.15 else ""
    return ("mostly " if shares[0] >= 0.5 else "most often ") + names[0] + second


def _describe_attribute(members: Tensor, ranks: Mapping[str, Tensor]) -> str:
    """The attribute with the median rank furthest from 0.5 in the group, if it is far enough."""
    medians = {name: values[members].quantile(0.5).item() for name, values in ranks.items()}
    if not medians:
        return ""
    name = max(medians, key=lambda each: abs(medians[each] - 0.5))
    rank = medians[name]
    if abs(rank - 0.5) < _MIN_DEVIATION:
        return ""
    less, more = _WORDS.get(name, (f"lower in {name}", f"higher in {name}"))[:2]
    return f", {less if rank < 0.5 else more} than {100 * max(rank, 1 - rank):.0f}% of images"


def _ranks(values: Tensor) -> Tensor:  # (N,) float64 in [0, 1]
    """Fraction of images with a lower value; ties count half."""
    return (average_ranks(values) - 0.5) / len(values)


def _without_overlap(slices: list[Slice]) -> tuple[Slice, ...]:
    distinct: list[Slice] = []
    for candidate in slices:
        shared = (int(torch.isin(candidate.members, better.members).sum()) for better in distinct)
        if all(2 * count <= candidate.images for count in shared):
            distinct.append(candidate)
    return tuple(distinct)


def _check(
    predictions: Predictions,
    features: Tensor | None,
    attributes: Mapping[str, Tensor],
    significance: float,
) -> None:
    if not 0 < significance < 1:
        raise SeewhyError(
            "significance must be a probability between 0 and 1, such as 0.05, "
            f"found {significance}"
        )
    images = len(predictions.labels)
    if features is not None and (features.ndim != 2 or len(features) != images):
        raise SeewhyError(
            f"features must be ({images}, D), one row per image, found {describe_value(features)}"
        )
    if features is not None:
        check_finite_features(features)
    for name, values in attributes.items():
        if values.shape != (images,) or not values.isfinite().all():
            wrong_shape = values.shape != (images,)
            problem = describe_value(values) if wrong_shape else "values that are not finite"
            raise SeewhyError(
                f"attribute {name!r} must be ({images},), one finite value per image, found "
                f"{problem}"
            )
