"""Suspected label errors by confident learning, from predictions of held-out images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.diagnosis.predictions import Predictions

_TOLERANCE = 1e-9  # of a threshold, so that rounding does not exclude an image equal to the mean
_MAX_NAME = 30  # maximum length of a class name in a sentence


@dataclass(frozen=True)
class LabelIssue:
    """An image with a suspected label error. Labels are class indices."""

    index: int
    given_label: int
    suggested_label: int
    probability: float  # of the suggested label, in [0, 1]
    self_confidence: float  # probability of the given label, in [0, 1]
    threshold: float  # mean probability of the suggested label over the images that have it
    reason: str


def find_label_issues(predictions: Predictions) -> tuple[LabelIssue, ...]:
    """Find suspected label errors by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    An image confidently belongs to a class if the class probability reaches its mean over the
    images labeled with this class (eqs. 1 and 2). A label is suspected if the image confidently
    belongs to another class, and this class is more probable than the label.

    Args:
        predictions: Predictions of images that the model was not trained on. A model may memorize
            the labels of its training images.

    Returns:
        Issues by increasing normalized margin, the probability of the given label minus that of the
        suggested one: the most suspicious first.
    """
    probabilities, labels = _probabilities(predictions), predictions.labels.cpu()
    thresholds = _thresholds(probabilities, labels)
    suggested = _confident_class(probabilities, thresholds)
    given_probability = probabilities.gather(1, labels[:, None])[:, 0]
    probability = probabilities.gather(1, suggested.clamp_min(0)[:, None])[:, 0]
    suspected = (suggested >= 0) & (suggested != labels) & (probability > given_probability)
    indices = suspected.nonzero()[:, 0]
    order = indices[(given_probability - probability)[indices].argsort(stable=True)]
    issues = []
    for index in order.tolist():
        given, other = int(labels[index]), int(suggested[index])
        values = (probability[index], given_probability[index], thresholds[other])
        suggested_p, given_p, threshold = (float(value) for value in values)
        reason = _reason(
            predictions.classes[given], predictions.classes[other], suggested_p, given_p, threshold
        )
        issues.append(LabelIssue(index, given, other, suggested_p, given_p, threshold, reason))
    return tuple(issues)


def confident_joint(predictions: Predictions) -> Tensor:
    """Count images by given label and confident class (Northcutt et al. 2021, eq. 1).

    An image that reaches the thresholds of several classes counts for the most probable one. An
    image that reaches none is not counted.

    Args:
        predictions: Predictions of images that the model was not trained on.

    Returns:
        Counts (K, K) int64: given label by row, confident class by column.
    """
    probabilities, labels = _probabilities(predictions), predictions.labels.cpu()
    num_classes = len(predictions.classes)
    confident = _confident_class(probabilities, _thresholds(probabilities, labels))
    counted = confident >= 0
    cells = labels[counted] * num_classes + confident[counted]
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def short_name(name: str) -> str:
    """A class name for a sentence, cut after 30 characters."""
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1].rstrip() + "…"


def _probabilities(predictions: Predictions) -> Tensor:  # (N, K) float64
    return predictions.logits.cpu().double().softmax(1)


def _thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:  # (K,) float64
    """Mean self-confidence per class (eq. 2); infinite for classes without images."""
    self_confidence = probabilities.gather(1, labels[:, None])[:, 0]
    num_classes = probabilities.shape[1]
    sums = torch.bincount(labels, weights=self_confidence, minlength=num_classes)
    counts = torch.bincount(labels, minlength=num_classes)
    return torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)


def _confident_class(probabilities: Tensor, thresholds: Tensor) -> Tensor:  # (N,) int64
    """Most probable of the classes with a threshold that the image reaches; -1 if none."""
    reached = probabilities >= thresholds - _TOLERANCE
    return torch.where(reached.any(1), probabilities.where(reached, -1).argmax(1), -1)


def _reason(
    given: str, suggested: str, probability: float, self_confidence: float, threshold: float
) -> str:
    given, suggested = short_name(given), short_name(suggested)
    mean = _equals(threshold).removeprefix("= ")
    return (
        f"P({given}) {_equals(self_confidence)}, P({suggested}) {_equals(probability)}; "
        f"mean P({suggested}) over images labeled {suggested}: {mean}"
    )


def _equals(probability: float) -> str:
    """Probability with two decimals, or one significant digit if small."""
    if probability >= 0.01 or probability == 0:
        return f"= {probability:.2f}"
    return f"= {probability:.1g}" if probability >= 0.001 else "< 0.001"
