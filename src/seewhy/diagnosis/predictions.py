"""A classifier's predictions on a split: accuracy, confusion matrix, and images to inspect."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Split
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.errors import SeewhyError, describe_value
from seewhy.models.classifier import ClassifierLike, as_classifier, check_one_class
from seewhy.models.inference import check_finite_logits, compute_logits
from seewhy.models.inspection import check_labels
from seewhy.wording import counted


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of N images for K classes, with the true labels.

    Args:
        logits: (N, K) float32, all finite; N is at least 1.
        labels: (N,) int64, the true classes.
        classes: The K class names.

    Raises:
        SeewhyError: For no images, other shapes, a label that is no class, and logits that are not
            finite: `argmax` would count them as some class.
    """

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count, num_classes = len(self.labels), len(self.classes)
        if count == 0:
            raise SeewhyError("there are no predictions to measure; predict at least one image")
        if self.logits.shape != (count, num_classes):
            raise SeewhyError(
                f"{counted(count, 'label')} and {num_classes} classes need logits ({count}, "
                f"{num_classes}), found {tuple(self.logits.shape)}"
            )
        check_labels(self.labels, count, num_classes)
        check_finite_logits(self.logits)

    def __repr__(self) -> str:
        return (
            f"Predictions({counted(len(self.labels), 'image')}, "
            f"{counted(len(self.classes), 'class')}, accuracy {100 * self.accuracy:.2f}%)"
        )

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, (N, K) in [0, 1]."""
        return self.logits.softmax(1)

    @cached_property
    def predicted(self) -> Tensor:
        """Predicted classes, (N,) int64."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class, (N,) in [0, 1]."""
        return self.probabilities.amax(1)

    @cached_property
    def correct(self) -> Tensor:
        """Whether the predicted class is the true one, (N,) bool."""
        return self.predicted == self.labels

    @cached_property
    def losses(self) -> Tensor:
        """Cross entropy of each image in nats, (N,)."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    @property
    def accuracy(self) -> float:
        """Fraction of correctly classified images, in [0, 1]."""
        return self.correct.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the accuracy (Wilson 1927)."""
        return wilson_interval(int(self.correct.sum()), len(self.labels))

    def members(self, index: int) -> Tensor:
        """Whether each image is of a class, (N,) bool.

        Args:
            index: Of the class.
        """
        return self.labels == index

    @property
    def by_class(self) -> tuple["ClassAccuracy", ...]:
        """Accuracy of every class that has images, in the order of the classes."""
        rows = []
        for index, name in enumerate(self.classes):
            correct = self.correct[self.labels == index]
            images, hits = len(correct), int(correct.sum())
            if images:
                rows.append(
                    ClassAccuracy(name, images, hits / images, wilson_interval(hits, images))
                )
        return tuple(rows)


@dataclass(frozen=True, eq=False)
class MultiLabelPredictions:
    """Logits of N images for K labels that are independent of each other, with the true labels.

    Args:
        logits: (N, K) float32, all finite; N is at least 1. Their sigmoid is the probability.
        labels: (N, K) bool, whether an image has a label.
        classes: The names of the K labels.
        names: File names of the N images; may be empty.
        thresholds: Probability of each of the K labels from which it is predicted, as from
            `choose_thresholds`; 0.5 if empty.

    Raises:
        SeewhyError: For no images, other shapes, and logits that are not finite.
    """

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shape = len(self.logits), len(self.classes)
        if not len(self.logits):
            raise SeewhyError("there are no predictions to measure; predict at least one image")
        if self.logits.shape != shape or self.labels.shape != shape:
            raise SeewhyError(
                f"{len(self.classes)} labels need logits and labels (N, {len(self.classes)}), "
                f"found {tuple(self.logits.shape)} and {tuple(self.labels.shape)}"
            )
        if self.labels.dtype != torch.bool:
            raise SeewhyError(
                f"labels must be bool, found {describe_value(self.labels)}; convert 0 and 1 with "
                "labels.bool()"
            )
        if len(self.thresholds) not in (0, len(self.classes)):
            raise SeewhyError(
                f"{len(self.classes)} labels need a threshold each, found {len(self.thresholds)}"
            )
        check_finite_logits(self.logits)

    def __repr__(self) -> str:
        return (
            f"MultiLabelPredictions({counted(len(self.labels), 'image')}, "
            f"{counted(len(self.classes), 'label')}, exact match {100 * self.exact_match:.2f}%)"
        )

    @cached_property
    def probabilities(self) -> Tensor:
        """Sigmoid of the logits, (N, K) in [0, 1]."""
        return self.logits.sigmoid()

    @cached_property
    def predicted(self) -> Tensor:
        """Whether each label is predicted, (N, K) bool."""
        thresholds = torch.tensor(self.thresholds or [0.5] * len(self.classes), dtype=torch.float64)
        return self.probabilities.double() >= thresholds.to(self.logits.device)

    @cached_property
    def losses(self) -> Tensor:
        """Binary cross entropy of each image in nats, the mean over its labels, (N,)."""
        losses = F.binary_cross_entropy_with_logits(
            self.logits, self.labels.to(self.logits), reduction="none"
        )
        return losses.mean(1)

    @cached_property
    def correct(self) -> Tensor:
        """Whether all labels of an image are right, (N,) bool."""
        return (self.predicted == self.labels).all(1)

    @property
    def exact_match(self) -> float:
        """Fraction of the images whose labels are all right (subset accuracy), in [0, 1]."""
        return self.correct.double().mean().item()

    def members(self, index: int) -> Tensor:
        """Whether each image has a label, (N,) bool.

        Args:
            index: Of the label.
        """
        return self.labels[:, index]


AnyPredictions = Predictions | MultiLabelPredictions


def class_predictions(predictions: AnyPredictions | None) -> Predictions | None:
    """Predictions of one class per image; None if there are none.

    Raises SeewhyError for predictions of any number of labels.
    """
    if isinstance(predictions, MultiLabelPredictions):
        raise SeewhyError(
            "this needs one class per image, but the model predicts any number of labels; seewhy "
            "evaluate, predict, explain, export and report take such a model"
        )
    return predictions


@dataclass(frozen=True)
class ClassAccuracy:
    """Fraction of the images of one class that are classified correctly."""

    name: str
    images: int
    accuracy: float  # in [0, 1]
    interval: tuple[float, float]  # 95%


def predict_split(
    classifier: ClassifierLike,
    split: Split,
    *,
    reproducible: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Predict every image of a split in evaluation mode; the model's modes are restored afterwards.

    Args:
        classifier: A run, a Classifier, or a module. Its precision and test-time augmentation
            apply. Without class names the classes are numbered, and the last one must have images.
            Of a model that returns probabilities, the logits are their logarithms.
        split: Images (N, C, H, W) uint8 with labels (N,) int64.
        reproducible: As in `compute_logits`.
        progress: As in `compute_logits`.

    Raises:
        SeewhyError: If the model's number of classes differs from that of the class names, or of
            the labels, and if a logit is not finite.
    """
    classifier = as_classifier(classifier)
    check_one_class(classifier)
    logits = compute_logits(classifier, split.images, reproducible=reproducible, progress=progress)
    labeled = int(split.labels.max()) + 1
    if not classifier.classes and logits.shape[1] > labeled:
        raise SeewhyError(
            f"the model has {logits.shape[1]:,} outputs, but the labels are from 0 to "
            f"{labeled - 1}; if this is right, name the classes: Classifier(model, classes)"
        )
    return Predictions(logits, split.labels, classifier.class_names(logits.shape[1]))


def accuracies(predictions: Predictions) -> dict[str, Any]:
    """Accuracy with its 95% interval, overall and per class, as plain values for JSON."""
    return {
        "accuracy": predictions.accuracy,
        "interval": predictions.interval,
        "images": len(predictions.labels),
        "classes": [asdict(row) for row in predictions.by_class],
    }


def confusion_matrix(predictions: Predictions) -> Tensor:
    """Count images by class: (K, K) int64, true class by row, predicted class by column."""
    num_classes = len(predictions.classes)
    cells = predictions.labels * num_classes + predictions.predicted
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_confident_errors(predictions: Predictions, count: int | None = None) -> Tensor:
    """Find the misclassified images with the highest confidence.

    Args:
        predictions: Predictions of N images.
        count: Number of images; None for all errors.

    Returns:
        Indices (M,) int64, the most confident error first.

    Raises:
        SeewhyError: For a `count` below 0.
    """
    if count is not None and count < 0:
        raise SeewhyError(f"count must be at least 0, found {count}")
    errors = (~predictions.correct).nonzero().flatten()
    order = predictions.confidence[errors].argsort(descending=True, stable=True)
    return errors[order][:count]


def diverse_errors(predictions: Predictions, count: int) -> Tensor:
    """Choose misclassified images from as many confusions as possible.

    A confusion is a pair of true and predicted class. The most confident error of every confusion
    is chosen first, then the second one of every confusion, and so on, up to `count`.

    Args:
        predictions: Predictions of N images.
        count: Number of images.

    Returns:
        Indices (M,) int64, the most confident error first.
    """
    errors = most_confident_errors(predictions)
    confusions = predictions.labels * len(predictions.classes) + predictions.predicted
    return errors[round_robin(confusions[errors], count).sort().values]


def least_confident_correct(predictions: Predictions, count: int) -> Tensor:
    """Find the correctly classified images with the lowest confidence.

    Args:
        predictions: Predictions of N images.
        count: Number of images per class.

    Returns:
        Indices (M,) int64, class by class, the least confident image of a class first.
    """
    correct = predictions.correct.nonzero().flatten()
    correct = correct[predictions.confidence[correct].argsort(stable=True)]
    labels = predictions.labels[correct]
    return torch.cat(
        [correct[labels == index][:count] for index in range(len(predictions.classes))]
    )


def round_robin(kinds: Tensor, count: int) -> Tensor:
    """Choose `count` items: the first of every kind, then the second of every kind, and so on.

    Args:
        kinds: (N,) int64, the kind of each item.
        count: Number of items.

    Returns:
        Indices (M,) int64 into `kinds`, in the order of choice.
    """
    seen: Counter[int] = Counter()
    ranks = []  # of each item within its kind
    for kind in kinds.tolist():
        ranks.append(seen[kind])
        seen[kind] += 1
    return torch.tensor(ranks, dtype=torch.int64).argsort(stable=True)[:count]
