"""Which images a model is wrong about, the worst first."""

import torch
from torch import Tensor

from seewhy.diagnosing.predictions import Predictions
from seewhy.errors import SeewhyError


def worst_mistakes(result: Predictions, count: int | None = None) -> Tensor:  # (M,) int64
    """The indices of the `count` misclassified images that the model is most sure of, by default of all, the surest first."""
    if count is not None and count < 0:
        raise SeewhyError(f"count must be at least 0, found {count}")
    wrong = (~result.correct).nonzero().flatten()
    return wrong[result.confidence[wrong].argsort(descending=True, stable=True)][:count]


def varied_mistakes(result: Predictions, count: int) -> Tensor:  # (M,) int64
    """`count` misclassified images of all kinds: the surest of each confusion, then the second of each, and so on.

    In the order of `worst_mistakes`, so that all of them are the same as those.
    """
    order = worst_mistakes(result)
    kinds = (result.labels * len(result.classes) + result.predicted)[order]
    seen: dict[int, int] = {}
    ranks = []
    for kind in kinds.tolist():
        seen[kind] = seen.get(kind, -1) + 1
        ranks.append(seen[kind])
    chosen = torch.tensor(ranks, dtype=torch.int64).argsort(stable=True)[:count]
    return order[chosen.sort().values]


def closest_calls(result: Predictions, count: int) -> Tensor:  # (M,) int64
    """Of each class in turn, the `count` correctly classified images that the model is least sure of, the least sure first."""
    right = result.correct.nonzero().flatten()
    right = right[result.confidence[right].argsort(stable=True)]
    labels = result.labels[right]
    return torch.cat([right[labels == index][:count] for index in range(len(result.classes))])
