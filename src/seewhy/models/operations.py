"""Names and costs of the operations in a traced model, for the graph of a model."""

import math
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

# functions that a drawing shows, by their name in torch.ops.aten; others only move values
FUNCTIONS = {
    "_softmax": "Softmax",
    "adaptive_avg_pool1d": "AvgPool",
    "adaptive_avg_pool2d": "AvgPool",
    "adaptive_max_pool2d": "MaxPool",
    "avg_pool2d": "AvgPool",
    "batch_norm": "BatchNorm",
    "bmm": "MatMul",
    "conv1d": "Conv",
    "conv2d": "Conv",
    "conv3d": "Conv",
    "conv_transpose2d": "ConvTranspose",
    "einsum": "MatMul",
    "elu": "ELU",
    "gelu": "GELU",
    "group_norm": "GroupNorm",
    "hardsigmoid": "Hardsigmoid",
    "hardswish": "Hardswish",
    "hardtanh": "Hardtanh",
    "instance_norm": "InstanceNorm",
    "layer_norm": "LayerNorm",
    "leaky_relu": "LeakyReLU",
    "linalg_vector_norm": "Norm",
    "linear": "Linear",
    "local_response_norm": "LocalResponseNorm",
    "matmul": "MatMul",
    "max_pool2d": "MaxPool",
    "mean": "Mean",
    "mish": "Mish",
    "pixel_shuffle": "PixelShuffle",
    "relu": "ReLU",
    "relu6": "ReLU6",
    "rms_norm": "RMSNorm",
    "scaled_dot_product_attention": "Attention",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "softmax": "Softmax",
    "softplus": "Softplus",
    "sum": "Sum",
    "tanh": "Tanh",
    "upsample_bicubic2d": "Upsample",
    "upsample_bilinear2d": "Upsample",
    "upsample_nearest2d": "Upsample",
}
# functions of two values, and their signs; with a parameter, they are shown as in `+ pos_embed`
JOINS = {
    "add": "add",
    "cat": "concat",
    "div": "divide",
    "mul": "multiply",
    "stack": "stack",
    "sub": "subtract",
}
SIGNS = {"add": "+", "concat": "concat", "divide": "/", "multiply": "×", "subtract": "−"}
STARTERS = frozenset(("Attention", "Conv", "ConvTranspose", "Linear", "MatMul"))
_ACTIVATIONS = {"SiLU": "SiLU", "GELUTanh": "GELU", "QuickGELU": "GELU"}


def function_name(node: Node) -> str:
    """A node's function, such as `add`, without namespace, overload, and the mark of in-place."""
    name = getattr(node.target, "__name__", str(node.target)).partition(".")[0]
    return name if name.startswith("__") else name.rstrip("_")


def module_label(module: nn.Module) -> str:
    """Name of a layer, as in `Conv 3×3 /2` with a stride of 2; empty if it does nothing in use."""
    name = type(module).__name__
    if isinstance(module, nn.Identity | nn.Flatten | nn.Unflatten):
        return ""
    if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.AlphaDropout):
        return f"Dropout {module.p:g}" if module.p else ""
    if isinstance(module, nn.MultiheadAttention):
        return "Attention"
    adaptive = name.startswith("Adaptive")
    label = _ACTIVATIONS.get(name, name.removeprefix("Adaptive"))
    if label[-2:] in ("1d", "2d", "3d"):
        label = label[:-2]
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        label = "Depthwise Conv" if 1 < module.groups == module.in_channels else "Conv"
        label = "Grouped Conv" if 1 < module.groups < module.in_channels else label
    if adaptive:
        size = _sizes(getattr(module, "output_size", None))
        return f"Global {label}" if set(size) == {1} else f"{label} to {_times(size)}"
    kernel = _sizes(getattr(module, "kernel_size", None))
    stride = _sizes(getattr(module, "stride", None))
    label = f"{label} {_times(kernel)}" if kernel else label
    is_pool = "Pool" in label
    if stride and max(stride) > 1 and not (is_pool and stride == kernel):
        label += f" /{stride[0]}"
    return label


def label_kind(label: str) -> str:
    """The first word that tells what a layer is: `Conv` for `Depthwise Conv 3×3`."""
    words = [word for word in label.split() if word not in ("Depthwise", "Grouped", "Global")]
    return words[0] if words else ""


def multiply_adds(node: Node, weights: int) -> int:
    """Multiply-adds of a node for one image, as `model_summary` defines them.

    Args:
        node: A call of a function.
        weights: Number of weights and biases that it reads, if it is neither a convolution nor
            linear.
    """
    name, output = function_name(node), node.meta["val"]
    if not (name.startswith("conv") or name == "linear") or not isinstance(output, Tensor):
        return weights
    arguments = [value for value in _values(node.args[1:3]) if value is not None]
    used = sum(math.prod(value.shape) for value in arguments)
    width = output.shape[-1] if name == "linear" else output.shape[1]
    return used * (math.prod(output.shape) // width)


def _values(arguments: Any) -> list[Tensor | None]:
    return [each.meta["val"] if isinstance(each, Node) else None for each in arguments]


def _sizes(size: object) -> tuple[int, ...]:
    """A kernel size, stride, or output size, with two numbers where one stands for both."""
    if isinstance(size, int):
        return (size, size)
    return tuple(size) if isinstance(size, tuple | list) and None not in size else ()


def _times(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))
