"""The rules of layer-wise relevance propagation: how a layer distributes its relevance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Layer:
    """A call of a convolution or linear layer.

    Args:
        function: `conv2d` or `linear`.
        inputs: What the layer reads, (N, ...).
        weight: Its weights, output channels first.
        bias: (C,), zeros if it has none.
        settings: Stride, padding, dilation and groups.
        bounds: Lower and upper bounds of `inputs`, of its shape, for the layer that reads the
            pixels; otherwise none.
        pool: The max-pooling behind it, if any.
    """

    function: Callable[..., Tensor]
    inputs: Tensor
    weight: Tensor
    bias: Tensor
    settings: Mapping[str, Any]
    bounds: Sequence[Tensor] = ()
    pool: Callable[[Tensor], Tensor] | None = None

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer for other inputs and weights; without a bias by default."""
        return self.function(inputs, weight, bias, **self.settings)

    def normalized(self, scale: Tensor, shift: Tensor) -> "Layer":
        """The layer with an affine function (C,) of its channels folded into it."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=self.bias * scale + shift)


# From the value of a layer and its inputs: their contributions, and what else takes a share.
Rule = Callable[..., tuple[Tensor, Tensor | float]]


def propagate(value: Tensor, rule: Rule, *inputs: Tensor) -> Tensor:
    """`value`, with gradients that give each input its share by a rule."""
    output: Tensor = _Propagation.apply(value, rule, *inputs)  # type: ignore[no-untyped-call]
    return output


class _Propagation(torch.autograd.Function):
    """A layer whose rule is computed in the backward pass, when its relevance is known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rule: Rule, *inputs: Tensor) -> Tensor:
        """The value; a copy, which the model may change in place."""
        ctx.rule = rule
        ctx.save_for_backward(value, *inputs)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Relevance of the inputs, divided by them."""
        value, *inputs = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [each.detach().requires_grad_() for each in inputs]
            contributions, rest = ctx.rule(value, *inputs)
            total = contributions.detach() + rest
            ratio = torch.where(total == 0, 0, gradients[0] * value / total)
            return None, None, *torch.autograd.grad(contributions, inputs, ratio)


def z_b(layer: Layer, value: Tensor, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, float]:
    """What inputs contribute beyond their bounds; the bias takes no share."""
    below, above = layer(low, layer.weight.clamp(min=0)), layer(high, layer.weight.clamp(max=0))
    return layer(x, layer.weight) - below - above, 0.0


def gamma_rule(
    layer: Layer, gamma: float, epsilon: float, value: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """LRP-gamma, or LRP-epsilon without gamma; the bias and epsilon take their shares."""
    weight, bias = layer.weight, layer.bias
    if gamma:
        more, less = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
        contributions = torch.where(
            value > 0, _signed(layer, x, more, less), _signed(layer, x, less, more)
        )
    else:
        contributions = layer(x, weight)
    bias = bias if layer.function is F.linear else bias.view(-1, 1, 1)
    bias = torch.where((value > 0) == (bias > 0), (1 + gamma) * bias, bias)
    return contributions, bias + epsilon * torch.where(value < 0, -1.0, 1.0)


def _signed(layer: Layer, x: Tensor, of_positive: Tensor, of_negative: Tensor) -> Tensor:
    """The layer without bias, with weights for positive and others for negative inputs."""
    if (x >= 0).all():
        return layer(x, of_positive)
    return layer(x.clamp(min=0), of_positive) + layer(x.clamp(max=0), of_negative)


def activation(func: Callable[..., Tensor], x: Tensor, *args: Any, **settings: Any) -> Tensor:
    """An activation function that passes all relevance; never in place."""
    value = func(x.detach().clone(), *args, **settings)
    return propagate(value, lambda _, x: (x, 0.0), x)


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalization, with the deviation as a constant."""
    axes = tuple(range(-len(normalized_shape), 0))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    normalized = (x - mean) * (variance + eps).rsqrt().detach()
    scaled = normalized if weight is None else normalized * weight
    return scaled if bias is None else scaled + bias
