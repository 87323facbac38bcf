"""What a model is trained for: one class per image, or any number of labels.

The data decide, once: everything that differs between the two is here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.dataset import Dataset, Split, class_weights, label_weights


@dataclass(frozen=True)
class Objective:
    """The loss of a run, and how predictions are measured during it."""

    activation: str  # of the classifier: probabilities are its values of the logits
    criterion: Callable[[Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor]]
    count_correct: Callable[[Tensor, Tensor], Tensor]  # from logits and labels (B, K) to ()
    nll: Callable[[Tensor, Tensor], Tensor]  # from logits (N, K) and labels of a split to a sum ()
    class_weights: Callable[[Split, int], Tensor]  # (K,) float, for `Recipe.class_weights`


def find_objective(data: Dataset) -> Objective:
    """The objective for a dataset: that of its labels."""
    return ANY_LABELS if data.multi_label else ONE_CLASS


def cross_entropy(
    outputs: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums over a batch of weight times cross entropy (), and of the weights ().

    The loss of a batch, an update, or an epoch is the quotient. The weight of an image is that of
    its class, or the mean over its mixed classes. Smoothing does not change it: F.cross_entropy
    weights each class of a smoothed label, which lets a rare class dominate every image.

    Args:
        outputs: Logits (B, K) float32.
        labels: Shares of the classes (B, K) float32, before smoothing.
        smoothing: Label smoothing, in [0, 1).
        weights: Weight of each class (K,), or None.
    """
    losses = F.cross_entropy(outputs, labels, label_smoothing=smoothing, reduction="none")
    if weights is None:
        return losses.sum(), torch.full_like(losses[0], len(losses))
    image_weights = (labels * weights.to(labels.device)).sum(1)
    return (image_weights * losses).sum(), image_weights.sum()


def binary_cross_entropy(
    outputs: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums over a batch of the binary cross entropy, a mean over labels, (), and of images ().

    The quotient is the loss of `BCEWithLogitsLoss`; its `pos_weight` does not change the divisor.

    Args:
        outputs: Logits (B, K) float32.
        labels: In [0, 1], (B, K) float32, before smoothing; between 0 and 1 if they are mixed.
        smoothing: Moves labels toward 1/2: y becomes (1 - smoothing) y + smoothing / 2.
        weights: The `pos_weight` of each label (K,), or None.
    """
    smooth = labels * (1 - smoothing) + smoothing / 2 if smoothing else labels
    pos_weight = None if weights is None else weights.to(labels.device)
    losses = F.binary_cross_entropy_with_logits(
        outputs, smooth, pos_weight=pos_weight, reduction="none"
    )
    return losses.mean(1).sum(), torch.full_like(losses[0, 0], len(losses))


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average precision of each label, averaged over the labels that some images have, but not all.

    Precision at each distinct score, weighted by the growth of recall: scikit-learn's
    `average_precision_score(average="macro")`.

    Args:
        scores: (N, K) float; a higher score is for the label.
        labels: (N, K) bool.

    Returns:
        In [0, 1]; nan if there is no such label.
    """
    order = scores.argsort(dim=0, stable=True, descending=True)
    ranked, hits = scores.gather(0, order), labels.gather(0, order).double()
    found = hits.cumsum(0)
    precision = found / torch.arange(1, len(scores) + 1).double()[:, None]
    # images of one score are predicted together: all have the precision at the last of them
    last = torch.ones_like(labels)
    last[:-1] = ranked[:-1] != ranked[1:]
    counts = hits.sum(0)
    means = []
    for label in ((counts > 0) & (counts < len(labels))).nonzero().flatten().tolist():
        at = last[:, label]
        gained = found[at, label].diff(prepend=torch.zeros(1).double())
        means.append(float((gained * precision[at, label]).sum() / counts[label]))
    return math.fsum(means) / len(means) if means else math.nan


def _classes_correct(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(1) == labels.argmax(1)).sum()


def _all_labels_correct(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs >= 0) == (labels > 0.5)).all(1).sum()


def _class_nll(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def _label_nll(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy(logits, labels.float(), 0.0, None)[0]


ONE_CLASS = Objective("softmax", cross_entropy, _classes_correct, _class_nll, class_weights)
ANY_LABELS = Objective(
    "sigmoid", binary_cross_entropy, _all_labels_correct, _label_nll, label_weights
)
