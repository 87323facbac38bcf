"""Optimizers: functions from a model to the torch optimizers that train it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seewhy._torch_compat import without_compiler
from seewhy.errors import SeewhyError
from seewhy.notation import bind
from seewhy.train.muon import Muon

SGD = without_compiler(torch.optim.SGD)
Adadelta = without_compiler(torch.optim.Adadelta)
Adagrad = without_compiler(torch.optim.Adagrad)
Adam = without_compiler(torch.optim.Adam)
AdamW = without_compiler(torch.optim.AdamW)
NAdam = without_compiler(torch.optim.NAdam)
RMSprop = without_compiler(torch.optim.RMSprop)

# (model, lr, weight_decay): lr is the peak learning rate
OptimizerFactory = Callable[[nn.Module, float, float], list[Optimizer]]


def bind_optimizer(text: str) -> OptimizerFactory:
    """The optimizer of a text such as `sgd:momentum=0.9,nesterov=true`.

    Raises:
        SeewhyError: For an unknown optimizer or setting. The range of a setting is checked when
            the optimizer is made.
    """
    return bind(OPTIMIZERS, text, "optimizer", n_supplied=3)


def sgd(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Stochastic gradient descent (momentum: Polyak 1964; Nesterov: Sutskever et al. 2013).

    `bias_lr_factor` multiplies the learning rate of biases and norms; `decay_all` applies weight
    decay to them too.
    """
    _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
    _require("nesterov", nesterov, momentum > 0 or not nesterov, "false where momentum is 0")
    groups = parameter_groups(model, lr, weight_decay, bias_lr_factor, decay_all)
    return [_sgd(groups, lr, momentum, nesterov)]


def gd(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Gradient descent (Cauchy 1847): one update per epoch, with the gradient of all batches."""
    return sgd(model, lr, weight_decay, momentum, False, bias_lr_factor, decay_all)


def adagrad(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    eps: float = 1e-10,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adagrad (Duchi et al. 2011)."""
    _require("eps", eps, eps > 0, "more than 0")
    groups = parameter_groups(model, lr, weight_decay, bias_lr_factor, decay_all)
    on_mps = groups[0]["params"][0].device.type == "mps"  # torch has no fused Adagrad there
    return [Adagrad(groups, lr=lr, eps=eps, fused=None if on_mps else True)]


def adadelta(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    rho: float = 0.9,
    eps: float = 1e-6,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adadelta (Zeiler 2012) with a learning rate (1 in the paper)."""
    _require("rho", rho, 0 <= rho < 1, "in [0, 1)")
    _require("eps", eps, eps > 0, "more than 0")
    groups = parameter_groups(model, lr, weight_decay, bias_lr_factor, decay_all)
    return [Adadelta(groups, lr=lr, rho=rho, eps=eps)]


def rmsprop(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5)."""
    _require("alpha", alpha, 0 <= alpha < 1, "in [0, 1)")
    _require("eps", eps, eps > 0, "more than 0")
    _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
    groups = parameter_groups(model, lr, weight_decay, bias_lr_factor, decay_all)
    return [RMSprop(groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum)]


def adam(
    kind: Callable[..., Optimizer],
    model: nn.Module,
    lr: float,
    weight_decay: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adam (Kingma & Ba 2015) and its variants, by `kind`.

    Adam and NAdam (Dozat 2016) use weight decay as an L2 penalty; AdamW decouples it (Loshchilov &
    Hutter 2019).
    """
    _require("beta1", beta1, 0 <= beta1 < 1, "in [0, 1)")
    _require("beta2", beta2, 0 <= beta2 < 1, "in [0, 1)")
    _require("eps", eps, eps > 0, "more than 0")
    groups = parameter_groups(model, lr, weight_decay, bias_lr_factor, decay_all)
    return [kind(groups, lr=lr, betas=(beta1, beta2), eps=eps)]


def muon(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    normalize_rows: bool = False,
    fallback: Literal["sgd", "adamw"] = "sgd",
    fallback_momentum: float = 0.85,
    head_lr_factor: float = 1.0,
    bias_lr_factor: float = 1.0,
) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) for all weights except those of the classification layer.

    The weight of the classification layer, biases, and norms are trained by `fallback`.
    `head_lr_factor` multiplies the learning rate of this weight, `bias_lr_factor` that of biases
    and norms.
    """
    _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
    _require("ns_steps", ns_steps, ns_steps >= 1, "at least 1")
    _require("fallback_momentum", fallback_momentum, 0 <= fallback_momentum < 1, "in [0, 1)")
    _require("head_lr_factor", head_lr_factor, head_lr_factor > 0, "more than 0")
    groups = parameter_groups(model, lr, weight_decay, bias_lr_factor)
    optimizers: list[Optimizer] = []
    weights = groups[0]["params"] if groups[0]["params"][0].ndim > 1 else []
    if weights:
        hidden = {**groups[0], "params": weights[:-1]}
        groups[0] = {**groups[0], "params": weights[-1:], "lr": lr * head_lr_factor}
        if weights[1:]:
            optimizers.append(
                Muon([hidden], lr, momentum, nesterov, ns_steps, normalize_rows=normalize_rows)
            )
    if fallback == "sgd":
        return [*optimizers, _sgd(groups, lr, fallback_momentum, fallback_momentum > 0)]
    return [*optimizers, AdamW(groups, lr=lr, betas=(fallback_momentum, 0.999), fused=True)]


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float = 1.0,
    decay_all: bool = False,
) -> list[dict[str, Any]]:
    """Split trainable parameters into weights, and biases and norms (at most one dimension).

    Args:
        model: The model; parameters without `requires_grad` are left out.
        lr: Learning rate of weights.
        weight_decay: Weight decay of weights.
        bias_lr_factor: Factor of `lr` for biases and norms.
        decay_all: Apply `weight_decay` to biases and norms too.

    Returns:
        One or two parameter groups of a torch optimizer; an empty one is left out.

    Raises:
        SeewhyError: If no parameter requires a gradient, or `bias_lr_factor` is not positive.
    """
    _require("bias_lr_factor", bias_lr_factor, bias_lr_factor > 0, "more than 0")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise SeewhyError(
            "the model has no trainable parameters; set requires_grad of at least one"
        )
    weights = [parameter for parameter in trainable if parameter.ndim > 1]
    biases = [parameter for parameter in trainable if parameter.ndim <= 1]
    bias_decay = weight_decay if decay_all else 0.0
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": biases, "lr": lr * bias_lr_factor, "weight_decay": bias_decay},
    ]
    return [group for group in groups if group["params"]]


def uses_full_batch(factory: OptimizerFactory) -> bool:
    """Whether an update uses the gradient of all training images."""
    return getattr(factory, "func", factory) is gd


def set_lr_and_momentum(
    optimizers: list[Optimizer], lr_factor: float, momentum_factor: float = 1.0
) -> None:
    """Set the learning rate and momentum (or beta1) of every group to a multiple of its peak.

    The peaks are the initial values of a group, stored in the group.
    """
    momentum_factor = max(
        momentum_factor, 1e-9
    )  # torch creates no momentum buffer for a momentum of 0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * lr_factor
            if "betas" in group:
                beta1, beta2 = group.setdefault("peak_betas", group["betas"])
                group["betas"] = (beta1 * momentum_factor, beta2)
            elif "momentum" in group:
                peak = group.setdefault("peak_momentum", group["momentum"])
                group["momentum"] = peak * momentum_factor


def momentum_of(group: dict[str, Any]) -> float:
    """The momentum (or beta1) of a parameter group; 0 if its optimizer has none."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))


def peak_momentum(group: dict[str, Any]) -> float:
    """The initial momentum (or beta1) of a parameter group."""
    peaks = {
        key.removeprefix("peak_"): value for key, value in group.items() if key.startswith("peak_")
    }
    return momentum_of({**group, **peaks})


def optimizer_state_bytes(optimizers: list[Optimizer]) -> int:
    """Bytes of the optimizer state, such as momentum buffers."""
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _sgd(groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool) -> Optimizer:
    """SGD with momentum buffers of zeros: torch creates none if the first fp16 update overflows."""
    optimizer = SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
    for group in groups if momentum else []:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _require(name: str, value: float, valid: bool, possible: str) -> None:
    if not valid:
        raise SeewhyError(f"optimizer setting {name} must be {possible}, found {value}")


OPTIMIZERS: dict[str, Callable[..., list[Optimizer]]] = {
    "adadelta": adadelta,
    "adagrad": adagrad,
    "adam": partial(adam, partial(Adam, fused=True)),
    "adamw": partial(adam, partial(AdamW, fused=True)),
    "gd": gd,
    "momentum": partial(sgd, momentum=0.9),
    "muon": muon,
    "nadam": partial(adam, NAdam),
    "nesterov": partial(sgd, momentum=0.9, nesterov=True),
    "rmsprop": rmsprop,
    "sgd": sgd,
}
