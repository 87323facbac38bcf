"""Precision, recall and F1 per class, confusions, balanced and top-k accuracy."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.diagnosis.predictions import Predictions, confusion_matrix
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.errors import SeewhyError

UNEVEN = 1.5  # images of the most frequent class, relative to the least frequent one


@dataclass(frozen=True)
class ClassScore:
    """Recall, precision and F1 of one class, in [0, 1], with 95% intervals."""

    name: str
    images: int
    accuracy: float  # recall; nan without images
    interval: tuple[float, float]  # of the accuracy
    precision: float  # nan if the class is never predicted
    precision_interval: tuple[float, float]
    f1: float  # nan if the class neither occurs nor is predicted
    predicted: int  # number of images predicted as this class
    confused_with: str  # class its images are most often wrongly predicted as; "" if never
    confusions: int  # number of its images predicted as that class


@dataclass(frozen=True)
class UnevenScores:
    """Scores that count each class alike, in [0, 1]; accuracy counts frequent classes more."""

    balanced_accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class Confusion:
    """Errors with one pair of true and predicted class."""

    true: int  # class index
    predicted: int  # class index
    images: int
    share: float  # of all errors, in [0, 1]


def class_scores(predictions: Predictions) -> tuple[ClassScore, ...]:
    """Recall, precision and F1 with 95% intervals (Wilson 1927) of every class, in their order.

    If a class is confused equally often with several others, `confused_with` is the first of them.
    """
    counts = confusion_matrix(predictions)
    hits, images, predicted = (
        values.tolist() for values in (counts.diagonal(), counts.sum(1), counts.sum(0))
    )
    confusions, confused_with = counts.fill_diagonal_(0).max(1)
    return tuple(
        ClassScore(
            name=name,
            images=images[index],
            accuracy=_share(hits[index], images[index]),
            interval=_interval(hits[index], images[index]),
            precision=_share(hits[index], predicted[index]),
            precision_interval=_interval(hits[index], predicted[index]),
            f1=_share(2 * hits[index], images[index] + predicted[index]),
            predicted=predicted[index],
            confused_with=predictions.classes[int(confused_with[index])]
            if confusions[index]
            else "",
            confusions=int(confusions[index]),
        )
        for index, name in enumerate(predictions.classes)
    )


def worst_confusions(predictions: Predictions, count: int | None = None) -> tuple[Confusion, ...]:
    """Find the most frequent confusions.

    Args:
        predictions: Predictions of N images.
        count: Number of confusions; None for all.

    Returns:
        Confusions, the most frequent first, equally frequent ones by true and predicted class.

    Raises:
        SeewhyError: For a `count` below 1.
    """
    if count is not None and count < 1:
        raise SeewhyError(f"count must be at least 1, or None for all confusions, found {count}")
    counts = confusion_matrix(predictions).fill_diagonal_(0)
    errors = int(counts.sum())
    cells = counts.nonzero()  # ordered by true and predicted class, which a stable sort keeps
    images = counts[cells[:, 0], cells[:, 1]]
    order = images.argsort(descending=True, stable=True)[:count]
    return tuple(
        Confusion(true, predicted, number, number / errors)
        for (true, predicted), number in zip(
            cells[order].tolist(), images[order].tolist(), strict=True
        )
    )


def most_confused(counts: Tensor, most: int) -> Tensor:
    """The classes with the most errors, by true or predicted class.

    Args:
        counts: (K, K) int64, images by true and predicted class.
        most: Largest number of classes to return.

    Returns:
        Indices of classes, ascending, int64; without those that have no images and no predictions.
    """
    errors = counts.clone().fill_diagonal_(0)
    present = (counts.sum(0) + counts.sum(1)).nonzero()[:, 0]
    order = (errors.sum(0) + errors.sum(1))[present].argsort(descending=True, stable=True)
    return present[order[:most]].sort().values


def balanced_accuracy(predictions: Predictions) -> float:
    """Mean recall over the classes that have images, in [0, 1] (Brodersen et al. 2010)."""
    counts = confusion_matrix(predictions).double()
    images = counts.sum(1)
    return float((counts.diagonal() / images)[images > 0].mean())


def macro_f1(predictions: Predictions) -> float:
    """Mean F1 over the classes that occur or are predicted, in [0, 1]."""
    counts = confusion_matrix(predictions).double()
    either = counts.sum(0) + counts.sum(1)  # 2 true positives + false positives + false negatives
    return float((2 * counts.diagonal() / either)[either > 0].mean())


def uneven_scores(predictions: Predictions) -> UnevenScores | None:
    """Balanced accuracy and macro F1, if the classes are uneven.

    They are if the most frequent class has at least 1.5 times the images of the least frequent one
    that has any.
    """
    images = predictions.labels.bincount()
    images = images[images > 0]
    if images.max() < UNEVEN * images.min():
        return None
    return UnevenScores(balanced_accuracy(predictions), macro_f1(predictions))


def top_k_accuracy(predictions: Predictions, k: int = 5) -> float:
    """Fraction of images with the true class among the `k` highest logits, in [0, 1].

    Of equal logits the first class ranks higher, as in `Predictions.predicted`.

    Args:
        predictions: Predictions of N images.
        k: Number of classes; the result is 1 if the model has at most `k` classes.

    Raises:
        SeewhyError: For a `k` below 1.
    """
    if k < 1:
        raise SeewhyError(f"k must be at least 1, found {k}")
    # not sklearn's top_k_accuracy_score, which ranks the last of equal logits first
    logits, labels = predictions.logits, predictions.labels[:, None]
    true_logit = logits.gather(1, labels)
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels
    higher = (logits > true_logit) | ((logits == true_logit) & earlier)
    return float((higher.sum(1) < k).double().mean())


def _share(part: int, whole: int) -> float:
    """A fraction; nan of nothing."""
    return part / whole if whole else math.nan


def _interval(hits: int, images: int) -> tuple[float, float]:
    """95% interval of a fraction; nan without images."""
    return wilson_interval(hits, images) if images else (math.nan, math.nan)
