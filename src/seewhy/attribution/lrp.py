"""Layer-wise relevance propagation: the score, passed back to the pixels layer by layer.

A rule returns the value of its layer with another gradient, such that gradient times input is the
relevance. So autograd adds up the relevance of residual sums, and passes it through pooling,
reshaping and concatenation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy._torch_compat import undispatched
from seewhy.attribution.attention import WITH_CALLS_INSIDE, scaled_dot_product_attention
from seewhy.attribution.hooks import gradients_at
from seewhy.attribution.target import ForwardPass, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batches
from seewhy.models.inspection import check_observable, inspecting, passes_gradient


def lrp(forward: ForwardPass, gamma: float = 0.05, epsilon: float = 1e-6) -> Tensor:
    """Layer-wise relevance propagation (Bach et al. 2015, doi 10.1371/journal.pone.0130140).

    For CNNs the rules of Montavon et al. 2019 (doi 10.1007/978-3-030-28954-6_10): LRP-gamma at
    convolutions, LRP-epsilon at linear layers, and at the layer that reads the pixels z^B with
    their bounds 0 and 1 (Montavon et al. 2017, arXiv 1512.02479, section 4). BatchNorm becomes part
    of the layer that it follows, also behind max-pooling. Activations pass all relevance.

    For transformers those of AttnLRP (Achtibat et al. 2024, arXiv 2402.05602, section 3): LRP-gamma
    at linear layers that read tokens; the deviation in layer normalization is a constant; softmax
    passes its gradient times input; each factor of a product of two activations, as in attention
    and gates, gets half of the relevance.

    A map of a CNN sums to the score, minus what goes to biases. In a transformer, relevance also
    goes to the class token and the position embedding, and softmax does not conserve it.

    Args:
        forward: From `forward_pass`.
        gamma: How much more the contributions with the sign of the output count; 0 for LRP-epsilon
            at all layers.
        epsilon: Added to the magnitude of outputs, which absorbs relevance.

    Returns:
        (N, H, W).

    Raises:
        SeewhyError: For a model with a function that no rule covers, such as group normalization
            or the quotient of two activations.
    """
    if not 0 <= gamma < math.inf or not epsilon >= 0:
        raise SeewhyError(
            "lrp needs a finite gamma of at least 0 and epsilon of at least 0, found "
            f"{gamma} and {epsilon}"
        )
    check_observable(forward.model, parts=True)
    with inspecting(forward.model):
        parts = [
            _relevance(forward.take(rows), gamma, epsilon)
            for rows in batches(forward.model, forward.images)
        ]
    return torch.cat(parts)


def _relevance(forward: ForwardPass, gamma: float, epsilon: float) -> Tensor:  # (N, H, W)
    images = forward.images
    # black and white: what the layer that reads the pixels sees of their bounds
    bounds = torch.stack((torch.zeros_like(images[0]), torch.ones_like(images[0])))
    inputs = torch.cat((images, bounds))
    with _Rules(gamma, epsilon, len(inputs)) as rules:
        logits = run_model(forward.classifier, inputs)
    score = (logits[: len(images)] * forward.weights).sum()
    if not rules.inputs or not passes_gradient(forward.model, score):
        raise SeewhyError(
            "lrp needs convolutions or linear layers from the pixels to the logits, with a "
            "gradient; use occlusion or rise"
        )
    gradients = gradients_at(score, rules.inputs)
    relevance = sum(
        (
            each * gradient
            for each, gradient in zip(rules.inputs, gradients, strict=True)
            if gradient is not None
        ),
        torch.zeros_like(rules.inputs[0]),
    ).detach()[: len(images)]
    (top, left), (height, width) = rules.padding, images.shape[2:]
    relevance = relevance.reshape(len(images), -1, *relevance.shape[2:])
    return relevance[:, :, top : top + height, left : left + width].sum(1)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A call of a convolution or linear layer.

    Args:
        function: `conv2d` or `linear`.
        inputs: What the layer reads, (N, ...).
        weight: Its weights, output channels first.
        bias: (C,), zeros if it has none.
        settings: Stride, padding, dilation and groups.
        bounds: Lower and upper bounds of `inputs`, of its shape, for the layer that reads the
            pixels.
        pool: The max-pooling behind it, if any.
    """

    function: Callable[..., Tensor]
    inputs: Tensor
    weight: Tensor
    bias: Tensor
    settings: Mapping[str, Any]
    bounds: tuple[Tensor, Tensor] | None = None
    pool: Callable[[Tensor], Tensor] | None = None

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer for other inputs and weights; without a bias by default."""
        return self.function(inputs, weight, bias, **self.settings)

    def normalized(self, scale: Tensor, shift: Tensor) -> "_Layer":
        """The layer with an affine function (C,) of its channels folded into it."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=self.bias * scale + shift)


class _Rules(TorchFunctionMode):
    """Context in which layers are computed by the rules, as modules or functions.

    Args:
        gamma: As in `lrp`.
        epsilon: As in `lrp`.
        count: Number of images.
    """

    def __init__(self, gamma: float, epsilon: float, count: int) -> None:
        super().__init__()
        self.gamma, self.epsilon, self.count = gamma, epsilon, count
        self.inputs: list[Tensor] = []  # of the layer that reads the pixels, and its bounds
        self.padding = (0, 0)  # rows and columns above and left of the pixels
        self.layers: dict[int, tuple[ref[Tensor], _Layer]] = {}  # by id of their output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = kwargs or {}
        if func in _LAYERS:
            return self.layer(func, dict(zip(_LAYERS[func], args, strict=False)) | settings)
        if func is F.batch_norm:
            return self.batch_norm(*args, **settings)
        if func is F.layer_norm and args[0].requires_grad:
            return _layer_norm(*args, **settings)
        if func is F.scaled_dot_product_attention or func in WITH_CALLS_INSIDE:
            fused = func is F.scaled_dot_product_attention
            with self:
                inside = scaled_dot_product_attention if fused else undispatched(func)
                return inside(*args, **settings)
        if func in _ACTIVATIONS:
            return _activation(func, *args, **settings)
        output = func(*args, **settings)
        name = getattr(func, "__name__", str(func)).strip("_")
        if _requires_grad(output):
            _check_covered(name, args)
            if name in _PRODUCTS and sum(map(_requires_grad, args[:2])) == 2:
                output.register_hook(lambda gradient: gradient / 2)
            if name in _MAX_POOLING and (layer := self.layer_of(args[0])) is not None:
                self.remember(output, replace(layer, pool=lambda x: func(x, *args[1:], **settings)))
        elif not self.inputs and isinstance(output, Tensor) and output.shape[:1] == (self.count,):
            self.on_pixels(name, args, settings)
        return output

    def on_pixels(self, name: str, args: Sequence[Any], settings: Mapping[str, Any]) -> None:
        """A function of the pixels, before the layer that reads them."""
        if name not in _IN_PLACE:
            raise SeewhyError(
                "lrp needs a layer that reads the pixels where they are, and this model changes "
                f"them by {name!r} before; use integrated-gradients"
            )
        if name == "pad":
            padding: Sequence[int] = args[1] if len(args) > 1 else settings["pad"]
            left, _, top = (*padding, 0)[:3]
            self.padding = self.padding[0] + top, self.padding[1] + left

    def layer(self, function: Callable[..., Tensor], call: dict[str, Any]) -> Tensor:
        """A convolution or linear layer."""
        inputs, weight, bias = (call.pop(name, None) for name in ("input", "weight", "bias"))
        bounds = None
        if not inputs.requires_grad:
            if self.inputs:
                raise SeewhyError(
                    "lrp needs a single layer that reads the pixels, found two; use "
                    "integrated-gradients"
                )
            low, high = inputs[-2:].amin(0), inputs[-2:].amax(0)
            inputs = inputs.detach().clone()
            bounds = low.expand_as(inputs).clone(), high.expand_as(inputs).clone()
            self.inputs = [each.requires_grad_() for each in (inputs, *bounds)]
        if bias is None:
            bias = weight.new_zeros(len(weight))
        layer = _Layer(function, inputs, weight, bias, call, bounds)
        output = self.rule(layer)
        self.remember(output, layer)
        return output

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """BatchNorm as part of the layer that it follows, or as a layer of its own."""
        layer = self.layer_of(x)
        plain = F.batch_norm(x, running_mean, running_var, weight, bias, training, 0, eps)
        if layer is None or running_mean is None or running_var is None or training:
            return plain
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - scale * running_mean
        output = self.rule(layer.normalized(scale, shift))
        if layer.pool is None:
            return output
        # a negative scale makes the maximum a minimum
        sign = torch.where(scale < 0, -1.0, 1.0).to(output).view(-1, 1, 1)
        return sign * layer.pool(sign * output)

    def rule(self, layer: _Layer) -> Tensor:
        """The output of a layer, by the rule for it."""
        x, weight, bias = layer.inputs, layer.weight, layer.bias
        value = layer(x.detach(), weight, bias)
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        if layer.bounds is not None:
            low, high = layer.bounds
            contributions = layer(x, weight) - layer(low, positive) - layer(high, negative)
            return _scaled(contributions, value, contributions)
        reads_features = layer.function is F.linear and x.ndim == 2
        gamma = 0 if reads_features else self.gamma
        if gamma:
            more, less = weight + gamma * positive, weight + gamma * negative
            contributions = torch.where(
                value > 0, _signed(layer, more, less), _signed(layer, less, more)
            )
        else:
            contributions = layer(x, weight)
        bias = bias if layer.function is F.linear else bias.view(-1, 1, 1)
        bias = torch.where((value > 0) == (bias > 0), (1 + gamma) * bias, bias)
        stabilizer = self.epsilon * torch.where(value < 0, -1.0, 1.0)
        return _scaled(contributions, value, contributions + bias + stabilizer)

    def remember(self, output: Tensor, layer: _Layer) -> None:
        """Keep the layer of an output."""
        self.layers[id(output)] = ref(output), layer

    def layer_of(self, tensor: Tensor) -> _Layer | None:
        """The layer whose output, maybe pooled, a tensor is."""
        reference, layer = self.layers.get(id(tensor), (lambda: None, None))
        return layer if reference() is tensor else None


def _signed(layer: _Layer, of_positive: Tensor, of_negative: Tensor) -> Tensor:
    """The layer without bias, with weights for positive and others for negative inputs."""
    result = layer(layer.inputs.clamp(min=0), of_positive)
    if (layer.inputs >= 0).all():
        return result
    return result + layer(layer.inputs.clamp(max=0), of_negative)


def _scaled(contributions: Tensor, value: Tensor, total: Tensor) -> Tensor:
    """`value`, with gradients that give each input its share of `total`.

    Nothing else than the inputs takes a share if `total` are the `contributions`.
    """
    factor = torch.where(total == 0, 0, value / total).detach()
    scaled = contributions * factor
    return scaled + (value - scaled).detach()


def _activation(func: Callable[..., Tensor], x: Tensor, *args: Any, **settings: Any) -> Tensor:
    """An activation function that passes all relevance; never in place."""
    return _scaled(x, func(x.detach().clone(), *args, **settings), x)


def _layer_norm(
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


def _requires_grad(output: object) -> bool:
    if isinstance(output, tuple | list):
        return any(map(_requires_grad, output))
    return isinstance(output, Tensor) and output.requires_grad


def _check_covered(name: str, args: Sequence[Any]) -> None:
    """Raise SeewhyError for a function through which relevance would not be conserved."""
    by_activation = name in _QUOTIENTS and len(args) > 1 and _requires_grad(args[1])
    if name not in _COVERED or by_activation:
        raise SeewhyError(
            f"lrp has no rule for {name!r}{' by an activation' if by_activation else ''}, which "
            "this model uses; use integrated-gradients, layer-cam or, for a transformer, chefer-cam"
        )


_LAYERS: dict[Any, tuple[str, ...]] = {
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.linear: ("input", "weight", "bias"),
}
_ACTIVATIONS = {
    F.relu6,
    F.hardtanh,
    F.hardswish,
    F.leaky_relu,
    F.elu,
    F.selu,
    F.celu,
    F.gelu,
    F.silu,
    F.mish,
    F.softsign,
    torch.tanh,
    Tensor.tanh,
    F.sigmoid,
    F.hardsigmoid,
    torch.sigmoid,
    Tensor.sigmoid,
}
_MAX_POOLING = frozenset(("max_pool2d", "adaptive_max_pool2d"))
_PRODUCTS = frozenset(("mul", "imul", "rmul", "multiply", "matmul", "rmatmul", "bmm"))
_QUOTIENTS = frozenset(("div", "truediv", "itruediv"))
# Functions whose gradient times input is their relevance; names without underscores.
_COVERED = (
    _MAX_POOLING
    | _PRODUCTS
    | _QUOTIENTS
    | {
        *("relu", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "dropout2d", "feature_dropout"),
        *("add", "iadd", "radd", "sub", "isub", "rsub", "neg", "sum", "mean", "amax", "softmax"),
        *("flatten", "unflatten", "view", "reshape", "permute", "transpose", "swapaxes", "movedim"),
        *("squeeze", "unsqueeze", "expand", "contiguous", "clone", "to", "float", "double", "get"),
        *("getitem", "cat", "concat", "stack", "chunk", "split", "unbind", "select", "narrow"),
        *("pad", "interpolate", "pixel_shuffle", "channel_shuffle", "flip", "roll"),
        *("masked_fill", "repeat_interleave", "type_as"),
    }
)
# Functions of the pixels that leave each where it is, apart from padding.
_IN_PLACE = _QUOTIENTS | {
    *("mul", "imul", "rmul", "multiply"),
    *("add", "iadd", "radd", "sub", "isub", "rsub", "neg", "clamp", "pad", "expand"),
    *("contiguous", "clone", "to", "cpu", "cuda", "float", "double", "get", "detach"),
}
