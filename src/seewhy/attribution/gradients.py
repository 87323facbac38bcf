"""Methods that go back to the pixels: gradients of the score, and what smooths, guides or integrates them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy.attribution.hooks import record_outputs
from seewhy.attribution.layers import layout_of, prefix_tokens
from seewhy.attribution.perturbation import PERTURBATIONS, check_baseline
from seewhy.attribution.target import ForwardPass, batch_size, outputs
from seewhy.errors import SeewhyError
from seewhy.models.inference import autocasting
from seewhy.models.inspection import inspecting
from seewhy.models.normalization import Normalize


def vanilla_gradients(question: ForwardPass) -> Tensor:  # (N, H, W), not negative
    """The largest absolute derivative of the score among a pixel's channels (Simonyan et al. 2014, arXiv 1312.6034)."""
    return pixel_gradients(question, question.images).abs().amax(1)


def guided_backpropagation(question: ForwardPass) -> Tensor:  # (N, H, W), not negative
    """As `gradients`, where a ReLU also stops what is negative on the way back (Springenberg et al. 2015, arXiv 1412.6806).

    Raises SeewhyError for a network without a ReLU.
    """
    return guided_gradients(question).abs().amax(1)


def smooth_grad(
    question: ForwardPass, samples: int = 25, noise: float = 0.15, seed: int = 0
) -> Tensor:  # (N, H, W), not negative
    """`gradients` of the mean gradient over noisy copies of the image (Smilkov et al. 2017, arXiv 1706.03825, section 2).

    `noise` is the standard deviation as a share of each image's range of values; the noise leaves [0, 1], as there. It is the
    same for every image, so that a map does not depend on what other images there are.
    """
    if samples < 1 or noise < 0:
        raise SeewhyError(
            f"smooth-grad needs samples of at least 1 and noise of at least 0, found {samples} and {noise}"
        )
    images, generator = question.images, torch.Generator().manual_seed(seed)
    spread = noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    total = torch.zeros_like(images)
    for _ in range(samples):
        total += pixel_gradients(
            question,
            images + spread * torch.randn(images.shape[1:], generator=generator).to(images),
        )
    return (total / samples).abs().amax(1)


def integrated_gradients(
    question: ForwardPass, steps: int = 32, baseline: float = 0.0
) -> Tensor:  # (N, H, W)
    """Image minus baseline, times the mean gradient on the way between (Sundararajan et al. 2017, arXiv 1703.01365, eq. 1).

    The way is straight. Summed over channels, so that the map adds up to the score minus the baseline's, within the error of
    `steps` midpoints. `baseline` is a pixel value in [0, 1].
    """
    check_baseline(baseline)
    if steps < 1:
        raise SeewhyError(f"integrated-gradients needs at least one step, found {steps}")
    distance = question.images - baseline
    total = torch.zeros_like(distance)
    for step in range(steps):
        total += pixel_gradients(question, baseline + distance * ((step + 0.5) / steps))
    return (distance * total / steps).sum(1)


def pixel_gradients(
    question: ForwardPass, images: Tensor, mode: AbstractContextManager[Any] | None = None
) -> Tensor:
    """The gradient (N, C, H, W) of each score at `images`, which may be others than the question's."""
    found = []
    with (
        inspecting(question.model),
        mode or nullcontext(),
        autocasting(question.precision, images.device),
    ):
        size = batch_size(images)
        for batch, weights in zip(
            torch.split(images, size), torch.split(question.weights, size), strict=True
        ):
            pixels = batch.detach().clone().requires_grad_()
            scores = (outputs(question.model, pixels) * weights).sum()
            if not scores.requires_grad:
                raise SeewhyError(UNREACHED)
            found.append(torch.autograd.grad(scores, pixels)[0])
    return torch.cat(found)


def guided_gradients(question: ForwardPass) -> Tensor:  # (N, C, H, W)
    """The signed gradient that guided backpropagation takes back to the pixels."""
    mode = GuidedReLUs()
    found = pixel_gradients(question, question.images, mode)
    if not mode.seen:
        raise SeewhyError(
            "guided backpropagation changes how a ReLU goes back, and this network has none; use gradients"
        )
    return found


class GuidedReLUs(TorchFunctionMode):
    """Inside, every ReLU, be it a module or a call, lets back only what is positive where it was positive."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = kwargs or {}
        if func not in _RELUS:
            return func(*args, **settings)
        self.seen = True
        values = args[0] if args else settings["input"]
        guided = _Guided.apply(values)  # type: ignore[no-untyped-call]
        return values.copy_(guided) if func in _IN_PLACE or settings.get("inplace") else guided


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        output = values.clamp(min=0)
        context.save_for_backward(output)
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (output,) = context.saved_tensors
        passed: Tensor = gradient.clamp(min=0) * (output > 0)
        return passed


_IN_PLACE = {
    F.relu_,
    torch.relu_,
    Tensor.relu_,
}  # whose result may be read from what they were given
_RELUS = {F.relu, torch.relu, Tensor.relu, *_IN_PLACE}


AFFINE = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.Linear,
    Normalize,
)  # in evaluation mode: linear, plus what they make of zeros

UNREACHED = (
    "no gradient goes from the logits back to the pixels: the model detaches its values or runs under torch.no_grad; "
    "remove that, or choose rise or occlusion, which need none"
)


def full_grad(question: ForwardPass) -> Tensor:  # (N, H, W), not negative
    """The saliency map of Srinivas & Fleuret 2019 (arXiv 1905.00780).

    The sum over the pixels' term and each channel of each layer's bias term of its absolute value, scaled to [0, 1] and
    enlarged bilinearly. Biases are those of convolutions, of BatchNorm with its mean, and of normalization inside the model.
    """
    size, prefix = question.images.shape[2:], prefix_tokens(question.model)
    parts = []
    for start in range(0, len(question.images), batch_size(question.images)):
        some = question.take(slice(start, start + batch_size(question.images)))
        pixels, biases = full_gradients(some)
        total = _scaled(pixels.sum(1, keepdim=True)).sum(1)
        for name, term in biases.items():
            grid = term if term.ndim == 4 else None
            if isinstance(
                question.model.get_submodule(name), nn.Linear
            ):  # of places in a transformer, of none in a head
                layout = layout_of(term.shape, some.images.shape, prefix)
                grid = None if layout is None else layout.to_grid(term)
            if grid is not None:
                total += F.interpolate(
                    _scaled(grid), size, mode="bilinear", align_corners=False
                ).sum(1)
        parts.append(total)
    return torch.cat(parts)


def full_gradients(question: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient times pixel (N, C, H, W), and gradient times bias of each layer with one, by its name.

    Of a network of ReLUs the two add up to the score.
    """
    model = question.model
    biased = {name: module for name, module in model.named_modules() if isinstance(module, AFFINE)}
    with inspecting(model):
        with (
            record_outputs(model, list(biased)) as seen,
            autocasting(question.precision, question.images.device),
        ):
            pixels = question.images.detach().clone().requires_grad_()
            logits = outputs(model, pixels)
        nodes = {"": pixels, **{name: seen[name] for name in biased if name in seen}}
        score = (logits * question.weights).sum()
        if not score.requires_grad:
            raise SeewhyError(UNREACHED)
        found = dict(
            zip(
                nodes,
                torch.autograd.grad(score, list(nodes.values()), allow_unused=True),
                strict=True,
            )
        )
    terms = {}
    for name, gradient in found.items():
        if name and gradient is not None and (bias := implicit_bias(biased[name])) is not None:
            last = isinstance(biased[name], nn.Linear)  # whose channels are
            shaped = bias if last else bias.view(1, -1, *[1] * (gradient.ndim - 2))
            terms[name] = gradient.to(question.images) * shaped.to(question.images)
    if found[""] is None:
        raise SeewhyError(UNREACHED)
    return found[""] * question.images, terms


@torch.no_grad()
def implicit_bias(module: nn.Module) -> Tensor | None:  # (C,)
    """What an affine layer makes of zeros: BatchNorm and normalization have a bias even where none is written."""
    mean = module.mean if isinstance(module, Normalize) else getattr(module, "running_mean", None)
    if isinstance(mean, Tensor):
        made: Tensor = module(torch.zeros_like(mean).view(1, -1, 1, 1))
        return made.flatten()
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


def _scaled(term: Tensor) -> Tensor:
    """The paper's rescale(abs()): the absolute value of each (H, W) with its least and largest at 0 and 1."""
    size = term.abs()
    low, high = size.amin((2, 3), keepdim=True), size.amax((2, 3), keepdim=True)
    return torch.where(high == low, 0, (size - low) / (high - low))


ATTRIBUTIONS: dict[str, Callable[..., Tensor]] = {
    "gradients": vanilla_gradients,
    "guided-backpropagation": guided_backpropagation,
    "smooth-grad": smooth_grad,
    "integrated-gradients": integrated_gradients,
    "full-grad": full_grad,
    **PERTURBATIONS,
}
