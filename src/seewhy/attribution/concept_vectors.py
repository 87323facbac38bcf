"""TCAV: does a class depend on a concept that is given as example images?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.capture import capture_prepared
from seewhy.attribution.layers import Layers, layer_names
from seewhy.attribution.target import Relative, Target, prepare
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike

MIN_EXAMPLES = 10
MIN_ACCURACY = 0.7  # of a classifier, below which the layer hardly represents the concept
_CLASSIFIERS = 50  # whose accuracy is averaged
_RIDGE = 1e-2  # of the mean squared activation


@dataclass(frozen=True, eq=False)
class TcavScore:
    """How a model uses a concept for a class.

    Args:
        layer: Name of the layer.
        score: Fraction of the images whose explained logit rises with the concept, in [0, 1]: the
            mean over concept activation vectors.
        random_scores: (R,) the same for vectors of random images. In a late layer, most of them are
            near 0 or 1 too: all images of a class agree on the sign of most directions.
        sensitivity: Mean derivative of the explained logit along a concept activation vector, in
            standard deviations of those along vectors of random images.
        p_value: Fraction of vectors of random images along which the mean derivative is as large;
            at least 1 / (R + 1).
        accuracy: Of linear classifiers of the concept on images that they were not fitted to; 0.5
            by chance. Near 0.5, the layer does not represent the concept, and the score means
            nothing.
    """

    layer: str
    score: float
    random_scores: Tensor
    sensitivity: float
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
    repeats: int = 200,
    seed: int = 0,
) -> TcavScore:
    """Test with concept activation vectors (Kim et al. 2018, arXiv 1711.11279, sections 3.2-3.4).

    A vector points from the activation of other images to that of images with the concept; the
    score is the fraction of images with a positive derivative of the explained logit along it.
    Activation is averaged over positions. Two things differ from the paper. The vector is the
    difference of the mean activations (Pahde et al. 2022, arXiv 2202.03482), because that of a
    linear classifier also points to whatever makes it more accurate. And its t-test takes vectors
    from the same images for independent ones, so the p-value ranks the mean derivative among those
    along vectors from other random images to as many random ones. Scores cannot be ranked, because
    those of random vectors are often 0 or 1 as well.

    Each vector is that of a random half of the images. The accuracy is that of ridge regression on
    the other half.

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
    name = _one_layer(classifier, images[:1], layer)
    gradient = _gradient(classifier, images, name, target, labels)
    vectors = _concept_vectors(classifier, concept, others, name, repeats, seed)
    return _tested(name, gradient, vectors)


def tcav_table(
    classifier: ClassifierLike,
    images: Mapping[int, Tensor],
    concepts: Mapping[str, Tensor],
    others: Tensor,
    layer: Layers = "auto",
    *,
    repeats: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> dict[tuple[str, int], TcavScore]:
    """`tcav` of each concept for each class, without computing anything twice.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: By class, images (N, C, H, W) of it, whose logit of the class is explained.
        concepts: By name, images that show the concept, at least 10.
        others: As for `tcav`, like `layer`, `repeats` and `seed`.
        layer: Name of a layer, or a module.
        repeats: Number of vectors R.
        seed: Seed of the random halves.
        progress: Called with the number of classes and concepts that are done.

    Returns:
        The scores by concept and class.

    Raises:
        SeewhyError: As `tcav`.
    """
    name = _one_layer(classifier, others[:1], layer)
    vectors = {}
    for concept, examples in concepts.items():
        vectors[concept] = _concept_vectors(classifier, examples, others, name, repeats, seed)
        progress(1)
    scores = {}
    for label, shown in images.items():
        gradient = _gradient(classifier, shown, name, label, None)
        for concept in concepts:
            scores[concept, label] = _tested(name, gradient, vectors[concept])
        progress(1)
    return scores


@dataclass(frozen=True, eq=False)
class _ConceptVectors:
    """Concept activation vectors of length 1."""

    of_concept: Tensor  # (R, C)
    random: Tensor  # (R, C), of as many random images
    accuracy: float


def concept_classifier(concept: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """Weights (C,) that tell images of a concept (L, C) from others (M, C), and the threshold.

    Ridge regression of 1 for the concept and -1 for the others, both with equal weight.
    """
    middle = (concept.mean(0) + others.mean(0)) / 2
    rows = torch.cat([concept, others]) - middle
    weights = torch.cat([torch.full((len(each),), 1 / len(each)) for each in (concept, others)]).to(
        rows
    )
    signs = torch.cat([torch.ones(len(concept)), -torch.ones(len(others))]).to(rows)
    scaled = weights.sqrt()[:, None] * rows
    wide = rows.shape[1] > len(rows)  # then the smaller system of the dual problem
    gram = scaled @ scaled.T if wide else scaled.T @ scaled
    ridge = _RIDGE * gram.trace() / rows.shape[1]
    gram.diagonal().add_(ridge.clamp(min=torch.finfo(rows.dtype).tiny))
    values = weights.sqrt() * signs
    if wide:
        solution = scaled.T @ torch.linalg.solve(gram, values)
    else:
        solution = torch.linalg.solve(gram, scaled.T @ values)
    return solution, float(middle @ solution)


def _one_layer(classifier: ClassifierLike, images: Tensor, layer: Layers) -> str:
    names = layer_names(prepare(classifier, images), layer)
    if len(names) > 1 and layer != "auto":
        raise SeewhyError(f"tcav explains one layer, found {len(names)}")
    return names[-1]


def _gradient(
    classifier: ClassifierLike, images: Tensor, layer: str, target: Target, labels: Tensor | None
) -> Tensor:  # (N, C)
    """Derivatives of the explained logits by the activation of channels, at all positions alike."""
    inputs = prepare(classifier, images, target, labels)
    return capture_prepared(inputs, [layer])[layer].gradient.sum((2, 3)).cpu()


def _concept_vectors(
    classifier: ClassifierLike,
    concept: Tensor,
    others: Tensor,
    layer: str,
    repeats: int,
    seed: int,
) -> _ConceptVectors:
    for kind, images in (("with", concept), ("without", others)):
        if len(images) < MIN_EXAMPLES:
            raise SeewhyError(
                f"tcav needs at least {MIN_EXAMPLES} images {kind} the concept, found "
                f"{len(images)}; add images"
            )
    if repeats < 1:
        raise SeewhyError(f"repeats must be at least 1, found {repeats}")
    shown, absent = (_mean_activation(classifier, each, layer) for each in (concept, others))
    generator = torch.Generator().manual_seed(seed)
    of_concept, random, accuracies = [], [], []
    for repeat in range(repeats):
        fitted, held_out = _halves(shown, generator)
        negative, rest = _halves(absent, generator)
        of_concept.append(fitted.mean(0) - negative.mean(0))
        random.append(rest[: len(fitted)].mean(0) - negative.mean(0))
        if repeat < _CLASSIFIERS:
            weights, threshold = concept_classifier(fitted, negative)
            hits = (held_out @ weights > threshold).float().mean()
            rejections = (rest @ weights <= threshold).float().mean()
            accuracies.append(float(hits + rejections) / 2)
    return _ConceptVectors(
        F.normalize(torch.stack(of_concept)),
        F.normalize(torch.stack(random)),
        sum(accuracies) / len(accuracies),
    )


def _tested(layer: str, gradient: Tensor, vectors: _ConceptVectors) -> TcavScore:
    """The score of images with derivatives (N, C)."""
    own, by_chance = (gradient @ each.T for each in (vectors.of_concept, vectors.random))  # (N, R)
    derivative, derivatives = own.mean(), by_chance.mean(0)
    as_large = int((derivatives.abs() >= derivative.abs() * (1 - 1e-6)).sum())
    spread = derivatives.square().mean().sqrt().clamp(min=torch.finfo(own.dtype).tiny)
    return TcavScore(
        layer,
        float((own > 0).float().mean()),
        (by_chance > 0).float().mean(0),
        float(derivative / spread),
        (1 + as_large) / (1 + len(derivatives)),
        vectors.accuracy,
    )


def _mean_activation(classifier: ClassifierLike, images: Tensor, name: str) -> Tensor:  # (M, C)
    capture = capture_prepared(prepare(classifier, images), [name])[name]
    return capture.activation.mean((2, 3)).cpu()


def _halves(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(rows), generator=generator)
    return rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]
