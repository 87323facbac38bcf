"""Comparison of two models on the same images: fixed and broken images, and their significance."""

from dataclasses import dataclass

from torch import Tensor

from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.statistics import mcnemar, paired_interval
from seewhy.errors import SeewhyError
from seewhy.wording import counted


@dataclass(frozen=True)
class ClassChange:
    """Change of the accuracy on the images of one class; accuracies are in [0, 1]."""

    name: str
    images: int
    before: float
    after: float
    change: float  # after minus before
    interval: tuple[float, float]  # 95%, of the change


@dataclass(frozen=True, eq=False)
class PairedComparison:
    """Change of the accuracy from one model to another on the same images, in [0, 1]."""

    images: int
    before: float
    after: float
    fixed: Tensor  # (F,) int64, indices of the images that only the second model gets right
    broken: Tensor  # (B,) int64, indices of the images that only the first model gets right
    both_wrong: int
    change: float  # after minus before
    interval: tuple[float, float]  # 95%, of the change
    p_value: float  # exact two-sided McNemar test
    classes: tuple[ClassChange, ...]  # classes with images, in their order
    conclusion: str


def compare_predictions(before: Predictions, after: Predictions) -> PairedComparison:
    """Compare two models image by image, with the exact McNemar test (McNemar 1947).

    Intervals are those of Newcombe 1998 for paired proportions.

    Args:
        before: Predictions of the first model.
        after: Predictions of the second model, on the same images.

    Raises:
        SeewhyError: If the numbers of images, the classes, or the labels differ.
    """
    _check_same_images(before, after)
    labels = before.labels.cpu()
    correct_before, correct_after = before.correct.cpu(), after.correct.cpu()
    fixed, broken = (
        (correct_after & ~correct_before).nonzero()[:, 0],
        (correct_before & ~correct_after).nonzero()[:, 0],
    )
    p_value = mcnemar(len(fixed), len(broken))
    overall = _change("all", correct_before, correct_after)
    classes = tuple(
        _change(name, correct_before[labels == index], correct_after[labels == index])
        for index, name in enumerate(before.classes)
        if (labels == index).any()
    )
    return PairedComparison(
        images=overall.images,
        before=overall.before,
        after=overall.after,
        fixed=fixed,
        broken=broken,
        both_wrong=int((~correct_before & ~correct_after).sum()),
        change=overall.change,
        interval=overall.interval,
        p_value=p_value,
        classes=classes,
        conclusion=_conclusion(overall, len(fixed), len(broken), p_value),
    )


def _change(name: str, correct_before: Tensor, correct_after: Tensor) -> ClassChange:
    images, before, after = len(correct_before), int(correct_before.sum()), int(correct_after.sum())
    both = int((correct_before & correct_after).sum())
    interval = paired_interval(both, after - both, before - both, images - before - after + both)
    return ClassChange(
        name, images, before / images, after / images, (after - before) / images, interval
    )


def _conclusion(overall: ClassChange, fixed: int, broken: int, p_value: float) -> str:
    images = f"{overall.images:,} image{'s' * (overall.images != 1)}"
    if fixed + broken == 0:
        return (
            f"Accuracy on {images} stays at {100 * overall.after:.2f}%: both models classify the "
            "same images correctly."
        )
    low, high = (100 * bound for bound in overall.interval)
    p = "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.2g}"
    return (
        f"Accuracy on {images} changes from {100 * overall.before:.2f}% to "
        f"{100 * overall.after:.2f}%, by {100 * overall.change:+.2f} points (95% interval "
        f"{low:+.2f} to {high:+.2f}); {fixed:,} fixed, {broken:,} broken; "
        f"{'' if p_value < 0.05 else 'not '}significantly different (McNemar test, {p})."
    )


def _check_same_images(before: Predictions, after: Predictions) -> None:
    remedy = "compare two runs that were evaluated on the same test split"
    if len(before.labels) != len(after.labels):
        raise SeewhyError(
            f"the two predictions have {len(before.labels):,} and "
            f"{counted(len(after.labels), 'image')}; {remedy}"
        )
    if before.classes != after.classes:
        raise SeewhyError(f"{_class_difference(before.classes, after.classes)}; {remedy}")
    differing = (before.labels.cpu() != after.labels.cpu()).nonzero()[:, 0]
    if len(differing):
        index = int(differing[0])
        label_before, label_after = (
            each.classes[int(each.labels[index])] for each in (before, after)
        )
        raise SeewhyError(
            f"the labels of {len(differing):,} of {counted(len(before.labels), 'image')} differ, "
            f"first of image {index}: {label_before!r} and {label_after!r}; {remedy}"
        )


def _class_difference(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    if len(before) != len(after):
        return f"the models have {len(before)} and {counted(len(after), 'class')}"
    names = enumerate(zip(before, after, strict=True))
    index, (class_before, class_after) = next(
        (index, pair) for index, pair in names if pair[0] != pair[1]
    )
    return (
        f"the classes of the models differ, first class {index}: {class_before!r} and "
        f"{class_after!r}"
    )
