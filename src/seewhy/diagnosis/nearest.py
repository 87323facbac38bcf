"""The training images that a model finds most similar to an image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value
from seewhy.wording import counted

_ROWS = 500  # of the cosine matrix in memory at once


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest training images of some images by the cosine similarity of their features.

    With fewer than K images to choose from, the remaining indices are -1.
    """

    nearest: Tensor  # (M, K) int64, into the training images, the most similar first
    similarity: Tensor  # (M, K) float32 in [-1, 1]
    of_label: Tensor  # (M, K) int64, the nearest with the label of the image
    of_label_similarity: Tensor  # (M, K) float32 in [-1, 1]

    def take(self, rows: Tensor) -> "Neighbors":
        """The neighbors of the images `rows` (R,) int64."""
        return Neighbors(
            self.nearest[rows],
            self.similarity[rows],
            self.of_label[rows],
            self.of_label_similarity[rows],
        )


def nearest_images(
    features: Tensor,
    labels: Tensor,
    train_features: Tensor,
    train_labels: Tensor,
    count: int = 3,
) -> Neighbors:
    """Find the most similar training images of each image: of any class, and of its own label.

    Of a mistake, the first are often of the predicted class; the second show which training images
    of the true class are most like it, and how far away they are. The search is exact.

    Args:
        features: (M, D) float, from `extract_features`.
        labels: (M,) int64.
        train_features: (N, D) float.
        train_labels: (N,) int64.
        count: Number of neighbors, K.

    Raises:
        SeewhyError: If features and labels do not fit each other, and if `count` is below 1.
    """
    for name, rows, classes in (
        ("features", features, labels),
        ("train_features", train_features, train_labels),
    ):
        if rows.ndim != 2 or classes.shape != rows.shape[:1]:
            raise SeewhyError(
                f"{name} must be (N, D), one row per label, found {describe_value(rows)} and "
                f"{counted(len(classes), 'label')}"
            )
    if features.shape[1] != train_features.shape[1]:
        raise SeewhyError(
            f"features of one model have one length, found {features.shape[1]} and "
            f"{train_features.shape[1]}"
        )
    if count < 1:
        raise SeewhyError(f"count must be at least 1, found {count}")
    train = F.normalize(train_features.float(), dim=1)
    parts = []
    for rows, own in zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True):
        cosines = (F.normalize(rows.float(), dim=1) @ train.T).clamp_(-1, 1)
        others = own[:, None] != train_labels
        parts.append(
            (*largest(cosines, count), *largest(cosines.masked_fill(others, -torch.inf), count))
        )
    return Neighbors(*(torch.cat(each) for each in zip(*parts, strict=True)))


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:  # (M, count) each
    """Indices of the largest values (M, N), and these; -1 and 0 where there are no more.

    Those that are -inf do not count.
    """
    found, indices = values.topk(min(count, values.shape[1]), dim=1)
    missing = found.isinf()
    pad = (0, count - found.shape[1])
    return (
        F.pad(indices.masked_fill(missing, -1), pad, value=-1),
        F.pad(found.masked_fill(missing, 0), pad),
    )
