"""Gradients of the score at the pixels, and their smoothed, guided and integrated forms."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy.attribution.hooks import WITHOUT_GRADIENT, gradients_at, record_outputs
from seewhy.attribution.layouts import token_order
from seewhy.attribution.legrad import le_grad
from seewhy.attribution.lrp import lrp
from seewhy.attribution.maps import scale_to_unit
from seewhy.attribution.perturbation import PERTURBATIONS, check_baseline
from seewhy.attribution.target import ForwardPass, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batches
from seewhy.models.inference import autocasting
from seewhy.models.inspection import check_observable, inspecting, layer_path, passes_gradient
from seewhy.models.normalization import Normalize

NO_PATH = (
    "no gradient flows from the logits to the pixels: the model detaches a tensor, is quantized, "
    "or runs under torch.no_grad, or a function given as target is not differentiable; remove "
    f"that, or use another method: {WITHOUT_GRADIENT}"
)


def vanilla_gradients(forward: ForwardPass) -> Tensor:  # (N, H, W), not negative
    """Largest absolute derivative of a pixel's channels (Simonyan et al. 2014, arXiv 1312.6034)."""
    return pixel_gradients(forward, forward.images).abs().amax(1)


def guided_backpropagation(forward: ForwardPass) -> Tensor:  # (N, H, W), not negative
    """As `gradients`, but ReLUs pass only positive gradients.

    Springenberg et al. 2015, arXiv 1412.6806. The same for ReLU6 and Hardswish; other activations
    pass all gradients. Raises SeewhyError for a model without one of the three.
    """
    return guided_gradients(forward).abs().amax(1)


def smooth_grad(
    forward: ForwardPass, samples: int = 25, noise: float = 0.15, seed: int = 0
) -> Tensor:
    """As `gradients`, with the gradient averaged over noisy copies of the image.

    Smilkov et al. 2017, arXiv 1706.03825, section 2.

    Args:
        forward: From `forward_pass`.
        samples: Number of noisy copies of each image.
        noise: Standard deviation as a fraction of each image's range of values. As in the paper,
            noisy values may leave [0, 1].
        seed: Seed of the noise, which is the same for every image. So a map does not depend on the
            other images of the batch.

    Returns:
        (N, H, W), not negative.
    """
    if samples < 1 or noise < 0:
        raise SeewhyError(
            "smooth-grad needs samples of at least 1 and noise of at least 0, found "
            f"{samples} and {noise}"
        )
    images, generator = forward.images, torch.Generator().manual_seed(seed)
    spread = noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    total = torch.zeros_like(images)
    for _ in range(samples):
        drawn = torch.randn(images.shape[1:], generator=generator).to(images)
        total += pixel_gradients(forward, images + spread * drawn)
    return (total / samples).abs().amax(1)


def integrated_gradients(forward: ForwardPass, steps: int = 32, baseline: float = 0.0) -> Tensor:
    """Image minus baseline, times the mean gradient between the two.

    Sundararajan et al. 2017, arXiv 1703.01365, eq. 1, on the straight path and summed over
    channels. A map sums to the score minus the baseline's score, up to the discretization error.

    Args:
        forward: From `forward_pass`.
        steps: Number of points on the path at which gradients are taken (midpoint rule).
        baseline: Pixel value in [0, 1].

    Returns:
        (N, H, W).
    """
    check_baseline(baseline)
    if steps < 1:
        raise SeewhyError(f"integrated-gradients needs at least one step, found {steps}")
    distance = forward.images - baseline
    total = torch.zeros_like(distance)
    for step in range(steps):
        total += pixel_gradients(forward, baseline + distance * ((step + 0.5) / steps))
    return (distance * total / steps).sum(1)


def pixel_gradients(
    forward: ForwardPass, images: Tensor, mode: AbstractContextManager[Any] | None = None
) -> Tensor:  # (N, C, H, W)
    """Gradient of each explained score at `images` (N, C, H, W), inside `mode`."""
    gradients = []
    with (
        inspecting(forward.model),
        mode or nullcontext(),
        autocasting(forward.precision, images.device),
    ):
        for rows in batches(forward.model, images):
            pixels = images[rows].detach().clone().requires_grad_()
            score = (run_model(forward.classifier, pixels) * forward.weights[rows]).sum()
            if not passes_gradient(forward.model, score):
                raise SeewhyError(NO_PATH)
            (gradient,) = gradients_at(score, [pixels])
            if gradient is None:
                raise SeewhyError(NO_PATH)
            gradients.append(gradient)
    return torch.cat(gradients)


def guided_gradients(forward: ForwardPass) -> Tensor:  # (N, C, H, W)
    """The signed gradient of guided backpropagation at the pixels."""
    check_observable(forward.model, parts=True)
    mode = GuidedReLUs()
    gradients = pixel_gradients(forward, forward.images, mode)
    if not mode.seen:
        raise SeewhyError(
            "guided backpropagation changes the gradient of ReLU, ReLU6 and Hardswish, and this "
            "model has none; use gradients"
        )
    return gradients


class GuidedReLUs(TorchFunctionMode):
    """Context in which every rectifier, module or function, passes only positive gradients."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = kwargs or {}
        output = func(*args, **settings)
        if not _is_rectifier(func, args, settings):
            return output
        self.seen = True
        # An operation in place returns its argument, whose gradient is now that of the output.
        if output.requires_grad:
            output.register_hook(_positive)
        return output


def _positive(gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)


def _is_rectifier(func: Any, args: Sequence[Any], settings: Mapping[str, Any]) -> bool:
    """Whether a call is that of a ReLU, ReLU6 or Hardswish, under whichever name."""
    if func in _RECTIFIERS:
        return True
    limits = _CLAMPS.get(func)
    if limits is None:
        return False
    bounds = {**dict(zip(limits, args[1:], strict=False)), **settings}
    low = bounds.get(limits[0], -1.0 if "min_val" in limits else None)
    return isinstance(low, int | float) and low == 0


_RECTIFIERS = {
    F.relu,
    F.relu_,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    F.relu6,
    F.hardswish,
}
# Functions that are a ReLU if their first limit is 0, with the names of their limits.
_CLAMPS: dict[Any, tuple[str, ...]] = {
    F.hardtanh: ("min_val", "max_val"),
    F.hardtanh_: ("min_val", "max_val"),
    **dict.fromkeys((torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_), ("min", "max")),
    **dict.fromkeys((torch.clip, torch.clip_, Tensor.clip, Tensor.clip_), ("min", "max")),
    **dict.fromkeys(
        (torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_), ("min",)
    ),
}

# Affine in evaluation mode: the bias is the output for zeros.
AFFINE = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, Normalize)


def full_grad(forward: ForwardPass) -> Tensor:  # (N, H, W), not negative
    """The saliency map of FullGrad (Srinivas & Fleuret 2019, arXiv 1905.00780).

    Sum of the gradient times pixels and of the bias gradient of every channel of every layer, each
    as absolute values, scaled to [0, 1] and resized bilinearly. Biases are those of convolutions,
    of BatchNorm including its running mean, and of normalization inside the model.
    """
    size, order = forward.images.shape[2:], token_order(forward.model)
    maps = []
    for rows in batches(forward.model, forward.images):
        batch = forward.take(rows)
        pixels, biases = full_gradients(batch)
        total = scale_to_unit(pixels.sum(1, keepdim=True).abs()).sum(1)
        for name, term in biases.items():
            grid = term if term.ndim == 4 else None
            if isinstance(forward.model.get_submodule(name), nn.Linear):
                # spatial in a transformer, not in a classification head
                layout = order.layout(name, term.shape, batch.images.shape)
                grid = None if layout is None else layout.to_grid(term)
            if grid is not None:
                scaled = scale_to_unit(grid.abs())
                resized = F.interpolate(scaled, size, mode="bilinear", align_corners=False)
                total += resized.sum(1)
        maps.append(total)
    return torch.cat(maps)


def full_gradients(forward: ForwardPass) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient times pixels (N, C, H, W), and gradient times bias by layer.

    In a model of ReLUs the two add up to the score.
    """
    model = forward.model
    check_observable(model, parts=True)
    biased = {
        layer_path(name, model): module
        for name, module in model.named_modules()
        if isinstance(module, AFFINE)
    }
    with inspecting(model):
        with (
            record_outputs(model, list(biased), len(forward.images)) as outputs,
            autocasting(forward.precision, forward.images.device),
        ):
            pixels = forward.images.detach().clone().requires_grad_()
            logits = run_model(forward.classifier, pixels)
        nodes = {"": pixels, **{name: outputs[name] for name in biased if name in outputs}}
        score = (logits * forward.weights).sum()
        if not passes_gradient(forward.model, score):
            raise SeewhyError(NO_PATH)
        gradients = gradients_at(score, list(nodes.values()))
    at_pixels, *others = gradients
    terms = {}
    for name, gradient in zip(list(nodes)[1:], others, strict=True):
        if gradient is not None and (bias := implicit_bias(biased[name])) is not None:
            channels_last = isinstance(biased[name], nn.Linear)
            shape = (-1,) if channels_last else (1, -1, *[1] * (gradient.ndim - 2))
            terms[name] = gradient.to(forward.images) * bias.view(shape).to(forward.images)
    if at_pixels is None:
        raise SeewhyError(NO_PATH)
    return at_pixels * forward.images, terms


@torch.no_grad()
def implicit_bias(module: nn.Module) -> Tensor | None:  # (C,)
    """Output of an affine layer for zeros, including BatchNorm and normalization."""
    mean = module.mean if isinstance(module, Normalize) else getattr(module, "running_mean", None)
    if isinstance(mean, Tensor):
        output: Tensor = module(torch.zeros_like(mean).view(1, -1, 1, 1))
        return output.flatten()
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


ATTRIBUTIONS: dict[str, Callable[..., Tensor]] = {
    "gradients": vanilla_gradients,
    "guided-backpropagation": guided_backpropagation,
    "smooth-grad": smooth_grad,
    "integrated-gradients": integrated_gradients,
    "full-grad": full_grad,
    "lrp": lrp,
    "le-grad": le_grad,
    **PERTURBATIONS,
}
