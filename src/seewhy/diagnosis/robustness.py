"""Robustness: accuracy under attacks and corruptions of increasing strength."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from seewhy.diagnosis.attacks import ATTACKS, Attack, autocast_model, pgd
from seewhy.diagnosis.budget import images_within, surely_within
from seewhy.diagnosis.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from seewhy.diagnosis.predictions import round_robin
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inference import compute_logits
from seewhy.models.inspection import check_labels

_TRIED = 100  # images attacked between two checks whether there are enough examples


@dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """Accuracy on the same images at L levels of an attack or corruption; the first level is 0."""

    name: str  # of the attack or corruption
    levels: Tensor  # (L,) float32: epsilon for pixels in [0, 1], or strength from 0 to 5
    accuracy: Tensor  # (L,) float32 in [0, 1]
    low: Tensor  # (L,) float32, lower bound of the 95% interval
    high: Tensor  # (L,) float32, upper bound
    images: int


@dataclass(frozen=True, eq=False)
class AdversarialExamples:
    """S correctly classified images and their adversarial images."""

    index: Tensor  # (S,) int64, indices into the attacked images
    epsilon: float  # largest change of a value, for pixels in [0, 1]
    clean: Tensor  # (S, C, H, W) uint8
    adversarial: Tensor  # (S, C, H, W) uint8
    labels: Tensor  # (S,) int64, the true class, predicted for the clean image
    predicted: Tensor  # (S,) int64, the class predicted for the adversarial image
    clean_confidence: Tensor  # (S,) float32, probability of `labels` for the clean image
    adversarial_confidence: Tensor  # (S,) float32, of `predicted` for the adversarial image


def attack_curves(
    classifier: ClassifierLike,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[str] = ("fgsm", "pgd"),
    epsilons: Sequence[float] = (0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255),
    steps: int = 10,
    progress: Callable[[int], None] | None = None,
    seconds: float = math.inf,
) -> tuple[RobustnessCurve, ...]:
    """Measure accuracy against epsilon, the bound on the change of every pixel.

    An image counts as wrong at an epsilon if this attack succeeded at this or a smaller epsilon, or
    if an earlier attack in the list did. So no curve rises, and by default the curve of PGD is the
    worst case of FGSM and PGD.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode. Attacks and their gradients
            run in its precision, without test-time augmentation.
        images: (N, C, H, W) uint8.
        labels: (N,) int64, the true classes.
        attacks: Entries of ATTACKS that have an epsilon, one curve each.
        epsilons: Bounds above 0 and up to 1, for pixels in [0, 1].
        steps: Number of steps of the iterative attacks.
        progress: Called with 1 after each attack at each epsilon.
        seconds: Time after which no more images are attacked; then the curves have fewer images.

    Raises:
        SeewhyError: For an attack that is unknown or has no epsilon, an epsilon out of range,
            images or labels of the wrong shape or range, a model in training mode, and gradients
            that are not finite.
    """
    functions = [_with_steps(name, steps) for name in attacks]
    if not all(0 < epsilon <= 1 for epsilon in epsilons):
        raise SeewhyError(
            "epsilons must be above 0 and at most 1, because pixels are in [0, 1], "
            f"found {list(epsilons)}"
        )
    check_labels(labels, len(images))
    labels, levels = labels.cpu(), sorted({0.0, *epsilons})
    model = autocast_model(classifier)
    passes = 2 + len(epsilons) * len(attacks) * (5 + 3 * steps)
    first = surely_within(seconds, model, images, passes)
    parts = [
        _first_errors(model, images[rows], labels[rows], functions, levels, progress)
        for rows in images_within(seconds, len(images), first=first)
    ]
    curves = []
    for name, wrong_from in zip(attacks, torch.cat(parts, 1), strict=True):
        counts = [int((wrong_from > level).sum()) for level in range(len(levels))]
        curves.append(_curve(name, levels, counts, len(wrong_from)))
    return tuple(curves)


def _first_errors(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    functions: Sequence[Callable[..., Attack]],
    levels: Sequence[float],
    progress: Callable[[int], None] | None,
) -> Tensor:  # (attacks, N) int64
    """After each attack, the first level with a wrong prediction, or the number of levels."""
    correct = compute_logits(model, images).argmax(1) == labels
    wrong_from = torch.where(correct, len(levels), 0)
    found = []
    for function in functions:
        for level, epsilon in enumerate(levels[1:], 1):
            rows = (wrong_from > level).nonzero()[:, 0]
            if len(rows):
                attacked = function(
                    model, _take(images, rows), _take(labels, rows), epsilon=epsilon
                )
                wrong_from[rows[attacked.logits.argmax(1).cpu() != labels[rows]]] = level
            if progress is not None:
                progress(1)
        found.append(wrong_from.clone())
    return torch.stack(found)


def corruption_curves(
    classifier: ClassifierLike,
    images: Tensor,
    labels: Tensor,
    corruptions: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    seconds: float = math.inf,
) -> tuple[RobustnessCurve, ...]:
    """Measure accuracy under common corruptions at strengths 0 to 5.

    Args:
        classifier: A run, a Classifier, or a module. Predictions run in its precision, without
            test-time augmentation.
        images: (N, C, H, W) uint8.
        labels: (N,) int64, the true classes.
        corruptions: Entries of CORRUPTIONS, one curve each; None for all of them.
        seed: Seed of the random corruptions, the same at every strength.
        progress: Called with 1 after each corruption at each strength.
        seconds: Time after which no more images are corrupted; then the curves have fewer images.

    Raises:
        SeewhyError: For an unknown corruption, and images or labels of the wrong shape.
    """
    check_labels(labels, len(images))
    labels, model = labels.cpu(), autocast_model(classifier)

    names = list(CORRUPTIONS if corruptions is None else corruptions)
    counts = torch.zeros(len(names), 1 + len(STRENGTHS), dtype=torch.int64)
    measured = 0
    first = surely_within(seconds, model, images, 1 + len(names) * len(STRENGTHS))
    for rows in images_within(seconds, len(images), first=first):
        part, true = images[rows], labels[rows]

        def count_correct(pixels: Tensor, true: Tensor = true) -> int:
            return int((compute_logits(model, pixels).argmax(1) == true).sum())

        counts[:, 0] += count_correct(part)
        for row, name in enumerate(names):
            for column, strength in enumerate(STRENGTHS, 1):
                counts[row, column] += count_correct(corrupt(part, name, strength, seed))
                if progress is not None:
                    progress(1)
        measured += len(part)
    return tuple(
        _curve(name, (0, *STRENGTHS), row, measured)
        for name, row in zip(names, counts.tolist(), strict=True)
    )


def adversarial_examples(
    classifier: ClassifierLike,
    images: Tensor,
    labels: Tensor,
    count: int = 8,
    epsilon: float = 2 / 255,
    steps: int = 10,
    seconds: float = math.inf,
) -> AdversarialExamples:
    """Find images that are classified correctly until PGD changes them by at most `epsilon`.

    Images are attacked in order until there are enough. Different pairs of true and wrong class are
    preferred. Changes are in whole steps of 1/255, and both predictions are those of the returned
    pixels.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode. The attack runs in its
            precision, without test-time augmentation.
        images: (N, C, H, W) uint8.
        labels: (N,) int64, the true classes.
        count: Maximum number of examples.
        epsilon: Bound on the change of every value, from 1/255 to 1 for pixels in [0, 1].
        steps: Number of steps of PGD.
        seconds: Time after which no more images are attacked.

    Raises:
        SeewhyError: For an epsilon or a count out of range, images or labels of the wrong shape or
            range, a model in training mode, and gradients that are not finite.
    """
    if not 1 / 255 <= epsilon <= 1:
        raise SeewhyError(
            "epsilon must be from 1/255, the smallest change of a stored pixel, to 1, "
            f"found {epsilon}"
        )
    if count < 1:
        raise SeewhyError(f"count must be at least 1, found {count}")
    check_labels(labels, len(images))
    labels, whole_steps = labels.cpu(), int(255 * epsilon + 1e-6)
    model = autocast_model(classifier)
    batches: list[tuple[Tensor, ...]] = []
    kinds: set[tuple[int, int]] = set()
    first = min(_TRIED, surely_within(seconds, model, images, 6 + 3 * steps))
    for rows in images_within(seconds, len(images), _TRIED, first):
        batch = _fool(model, images[rows].cpu(), labels[rows], whole_steps / 255, steps)
        batches.append((rows.start + batch[0], *batch[1:]))
        kinds.update(zip(batch[3].tolist(), batch[4].tolist(), strict=True))
        if len(kinds) >= count:
            break
    index, clean, adversarial, true, predicted, confidence, adversarial_confidence = map(
        torch.cat, zip(*batches, strict=True)
    )
    num_classes = 1 + int(max(true.max(), predicted.max())) if len(true) else 1
    chosen = round_robin(true * num_classes + predicted, count)
    return AdversarialExamples(
        index=index[chosen],
        epsilon=epsilon,
        clean=clean[chosen],
        adversarial=adversarial[chosen],
        labels=true[chosen],
        predicted=predicted[chosen],
        clean_confidence=confidence[chosen],
        adversarial_confidence=adversarial_confidence[chosen],
    )


def no_adversarial_examples(images: Tensor) -> AdversarialExamples:
    """The examples of a model that cannot be attacked: none, for images (N, C, H, W) uint8."""
    index, number = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    none = images[:0].cpu()
    return AdversarialExamples(index, 0.0, none, none, index, index, number, number)


def _fool(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int
) -> tuple[Tensor, ...]:
    """Rows (M,) of a batch that rounded PGD images fool, and the columns of AdversarialExamples."""
    clean = compute_logits(model, images).softmax(1).max(1)
    attacked = pgd(model, images, labels, epsilon=epsilon, steps=steps).images
    attacked = attacked.mul(255).round().byte()
    after = compute_logits(model, attacked).softmax(1).max(1)
    rows = ((clean.indices == labels) & (after.indices != labels)).nonzero()[:, 0]
    columns = images, attacked, clean.indices, after.indices, clean.values, after.values
    return rows, *(column[rows] for column in columns)


def _with_steps(name: str, steps: int) -> Callable[..., Attack]:
    """The entry of ATTACKS with `steps` set if it has the parameter; it must have an `epsilon`."""
    function = lookup(ATTACKS, name, "attack")
    parameters = inspect.signature(function).parameters
    if "epsilon" not in parameters:
        possible = [
            each for each in ATTACKS if "epsilon" in inspect.signature(ATTACKS[each]).parameters
        ]
        raise SeewhyError(
            f"attack {name!r} has no epsilon, so it has no curve; possible: {', '.join(possible)}"
        )
    return partial(function, steps=steps) if "steps" in parameters else function


def _curve(
    name: str, levels: Sequence[float], correct: Sequence[int], images: int
) -> RobustnessCurve:
    """The curve for the number of correct images at each level."""
    low, high = zip(*(wilson_interval(count, images) for count in correct), strict=True)
    return RobustnessCurve(
        name=name,
        levels=torch.tensor(levels, dtype=torch.float32),
        accuracy=torch.tensor(correct) / images,
        low=torch.tensor(low),
        high=torch.tensor(high),
        images=images,
    )


def _take(values: Tensor, rows: Tensor) -> Tensor:
    return values[rows.to(values.device)]
