"""How much of the accuracy is left when images are attacked or corrupted, and how much it takes."""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from seewhy.diagnosis.attacks import ATTACKS, Attack, autocast_model, pgd
from seewhy.diagnosis.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from seewhy.diagnosis.predictions import wilson_interval
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inference import compute_logits

_BATCH = 100  # on a CPU the maps of that many small images stay in its cache, and go through three times as fast


@dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """The accuracy on the same N images at L levels of one disturbance; the first level is 0, the images as they are."""

    name: str  # of the attack or corruption
    levels: Tensor  # (L,) float32: epsilon, of pixels in [0, 1]; or the strength, up to 5
    accuracy: Tensor  # (L,) float32 in [0, 1]
    low: Tensor  # (L,) float32, where the 95% interval begins
    high: Tensor  # (L,) float32, where it ends
    images: int


@dataclass(frozen=True, eq=False)
class AdversarialExamples:
    """S images that were right, and what an attack made of them."""

    index: Tensor  # (S,) int64, places among the images given
    epsilon: float  # the most that a value was allowed to change, of pixels in [0, 1]
    clean: Tensor  # (S, C, H, W) uint8
    adversarial: Tensor  # (S, C, H, W) uint8
    labels: Tensor  # (S,) int64, the true class, predicted for the clean image
    predicted: Tensor  # (S,) int64, class predicted for the adversarial image
    clean_confidence: Tensor  # (S,) float32, probability of the true class in the clean image
    adversarial_confidence: (
        Tensor  # (S,) float32, probability of `predicted` in the adversarial image
    )


def attack_curves(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8
    labels: Tensor,  # (N,) int64
    attacks: Sequence[str] = ("fgsm", "pgd"),
    epsilons: Sequence[float] = (0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255),
    steps: int = 10,
    progress: Callable[[int], None] | None = None,
) -> tuple[RobustnessCurve, ...]:
    """Accuracy against epsilon, the bound on every pixel's change: a curve for each of `attacks`, names in ATTACKS.

    An image is right at an epsilon only where no attack so far has fooled it within that distance: neither the same attack at a
    smaller epsilon, since the smaller ball is inside, nor one that is named before it. So no curve rises, and by default that of
    PGD is of the stronger of PGD and FGSM. All runs in the classifier's precision, gradients too; attacks that iterate take `steps` steps.
    `progress` is called with 1 after each attack at each epsilon. Raises SeewhyError as `attack` and `compute_logits` do.
    """
    functions = [_bounded(name, steps) for name in attacks]
    if not all(0 < epsilon <= 1 for epsilon in epsilons):
        raise SeewhyError(
            f"epsilons must be above 0 and at most 1, as pixels are in [0, 1], found {list(epsilons)}"
        )
    labels, levels = _checked(labels, images), sorted({0.0, *epsilons})
    model = autocast_model(classifier)
    right = compute_logits(model, images, batch_size=_BATCH).argmax(1) == labels
    wrong_from = torch.where(
        right, len(levels), 0
    )  # (N,), the first level at which an image is wrong
    curves = []
    for name, function in zip(attacks, functions, strict=True):
        for level, epsilon in enumerate(levels[1:], 1):
            rows = (wrong_from > level).nonzero()[:, 0]
            if len(rows):
                found: Attack = function(
                    model, _at(images, rows), _at(labels, rows), epsilon=epsilon
                )
                wrong_from[rows[found.logits.argmax(1).cpu() != labels[rows]]] = level
            if progress is not None:
                progress(1)
        curves.append(
            _curve(
                name,
                levels,
                [int((wrong_from > level).sum()) for level in range(len(levels))],
                len(images),
            )
        )
    return tuple(curves)


def corruption_curves(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8
    labels: Tensor,  # (N,) int64
    corruptions: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[RobustnessCurve, ...]:
    """Accuracy at strengths 0 to 5: a curve for each of `corruptions`, entries of CORRUPTIONS, by default for all of them.

    `seed` draws what is random, the same at every strength. `progress` is called with 1 after each corruption at each strength.
    Raises SeewhyError as `corrupt` and `compute_logits` do.
    """
    labels, model = _checked(labels, images), autocast_model(classifier)

    def right(pixels: Tensor) -> int:
        return int((compute_logits(model, pixels, batch_size=_BATCH).argmax(1) == labels).sum())

    clean, curves = right(images), []
    for name in CORRUPTIONS if corruptions is None else corruptions:
        counts = [clean]
        for strength in STRENGTHS:
            counts.append(right(corrupt(images, name, strength, seed)))
            if progress is not None:
                progress(1)
        curves.append(_curve(name, (0, *STRENGTHS), counts, len(images)))
    return tuple(curves)


def adversarial_examples(
    classifier: ClassifierLike,
    images: Tensor,  # (N, C, H, W) uint8
    labels: Tensor,  # (N,) int64
    count: int = 8,
    epsilon: float = 2 / 255,
    steps: int = 10,
) -> AdversarialExamples:
    """At most `count` images that are right until PGD moves each value by `epsilon` at most, in whole steps of 1/255.

    They are the first that show different pairs of a true and a wrong class, and after these the first of the rest; images are
    attacked in order until there are enough. Both predictions are of the pixels that are returned. Raises SeewhyError for an
    epsilon under 1/255 or above 1, and as `attack` and `compute_logits` do.
    """
    if not 1 / 255 <= epsilon <= 1:
        raise SeewhyError(
            f"epsilon must be from 1/255, the least that a stored pixel can change, to 1, found {epsilon}"
        )
    if count < 1:
        raise SeewhyError(f"count must be at least 1, found {count}")
    labels, whole = _checked(labels, images), int(255 * epsilon + 1e-6)
    model = autocast_model(classifier)
    batches: list[tuple[Tensor, ...]] = []
    pairs: set[tuple[int, int]] = set()
    for rows in torch.split(torch.arange(len(images)), _BATCH):
        batches.append(
            _fooled(model, _at(images, rows).cpu(), labels[rows], rows, whole / 255, steps)
        )
        pairs.update(_pairs(*batches[-1][3:5]))
        if len(pairs) >= count:
            break
    index, clean, attacked, before, after, sure, still_sure = map(
        torch.cat, zip(*batches, strict=True)
    )
    seen: Counter[tuple[int, int]] = Counter()
    ranks = []  # how many images of the same pair come before
    for pair in _pairs(before, after):
        ranks.append(seen[pair])
        seen[pair] += 1
    first = torch.tensor(ranks, dtype=torch.int64).argsort(stable=True)[:count]
    changed = before[first], after[first], sure[first], still_sure[first]
    return AdversarialExamples(index[first], epsilon, clean[first], attacked[first], *changed)


def _fooled(
    model: nn.Module, images: Tensor, labels: Tensor, index: Tensor, epsilon: float, steps: int
) -> tuple[Tensor, ...]:  # (M, ...), as the fields of a Strip
    """Those of a batch that were right and that PGD fools, also after rounding."""
    clean = compute_logits(model, images).softmax(1).max(1)
    attacked = (
        pgd(model, images, labels, epsilon=epsilon, steps=steps).images.mul(255).round().byte()
    )
    after = compute_logits(model, attacked).softmax(1).max(1)
    fooled = (clean.indices == labels) & (after.indices != labels)
    columns = index, images, attacked, clean.indices, after.indices, clean.values, after.values
    return tuple(column[fooled] for column in columns)


def _bounded(name: str, steps: int) -> Callable[..., Attack]:
    """The entry of ATTACKS, which must have an `epsilon`, with its `steps` set if it has them."""
    function = lookup(ATTACKS, name, "attack")
    takes = inspect.signature(function).parameters
    if "epsilon" not in takes:
        possible = [
            each for each in ATTACKS if "epsilon" in inspect.signature(ATTACKS[each]).parameters
        ]
        raise SeewhyError(
            f"attack {name!r} has no epsilon to draw a curve over; possible: {', '.join(possible)}"
        )
    return partial(function, steps=steps) if "steps" in takes else function


def _curve(
    name: str, levels: Sequence[float], right: Sequence[int], images: int
) -> RobustnessCurve:
    """The curve of how many of the images are right at each level."""
    low, high = zip(*(wilson_interval(count, images) for count in right), strict=True)
    accuracy = torch.tensor(right) / images
    return RobustnessCurve(
        name,
        torch.tensor(levels, dtype=torch.float32),
        accuracy,
        torch.tensor(low),
        torch.tensor(high),
        images,
    )


def _pairs(before: Tensor, after: Tensor) -> list[tuple[int, int]]:
    return list(zip(before.tolist(), after.tolist(), strict=True))


def _at(images: Tensor, rows: Tensor) -> Tensor:
    return images[rows.to(images.device)]


def _checked(labels: Tensor, images: Tensor) -> Tensor:
    """The labels on the CPU, one for every image."""
    if labels.shape != images.shape[:1]:
        raise SeewhyError(
            f"labels must be ({len(images)},), a class for every image, found {tuple(labels.shape)}"
        )
    return labels.cpu()
