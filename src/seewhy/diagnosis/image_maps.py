"""A map of images: those that a model finds similar lie close to each other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.diagnosis.components import principal_components
from seewhy.diagnosis.tsne import t_sne
from seewhy.errors import SeewhyError, describe_value
from seewhy.models.features import check_finite_features

MAX_IMAGES = 10_000  # on a map
SECONDS_PER_IMAGE = 1e-3  # of a map, on one core
COMPONENTS = 50  # principal components of the features, as in van der Maaten & Hinton 2008
FEWEST = 10  # images of a map
NEIGHBORS = 10  # whose labels say how mixed a place is


@dataclass(frozen=True, eq=False)
class ImageMap:
    """Positions of images in the plane."""

    indices: Tensor  # (N,) int64, into the split, ascending
    positions: Tensor  # (N, 2) float32 in [0, 1], from the left and from the top


def image_map(features: Tensor, indices: Tensor | None = None) -> ImageMap:
    """Place images in the plane by t-SNE of their features (van der Maaten & Hinton 2008).

    Neighbors on the map are neighbors in the features; distances between far groups, and sizes of
    groups, mean nothing. The same features give the same map.

    Args:
        features: (N, D) float, from `extract_features`.
        indices: (N,) int64, of the images in their split; by default 0, 1, 2, …

    Raises:
        SeewhyError: For features of another shape, of fewer than ten images, or not finite.
    """
    if features.ndim != 2 or len(features) < FEWEST:
        raise SeewhyError(
            f"features must be (N, D) of at least {FEWEST} images, found {describe_value(features)}"
        )
    check_finite_features(features)
    plane = t_sne(principal_components(features, COMPONENTS)[0].float())
    low, high = plane.amin(0), plane.amax(0)
    side = (high - low).max().clamp_min(1e-12)  # one scale for both axes
    positions = (plane - (low + high) / 2) / side + 0.5
    if indices is None:
        indices = torch.arange(len(features))
    return ImageMap(indices, positions.clamp(0, 1))


def neighbor_agreement(positions: Tensor, labels: Tensor) -> float:
    """Mean fraction of the ten nearest images on the map with the same label, in [0, 1].

    Args:
        positions: (N, 2) float32.
        labels: (N,) int64.
    """
    count = min(NEIGHBORS, len(positions) - 1)
    agreements = []
    for block in torch.split(torch.arange(len(positions)), 1024):
        distances = torch.cdist(positions[block], positions)
        distances[torch.arange(len(block)), block] = torch.inf
        nearest = distances.topk(count, largest=False).indices
        agreements.append((labels[nearest] == labels[block, None]).float().mean(1))
    return float(torch.cat(agreements).mean())
