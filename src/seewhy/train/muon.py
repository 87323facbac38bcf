"""Muon: momentum whose every step has singular values near one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan et al. 2024: steep at 0, and near 1 from about 0.7 to 1.2


class Muon(Optimizer):
    """Momentum orthogonalized by Newton-Schulz (Jordan et al. 2024).

    See kellerjordan.github.io/posts/muon. For weights of two or more dimensions: a convolution
    (O, I, h, w) is the matrix (O, I*h*w).

    A step is `-lr * sqrt(max(1, rows / columns)) * orthogonalized(momentum)`. Weight decay is decoupled. With `unit_rows`
    every weight is first rescaled to a Frobenius norm of the root of its rows, so that `lr` is an angle.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        iterations: int = 5,
        weight_decay: float = 0.0,
        unit_rows: bool = False,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "iterations": iterations}
        super().__init__(params, settings | {"weight_decay": weight_decay, "unit_rows": unit_rows})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every weight that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            if weights := [weight for weight in group["params"] if weight.grad is not None]:
                self._move(weights, group)
        return loss

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """A step of the weights of a group, by as few operations as can be: a GPU computes them faster than it is asked."""
        gradients = [cast(Tensor, weight.grad) for weight in weights]
        buffers = [self._buffer(weight) for weight in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        directions = (
            torch._foreach_add(gradients, buffers, alpha=group["momentum"])
            if group["nesterov"]
            else buffers
        )
        kept = 1 - group["lr"] * group["weight_decay"]
        if group["unit_rows"]:
            norms = torch._foreach_norm(weights)
            torch._foreach_clamp_min_(norms, 1e-7)
            torch._foreach_div_(weights, norms)
            torch._foreach_mul_(weights, [kept * len(weight) ** 0.5 for weight in weights])
        else:
            torch._foreach_mul_(weights, kept)
        torch._foreach_add_(weights, _updates(directions, group["iterations"]), alpha=-group["lr"])

    def _buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _updates(directions: Sequence[Tensor], iterations: int) -> list[Tensor]:
    """What each direction says at a learning rate of one; those of one shape go through Newton-Schulz as one batch."""
    places = defaultdict(list)
    for place, direction in enumerate(directions):
        places[direction.shape].append(place)
    updates = list(directions)
    for shape, same in places.items():
        matrices = torch.stack([_channels_last(directions[place]).flatten(1) for place in same])
        rows, columns = matrices.shape[1:]
        found = orthogonalize(matrices, iterations).mul_(max(1, rows / columns) ** 0.5)
        for place, update in zip(same, found, strict=True):
            updates[place] = update.reshape(len(update), *shape[2:], shape[1]).movedim(-1, 1)
    return updates


def _channels_last(weight: Tensor) -> Tensor:
    """(O, I, …) as (O, …, I), the order in memory of a network that is trained: the order of columns changes no direction."""
    return weight.movedim(1, -1)


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest matrices with orthonormal rows or columns, roughly: each singular value s > 0 becomes one near 1.

    `matrices` is (N, rows, columns) float. The quintic iteration X <- a X + b XX'X + c (XX')^2 X keeps X = Q X_0 with Q a
    polynomial in X_0 X_0', so only Q and the Gram matrix are iterated, which are as small as the shorter side.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = wide @ wide.mT
    a, b, c = QUINTIC
    total = None
    for left in reversed(range(iterations)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        total = factor if total is None else factor @ total
        if left:
            gram = factor @ gram @ factor
    result: Tensor = wide if total is None else total @ wide
    return result if matrices.shape[1] <= matrices.shape[2] else result.mT
