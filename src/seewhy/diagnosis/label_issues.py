"""Labels that are probably wrong, by what a model says of images that it was not trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError

_ROUNDING = 1e-9  # a class of images that are all alike reaches its own mean
_LONGEST = 30  # characters of a class in a sentence


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is probably wrong, and the class that is suggested instead; probabilities are in [0, 1]."""

    index: int
    given: int
    suggested: int
    probability: float  # of the suggested class
    self_confidence: float  # the probability of the given class
    threshold: (
        float  # mean probability of the suggested class over the images that are labeled with it
    )
    reason: str


def find_label_issues(result: Predictions) -> tuple[LabelIssue, ...]:
    """The labels that confident learning doubts, the most suspicious first (Northcutt et al. 2021, arXiv 1911.00068).

    An image is confidently of another class where that class is at least as probable as on average over the images labeled with
    it (eq. 1 and 2: off the diagonal of the `confident_joint`), and here also more probable than the given class. The order is
    that of their normalized margin, the probability of the given class minus that of the suggested one.
    `result` must be of images that the model was not trained on, or it will have learned their labels by heart.
    Raises SeewhyError for logits that are not finite.
    """
    probabilities, labels = _probabilities(result), result.labels.cpu()
    thresholds = _thresholds(probabilities, labels)
    suggested = _confident_class(probabilities, thresholds)
    given = probabilities.gather(1, labels[:, None])[:, 0]
    most = probabilities.gather(1, suggested.clamp_min(0)[:, None])[:, 0]
    doubted = ((suggested >= 0) & (suggested != labels) & (most > given)).nonzero()[:, 0]
    order = doubted[(given - most)[doubted].argsort(stable=True)]
    return tuple(
        _issue(
            index,
            int(labels[index]),
            int(suggested[index]),
            probabilities[index],
            thresholds,
            result.classes,
        )
        for index in order.tolist()
    )


def confident_joint(result: Predictions) -> Tensor:
    """Counts (K, K) int64: the given label by row, the class that an image is confidently of by column.

    Eq. 1 of Northcutt et al. 2021: an image that reaches several thresholds counts for the most probable of these classes, one
    that reaches none does not count. Raises SeewhyError for logits that are not finite.
    """
    probabilities, labels, classes = (
        _probabilities(result),
        result.labels.cpu(),
        len(result.classes),
    )
    confident = _confident_class(probabilities, _thresholds(probabilities, labels))
    sure = confident >= 0
    cells = labels[sure] * classes + confident[sure]
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def short_name(name: str) -> str:
    """A class in a sentence, cut where it is absurdly long."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1].rstrip() + "…"


def _probabilities(result: Predictions) -> Tensor:  # (N, K) float64
    bad = int((~result.logits.isfinite()).any(1).sum())
    if bad:
        raise SeewhyError(
            f"{bad} of {len(result.logits)} images have logits that are not finite; look for the cause in the training"
        )
    return result.logits.cpu().double().softmax(1)


def _thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:  # (K,) float64
    """Mean self-confidence of every class, eq. 2; infinite where no image is labeled with it."""
    given = probabilities.gather(1, labels[:, None])[:, 0]
    classes = probabilities.shape[1]
    sums = torch.bincount(labels, weights=given, minlength=classes)
    counts = torch.bincount(labels, minlength=classes)
    return torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)


def _confident_class(probabilities: Tensor, thresholds: Tensor) -> Tensor:  # (N,) int64
    """The most probable of the classes whose threshold an image reaches, -1 where it reaches none."""
    reached = probabilities >= thresholds - _ROUNDING
    return torch.where(reached.any(1), probabilities.where(reached, -1).argmax(1), -1)


def _issue(
    index: int,
    given: int,
    suggested: int,
    row: Tensor,
    thresholds: Tensor,
    classes: tuple[str, ...],
) -> LabelIssue:
    confidence, probability, threshold = (
        float(value) for value in (row[given], row[suggested], thresholds[suggested])
    )
    one, other = short_name(classes[given]), short_name(classes[suggested])
    reason = (
        f"labeled {one} at {_said(confidence)}, but {other} at {_said(probability)}; "
        f"images labeled {other} get {_said(threshold)} on average"
    )
    return LabelIssue(index, given, suggested, probability, confidence, threshold, reason)


def _said(probability: float) -> str:
    """Two digits behind the point, more of them for what is small among many classes."""
    if probability >= 0.01 or probability == 0:
        return f"{probability:.2f}"
    return f"{probability:.1g}" if probability >= 0.001 else "under 0.001"
