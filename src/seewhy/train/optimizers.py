"""Optimizers: each a function from a model and a recipe to the torch optimizers that train it."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from seewhy.errors import SeewhyError
from seewhy.notation import bind
from seewhy.train.muon import Muon


class Rates(Protocol):
    """What an optimizer reads of a recipe."""

    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def bind_optimizer(text: str) -> Callable[[nn.Module, Rates], list[Optimizer]]:
    """The optimizer that `text` names, such as `sgd:momentum=0.9,nesterov=true`."""
    return bind(OPTIMIZERS, text, "optimizer", n_supplied=2)


def sgd(
    model: nn.Module,
    recipe: Rates,
    momentum: float = 0.0,
    nesterov: bool = False,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Stochastic gradient descent, with momentum if asked (Polyak 1964; Nesterov's as in Sutskever et al. 2013).

    `bias_lr` scales the learning rate of biases and norms; `decay_all` lets weight decay act on them too.
    """
    _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
    _require("nesterov", nesterov, momentum > 0 or not nesterov, "false where momentum is 0")
    return [
        _sgd(parameter_groups(model, recipe, bias_lr, decay_all), recipe.lr, momentum, nesterov)
    ]


def gd(
    model: nn.Module,
    recipe: Rates,
    momentum: float = 0.0,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Gradient descent: one step an epoch, along the mean gradient of all its batches (Cauchy 1847)."""
    optimizers = sgd(model, recipe, momentum, False, bias_lr, decay_all)
    for group in optimizers[0].param_groups:
        group["full_batch"] = True
    return optimizers


def momentum(
    model: nn.Module,
    recipe: Rates,
    momentum: float = 0.9,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """SGD with momentum (Polyak 1964)."""
    return sgd(model, recipe, momentum, False, bias_lr, decay_all)


def nesterov(
    model: nn.Module,
    recipe: Rates,
    momentum: float = 0.9,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """SGD with Nesterov's momentum (Sutskever et al. 2013)."""
    return sgd(model, recipe, momentum, True, bias_lr, decay_all)


def adagrad(
    model: nn.Module,
    recipe: Rates,
    eps: float = 1e-10,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adagrad (Duchi et al. 2011)."""
    _require("eps", eps, eps > 0, "more than 0")
    groups = parameter_groups(model, recipe, bias_lr, decay_all)
    fused = (
        None if groups[0]["params"][0].device.type == "mps" else True
    )  # for which torch has no such kernel
    return [Adagrad(groups, lr=recipe.lr, eps=eps, fused=fused)]


def adadelta(
    model: nn.Module,
    recipe: Rates,
    rho: float = 0.9,
    eps: float = 1e-6,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adadelta (Zeiler 2012), its update scaled by the learning rate, which the paper leaves at 1."""
    _require("rho", rho, 0 <= rho < 1, "in [0, 1)")
    _require("eps", eps, eps > 0, "more than 0")
    return [
        Adadelta(
            parameter_groups(model, recipe, bias_lr, decay_all), lr=recipe.lr, rho=rho, eps=eps
        )
    ]


def rmsprop(
    model: nn.Module,
    recipe: Rates,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """RMSprop (Tieleman & Hinton 2012, lecture 6.5)."""
    _require("alpha", alpha, 0 <= alpha < 1, "in [0, 1)")
    _require("eps", eps, eps > 0, "more than 0")
    _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
    groups = parameter_groups(model, recipe, bias_lr, decay_all)
    return [RMSprop(groups, lr=recipe.lr, alpha=alpha, eps=eps, momentum=momentum)]


def adam(
    model: nn.Module,
    recipe: Rates,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adam (Kingma & Ba 2015), with weight decay as an L2 penalty."""
    settings = _adam_settings(recipe, beta1, beta2, eps)
    return [Adam(parameter_groups(model, recipe, bias_lr, decay_all), **settings, fused=True)]


def adamw(
    model: nn.Module,
    recipe: Rates,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    settings = _adam_settings(recipe, beta1, beta2, eps)
    return [AdamW(parameter_groups(model, recipe, bias_lr, decay_all), **settings, fused=True)]


def nadam(
    model: nn.Module,
    recipe: Rates,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> list[Optimizer]:
    """Adam with Nesterov's momentum (Dozat 2016)."""
    return [
        NAdam(
            parameter_groups(model, recipe, bias_lr, decay_all),
            **_adam_settings(recipe, beta1, beta2, eps),
        )
    ]


def muon(
    model: nn.Module,
    recipe: Rates,
    momentum: float = 0.95,
    nesterov: bool = True,
    iterations: int = 5,
    unit_rows: bool = False,
    rest: Literal["sgd", "adamw"] = "sgd",
    rest_momentum: float = 0.85,
    head_lr: float = 1.0,
    bias_lr: float = 1.0,
) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) for every weight but the classifier's; that, biases and norms by `rest`, sgd or adamw.

    `head_lr` and `bias_lr` scale the learning rate of the classifier's weight and of biases and norms.
    """
    _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
    _require("iterations", iterations, iterations >= 1, "at least 1")
    _require("rest_momentum", rest_momentum, 0 <= rest_momentum < 1, "in [0, 1)")
    _require("head_lr", head_lr, head_lr > 0, "more than 0")
    groups = parameter_groups(model, recipe, bias_lr)
    weights = groups[0]["params"] if groups[0]["params"][0].ndim > 1 else []
    if weights:
        hidden = {**groups[0], "params": weights[:-1]}
        groups[0] = {**groups[0], "params": weights[-1:], "lr": recipe.lr * head_lr}
    with_muon = (
        [Muon([hidden], recipe.lr, momentum, nesterov, iterations, unit_rows=unit_rows)]
        if weights[1:]
        else []
    )
    if rest == "sgd":
        return [*with_muon, _sgd(groups, recipe.lr, rest_momentum, rest_momentum > 0)]
    return [*with_muon, AdamW(groups, lr=recipe.lr, betas=(rest_momentum, 0.999), fused=True)]


def parameter_groups(
    model: nn.Module, recipe: Rates, bias_lr: float = 1.0, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Two groups, of weights and of biases and norms (one dimension or none).

    Frozen parameters are left out. Biases and norms decay only with `decay_all`.
    """
    _require("bias_lr", bias_lr, bias_lr > 0, "more than 0")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise SeewhyError(
            "the model has no parameter that requires a gradient, so there is nothing to train"
        )
    weights = [parameter for parameter in trainable if parameter.ndim > 1]
    biases = [parameter for parameter in trainable if parameter.ndim <= 1]
    bias_decay = recipe.weight_decay if decay_all else 0.0
    groups = [
        {"params": weights, "lr": recipe.lr, "weight_decay": recipe.weight_decay},
        {"params": biases, "lr": recipe.lr * bias_lr, "weight_decay": bias_decay},
    ]
    return [group for group in groups if group["params"]]


def set_lr_and_momentum(
    optimizers: list[Optimizer], factor: float, momentum_factor: float = 1.0
) -> None:
    """Set every group to `factor` times its own peak learning rate and `momentum_factor` times its own momentum (or beta1).

    The peaks are what a group came with, and stay in it. A momentum never becomes zero where its peak is not: torch's
    optimizers make no buffer for one that is.
    """
    momentum_factor = max(momentum_factor, 1e-9)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * factor
            if "betas" in group:
                beta1, beta2 = group.setdefault("peak_betas", group["betas"])
                group["betas"] = (beta1 * momentum_factor, beta2)
            elif "momentum" in group:
                group["momentum"] = (
                    group.setdefault("peak_momentum", group["momentum"]) * momentum_factor
                )


def momentum_of(group: dict[str, Any]) -> float:
    """The momentum (or beta1) of a parameter group, 0 where its optimizer has none."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))


def peak_momentum(group: dict[str, Any]) -> float:
    """The momentum (or beta1) that a parameter group came with, whatever `set_rates` has made of it."""
    peaks = {
        key.removeprefix("peak_"): value for key, value in group.items() if key.startswith("peak_")
    }
    return momentum_of({**group, **peaks})


def optimizer_state_bytes(optimizers: list[Optimizer]) -> int:
    """Bytes of the tensors that optimizers keep from step to step, such as momentum."""
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def disable_full_batch(optimizers: list[Optimizer]) -> None:
    """Let none of them want the gradient of all training images."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.pop("full_batch", None)


def needs_full_batch(optimizers: list[Optimizer]) -> bool:
    """Whether the gradient is to be that of all training images."""
    return any(
        group.get("full_batch", False)
        for optimizer in optimizers
        for group in optimizer.param_groups
    )


def _sgd(groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool) -> SGD:
    """SGD whose momentum starts as zeros: torch leaves it unset where a first step in fp16 overflows."""
    optimizer = SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
    for group in groups if momentum else []:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adam_settings(recipe: Rates, beta1: float, beta2: float, eps: float) -> dict[str, Any]:
    _require("beta1", beta1, 0 <= beta1 < 1, "in [0, 1)")
    _require("beta2", beta2, 0 <= beta2 < 1, "in [0, 1)")
    _require("eps", eps, eps > 0, "more than 0")
    return {"lr": recipe.lr, "betas": (beta1, beta2), "eps": eps}


def _require(name: str, value: float, holds: bool, possible: str) -> None:
    if not holds:
        raise SeewhyError(f"optimizer setting {name} must be {possible}, found {value}")


OPTIMIZERS: dict[str, Callable[..., list[Optimizer]]] = {
    "adadelta": adadelta,
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adamw,
    "gd": gd,
    "momentum": momentum,
    "muon": muon,
    "nadam": nadam,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
