"""Choosing a learning rate before a training."""

import torch

from seewhy.data.dataset import Dataset
from seewhy.data.sources import checked
from seewhy.fitting import seeded
from seewhy.models import build
from seewhy.train.lr_finder import RangeTest, range_test
from seewhy.train.precision import find_device
from seewhy.train.recipe import Recipe
from seewhy.train.state import new_state


def find_lr(
    recipe: Recipe,
    data: Dataset,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    beta: float = 0.98,
    device: str = "auto",
) -> RangeTest:
    """A range test of a new model, with the optimizer, batches, augmentation and loss of `recipe`; see `range_test`.

    Weights are those that `fit` begins with. The caller's random state is left as it was. Raises as `range_test` does.
    """
    data, place = checked(data), find_device(device)
    with seeded(recipe.seed, place):
        state = new_state(build(recipe.model, len(data.classes), data.train).to(torch.device(place)), recipe)
        return range_test(state, data, start, end, steps, beta)
