"""Which images to label next: those from which a model would learn most."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value
from seewhy.models.features import check_finite_features

CERTAIN = 0.5  # least weight: where a model has seen nothing, it may be certain and wrong
MAX_IMAGES = 5000  # that compete for selection; pairs of them are in memory


@dataclass(frozen=True, eq=False)
class SelectedImages:
    """Images to label, in the order of selection: the first ones help most."""

    indices: Tensor  # (M,) int64, into the unlabeled images
    uncertainty: Tensor  # (M,) in [0, 1]: 1 minus the margin between the two most probable classes
    novelty: Tensor  # (M,) in [0, 2]: cosine distance to the nearest labeled image


def select_images(
    probabilities: Tensor,
    features: Tensor,
    count: int,
    labeled: Tensor | None = None,
    activation: str = "softmax",
) -> SelectedImages:
    """Select images to label that are uncertain, unlike labeled ones, representative, and diverse.

    Greedy maximization of a facility location function (Wei et al. 2015, "Submodularity in Data
    Subset Selection and Active Learning"): an image is selected that brings the unlabeled images
    closest to labeled or selected ones, in features, each weighted by its uncertainty. So an image
    with many others like it counts more, and one that resembles a labeled or selected image less.
    Weights by the margin are those of Zhdanov 2019, "Diverse Mini-Batch Active Learning"; without
    them this is like Core-Set (Sener & Savarese 2018), with the mean distance in place of the
    largest one, which is that of outliers.

    Args:
        probabilities: (N, K) of the unlabeled images.
        features: (N, D) float of them, from `extract_features`.
        count: Number of images to select, from 1 to N.
        labeled: Features (L, D) of labeled images; without them, all images are equally novel.
        activation: "softmax", or "sigmoid" for any number of labels: the most uncertain one counts.

    Raises:
        SeewhyError: For a `count` out of range, and features of other shapes or not finite.
    """
    if features.ndim != 2 or len(features) != len(probabilities) or not len(features):
        raise SeewhyError(
            f"features must be (N, D) of the {len(probabilities)} images with probabilities, found "
            f"{describe_value(features)}"
        )
    if not 1 <= count <= len(features):
        raise SeewhyError(
            f"count must be from 1 to the number of images, {len(features)}, found {count}"
        )
    known = features[:0] if labeled is None else labeled
    everything = torch.cat([known, features]).float()
    check_finite_features(everything)
    directions = F.normalize(everything - everything.mean(0), dim=1)
    known, own = directions[: len(known)], directions[len(known) :]
    novelty = _novelty(own, known)
    doubt = _uncertainty(probabilities, activation)
    weights = doubt.clamp_min(CERTAIN)
    competing = (weights * novelty).argsort(descending=True, stable=True)[:MAX_IMAGES]
    if count > len(competing):
        raise SeewhyError(f"at most {MAX_IMAGES:,} images are selected at once, found {count}")
    chosen = competing[_greedy(own[competing], weights[competing], novelty[competing], count)]
    return SelectedImages(chosen, doubt[chosen], novelty[chosen])


def _uncertainty(probabilities: Tensor, activation: str) -> Tensor:  # (N,) in [0, 1]
    if activation == "sigmoid":
        return (1 - (2 * probabilities - 1).abs()).amax(1)
    best = probabilities.topk(2, dim=1).values
    return 1 - (best[:, 0] - best[:, 1])


def _novelty(directions: Tensor, known: Tensor) -> Tensor:
    """Cosine distance (N,) to the nearest of `known` (L, D); 1 if there are none."""
    if not len(known):
        return torch.ones(len(directions))
    nearest = [(block @ known.T).amax(1) for block in torch.split(directions, 1024)]
    return (1 - torch.cat(nearest)).clamp(0, 2)


def _greedy(directions: Tensor, weights: Tensor, distances: Tensor, count: int) -> Tensor:
    """Indices (count,) of the images that reduce the weighted distances (N,) most, one by one."""
    to_each = 1 - directions @ directions.T
    chosen = list[int]()
    for _ in range(count):
        gains = torch.cat(
            [
                weights @ (distances[:, None] - block).clamp_min(0)
                for block in torch.split(to_each, 512, dim=1)
            ]
        )
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        distances = torch.minimum(distances, to_each[:, best])
    return torch.tensor(chosen)
