"""How well each class is found, which classes are taken for which, and the accuracies that count differently."""

from dataclasses import dataclass

import torch

from seewhy.diagnosis.predictions import (
    Predictions,
    check_predictions,
    confusion_matrix,
    wilson_interval,
)
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
    confused_with: str  # the class its images are most often predicted as; "" if they never are
    confusions: int  # number of its images predicted as that class


@dataclass(frozen=True)
class Confusion:
    """How often images of one class are predicted as one other."""

    true: int
    predicted: int
    images: int
    share: float  # of all mistakes, in [0, 1]


def class_scores(predictions: Predictions) -> tuple[ClassScore, ...]:
    """Recall, precision and F1 with 95% intervals (Wilson 1927) of every class, also of those without images, in their order.

    Of several classes that its images are equally often mistaken for, the first is named.
    """
    check_predictions(predictions)
    counts = confusion_matrix(predictions)
    right, images, predicted = (
        counts.diagonal().tolist(),
        counts.sum(1).tolist(),
        counts.sum(0).tolist(),
    )
    mistaken, mistaken_for = counts.clone().fill_diagonal_(0).max(1)
    scores = []
    for index, name in enumerate(predictions.classes):
        accuracy, interval = _share(right[index], images[index])
        precision, precision_interval = _share(right[index], predicted[index])
        f1, _ = _share(2 * right[index], images[index] + predicted[index])
        most = int(mistaken[index])
        other = predictions.classes[int(mistaken_for[index])] if most else ""
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


def worst_confusions(predictions: Predictions, count: int | None = None) -> tuple[Confusion, ...]:
    """The `count` most frequent mistakes, or all of them: most frequent first, then by true and by predicted class.

    Raises SeewhyError for a `count` below 1.
    """
    check_predictions(predictions)
    if count is not None and count < 1:
        raise SeewhyError(f"count must be at least 1, or None for all confusions, found {count}")
    counts = confusion_matrix(predictions).fill_diagonal_(0)
    mistakes = int(counts.sum())
    cells = counts.nonzero()  # in the order of true and predicted class, which a stable sort keeps
    images = counts[cells[:, 0], cells[:, 1]]
    order = images.argsort(descending=True, stable=True)[:count]
    rows = zip(cells[order].tolist(), images[order].tolist(), strict=True)
    return tuple(
        Confusion(true, predicted, number, number / mistakes) for (true, predicted), number in rows
    )


def balanced_accuracy(predictions: Predictions) -> float:
    """Mean over the classes that have images of the share that is right, in [0, 1] (Brodersen et al. 2010)."""
    check_predictions(predictions)
    counts = confusion_matrix(predictions).double()
    images = counts.sum(1)
    return float((counts.diagonal() / images)[images > 0].mean())


def top_k_accuracy(predictions: Predictions, k: int = 5) -> float:
    """Share of images whose class is among the `k` of the highest logits, in [0, 1]; 1 where there are no more than `k` classes.

    Of equal logits the first counts as the highest, as in `Predictions.predicted`. Raises SeewhyError for a `k` below 1.
    """
    check_predictions(predictions)
    if k < 1:
        raise SeewhyError(f"k must be at least 1, found {k}")
    own = predictions.logits.gather(1, predictions.labels[:, None])
    earlier = (
        torch.arange(predictions.logits.shape[1], device=own.device) < predictions.labels[:, None]
    )
    before = (predictions.logits > own) | ((predictions.logits == own) & earlier)
    return float((before.sum(1) < k).double().mean())


def _share(part: int, whole: int) -> tuple[float, tuple[float, float]]:
    """A share and its 95% interval, all of them nan where there is nothing to have a share of."""
    if whole == 0:
        return UNKNOWN, (UNKNOWN, UNKNOWN)
    return part / whole, wilson_interval(part, whole)
