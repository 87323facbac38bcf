"""Adversarial images: pixels changed a little, so that the model says something else.

An attack is a function `(model, images, labels, settings with defaults) -> Attack`, and one line in ATTACKS. Those of this file
climb the cross entropy of the labels, or descend it to the labels they are to reach. They do so by way of the log odds against
the label, log(sum over other classes of exp z) - z_label, of which the cross entropy is the softplus: its gradient points the
same way for every image, and it stays where that of the cross entropy underflows, as for a model that is sure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from seewhy.errors import SeewhyError, lookup
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inference import autocasting
from seewhy.models.inspection import (
    check_images,
    device_of,
    extract_logits,
    inspecting,
    prepare_images,
)
from seewhy.notation import bind

Norm = Literal["linf", "l2"]
_Moved = tuple[Tensor, Tensor, Tensor]  # attacked pixels, their logits, steps
EPSILONS: dict[str, float] = {
    "linf": 8 / 255,
    "l2": 0.5,
}  # the radii that are customary for CIFAR-10


@dataclass(frozen=True, eq=False)
class Attack:
    """What became of N images; all tensors are on the device that the images came from."""

    images: Tensor  # (N, C, H, W) float in [0, 1], attacked; float32 where uint8 was given, else as given
    clean_logits: Tensor  # (N, K) of the images as they were
    logits: Tensor  # (N, K) of the attacked images
    changed: Tensor  # (N,) bool, whether the class is not that of the clean image; if targeted, whether it is the target
    steps: Tensor  # (N,) int64, gradient steps that led to the image


def attack(
    classifier: ClassifierLike, images: Tensor, labels: Tensor, method: str = "pgd"
) -> Attack:
    """Attack images by a method of ATTACKS, in the classifier's precision. The model is not changed.

    Args:
        classifier: a run, a Classifier or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        labels: (N,) int64, the true classes; for a targeted attack the classes to reach.
        method: an entry of ATTACKS with its settings: "fgsm", "pgd:epsilon=0.03,norm=l2".

    Raises:
        SeewhyError: for an unknown method or setting, a value out of range, images or labels of the
            wrong shape or range, a model in training mode, and gradients that are not finite.
    """
    run_attack = bind(ATTACKS, method, "attack", n_supplied=3)
    result: Attack = run_attack(autocast_model(classifier), images, labels)
    return result


def fgsm(
    model: nn.Module,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    labels: Tensor,  # (N,) int64
    epsilon: float = EPSILONS["linf"],
    targeted: bool = False,
    batch_size: int = 256,
) -> Attack:
    """Every pixel moved by `epsilon` along the sign of the gradient, clipped to [0, 1] (Goodfellow et al. 2015, section 4)."""
    _check_epsilon(epsilon, "linf")

    def move(batch: _Batch) -> _Moved:
        _, _, gradient = batch.look(batch.pixels)
        moved = (batch.pixels + epsilon * gradient.sign()).clamp(0, 1)
        logits, _, _ = batch.look(moved, climb=False)
        return moved, logits, torch.ones_like(batch.labels)

    return _in_batches(model, images, labels, move, targeted, batch_size)


def pgd(
    model: nn.Module,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    labels: Tensor,  # (N,) int64
    epsilon: float | None = None,
    norm: Norm = "linf",
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    seed: int = 0,
    targeted: bool = False,
    batch_size: int = 256,
) -> Attack:
    """Projected gradient steps within `epsilon` of each image in [0, 1] (Madry et al. 2018, section 2.1).

    `norm` "linf" bounds every pixel's change, by default by 8/255, and steps along the gradient's sign; "l2" bounds the root of
    the sum of an image's squared changes, by default by 0.5, and steps along the gradient over its own such norm. A step is
    `step_size` long, 2.5 * `epsilon` / `steps` by default, and the first is taken from a point drawn by `seed` uniformly from the
    ball, the same in batches of any size. Of all points visited, the start among them, an image keeps one that is misclassified
    (if targeted, that reaches the target) before one that is not, and among these the one of the highest cross entropy
    (targeted: the lowest); its `steps` led there.
    """
    customary = lookup(EPSILONS, norm, "norm")
    epsilon = customary if epsilon is None else epsilon
    _check_epsilon(epsilon, norm)
    _check_whole("steps", steps)
    step_size = 2.5 * epsilon / steps if step_size is None else step_size
    _check_length("step_size", step_size)
    generator = torch.Generator().manual_seed(
        seed
    )  # on the CPU: every device starts from the same points

    def move(batch: _Batch) -> _Moved:
        point = batch.pixels
        if random_start:
            point = _projected(
                point + epsilon * _drawn(point, norm, generator), batch.pixels, epsilon, norm
            )
        best: tuple[Tensor, ...] = ()
        for count in range(steps + 1):
            logits, odds, gradient = batch.look(point, climb=count < steps)
            visit = (
                batch.succeeded(logits),
                odds,
                point,
                logits,
                torch.full_like(batch.labels, count),
            )
            best = _better(visit, best) if count else visit
            point = _projected(
                point + step_size * _direction(gradient, norm), batch.pixels, epsilon, norm
            )
        return best[2], best[3], best[4]

    return _in_batches(model, images, labels, move, targeted, batch_size)


def minimal_fgsm(
    model: nn.Module,
    images: Tensor,  # (N, C, H, W) uint8, or float in [0, 1]
    labels: Tensor,  # (N,) int64
    step_size: float = 1 / 255,
    steps: int = 100,
    sign: bool = True,
    targeted: bool = False,
    batch_size: int = 256,
) -> Attack:
    """Each image moved by `step_size` along the gradient and clipped to [0, 1] until its class changes, `steps` times at most.

    With `sign` every pixel moves by `step_size` (Kurakin et al. 2017, section 2.2, without a bound); without, the image moves by
    `step_size` in the L2 norm. An image whose class is not that of the clean image, or if targeted is its label, stays where it is.
    One that is misclassified from the start moves away from its label, not from its class: give the predicted classes as labels
    where every class is to change.
    """
    _check_length("step_size", step_size)
    _check_whole("steps", steps)

    def move(batch: _Batch) -> _Moved:
        pixels, logits, taken = (
            batch.pixels.clone(),
            batch.logits.clone(),
            torch.zeros_like(batch.labels),
        )
        waiting = torch.arange(len(pixels), device=pixels.device)
        for count in range(steps + 1):
            part = batch.part(waiting)
            logits[waiting], _, gradient = part.look(pixels[waiting], climb=count < steps)
            same = ~part.changed(logits[waiting])
            waiting, gradient = waiting[same], gradient[same]
            if len(waiting) == 0 or count == steps:
                break
            moved = pixels[waiting] + step_size * _direction(gradient, "linf" if sign else "l2")
            pixels[waiting], taken[waiting] = moved.clamp(0, 1), count + 1
        return pixels, logits, taken

    return _in_batches(model, images, labels, move, targeted, batch_size)


class _AutocastModel(nn.Module):
    """A model that computes in `precision` wherever it is called, also below an attack."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.training = False  # of this wrapper only: the model's own modes stay as they are

    def forward(self, pixels: Tensor) -> object:
        with autocasting(self.precision, device_of(self.model)):
            return self.model(pixels)


def autocast_model(classifier: ClassifierLike) -> nn.Module:
    """The classifier's model, computing in the classifier's precision."""
    classifier = as_classifier(classifier)
    return _AutocastModel(classifier.model, classifier.precision)


ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "minimal-fgsm": minimal_fgsm,
}


@dataclass(frozen=True, eq=False)
class _Batch:
    """Images under attack, and what is wanted of them."""

    model: nn.Module
    pixels: Tensor  # (n, C, H, W) float in [0, 1], clean
    logits: Tensor  # (n, K), clean
    labels: Tensor  # (n,) int64
    targeted: bool

    def look(self, pixels: Tensor, climb: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, K), the log odds that the attack climbs (n,), and their gradient by the pixels; zero without `climb`."""
        point = pixels.detach().requires_grad_(climb)
        with torch.set_grad_enabled(climb):
            logits = _logits(self.model, point)
            label = self.labels[:, None]
            others = logits.scatter(1, label, -math.inf).logsumexp(1)
            odds = (others - logits.gather(1, label)[:, 0]) * (-1 if self.targeted else 1)
        if climb and not odds.requires_grad:
            raise SeewhyError(
                "an attack needs gradients from the logits to the images, but this model's logits have none"
            )
        gradient = torch.zeros_like(point)
        if climb:
            (gradient,) = torch.autograd.grad(odds, point, torch.ones_like(odds))
        finite = odds.isfinite() & gradient.isfinite().flatten(1).all(1)
        if not finite.all():
            found = f"{int((~finite).sum())} of {len(finite)} images"
            raise SeewhyError(
                f"logits or gradients of {found} are not finite; check the weights, and use float32 throughout"
            )
        return logits.detach(), odds.detach(), gradient

    def succeeded(self, logits: Tensor) -> Tensor:  # (n,) bool
        """Whether the class is not the label or, if targeted, is."""
        return (logits.argmax(1) == self.labels) == self.targeted

    def changed(self, logits: Tensor) -> Tensor:  # (n,) bool
        """Whether the class is not that of the clean image or, if targeted, is the label."""
        return (
            self.succeeded(logits) if self.targeted else logits.argmax(1) != self.logits.argmax(1)
        )

    def part(self, rows: Tensor) -> "_Batch":
        return replace(
            self, pixels=self.pixels[rows], logits=self.logits[rows], labels=self.labels[rows]
        )


def _in_batches(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    move: Callable[[_Batch], _Moved],
    targeted: bool,
    batch_size: int,
) -> Attack:
    """The images moved in batches, no more than one of which is on the model's device."""
    _check_whole("batch_size", batch_size)
    check_images(images)
    batches = []
    with inspecting(model), torch.no_grad(), autocasting("fp32", device_of(model)):
        _check_labels(
            labels, len(images), classes=_logits(model, prepare_images(images[:1], model)).shape[1]
        )
        wanted = labels.to(
            device_of(model), torch.int64
        ).clone()  # those made in inference mode cannot enter a graph
        for part, label in zip(
            torch.split(images, batch_size), torch.split(wanted, batch_size), strict=True
        ):
            pixels = prepare_images(part, model)
            batch = _Batch(model, pixels, _logits(model, pixels), label, targeted)
            moved, logits, steps = move(batch)
            results = moved, batch.logits, logits, batch.changed(logits), steps
            batches.append([result.to(images.device) for result in results])
        return Attack(*(torch.cat(column) for column in zip(*batches, strict=True)))


def _logits(
    model: nn.Module, pixels: Tensor
) -> Tensor:  # (n, K) float32, or wider where the model computes so
    logits = extract_logits(
        model(pixels.clone())
    )  # clone: the model's first layer may work in place
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest direction of length 1 in the norm, image by image; zero where the gradient is."""
    if norm == "linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    # the largest value becomes 1 first, so that no square underflows or overflows
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)
    return scaled / _length(scaled).clamp_min(tiny)


def _better(visit: tuple[Tensor, ...], best: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """For each image the one of two visits (success, odds, ...) that succeeded, else the one of higher odds."""
    better = (visit[0] & ~best[0]) | ((visit[0] == best[0]) & (visit[1] > best[1]))
    return tuple(
        torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(visit, best, strict=True)
    )


def _projected(point: Tensor, clean: Tensor, epsilon: float, norm: str) -> Tensor:
    """The nearest point in [0, 1] and within `epsilon` of the clean image; in "l2" nearly so, but never outside."""
    if norm == "linf":
        return point.clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    # By its KKT conditions it is clip(clean + scale * change), with the scale at which it is `epsilon` away. The usual way, to
    # shrink once and then to clip, spends a part of the radius on pixels that cannot move.
    tiny = torch.finfo(point.dtype).tiny
    scale = torch.ones_like(point[:, :1, :1, :1])
    for _ in range(5):
        change = (clean + scale * (point - clean)).clamp(0, 1) - clean
        scale = (scale * epsilon / _length(change).clamp_min(tiny)).clamp(max=1)
    change = change * (epsilon / _length(change).clamp_min(max(epsilon, tiny)))
    return (clean + change).clamp(0, 1)


def _drawn(like: Tensor, norm: str, generator: Generator) -> Tensor:
    """Uniform draws from the unit ball, one for every image."""
    shape, pixels = like.shape[1:], like[0].numel()

    def draw() -> Tensor:
        if norm == "linf":
            return 2 * torch.rand(shape, generator=generator) - 1
        direction, radius = (
            torch.randn(shape, generator=generator),
            torch.rand((), generator=generator).pow(1 / pixels),
        )
        return direction.mul(radius / direction.norm())

    # image by image, so that the size of the batch does not change what is drawn
    return torch.stack([draw() for _ in range(len(like))]).to(like)


def _length(change: Tensor) -> Tensor:  # (n, 1, 1, 1), L2
    return change.square().sum((1, 2, 3), keepdim=True).sqrt()


def _check_epsilon(epsilon: float, norm: str) -> None:
    _check_length("epsilon", epsilon)
    if norm == "linf" and epsilon > 1:
        raise SeewhyError(
            f"epsilon must be at most 1, as pixels are in [0, 1], found {epsilon}; did you mean {epsilon:g}/255?"
        )


def _check_length(name: str, value: float) -> None:
    if not isinstance(value, Real) or not 0 <= value < math.inf:
        raise SeewhyError(f"{name} must be a number of at least 0, found {value!r}")


def _check_whole(name: str, value: int) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise SeewhyError(f"{name} must be a whole number of at least 1, found {value!r}")


def _check_labels(labels: Tensor, images: int, classes: int) -> None:
    if (
        not isinstance(labels, Tensor)
        or labels.shape != (images,)
        or labels.is_floating_point()
        or labels.dtype == torch.bool
    ):
        found = (
            f"{tuple(labels.shape)} {labels.dtype}"
            if isinstance(labels, Tensor)
            else type(labels).__name__
        )
        raise SeewhyError(
            f"labels must be a tensor ({images},) int64, a class for every image, found {found}"
        )
    if classes < 2:
        raise SeewhyError(f"an attack needs logits of at least 2 classes, found {classes}")
    low, high = labels.aminmax()
    if low < 0 or high >= classes:
        raise SeewhyError(
            f"labels must be 0 to {classes - 1}, since the model has {classes} classes, found {low} to {high}"
        )
