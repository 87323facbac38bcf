"""Adversarial attacks: small changes of pixels that change the predicted class.

An attack is a function `(model, images, labels, settings with defaults) -> Attack` and one line in
ATTACKS. The attacks in this file increase the cross entropy of the labels, or decrease it if
targeted. They follow the gradient of the log odds against the label, log(sum over other classes of
exp z) - z_label. The cross entropy is the softplus of the log odds, so for every image the two
gradients have the same direction, but the gradient of the log odds does not underflow for confident
predictions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal

import torch
from torch import Tensor, nn

from seewhy.attribution.hooks import gradients_at
from seewhy.diagnosis.lp_balls import direction, inside, project, random_point
from seewhy.errors import SeewhyError, lookup
from seewhy.models.batching import batches
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.inference import autocasting, for_outputs
from seewhy.models.inspection import (
    NoGradientsError,
    check_images,
    check_labels,
    device_of,
    inspecting,
    passes_gradient,
    prepare_images,
)
from seewhy.models.outputs import extract_logits
from seewhy.notation import bind
from seewhy.wording import counted

Norm = Literal["linf", "l2"]
EPSILONS: dict[str, float] = {"linf": 8 / 255, "l2": 0.5}  # customary for CIFAR-10

_Moved = tuple[Tensor, Tensor, Tensor]  # adversarial pixels, their logits, steps taken


@dataclass(frozen=True, eq=False)
class Attack:
    """Adversarial images of N clean images; all tensors are on the device of the clean images."""

    images: Tensor  # (N, C, H, W) float in [0, 1]; float32 for uint8 images, else their dtype
    clean_logits: Tensor  # (N, K) of the clean images
    logits: Tensor  # (N, K) of the adversarial images
    changed: (
        Tensor  # (N,) bool, the class differs from that of the clean image; targeted: is the label
    )
    steps: Tensor  # (N,) int64, gradient steps to the adversarial image

    def __repr__(self) -> str:
        changed = counted(int(self.changed.sum()), "class")
        return f"Attack({counted(len(self.images), 'image')}, {changed} changed)"


def attack(
    classifier: ClassifierLike, images: Tensor, labels: Tensor, method: str = "pgd"
) -> Attack:
    """Attack images with a method of ATTACKS, in the classifier's precision.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        labels: (N,) int64, the true classes; for a targeted attack the classes to reach.
        method: An entry of ATTACKS with its settings: "fgsm", "pgd:epsilon=0.03,norm=l2".

    Raises:
        SeewhyError: For an unknown method or setting, a value out of range, images or labels of the
            wrong shape or range, a model in training mode, and gradients that are not finite.
    """
    run_attack = bind(ATTACKS, method, "attack", n_supplied=3)
    result: Attack = run_attack(autocast_model(classifier), images, labels)
    return result


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float = EPSILONS["linf"],
    targeted: bool = False,
    batch_size: int | None = None,
) -> Attack:
    """Fast gradient sign method: one step along the sign of the gradient (Goodfellow et al. 2015).

    Args:
        model: A module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        labels: (N,) int64, the true classes; the classes to reach if `targeted`.
        epsilon: Change of every pixel, clipped to [0, 1].
        targeted: Move towards `labels` instead of away from them.
        batch_size: Number of images on the model's device at once; by default found for the model.
    """
    _check_epsilon(epsilon, "linf")

    def move(batch: _Batch) -> _Moved:
        _, _, gradient = batch.evaluate(batch.pixels)
        moved = (batch.pixels + epsilon * gradient.sign()).clamp(0, 1)
        logits, _, _ = batch.evaluate(moved, gradient=False)
        return moved, logits, torch.ones_like(batch.labels)

    return _in_batches(model, images, labels, move, targeted, batch_size)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float | None = None,
    norm: Norm = "linf",
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    seed: int = 0,
    targeted: bool = False,
    batch_size: int | None = None,
) -> Attack:
    """Projected gradient descent within `epsilon` of each image (Madry et al. 2018, section 2.1).

    The result for each image is the best of all points visited, including the start. Misclassified
    points (if targeted, points with the target class) are preferred; among these, the one with the
    highest cross entropy (targeted: the lowest) is chosen. `steps` counts the steps to this point.

    Args:
        model: A module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        labels: (N,) int64, the true classes; the classes to reach if `targeted`.
        epsilon: Radius of the ball; by default 8/255 for "linf" and 0.5 for "l2".
        norm: "linf" bounds the change of every pixel and steps along the sign of the gradient;
            "l2" bounds the Euclidean norm of an image's change and steps along the gradient,
            divided by its norm.
        steps: Number of gradient steps.
        step_size: Length of a step in the norm; 2.5 * epsilon / steps by default.
        random_start: Start from a random point instead of from the image: for "linf" uniform in the
            ball, for "l2" in a random direction, at a distance uniform in [0, epsilon / 4].
        seed: Seed of the start, which does not depend on the batch size.
        targeted: Move towards `labels` instead of away from them.
        batch_size: Number of images on the model's device at once; by default found for the model.
    """
    default = lookup(EPSILONS, norm, "norm")
    epsilon = default if epsilon is None else epsilon
    _check_epsilon(epsilon, norm)
    _check_whole("steps", steps)
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    _check_length("step_size", step_size)
    # on the CPU: the same starts on every device
    generator = torch.Generator().manual_seed(seed)

    def move(batch: _Batch) -> _Moved:
        point = batch.pixels
        if random_start:
            start = point + epsilon * random_point(point, norm, generator)
            point = project(start, batch.pixels, epsilon, norm)
        best: tuple[Tensor, ...] = ()
        for count in range(steps + 1):
            logits, odds, gradient = batch.evaluate(point, gradient=count < steps)
            taken = torch.full_like(batch.labels, count)
            visit = (batch.succeeded(logits), odds, point, logits, taken)
            best = _better(visit, best) if count else visit
            moved = point + step_size * direction(inside(gradient, point), norm)
            point = project(moved, batch.pixels, epsilon, norm)
        return best[2], best[3], best[4]

    return _in_batches(model, images, labels, move, targeted, batch_size)


def minimal_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    step_size: float = 1 / 255,
    steps: int = 100,
    sign: bool = True,
    targeted: bool = False,
    batch_size: int | None = None,
) -> Attack:
    """Iterative FGSM that stops when the class changes (Kurakin et al. 2017, section 2.2).

    The perturbation is unbounded; early stopping keeps it small. Each image stops when its class
    differs from that of the clean image (if targeted: is its label). A misclassified image moves
    away from its label, not from its predicted class; pass the predicted classes as labels to
    change every prediction.

    Args:
        model: A module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        labels: (N,) int64, the true classes; the classes to reach if `targeted`.
        step_size: Change of every pixel in a step, clipped to [0, 1]; without `sign` the Euclidean
            norm of the step.
        steps: Maximum number of steps.
        sign: Step along the sign of the gradient rather than along the gradient.
        targeted: Move towards `labels` instead of away from them.
        batch_size: Number of images on the model's device at once; by default found for the model.
    """
    _check_length("step_size", step_size)
    _check_whole("steps", steps)

    def move(batch: _Batch) -> _Moved:
        pixels, logits = batch.pixels.clone(), batch.logits.clone()
        taken = torch.zeros_like(batch.labels)
        active = torch.arange(len(pixels), device=pixels.device)
        for count in range(steps + 1):
            part = batch.take(active)
            logits[active], _, gradient = part.evaluate(pixels[active], gradient=count < steps)
            same = ~part.changed(logits[active])
            active, gradient = active[same], gradient[same]
            if len(active) == 0 or count == steps:
                break
            moved = pixels[active] + step_size * direction(gradient, "linf" if sign else "l2")
            pixels[active], taken[active] = moved.clamp(0, 1), count + 1
        return pixels, logits, taken

    return _in_batches(model, images, labels, move, targeted, batch_size)


ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "minimal-fgsm": minimal_fgsm,
}


class _AutocastModel(nn.Module):
    """The logits of a classifier in its precision, also inside an attack."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model, self.classifier = classifier.model, classifier
        self.training = False  # of this wrapper only; does not change the model's modes

    def forward(self, pixels: Tensor) -> Tensor:
        with autocasting(self.classifier.precision, device_of(self.model)):
            return self.classifier.extract_logits(self.model(pixels))


def autocast_model(classifier: ClassifierLike) -> nn.Module:
    """The classifier's model, returning logits in the classifier's precision."""
    return _AutocastModel(as_classifier(classifier))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Clean images with the labels to move away from, or toward if targeted."""

    model: nn.Module
    pixels: Tensor  # (n, C, H, W) float in [0, 1], clean
    logits: Tensor  # (n, K), clean
    labels: Tensor  # (n,) int64
    targeted: bool

    def evaluate(self, pixels: Tensor, gradient: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, K), log odds (n,) and their gradient; zeros without `gradient`."""
        point = pixels.detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = _logits(self.model, point)
            label = self.labels[:, None]
            others = logits.scatter(1, label, -math.inf).logsumexp(1)
            odds = (others - logits.gather(1, label)[:, 0]) * (-1 if self.targeted else 1)
        if gradient and not passes_gradient(self.model, odds):
            raise NoGradientsError(
                "an attack needs gradients of the logits, but the model detaches a tensor, is "
                "quantized, or runs under torch.no_grad; remove that"
            )
        slope = torch.zeros_like(point)
        if gradient:
            (gradient_of_odds,) = gradients_at(odds, [point], torch.ones_like(odds))
            slope = slope if gradient_of_odds is None else gradient_of_odds
        finite = odds.isfinite() & slope.isfinite().flatten(1).all(1)
        if not finite.all():
            raise SeewhyError(
                f"logits or gradients of {int((~finite).sum())} of "
                f"{counted(len(finite), 'image')} are not finite; check the weights, and use "
                "precision 'fp32'"
            )
        return logits.detach(), odds.detach(), slope

    def succeeded(self, logits: Tensor) -> Tensor:  # (n,) bool
        """Whether the class differs from the label; if targeted, whether it is the label."""
        return (logits.argmax(1) == self.labels) == self.targeted

    def changed(self, logits: Tensor) -> Tensor:  # (n,) bool
        """Whether the class differs from that of the clean image; if targeted, is the label."""
        if self.targeted:
            return self.succeeded(logits)
        return logits.argmax(1) != self.logits.argmax(1)

    def take(self, rows: Tensor) -> "_Batch":
        return replace(
            self, pixels=self.pixels[rows], logits=self.logits[rows], labels=self.labels[rows]
        )


def _in_batches(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    move: Callable[[_Batch], _Moved],
    targeted: bool,
    batch_size: int | None,
) -> Attack:
    """Move the images in batches; only one batch is on the model's device at a time."""
    if batch_size is not None:
        _check_whole("batch_size", batch_size)
    check_images(images)
    parts = []
    with inspecting(model), torch.no_grad(), autocasting("fp32", device_of(model)):
        num_classes = _logits(model, prepare_images(images[:1], model)).shape[1]
        if num_classes < 2:
            raise SeewhyError(f"an attack needs logits of at least 2 classes, found {num_classes}")
        check_labels(labels, len(images), num_classes)
        # clone: labels made in inference mode cannot enter a graph
        targets = labels.to(device_of(model), torch.int64).clone()
        fast = for_outputs(as_classifier(model), images)
        for rows in batches(model, images, batch_size):
            pixels = prepare_images(images[rows], model)
            batch = _Batch(fast, pixels, _logits(fast, pixels), targets[rows], targeted)
            moved, logits, steps = move(batch)
            columns = moved, batch.logits, logits, batch.changed(logits), steps
            parts.append([column.to(images.device) for column in columns])
        return Attack(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _logits(model: nn.Module, pixels: Tensor) -> Tensor:  # (n, K) float32, or wider
    # clone: the model's first layer may work in place
    logits = extract_logits(model(pixels.clone()))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _better(visit: tuple[Tensor, ...], best: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The better of two points (success, odds, ...) per image: by success, then by odds."""
    better = (visit[0] & ~best[0]) | ((visit[0] == best[0]) & (visit[1] > best[1]))
    return tuple(
        torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(visit, best, strict=True)
    )


def _check_epsilon(epsilon: float, norm: str) -> None:
    _check_length("epsilon", epsilon)
    if norm == "linf" and epsilon > 1:
        raise SeewhyError(
            "epsilon must be at most 1, because pixels are in [0, 1], "
            f"found {epsilon}; did you mean {epsilon:g}/255?"
        )


def _check_length(name: str, value: float) -> None:
    if not isinstance(value, Real) or not 0 <= value < math.inf:
        raise SeewhyError(f"{name} must be a number of at least 0, found {value!r}")


def _check_whole(name: str, value: int) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise SeewhyError(f"{name} must be a whole number of at least 1, found {value!r}")
