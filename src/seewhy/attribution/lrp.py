"""Layer-wise relevance propagation: the score, passed back to the pixels layer by layer.

A rule changes the gradient of its layer, such that gradient times input is the relevance. So
autograd adds up the relevance of residual sums, and passes it through pooling, reshaping and
concatenation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy._torch_compat import undispatched
from seewhy.attribution.attention import WITH_CALLS_INSIDE, scaled_dot_product_attention
from seewhy.attribution.hooks import gradients_at
from seewhy.attribution.relevance_rules import (
    Layer,
    activation,
    gamma_rule,
    layer_norm,
    propagate,
    z_b,
)
from seewhy.attribution.target import ForwardPass, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batches
from seewhy.models.inspection import check_observable, inspecting, passes_gradient

NO_LAYERS = (
    "lrp needs convolutions or linear layers from the pixels to the logits, with a gradient; use "
    "occlusion or rise"
)


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
        first = forward.images[0]
        black_and_white = torch.stack((torch.zeros_like(first), torch.ones_like(first)))
        with _Rules(gamma, epsilon, 2) as rules:
            run_model(forward.classifier, black_and_white)
        if rules.pixels is None:
            raise SeewhyError(NO_LAYERS)
        bounds = tuple(each[:1].detach() for each in rules.pixels[1:])
        parts = [
            _relevance(forward.take(rows), _Rules(gamma, epsilon, rows.stop - rows.start, bounds))
            for rows in batches(forward.model, forward.images)
        ]
    return torch.cat(parts)


def _relevance(forward: ForwardPass, rules: "_Rules") -> Tensor:  # (N, H, W)
    with rules:
        logits = run_model(forward.classifier, forward.images)
    score = (logits * forward.weights).sum()
    if rules.pixels is None or not passes_gradient(forward.model, score):
        raise SeewhyError(NO_LAYERS)
    relevance = torch.zeros_like(rules.pixels[0])
    for each, gradient in zip(rules.pixels, gradients_at(score, rules.pixels), strict=True):
        if gradient is not None:
            relevance += each.detach() * gradient
    (top, left), (height, width) = rules.padding, forward.images.shape[2:]
    relevance = relevance.reshape(len(relevance), -1, *relevance.shape[2:])
    return relevance[:, :, top : top + height, left : left + width].sum(1)


class _Rules(TorchFunctionMode):
    """Context in which layers are computed by the rules, as modules or functions.

    Args:
        gamma: As in `lrp`.
        epsilon: As in `lrp`.
        count: Number of images.
        bounds: What the layer that reads the pixels reads in a black and in a white image, (1, ...)
            each; by default the bounds of what it reads in these images.
    """

    def __init__(
        self,
        gamma: float,
        epsilon: float,
        count: int,
        bounds: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.gamma, self.epsilon, self.count, self.bounds = gamma, epsilon, count, bounds
        self.pixels: list[Tensor] | None = None  # what that layer reads, and its bounds
        self.padding = (0, 0)  # rows and columns above and left of the pixels
        self.layers: dict[int, tuple[ref[Tensor], Layer]] = {}  # by id of their output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = kwargs or {}
        if func in _LAYERS:
            return self.layer(func, dict(zip(_LAYERS[func], args, strict=False)) | settings)
        if func is F.batch_norm:
            return self.batch_norm(*args, **settings)
        if func is F.layer_norm and args[0].requires_grad:
            return layer_norm(*args, **settings)
        if func is F.scaled_dot_product_attention or func in WITH_CALLS_INSIDE:
            fused = func is F.scaled_dot_product_attention
            with self:
                inside = scaled_dot_product_attention if fused else undispatched(func)
                return inside(*args, **settings)
        if func in _ACTIVATIONS:
            return activation(func, *args, **settings)
        output = func(*args, **settings)
        name = getattr(func, "__name__", str(func)).strip("_")
        if _requires_grad(output):
            _check_covered(name, args)
            if name in _PRODUCTS and sum(map(_requires_grad, args[:2])) == 2:
                output.register_hook(lambda gradient: gradient / 2)
            if name in _MAX_POOLING and (layer := self.layer_of(args[0])) is not None:
                self.remember(output, replace(layer, pool=lambda x: func(x, *args[1:], **settings)))
        elif (
            self.pixels is None and isinstance(output, Tensor) and output.shape[:1] == (self.count,)
        ):
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
        bounds: Sequence[Tensor] = ()
        if not inputs.requires_grad:
            if self.pixels is not None:
                raise SeewhyError(
                    "lrp needs a single layer that reads the pixels, found two; use "
                    "integrated-gradients"
                )
            bounds = self.bounds or (inputs.amin(0, keepdim=True), inputs.amax(0, keepdim=True))
            inputs, *bounds = self.pixels = [
                each.detach().expand_as(inputs).clone().requires_grad_()
                for each in (inputs, *bounds)
            ]
        if bias is None:
            bias = weight.new_zeros(len(weight))
        layer = Layer(function, inputs, weight, bias, call, bounds)
        output = self.propagate(layer, layer(inputs.detach(), weight, bias))
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
        folded = layer.normalized(scale, shift)
        if layer.pool is None:
            return self.propagate(folded, plain.detach())
        output = self.propagate(folded, folded(folded.inputs.detach(), folded.weight, folded.bias))
        # a negative scale makes the maximum a minimum
        sign = torch.where(scale < 0, -1.0, 1.0).to(output).view(-1, 1, 1)
        return sign * layer.pool(sign * output)

    def propagate(self, layer: Layer, value: Tensor) -> Tensor:
        """The value of a layer, with gradients by the rule for it."""
        if layer.bounds:
            return propagate(value, partial(z_b, layer), layer.inputs, *layer.bounds)
        reads_features = layer.function is F.linear and layer.inputs.ndim == 2
        gamma = 0 if reads_features else self.gamma
        return propagate(value, partial(gamma_rule, layer, gamma, self.epsilon), layer.inputs)

    def remember(self, output: Tensor, layer: Layer) -> None:
        """Keep the layer of an output."""
        self.layers[id(output)] = ref(output), layer

    def layer_of(self, tensor: Tensor) -> Layer | None:
        """The layer whose output, maybe pooled, a tensor is."""
        reference, layer = self.layers.get(id(tensor), (lambda: None, None))
        return layer if reference() is tensor else None


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
