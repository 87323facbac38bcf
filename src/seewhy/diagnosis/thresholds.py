"""ROC and precision-recall curves of a class against the rest, and a threshold by costs."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seewhy.diagnosis.predictions import AnyPredictions, Predictions
from seewhy.errors import SeewhyError, lookup

_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
NO_POSITIVES, NO_NEGATIVES = "no image is of this class", "all images are of this class"


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Numbers of true and false positives of one class by the threshold of its probability.

    An image is positive if its probability is at least the threshold; images of equal probability
    are positive together. The first threshold is infinite: no image is positive. Thresholds between
    two others that differ from both only in false positives are left out.
    """

    name: str  # of the class
    thresholds: Tensor  # (M,) float64, decreasing from infinity
    true_positives: Tensor  # (M,) int64, up to all images of the class
    false_positives: Tensor  # (M,) int64, up to all other images

    @cached_property
    def recall(self) -> Tensor:
        """Recall, or true-positive rate, (M,) float64 in [0, 1]; nan without positive images."""
        return self.true_positives.double() / self.true_positives[-1]

    @cached_property
    def false_positive_rate(self) -> Tensor:
        """False-positive rate, (M,) float64 in [0, 1]; nan without negative images."""
        return self.false_positives.double() / self.false_positives[-1]

    @cached_property
    def precision(self) -> Tensor:
        """Precision, (M,) float64 in [0, 1]; 1 where no image is positive."""
        positive = self.true_positives + self.false_positives
        return torch.where(positive == 0, 1.0, self.true_positives.double() / positive)


@dataclass(frozen=True)
class ClassRanking:
    """How well the probability of one class separates its images from the others."""

    index: int  # of the class
    name: str
    images: int  # of the class
    prevalence: float  # fraction of the images, in [0, 1]: average precision of random ranking
    auroc: float  # in [0, 1], 0.5 for random ranking; nan if undefined
    average_precision: float  # in [0, 1]; nan if undefined
    undefined: str  # reason why both are nan, else empty


@dataclass(frozen=True)
class RankingScores:
    """AUROC and average precision of each class, and their means over the defined ones."""

    classes: tuple[ClassRanking, ...]  # of two classes only the second one, the positive class
    macro_auroc: float  # in [0, 1]; nan if no class is defined
    macro_average_precision: float  # in [0, 1]; nan if no class is defined


@dataclass(frozen=True)
class DecisionThreshold:
    """A threshold of the probability of one class, and what it results in on a split."""

    name: str  # of the class
    threshold: float  # images of at least this probability are positive; inf for none
    cost: float  # per image
    accuracy: float  # of the decision whether an image is of the class, in [0, 1]
    recall: float  # in [0, 1]; nan without images of the class
    precision: float  # in [0, 1]; nan if no image is positive


def ranking_scores(predictions: AnyPredictions) -> RankingScores:
    """Measure AUROC and average precision of each class against the rest.

    Of two classes, the second one is the positive class, unless they are independent labels. AUROC
    is the area under the ROC curve, which is the probability that an image of the class has a
    higher probability than another one, plus half that of a tie (Hanley & McNeil 1982). Average
    precision is the mean precision at each image of the class, without interpolation (Manning et
    al. 2008, section 8.4). Both are those of scikit-learn. They are nan for a class that has no
    images, or all of them.

    Args:
        predictions: Predictions of N images.
    """
    probabilities = predictions.probabilities.cpu().T.contiguous().numpy()
    classes = []
    for index in _ranked_classes(predictions):
        own = predictions.members(index).cpu().numpy().nonzero()[0]
        auroc, average_precision, undefined = _rank(probabilities[index], own)
        name, prevalence = predictions.classes[index], len(own) / len(predictions.labels)
        scores = auroc, average_precision, undefined
        classes.append(ClassRanking(index, name, len(own), prevalence, *scores))
    defined = [row for row in classes if not row.undefined]
    return RankingScores(
        tuple(classes),
        _mean([row.auroc for row in defined]),
        _mean([row.average_precision for row in defined]),
    )


def threshold_curve(predictions: AnyPredictions, positive: str | int) -> ThresholdCurve:
    """Count true and false positives of one class by the threshold of its probability.

    The ROC curve is `recall` by `false_positive_rate`, the precision-recall curve `precision` by
    `recall`.

    Args:
        predictions: Predictions of N images.
        positive: Name or index of the class.

    Raises:
        SeewhyError: For an unknown class.
    """
    index = _class_index(predictions, positive)
    scores = predictions.probabilities[:, index].cpu().numpy()
    own = predictions.members(index).cpu().numpy().nonzero()[0]
    counts = _count(scores, own)
    least_score, images = counts.ascending[0], len(scores)
    # the lowest scores that are above those of the class; none above the highest of all
    inner = counts.after < images
    thresholds = [np.inf], counts.scores, counts.ascending[counts.after[inner]], [least_score]
    true = [0], counts.own_at, counts.own_above[inner], [len(own)]
    positive_images = [0], images - counts.first, images - counts.after[inner], [images]
    distinct, chosen = np.unique(np.concatenate(thresholds).astype(float), return_index=True)
    true_positives, positives = (
        torch.from_numpy(np.concatenate(values)[chosen][::-1].astype(np.int64))
        for values in (true, positive_images)
    )
    return ThresholdCurve(
        predictions.classes[index],
        torch.from_numpy(distinct[::-1].copy()),
        true_positives,
        positives - true_positives,
    )


def best_threshold(
    predictions: AnyPredictions,
    positive: str | int,
    false_positive_cost: float,
    false_negative_cost: float,
) -> DecisionThreshold:
    """Choose the threshold of the probability of one class with the lowest cost per image.

    Choose it on the validation split, and measure it on the test split: on the images that it was
    chosen on, its cost is too low. Of equal costs, the threshold closest to the one that is best
    for calibrated probabilities is chosen, which is the cost of a false positive as a fraction of
    both (Elkan 2001, eq. 1).

    Args:
        predictions: Predictions of N images.
        positive: Name or index of the class.
        false_positive_cost: Cost of taking another image for one of the class, at least 0.
        false_negative_cost: Cost of missing an image of the class, at least 0.

    Returns:
        The threshold, with its cost, accuracy, recall and precision on these images. It is infinite
        if it costs least to take no image for one of the class.

    Raises:
        SeewhyError: For an unknown class, a cost that is negative or not finite, and two costs
            of 0.
    """
    costs = false_positive_cost, false_negative_cost
    if not all(math.isfinite(cost) and cost >= 0 for cost in costs) or max(costs) == 0:
        raise SeewhyError(
            "the costs must be finite, at least 0, and not both 0, found "
            f"{false_positive_cost} for a false positive and {false_negative_cost} for a false "
            "negative"
        )
    curve = threshold_curve(predictions, positive)
    false_negatives = curve.true_positives[-1] - curve.true_positives
    images = len(predictions.labels)
    # relative to the larger one, so that huge costs do not overflow
    relative = [cost / max(costs) for cost in costs]
    cost = relative[0] * curve.false_positives + relative[1] * false_negatives
    calibrated = relative[0] / sum(relative)
    distance = (curve.thresholds - calibrated).abs().masked_fill(cost > cost.min(), math.inf)
    best = int(distance.argmin()) if distance.isfinite().any() else 0
    true, false = int(curve.true_positives[best]), int(curve.false_positives[best])
    missed = int(false_negatives[best])
    return DecisionThreshold(
        name=curve.name,
        threshold=float(curve.thresholds[best]),
        cost=false_positive_cost * (false / images) + false_negative_cost * (missed / images),
        accuracy=1 - (false + missed) / images,
        recall=true / (true + missed) if true + missed else math.nan,
        precision=true / (true + false) if true + false else math.nan,
    )


def _ranked_classes(predictions: AnyPredictions) -> list[int]:
    """Indices of the classes with a curve of their own: of two, both curves are the same."""
    indices = list(range(len(predictions.classes)))
    return indices[1:] if len(indices) == 2 and isinstance(predictions, Predictions) else indices


def _class_index(predictions: AnyPredictions, name: str | int) -> int:
    """Index of a class that is given by name or index."""
    classes = predictions.classes
    if isinstance(name, str):
        return classes.index(lookup(dict.fromkeys(classes, name), name, "class"))
    if not 0 <= name < len(classes):
        raise SeewhyError(f"class must be from 0 to {len(classes) - 1}, or a name, found {name}")
    return name


def _rank(scores: np.ndarray, own: np.ndarray) -> tuple[float, float, str]:
    """AUROC, average precision, and why they are nan, of a class with the images `own`."""
    positives, negatives = len(own), len(scores) - len(own)
    if not positives or not negatives:
        return math.nan, math.nan, NO_NEGATIVES if positives else NO_POSITIVES
    counts = _count(scores, own)
    own_equal, least = counts.own_at - counts.own_above, len(scores) - counts.first
    others_at, others_above = least - counts.own_at, len(scores) - counts.after - counts.own_above
    beaten_by = (own_equal * (others_above + others_at) / 2).sum() / positives
    precision = (own_equal * counts.own_at / least).sum() / positives
    return float(1 - beaten_by / negatives), float(precision), ""


class _Counts(NamedTuple):
    """Numbers of images at each distinct score of the images of a class, (M,) each."""

    ascending: np.ndarray  # (N,) all scores
    scores: np.ndarray  # distinct, ascending
    first: np.ndarray  # position of the score in `ascending`
    after: np.ndarray  # position of the next higher score
    own_at: np.ndarray  # images of the class with at least this score
    own_above: np.ndarray  # and with a higher one


def _count(scores: np.ndarray, own: np.ndarray) -> _Counts:
    """Count images by the score of a class, of which `own` are the images."""
    ascending = np.sort(scores)  # several times faster than an order, which is not needed
    distinct, images = np.unique(scores[own], return_counts=True)
    own_at = images[::-1].cumsum()[::-1]
    first, after = (np.searchsorted(ascending, distinct, side) for side in _SIDES)
    return _Counts(ascending, distinct, first, after, own_at, own_at - images)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
