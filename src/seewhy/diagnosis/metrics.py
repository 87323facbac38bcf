"""How well each class is found, which classes are taken for which, and the accuracies that count differently."""

from dataclasses import dataclass

import torch

from seewhy.diagnosis.predictions import Predictions, confusion_matrix, wilson_interval
from seewhy.errors import SeewhyError

UNKNOWN = float("nan")  # a share of no images


@dataclass(frozen=True)
class ClassScore:
    """How often images of one class are recognized, and how often its name is right."""

    name: str
    images: int
    accuracy: float  # share of its images that are right, the recall, in [0, 1]; nan without images
    interval: tuple[float, float]  # 95%, of the accuracy
    precision: float  # share of the images predicted as it that are of it, in [0, 1]; nan where it is never predicted
    precision_interval: tuple[float, float]  # 95%
    f1: float  # harmonic mean of precision and recall, in [0, 1]; nan where the class neither occurs nor is predicted
    predicted: int  # images that are predicted as it, rightly or not
    mistaken_for: (
        str  # the class that its images are most often mistaken for, "" where they never are
    )
    mistaken: int  # how many of its images are mistaken for that one


@dataclass(frozen=True)
class Confusion:
    """How often images of one class are predicted as one other."""

    true: int
    predicted: int
    images: int
    share: float  # of all mistakes, in [0, 1]


def class_scores(result: Predictions) -> tuple[ClassScore, ...]:
    """Recall, precision and F1 with 95% intervals (Wilson 1927) of every class, also of those without images, in their order.

    Of several classes that its images are equally often mistaken for, the first is named.
    """
    check_predictions(result)
    counts = confusion_matrix(result)
    right, images, predicted = (
        counts.diagonal().tolist(),
        counts.sum(1).tolist(),
        counts.sum(0).tolist(),
    )
    mistaken, mistaken_for = counts.clone().fill_diagonal_(0).max(1)
    scores = []
    for index, name in enumerate(result.classes):
        accuracy, interval = _share(right[index], images[index])
        precision, precision_interval = _share(right[index], predicted[index])
        f1, _ = _share(2 * right[index], images[index] + predicted[index])
        most = int(mistaken[index])
        other = result.classes[int(mistaken_for[index])] if most else ""
        row = (
            name,
            images[index],
            accuracy,
            interval,
            precision,
            precision_interval,
            f1,
            predicted[index],
            other,
            most,
        )
        scores.append(ClassScore(*row))
    return tuple(scores)


def worst_confusions(result: Predictions, count: int | None = None) -> tuple[Confusion, ...]:
    """The `count` most frequent mistakes, or all of them: most frequent first, then by true and by predicted class.

    Raises SeewhyError for a `count` below 1.
    """
    check_predictions(result)
    if count is not None and count < 1:
        raise SeewhyError(f"count must be at least 1, or None for all confusions, found {count}")
    counts = confusion_matrix(result).fill_diagonal_(0)
    mistakes = int(counts.sum())
    cells = counts.nonzero()  # in the order of true and predicted class, which a stable sort keeps
    images = counts[cells[:, 0], cells[:, 1]]
    order = images.argsort(descending=True, stable=True)[:count]
    rows = zip(cells[order].tolist(), images[order].tolist(), strict=True)
    return tuple(
        Confusion(true, predicted, number, number / mistakes) for (true, predicted), number in rows
    )


def balanced_accuracy(result: Predictions) -> float:
    """Mean over the classes that have images of the share that is right, in [0, 1] (Brodersen et al. 2010)."""
    check_predictions(result)
    counts = confusion_matrix(result).double()
    images = counts.sum(1)
    return float((counts.diagonal() / images)[images > 0].mean())


def top_k_accuracy(result: Predictions, k: int = 5) -> float:
    """Share of images whose class is among the `k` of the highest logits, in [0, 1]; 1 where there are no more than `k` classes.

    Of equal logits the first counts as the highest, as in `Predictions.predicted`. Raises SeewhyError for a `k` below 1.
    """
    check_predictions(result)
    if k < 1:
        raise SeewhyError(f"k must be at least 1, found {k}")
    own = result.logits.gather(1, result.labels[:, None])
    earlier = torch.arange(result.logits.shape[1], device=own.device) < result.labels[:, None]
    before = (result.logits > own) | ((result.logits == own) & earlier)
    return float((before.sum(1) < k).double().mean())


def check_predictions(result: Predictions) -> None:
    """Raise SeewhyError unless there are images, a finite logit for every class, and labels that are classes."""
    count, classes = len(result.labels), len(result.classes)
    if count == 0:
        raise SeewhyError("there are no predictions to measure; predict at least one image")
    if result.logits.shape != (count, classes):
        found = tuple(result.logits.shape)
        raise SeewhyError(
            f"{count} labels and {classes} classes need logits ({count}, {classes}), found {found}"
        )
    low, high = result.labels.aminmax()
    if low < 0 or high >= classes:
        raise SeewhyError(
            f"labels must be 0 to {classes - 1}, since there are {classes} classes, found {low} to {high}"
        )
    broken = int((~result.logits.isfinite()).any(1).sum())
    if broken:
        raise SeewhyError(
            f"the logits of {broken} of {count} images are not finite; predict with precision 'fp32'"
        )


def _share(part: int, whole: int) -> tuple[float, tuple[float, float]]:
    """A share and its 95% interval, all of them nan where there is nothing to have a share of."""
    if whole == 0:
        return UNKNOWN, (UNKNOWN, UNKNOWN)
    return part / whole, wilson_interval(part, whole)
