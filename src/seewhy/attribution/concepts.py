"""Concepts: the parts into which a layer's activation of one class decomposes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.attribution.bootstrap import BootstrapSummary, bootstrap_summary
from seewhy.attribution.capture import Capture, capture_prepared
from seewhy.attribution.layers import Layers, layer_names
from seewhy.attribution.perturbation import logits_from_layer, runs_per_pass
from seewhy.attribution.target import Relative, Target, prepare
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike
from seewhy.wording import counted

MIN_IMAGES = 4
_MAX_ITERATIONS = 300  # of the factorization
_TOLERANCE = 1e-4  # of a relative change


@dataclass(frozen=True, eq=False)
class Concepts:
    """Parts of a layer's activation, most important first.

    Args:
        layer: Name of the layer.
        directions: (K, C) float32, at least 0, of length 1: the channels of each concept.
        maps: (N, K, h, w) float32, at least 0: how much of each concept is at each position.
        importance: Drop of the explained score without the concept, a mean over images.
        stability: (K,) float32 in [0, 1]: cosine similarity with the concepts found in each half of
            the images, the mean of both.
        explained: Fraction of the activation's sum of squares that the concepts reproduce.
    """

    layer: str
    directions: Tensor
    maps: Tensor
    importance: tuple[BootstrapSummary, ...]
    stability: Tensor
    explained: float

    def __repr__(self) -> str:
        return (
            f"Concepts({len(self.directions)} at {self.layer} of "
            f"{counted(len(self.maps), 'image')}, {100 * self.explained:.0f}% of the activation "
            "explained)"
        )


def find_concepts(
    classifier: ClassifierLike,
    images: Tensor,
    layer: Layers = "auto",
    count: int = 5,
    target: Target = Relative.PREDICTED,
    *,
    labels: Tensor | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Concepts:
    """Factorize the activation of images of one class into a few concepts.

    The activation at all positions of all images, a matrix (N·h·w, C), is approximated by a product
    of two matrices without negative values: how much of each concept is at each position, and the
    channels of each concept (Collins et al. 2018, arXiv 1806.10206; Fel et al. 2023, arXiv
    2211.10154). Negative activations count as 0.

    The importance of a concept is measured: it is subtracted from the activation, the rest of the
    model runs, and the score of the image drops. A concept is stable if it is found again in each
    half of the images.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; at least 4, of what the concepts are to
            explain, such as the images predicted as one class.
        layer: Name of a layer, or a module; "auto" is the last of the automatic layers.
        count: Number of concepts K.
        target: Explained class or classes, see `explain`.
        labels: True classes (N,) int64, for the target "true".
        progress: Called with 1 after each image.

    Raises:
        SeewhyError: As `explain`, for too few images, for a `count` that the activation does not
            allow, and for a layer without positive activation.
    """
    inputs = prepare(classifier, images, target, labels)
    if len(inputs.images) < MIN_IMAGES:
        raise SeewhyError(f"concepts need at least {MIN_IMAGES} images, found {len(inputs.images)}")
    names = layer_names(inputs, layer)
    if len(names) > 1 and layer != "auto":
        raise SeewhyError(f"concepts are found at one layer, found {counted(len(names), 'layer')}")
    capture = capture_prepared(inputs, names[-1:])[names[-1]]
    matrix = _positions(capture.activation)
    _check_count(count, matrix, capture.layer)
    strengths, directions = factorize(matrix, count)
    size = capture.activation.shape
    maps = strengths.reshape(size[0], size[2], size[3], count).permute(0, 3, 1, 2)
    drops = _drops(capture, maps, directions, progress)
    order = drops.mean(0).argsort(descending=True, stable=True)
    directions, maps, drops = directions[order], maps[:, order].contiguous(), drops[:, order]
    residual = capture.activation.cpu().float() - torch.einsum("nkhw,kc->nchw", maps, directions)
    return Concepts(
        capture.layer,
        directions,
        maps,
        tuple(bootstrap_summary({"drop": column})["drop"] for column in drops.T),
        _stability(capture.activation, directions),
        1 - float(residual.square().sum() / capture.activation.square().sum()),
    )


def concept_maps(
    classifier: ClassifierLike, images: Tensor, concepts: Concepts
) -> Tensor:  # (N, K, h, w)
    """How much of each concept is at each position of other images.

    Args:
        classifier: The model of which the concepts are.
        images: (N, C, H, W) uint8, or float in [0, 1].
        concepts: From `find_concepts`.

    Returns:
        (N, K, h, w) float32, at least 0: the least-squares solution without negative values.
    """
    inputs = prepare(classifier, images)
    activation = capture_prepared(inputs, [concepts.layer])[concepts.layer].activation
    channels, known = activation.shape[1], concepts.directions.shape[1]
    if channels != known:
        raise SeewhyError(
            f"the concepts have {known} channels, layer {concepts.layer!r} of this model has "
            f"{channels}; pass the model of which they are"
        )
    strengths = project(_positions(activation), concepts.directions)
    n, _, height, width = activation.shape
    return strengths.reshape(n, height, width, -1).permute(0, 3, 1, 2).contiguous()


def _positions(activation: Tensor) -> Tensor:  # (N·h·w, C) float32, at least 0
    return activation.float().clamp(min=0).permute(0, 2, 3, 1).flatten(0, 2).cpu()


def _check_count(count: int, matrix: Tensor, layer: str) -> None:
    most = min(matrix.shape)
    if not isinstance(count, int) or not 1 <= count <= most:
        raise SeewhyError(
            f"the number of concepts must be an integer from 1 to {most}, for {matrix.shape[0]:,} "
            f"positions and {matrix.shape[1]:,} channels; found {count}"
        )
    if not matrix.any():
        raise SeewhyError(
            f"layer {layer!r} has no positive activation on these images; choose another layer"
        )


def factorize(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Approximate a matrix without negative values by a product of two, by least squares.

    Hierarchical alternating least squares (Cichocki & Phan 2009, algorithm 2), which starts from
    singular vectors (Boutsidis & Gallopoulos 2008), so that nothing is drawn at random.

    Args:
        matrix: (P, C) float32, at least 0.
        count: K.

    Returns:
        Strengths (P, K), and directions (K, C) of length 1; at least 0.
    """
    directions = _singular_directions(matrix, count)
    strengths = project(matrix, directions)
    error = torch.inf
    for _ in range(_MAX_ITERATIONS):
        strengths = _sweep(strengths, matrix @ directions.T, directions @ directions.T)
        directions = _sweep(
            directions.T, matrix.T @ strengths, strengths.T @ strengths
        ).T.contiguous()
        previous, error = error, float((matrix - strengths @ directions).square().sum())
        if previous - error <= _TOLERANCE * error:
            break
    lengths = directions.norm(dim=1).clamp(min=torch.finfo(matrix.dtype).tiny)
    return project(matrix, directions / lengths[:, None]), directions / lengths[:, None]


def project(matrix: Tensor, directions: Tensor) -> Tensor:
    """Strengths (P, K), at least 0, with which directions (K, C) best reproduce a matrix (P, C)."""
    products, gram = matrix @ directions.T, directions @ directions.T
    strengths = torch.zeros_like(products)
    for _ in range(_MAX_ITERATIONS):
        previous, strengths = strengths, _sweep(strengths, products, gram)
        if (strengths - previous).abs().max() <= _TOLERANCE * strengths.abs().max():
            break
    return strengths


def _sweep(factor: Tensor, products: Tensor, gram: Tensor) -> Tensor:
    """One column of a factor (P, K) after another becomes the best one, given the others."""
    factor = factor.clone()
    for k in range(len(gram)):
        step = (products[:, k] - factor @ gram[:, k]) / gram[k, k].clamp(min=1e-12)
        factor[:, k] = (factor[:, k] + step).clamp(min=0)
    return factor


def _singular_directions(matrix: Tensor, count: int) -> Tensor:  # (K, C), at least 0
    """Of each right singular vector, the positive or the negative part, the one that has more."""
    _, vectors = torch.linalg.eigh(matrix.T @ matrix)  # ascending
    rows = []
    for vector in vectors.T.flip(0)[:count]:
        signed = (vector, -vector)
        rows.append(max(signed, key=lambda each: _positive_share(matrix @ each, each)).clamp(min=0))
    return torch.stack(rows)


def _positive_share(left: Tensor, right: Tensor) -> float:
    return float(left.clamp(min=0).norm() * right.clamp(min=0).norm())


def _drops(
    capture: Capture, maps: Tensor, directions: Tensor, progress: Callable[[int], None]
) -> Tensor:  # (N, K) float32
    """Score of each image minus its score without each concept."""
    forward, runs = capture.forward, runs_per_pass(capture)
    drops = []
    for n, strength in enumerate(maps.to(capture.activation.device)):  # (K, h, w)
        removed = torch.einsum("khw,kc->kchw", strength, directions.to(strength.device))
        without = logits_from_layer(capture, n, capture.activation[n] - removed, runs)
        drops.append((forward.scores[n] - without @ forward.weights[n]).cpu().float())
        progress(1)
    return torch.stack(drops)


def _stability(activation: Tensor, directions: Tensor) -> Tensor:  # (K,)
    """Cosine similarity of each concept with its match in each half of the images, on average."""
    from scipy.optimize import linear_sum_assignment

    found = []
    for half in (activation[::2], activation[1::2]):
        matrix = _positions(half)
        _, others = factorize(matrix, len(directions))
        similarity = directions @ others.T
        _, match = linear_sum_assignment(similarity.numpy(), maximize=True)
        found.append(similarity[torch.arange(len(match)), torch.from_numpy(match)])
    return torch.stack(found).mean(0)
