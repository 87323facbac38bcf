"""The training images that support and oppose a prediction most."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.diagnosis.nearest import largest
from seewhy.errors import SeewhyError, describe_value

_DAMPING = 1.0  # of the mean variance of a feature; benchmarks/NOTES.md says why
_ROWS = 200  # of the matrix of scores in memory at once
_BLOCK = 2000  # training images whose covariance is computed at once


@dataclass(frozen=True, eq=False)
class Influence:
    """The training images that raise and lower the log-probability of a class most.

    With fewer than K such images, the remaining indices are -1.
    """

    proponents: Tensor  # (M, K) int64, into the training images, the most influential first
    proponent_shares: Tensor  # (M, K) float32 in [0, 1], of the influence of all proponents
    opponents: Tensor  # (M, K) int64
    opponent_shares: Tensor  # (M, K) float32 in [0, 1], of the influence of all opponents

    def take(self, rows: Tensor) -> "Influence":
        """The influence on the images `rows` (R,) int64."""
        return Influence(
            self.proponents[rows],
            self.proponent_shares[rows],
            self.opponents[rows],
            self.opponent_shares[rows],
        )


def influential_images(
    features: Tensor,
    logits: Tensor,
    train_features: Tensor,
    train_logits: Tensor,
    train_labels: Tensor,
    classes: Tensor | None = None,
    count: int = 3,
) -> Influence:
    """Find the training images that support and oppose a class most, for each image.

    A proponent raises the log-probability of the class: without it in training, the log-probability
    would be lower. The estimate is the influence function of the last linear layer with softmax and
    cross entropy (Koh & Liang 2017, arXiv 1703.04730, eq. 2). Its gradients are outer products, so
    the influence of training image j on image i is

        (onehot(class) - p_i) (onehot(label) - p_j) · ((f_i - m) S^-1 (f_j - m) + 1)

    with probabilities p and features f. In place of the Hessian, S is the covariance of the
    training features with mean m, damped by the mean variance of a feature. Without m and S, it
    would be TracIn of the last layer (Pruthi et al. 2020, arXiv 2002.08484). The earlier layers are
    taken as they are.

    Args:
        features: (M, D) float, the inputs of the last layer, from `extract_features`.
        logits: (M, K) float, without test-time augmentation.
        train_features: (N, D) float.
        train_logits: (N, K) float.
        train_labels: (N,) int64.
        classes: (M,) int64, the classes to explain; by default those predicted.
        count: Number of proponents and of opponents of an image.

    Raises:
        SeewhyError: If features, logits and labels do not fit each other, and if `count` is below
            1.
    """
    classes = logits.argmax(1) if classes is None else classes
    _check(features, logits, classes, "features")
    _check(train_features, train_logits, train_labels, "train_features")
    if features.shape[1] != train_features.shape[1] or logits.shape[1] != train_logits.shape[1]:
        raise SeewhyError(
            "features and logits of one model have one length, found "
            f"{features.shape[1]} and {train_features.shape[1]} features, {logits.shape[1]} and "
            f"{train_logits.shape[1]} logits"
        )
    if count < 1:
        raise SeewhyError(f"count must be at least 1, found {count}")
    parts = [
        (*_strongest(scores, count), *_strongest(-scores, count))
        for scores in influence_scores(
            features, logits, train_features, train_logits, train_labels, classes
        )
    ]
    return Influence(*(torch.cat(each) for each in zip(*parts, strict=True)))


def influence_scores(
    features: Tensor,
    logits: Tensor,
    train_features: Tensor,
    train_logits: Tensor,
    train_labels: Tensor,
    classes: Tensor,
) -> Iterator[Tensor]:
    """The influence of all training images on blocks of images, (R, N) float32 each.

    Arguments are those of `influential_images`. The unit is another one for each image.
    """
    train = train_features.float()
    mean, covariance = _mean_and_covariance(train)
    covariance.diagonal().add_(_DAMPING * covariance.diagonal().mean().clamp(min=1e-30))
    centered = features.double() - mean
    directions = torch.linalg.solve(covariance, centered.T).T  # (M, D)
    offsets = 1 - directions @ mean  # (M,)
    gradients = F.normalize(_of_logits(logits, classes))  # (M, K)
    residuals = _of_logits(train_logits, train_labels)  # (N, K)
    for rows in torch.split(torch.arange(len(features)), _ROWS):
        scores = directions[rows].float() @ train.T + offsets[rows, None].float()
        scores *= gradients[rows] @ residuals.T
        yield scores


def _check(features: Tensor, logits: Tensor, classes: Tensor, name: str) -> None:
    if (
        features.ndim != 2
        or logits.ndim != 2
        or len(features) != len(logits)
        or classes.shape != logits.shape[:1]
    ):
        raise SeewhyError(
            f"{name} must be (N, D) with logits (N, K) and classes (N,), found "
            f"{describe_value(features)}, {describe_value(logits)} and {describe_value(classes)}"
        )


def _mean_and_covariance(rows: Tensor) -> tuple[Tensor, Tensor]:  # (D,), (D, D) float64
    blocks, dimensions = torch.split(rows, _BLOCK), rows.shape[1]
    mean = torch.zeros(dimensions, dtype=torch.float64)
    for block in blocks:
        mean += block.double().sum(0) / len(rows)
    covariance = torch.zeros(dimensions, dimensions, dtype=torch.float64)
    for block in blocks:
        centered = block - mean.float()
        covariance += (centered.T @ centered) / len(rows)
    return mean, covariance


def _of_logits(logits: Tensor, classes: Tensor) -> Tensor:  # (N, K) float32
    """Gradients of the log-probabilities of the classes with respect to the logits."""
    one_hot = torch.eye(logits.shape[1], dtype=torch.float64)[classes]
    return (one_hot - logits.double().softmax(1)).float()  # float64, for confident predictions


def _strongest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:  # (R, count) each
    """Indices of the largest positive scores (R, N), and their shares of all positive ones."""
    positive = scores.masked_fill(scores <= 0, -torch.inf)
    indices, values = largest(positive, count)
    return indices, values / scores.clamp(min=0).sum(1, keepdim=True).clamp(min=1e-30)
