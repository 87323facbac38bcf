"""Images unlike all others, such as a placeholder among photographs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value

DISTINCT = 5.0  # deviations from which an image is unlike all others
_ROWS = 1000  # of the cosine matrix in memory at once
_TO_STANDARD = 1.4826  # times the median absolute deviation: the standard deviation of a normal one


@dataclass(frozen=True)
class UnusualImage:
    """An image and how similar the model finds it to its nearest neighbors."""

    index: int
    similarity: float  # mean cosine of the features of the image and of its neighbors, in [-1, 1]
    deviations: float  # below the median of all similarities, in robust standard deviations

    @property
    def distinct(self) -> bool:
        """Whether the image is unlike all others, and not only the first of a list."""
        return self.deviations >= DISTINCT


def unusual_images(
    features: Tensor, count: int = 16, neighbors: int = 5
) -> tuple[UnusualImage, ...]:
    """Find the images whose nearest neighbors are least similar to them.

    The distance to the nearest neighbors in a model's features is a strong detector of images from
    another distribution (Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest
    Neighbors"). It needs no labels, and also finds training images that the model has learned.

    Args:
        features: (N, D) float, from `extract_features`.
        count: Number of images.
        neighbors: Number of neighbors of each image.

    Returns:
        The images, the least similar first. Their deviations are from the median similarity, in
        units of 1.4826 times the median absolute deviation (Rousseeuw & Croux 1993).

    Raises:
        SeewhyError: If the features have another shape, or `count` or `neighbors` is below 1.
    """
    if features.ndim != 2 or len(features) < 2:
        raise SeewhyError(
            f"features must be (N, D) of at least two images, found {describe_value(features)}"
        )
    if count < 1 or neighbors < 1:
        raise SeewhyError(f"count and neighbors must be at least 1, found {count} and {neighbors}")
    directions = F.normalize(features.float(), dim=1)
    means = []
    for start in range(0, len(directions), _ROWS):
        cosines = directions[start : start + _ROWS] @ directions.T
        own = torch.arange(len(cosines), device=cosines.device)
        cosines[own, own + start] = -torch.inf
        nearest = cosines.topk(min(neighbors, len(features) - 1), dim=1).values
        means.append(nearest.mean(1))
    similarities = torch.cat(means)
    median = similarities.median()
    spread = _TO_STANDARD * (similarities - median).abs().median()
    deviations = (median - similarities) / spread.clamp(min=1e-6)
    order = similarities.argsort(stable=True)[:count].tolist()
    return tuple(
        UnusualImage(index, float(similarities[index]), float(deviations[index])) for index in order
    )
