"""Images unlike all others, such as a placeholder among photographs."""

from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value

SIGNIFICANCE = 0.05  # probability that any of the images is unlike all others by chance
_ROWS = 1000  # of the cosine matrix in memory at once
_LARGEST = 1 - 1e-6  # cosine whose z is finite
_TAIL = 0.9  # fraction of the images from whose distances the spread is measured


@dataclass(frozen=True)
class UnusualImage:
    """An image and how similar the model finds it to its nearest neighbors."""

    index: int
    similarity: float  # mean cosine of the features of the image and of its neighbors, in [-1, 1]
    deviations: float  # of its distance above the median, in robust standard deviations
    limit: float  # the deviations from which an image is unlike all others

    @property
    def distinct(self) -> bool:
        """Whether the image is unlike all others, and not only the first of a list."""
        return self.deviations >= self.limit


def unusual_images(
    features: Tensor, count: int = 16, neighbors: int = 5
) -> tuple[UnusualImage, ...]:
    """Find the images whose nearest neighbors are least similar to them.

    The distance to the nearest neighbors in a model's features is a strong detector of images from
    another distribution (Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest
    Neighbors"). It needs no labels, and also finds training images that the model has learned.

    The distance is minus Fisher's z (1915) of the mean similarity: it spreads the similarities near
    1 that images have in the features of a model that has learned them. Its standard deviation is
    that of a normal distribution with the same median and 90% quantile, or with the same median
    absolute deviation if that is larger. The limit is the deviation that the most distant of N
    normal values exceeds with a probability of 5%.

    Args:
        features: (N, D) float, from `extract_features`.
        count: Number of images.
        neighbors: Number of neighbors of each image.

    Returns:
        The images, the least similar first.

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
    deviations = _deviations(-similarities.double().clamp(-_LARGEST, _LARGEST).arctanh())
    limit = NormalDist().inv_cdf(1 - SIGNIFICANCE / len(features))
    order = similarities.argsort(stable=True)[:count].tolist()
    return tuple(
        UnusualImage(index, float(similarities[index]), float(deviations[index]), limit)
        for index in order
    )


def _deviations(distances: Tensor) -> Tensor:  # (N,), 0 for the median
    """Distances above their median, in robust standard deviations of the larger ones."""
    median = distances.median()
    above = distances - median
    quantile = above.quantile(_TAIL, interpolation="lower")  # an outlier among ten is not in it
    spread = torch.maximum(
        quantile / NormalDist().inv_cdf(_TAIL),
        above.abs().median() / NormalDist().inv_cdf(0.75),
    )
    return above / spread.clamp(min=1e-6)
