"""Two models on the same images: what one fixed, what it broke, and whether that is more than luck."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.diagnosis.predictions import Predictions, wilson_interval
from seewhy.errors import SeewhyError


@dataclass(frozen=True)
class ClassChange:
    """How the accuracy on the images of one class changed; accuracies are in [0, 1]."""

    name: str
    images: int
    before: float
    after: float
    change: float  # after minus before
    interval: tuple[float, float]  # 95%, of the change


@dataclass(frozen=True, eq=False)
class PairedComparison:
    """How the accuracy changed from one model to another on the same images; accuracies are in [0, 1]."""

    images: int
    before: float
    after: float
    fixed: Tensor  # (F,) int64, indices of the images that were wrong and are right
    broken: Tensor  # (B,) int64, of those that were right and are wrong
    both_wrong: int
    change: float  # after minus before
    interval: tuple[float, float]  # 95%, of the change
    p_value: float  # exact McNemar test, two-sided: how often luck alone changes as much
    classes: tuple[ClassChange, ...]  # those that have images, in their order
    conclusion: str


def compare_predictions(before: Predictions, after: Predictions) -> PairedComparison:
    """What changed from `before` to `after`, image by image.

    Only images on which the two disagree tell them apart: by luck as many are fixed as are broken (McNemar 1947, with the exact
    binomial tail). Intervals are those of Newcombe 1998 for paired proportions. Raises SeewhyError where the two are not of the
    same images, by their number, classes and labels, or of none.
    """
    _check_same_images(before, after)
    labels, was, now = before.labels.cpu(), before.correct.cpu(), after.correct.cpu()
    fixed, broken = (now & ~was).nonzero()[:, 0], (was & ~now).nonzero()[:, 0]
    p_value = mcnemar(len(fixed), len(broken))
    whole = _change("all", was, now)
    classes = tuple(
        _change(name, was[labels == index], now[labels == index])
        for index, name in enumerate(before.classes)
        if (labels == index).any()
    )
    return PairedComparison(
        images=whole.images,
        before=whole.before,
        after=whole.after,
        fixed=fixed,
        broken=broken,
        both_wrong=int((~was & ~now).sum()),
        change=whole.change,
        interval=whole.interval,
        p_value=p_value,
        classes=classes,
        conclusion=_conclusion(whole, len(fixed), len(broken), p_value),
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Probability in [0, 1] that so many of all changes or more go one way by luck, two-sided (McNemar 1947, exact)."""
    changed, fewer = fixed + broken, min(fixed, broken)
    counts = torch.arange(fewer + 1, dtype=torch.float64)
    ways = math.lgamma(changed + 1) - torch.lgamma(counts + 1) - torch.lgamma(changed - counts + 1)
    tail = (ways - changed * math.log(2)).logsumexp(0).exp().item()
    return min(1.0, 2 * tail)


def paired_interval(both: int, fixed: int, broken: int, neither: int) -> tuple[float, float]:
    """95% interval in [-1, 1] of the change of accuracy, from how many images are right twice, right after, before and never.

    Method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635): Wilson's intervals of both accuracies, combined by their
    correlation, which is corrected for continuity where it is positive.
    """
    images = both + fixed + broken + neither
    after, before = (both + fixed) / images, (both + broken) / images
    (low, high), (low_before, high_before) = (
        wilson_interval(both + fixed, images),
        wilson_interval(both + broken, images),
    )
    product = (both + fixed) * (broken + neither) * (both + broken) * (fixed + neither)
    excess = float(both * neither - fixed * broken)
    if excess > 0:
        excess = max(0.0, excess - images / 2)
    correlation = excess / math.sqrt(product) if product else 0.0
    down = _combined(after - low, high_before - before, correlation)
    up = _combined(high - after, before - low_before, correlation)
    return after - before - down, after - before + up


def _combined(one: float, other: float, correlation: float) -> float:
    """Length of the difference of two deviations that are correlated."""
    return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))


def _change(name: str, was: Tensor, now: Tensor) -> ClassChange:
    images, before, after = len(was), int(was.sum()), int(now.sum())
    both = int((was & now).sum())
    interval = paired_interval(both, after - both, before - both, images - before - after + both)
    return ClassChange(
        name, images, before / images, after / images, (after - before) / images, interval
    )


def _conclusion(whole: ClassChange, fixed: int, broken: int, p_value: float) -> str:
    images = f"{whole.images:,} image{'s' * (whole.images != 1)}"
    if fixed + broken == 0:
        return (
            f"Both are right and wrong on the same of {images}: {100 * whole.after:.2f}% are right."
        )
    low, high = (100 * bound for bound in whole.interval)
    said = "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"
    luck = "more than luck explains" if p_value < 0.05 else "no more than luck explains"
    return (
        f"{100 * whole.after:.2f}% of {images} are right instead of {100 * whole.before:.2f}%, "
        f"{100 * whole.change:+.2f} points (95% interval {low:+.2f} to {high:+.2f}): "
        f"{fixed:,} fixed and {broken:,} broken, {luck} ({said})."
    )


def _check_same_images(before: Predictions, after: Predictions) -> None:
    remedy = "compare two runs that were evaluated on the same test split"
    if len(before.labels) != len(after.labels):
        raise SeewhyError(
            f"the two are of {len(before.labels):,} and {len(after.labels):,} images; {remedy}"
        )
    if len(before.labels) == 0:
        raise SeewhyError(f"there are no images to compare; {remedy}")
    if before.classes != after.classes:
        raise SeewhyError(f"{_unlike(before.classes, after.classes)}; {remedy}")
    unlike = (before.labels.cpu() != after.labels.cpu()).nonzero()[:, 0]
    if len(unlike):
        index = int(unlike[0])
        was, now = (
            predictions.classes[int(predictions.labels[index])] for predictions in (before, after)
        )
        of = f"{len(unlike):,} of {len(before.labels):,}"
        raise SeewhyError(
            f"{of} images have unlike labels, first image {index}: {was!r} and {now!r}; {remedy}"
        )


def _unlike(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    if len(before) != len(after):
        return f"the two know {len(before)} and {len(after)} classes"
    place = next(
        index for index, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]
    )
    return (
        f"the two know unlike classes, first class {place}: {before[place]!r} and {after[place]!r}"
    )
