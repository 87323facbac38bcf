"""SAMPLERS: which images an epoch has, and in which order. Both depend only on seed and epoch."""

from collections.abc import Callable

import torch
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.notation import bind
from seewhy.train.batches import epoch_order

Sampler = Callable[[Tensor, int, int], Tensor]  # labels (N, …), seed, epoch -> order (N,) int64


def shuffle(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """Every image once."""
    return epoch_order(len(labels), seed, epoch)


def balanced(labels: Tensor, seed: int, epoch: int, power: float = 1.0) -> Tensor:
    """Equally many images of each class (Kang et al. 2020, section 4).

    An epoch has as many images as before: those of a rare class are repeated, each equally often,
    and those of a frequent class are drawn anew in each epoch. With a `power` below 1, a class of n
    images gets a share proportional to n^(1 - power): 0.5 is square-root sampling.
    """
    if not 0 < power <= 1:
        raise SeewhyError(f"balanced: power must be above 0 and at most 1, found {power}")
    if labels.ndim == 2:
        raise SeewhyError(
            "balanced needs one class per image, and these have any number of labels; use "
            "class_weights=true, which weights each label"
        )
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    counts = torch.bincount(labels).double()
    shares = torch.where(counts > 0, counts ** (1 - power), 0.0)
    # rounded so that the expected number of each class is exact, and their sum is N
    ends = len(labels) * shares.cumsum(0) / shares.sum() + torch.rand((), generator=generator)
    ends[-1] = len(labels)
    numbers = ends.floor().long().clamp(max=len(labels)).diff(prepend=torch.zeros(1).long())
    drawn = []
    for label, number in enumerate(numbers.tolist()):
        members = (labels == label).nonzero().flatten()
        rounds = -(-number // max(1, len(members)))
        orders = [torch.randperm(len(members), generator=generator) for _ in range(rounds)]
        if orders:
            drawn.append(members[torch.cat(orders)[:number]])
    return torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]


SAMPLERS: dict[str, Callable[..., Tensor]] = {"balanced": balanced, "shuffle": shuffle}


def bind_sampler(name: str) -> Sampler:
    """The sampler of a recipe. Raises SeewhyError for an unknown name or setting."""
    return bind(SAMPLERS, name, "sampler", n_supplied=3)
