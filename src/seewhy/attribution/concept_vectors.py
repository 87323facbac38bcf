"""TCAV: does a class depend on a concept that is given as example images?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attribution.capture import capture_prepared
from seewhy.attribution.layers import Layers, layer_names
from seewhy.attribution.target import Relative, Target, prepare
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike

MIN_EXAMPLES = 10
_RIDGE = 1e-2  # of the mean squared activation


@dataclass(frozen=True, eq=False)
class TcavScore:
    """How a model uses a concept for a class.

    Args:
        layer: Name of the layer.
        score: Fraction of the images whose score rises with the concept, in [0, 1]: the mean over
            concept activation vectors.
        random_scores: (R,) the same for vectors that separate random images from each other.
        p_value: Fraction of vectors of random images whose score is as far from 0.5; at least
            1 / (R + 1).
        accuracy: Of the vectors on images that they were not fitted to; 0.5 by chance. Near 0.5,
            the layer does not represent the concept, and the score means nothing.
    """

    layer: str
    score: float
    random_scores: Tensor
    p_value: float
    accuracy: float


def tcav(
    classifier: ClassifierLike,
    images: Tensor,
    concept: Tensor,
    others: Tensor,
    layer: Layers = "auto",
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
    repeats: int = 50,
    seed: int = 0,
) -> TcavScore:
    """Test with concept activation vectors (Kim et al. 2018, arXiv 1711.11279, sections 3.2-3.4).

    A vector separates the activation of images with the concept from that of other images; the
    score is the fraction of images with a positive derivative of the explained logit along it.
    Activation is averaged over positions, and the vector is that of ridge regression. Each vector
    is fitted to a random half of the images, and its accuracy is measured on the other half. In
    place of the paper's t-test, the score is ranked among those of random vectors, because vectors
    from the same images are not independent.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1], of what is explained, such as one class.
        concept: Images that show the concept, at least 10.
        others: Images that do not, such as random ones, at least 10.
        layer: Name of a layer, or a module; "auto" is the last of the automatic layers.
        target: Explained class or classes, see `explain`.
        labels: True classes (N,) int64, for the target "true".
        repeats: Number of vectors R, of the concept and of random images.
        seed: Seed of the random halves.

    Raises:
        SeewhyError: As `capture_layers`, and for too few images or repeats.
    """
    few = min(len(concept), len(others))
    if few < MIN_EXAMPLES or repeats < 1:
        raise SeewhyError(
            f"tcav needs at least {MIN_EXAMPLES} images with the concept, as many without it, and "
            f"1 repeat, found {len(concept)}, {len(others)} and {repeats}"
        )
    inputs = prepare(classifier, images, target, labels)
    names = layer_names(inputs, layer)
    if len(names) > 1 and layer != "auto":
        raise SeewhyError(f"tcav explains one layer, found {len(names)}")
    name = names[-1]
    gradient = capture_prepared(inputs, [name])[name].gradient.sum((2, 3)).cpu()  # (N, C)
    shown, absent = (_mean_activation(classifier, each, name) for each in (concept, others))
    generator = torch.Generator().manual_seed(seed)
    scores, accuracies, random_scores = [], [], []
    for _ in range(repeats):
        fitted, held_out = _halves(shown, generator)
        negative, rest = _halves(absent, generator)
        vector, threshold = concept_vector(fitted, negative)
        scores.append(_score(gradient, vector))
        hits = (held_out @ vector > threshold).float().mean()
        rejections = (rest @ vector <= threshold).float().mean()
        accuracies.append(float(hits + rejections) / 2)
        random_scores.append(_score(gradient, concept_vector(negative, rest)[0]))
    score, by_chance = sum(scores) / repeats, torch.tensor(random_scores)
    as_far = int(((by_chance - 0.5).abs() >= abs(score - 0.5) - 1e-6).sum())
    return TcavScore(
        name, score, by_chance, (1 + as_far) / (1 + repeats), sum(accuracies) / repeats
    )


def concept_vector(concept: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """A direction (C,) from other images (M, C) to those of a concept (L, C), and the threshold.

    Ridge regression of 1 for the concept and -1 for the others, both with equal weight.
    """
    middle = (concept.mean(0) + others.mean(0)) / 2
    rows = torch.cat([concept, others]) - middle
    weights = torch.cat([torch.full((len(each),), 1 / len(each)) for each in (concept, others)]).to(
        rows
    )
    signs = torch.cat([torch.ones(len(concept)), -torch.ones(len(others))]).to(rows)
    gram = (rows * weights[:, None]).T @ rows
    ridge = _RIDGE * gram.diagonal().mean().clamp(min=torch.finfo(rows.dtype).tiny)
    gram.diagonal().add_(ridge)
    vector = torch.linalg.solve(gram, rows.T @ (weights * signs))
    return vector, float(middle @ vector)


def _mean_activation(classifier: ClassifierLike, images: Tensor, name: str) -> Tensor:  # (M, C)
    capture = capture_prepared(prepare(classifier, images), [name])[name]
    return capture.activation.mean((2, 3)).cpu()


def _halves(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(rows), generator=generator)
    return rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]


def _score(gradient: Tensor, vector: Tensor) -> float:
    return float((gradient @ vector > 0).float().mean())
