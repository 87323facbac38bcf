"""Muon: momentum with orthogonalized updates."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from seewhy._torch_compat import (
    foreach_add,
    foreach_add_,
    foreach_clamp_min_,
    foreach_div_,
    foreach_mul_,
    foreach_norm,
    without_compiler,
)

# Jordan et al. 2024: steep at 0, values near 1 from about 0.7 to 1.2
QUINTIC = (3.4445, -4.7750, 2.0315)


@without_compiler
class Muon(Optimizer):
    """Momentum orthogonalized by Newton-Schulz (Jordan et al. 2024).

    An update is `-lr * sqrt(max(1, rows / columns)) * orthogonalize(momentum)`. Weight decay is
    decoupled. Unlike `torch.optim.Muon` it also takes convolutions: (O, I, h, w) is the matrix
    (O, I*h*w). Source: kellerjordan.github.io/posts/muon.

    Args:
        params: Weights of two or more dimensions, or parameter groups of them.
        lr: Learning rate.
        momentum: In [0, 1).
        nesterov: Use Nesterov momentum.
        ns_steps: Newton-Schulz iterations.
        weight_decay: Decoupled weight decay.
        normalize_rows: Rescale each weight before its update, to a Frobenius norm of the square
            root of its rows; `lr` is then an angle.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        normalize_rows: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "weight_decay": weight_decay,
            "normalize_rows": normalize_rows,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update every weight that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            if weights := [weight for weight in group["params"] if weight.grad is not None]:
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        # operations on whole lists, because launches dominate for small weights on a GPU
        gradients = [cast(Tensor, weight.grad) for weight in weights]
        buffers = [self._buffer(weight) for weight in weights]
        foreach_mul_(buffers, group["momentum"])
        foreach_add_(buffers, gradients)
        directions = buffers
        if group["nesterov"]:
            directions = foreach_add(gradients, buffers, alpha=group["momentum"])
        decay = 1 - group["lr"] * group["weight_decay"]
        if group["normalize_rows"]:
            norms = foreach_norm(weights)
            foreach_clamp_min_(norms, 1e-7)
            foreach_div_(weights, norms)
            foreach_mul_(weights, [decay * len(weight) ** 0.5 for weight in weights])
        else:
            foreach_mul_(weights, decay)
        updates = _orthogonal_updates(directions, group["ns_steps"])
        foreach_add_(weights, updates, alpha=-group["lr"])

    def _buffer(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _orthogonal_updates(directions: Sequence[Tensor], ns_steps: int) -> list[Tensor]:
    """The update of each weight at lr 1; weights of one shape are orthogonalized as one batch."""
    indices_by_shape = defaultdict(list)
    for index, direction in enumerate(directions):
        indices_by_shape[direction.shape].append(index)
    updates = list(directions)
    for shape, indices in indices_by_shape.items():
        # (O, I, …) as (O, …, I), the order in memory; the order of columns is irrelevant
        matrices = torch.stack([directions[index].movedim(1, -1).flatten(1) for index in indices])
        rows, columns = matrices.shape[1:]
        orthogonal = orthogonalize(matrices, ns_steps).mul_(max(1, rows / columns) ** 0.5)
        for index, update in zip(indices, orthogonal, strict=True):
            updates[index] = update.reshape(len(update), *shape[2:], shape[1]).movedim(-1, 1)
    return updates


def orthogonalize(matrices: Tensor, ns_steps: int = 5) -> Tensor:
    """Approximate the nearest matrices with orthonormal rows or columns.

    Every positive singular value becomes approximately 1. The quintic iteration X <- a X + b XX'X +
    c (XX')^2 X keeps X = Q X_0, where Q is a polynomial in X_0 X_0'. So only Q and the Gram matrix
    are iterated; their size is the shorter side.

    Args:
        matrices: (N, rows, columns) float.
        ns_steps: Newton-Schulz iterations.

    Returns:
        Matrices of the same shape.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = wide @ wide.mT
    a, b, c = QUINTIC
    product = None
    for remaining in reversed(range(ns_steps)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if remaining:
            gram = factor @ gram @ factor
    result: Tensor = wide if product is None else product @ wide
    return result if matrices.shape[1] <= matrices.shape[2] else result.mT
