"""What a model says of every image of a split, and how often it is right."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inference import compute_logits


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's outputs on N images of K classes, and the truth."""

    logits: Tensor  # (N, K) float32
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]

    @cached_property
    def probabilities(self) -> Tensor:  # (N, K) float32 in [0, 1]
        return self.logits.softmax(1)

    @cached_property
    def predicted(self) -> Tensor:  # (N,) int64
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:  # (N,) float32, probability of the predicted class
        return self.probabilities.amax(1)

    @cached_property
    def correct(self) -> Tensor:  # (N,) bool
        return self.predicted == self.labels

    @cached_property
    def losses(self) -> Tensor:  # (N,) float32, cross entropy in nats
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    @property
    def accuracy(self) -> float:
        """Share of images that are right, in [0, 1]."""
        return self.correct.float().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the accuracy."""
        return wilson_interval(int(self.correct.sum()), len(self.labels))

    @property
    def by_class(self) -> tuple["ClassAccuracy", ...]:
        """The accuracy of every class that has images, in the order of the classes."""
        rows = []
        for index, name in enumerate(self.classes):
            correct = self.correct[self.labels == index]
            images, right = len(correct), int(correct.sum())
            if images:
                rows.append(
                    ClassAccuracy(name, images, right / images, wilson_interval(right, images))
                )
        return tuple(rows)


@dataclass(frozen=True)
class ClassAccuracy:
    """How often images of one class are classified correctly."""

    name: str
    images: int
    accuracy: float  # in [0, 1]
    interval: tuple[float, float]  # 95%


def predict_split(classifier: ClassifierLike, split: Split) -> Predictions:
    """Predict every image of a split, in evaluation mode; the model's modes are restored afterwards.

    Args:
        classifier: a run, a Classifier or a module. Its precision and test-time augmentation apply.
            Without class names the classes are numbered.
        split: images (N, C, H, W) uint8 with labels (N,) int64.

    Raises:
        SeewhyError: if the model's number of classes differs from the number of class names.
    """
    classifier = as_classifier(classifier)
    logits = compute_logits(classifier, split.images)
    return Predictions(logits, split.labels, classifier.class_names(logits.shape[1]))


def check_predictions(predictions: Predictions) -> None:
    """Raise SeewhyError unless there are images, a finite logit for every class, and labels that are classes."""
    count, classes = len(predictions.labels), len(predictions.classes)
    if count == 0:
        raise SeewhyError("there are no predictions to measure; predict at least one image")
    if predictions.logits.shape != (count, classes):
        found = tuple(predictions.logits.shape)
        raise SeewhyError(
            f"{count} labels and {classes} classes need logits ({count}, {classes}), found {found}"
        )
    low, high = predictions.labels.aminmax()
    if low < 0 or high >= classes:
        raise SeewhyError(
            f"labels must be 0 to {classes - 1}, since there are {classes} classes, found {low} to {high}"
        )
    broken = int((~predictions.logits.isfinite()).any(1).sum())
    if broken:
        raise SeewhyError(
            f"the logits of {broken} of {count} images are not finite; predict with precision 'fp32'"
        )


def accuracies(predictions: Predictions) -> dict[str, Any]:
    """Accuracy with its interval, in all and by class, as plain values for JSON."""
    return {
        "accuracy": predictions.accuracy,
        "interval": predictions.interval,
        "images": len(predictions.labels),
        "classes": [asdict(row) for row in predictions.by_class],
    }


def confusion_matrix(predictions: Predictions) -> Tensor:
    """Counts (K, K) int64: true class by row, predicted class by column."""
    classes = len(predictions.classes)
    cells = predictions.labels * classes + predictions.predicted
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927), which stays in [0, 1] and holds near its ends."""
    z = 1.959963984540054  # the 97.5% point of the normal distribution
    share = successes / trials
    center = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z
        / (1 + z * z / trials)
        * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    )
    return max(0.0, center - half), min(1.0, center + half)


def most_confident_errors(
    predictions: Predictions, count: int | None = None
) -> Tensor:  # (M,) int64
    """The indices of the `count` misclassified images that the model is most sure of, by default of all, the surest first."""
    if count is not None and count < 0:
        raise SeewhyError(f"count must be at least 0, found {count}")
    wrong = (~predictions.correct).nonzero().flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)][:count]


def diverse_errors(predictions: Predictions, count: int) -> Tensor:  # (M,) int64
    """`count` misclassified images of all kinds: the surest of each confusion, then the second of each, and so on.

    In the order of `worst_mistakes`, so that all of them are the same as those.
    """
    order = most_confident_errors(predictions)
    kinds = (predictions.labels * len(predictions.classes) + predictions.predicted)[order]
    seen: dict[int, int] = {}
    ranks = []
    for kind in kinds.tolist():
        seen[kind] = seen.get(kind, -1) + 1
        ranks.append(seen[kind])
    chosen = torch.tensor(ranks, dtype=torch.int64).argsort(stable=True)[:count]
    return order[chosen.sort().values]


def least_confident_correct(predictions: Predictions, count: int) -> Tensor:  # (M,) int64
    """Of each class in turn, the `count` correctly classified images that the model is least sure of, the least sure first."""
    right = predictions.correct.nonzero().flatten()
    right = right[predictions.confidence[right].argsort(stable=True)]
    labels = predictions.labels[right]
    return torch.cat([right[labels == index][:count] for index in range(len(predictions.classes))])
