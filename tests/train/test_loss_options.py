"""Every pair of options that change the loss or its gradient, against a derivation in float64."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from linear_training import PLAIN, begin, linear
from torch import Tensor

from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset, Split
from seewhy.runs.training import fit
from seewhy.train.batches import epoch_order
from seewhy.train.loop import EpochStats, train
from seewhy.train.recipe import Recipe

SHARE = 0.3  # of the partner in a mixed image


def mix(batch: Batch, generator: torch.Generator) -> Batch:
    """Mix each label with that of the image before it, and brighten the image accordingly."""
    labels = torch.lerp(batch.labels, batch.labels.roll(1, 0), SHARE)
    return replace(batch, labels=labels)


OPTIONS: dict[str, dict[str, Any]] = {
    "smoothing": {"label_smoothing": 0.2},
    "weights": {"class_weights": True},
    "mixed": {"augment": (mix,)},
    "accumulated": {"grad_accum_steps": 4},
    "gd": {"optimizer": "gd"},
    "smaller-last": {"batch_size": 100, "drop_last": False},
    "l1": {"l1": 0.01},
    "clipped": {"clip_grad_norm": 0.05},
    "ema": {"ema": 0.9},
    "lookahead": {"lookahead": 1},
    "fp16": {"precision": "fp16"},
}


@pytest.fixture(scope="module")
def uneven(data: Dataset) -> Dataset:
    """Labels at 16:6:2, so that a batch of 40 has three or four images of the rarest class."""
    labels = torch.tensor(([0] * 16 + [1] * 6 + [2] * 2) * 10)
    return replace(data, train=Split(data.train.images, labels, data.train.names))


def loss_sums(
    log_p: Tensor, labels: Tensor, recipe: Recipe, data: Dataset
) -> tuple[Tensor, Tensor]:
    """Sums over images of weight times loss, and of the weights."""
    counts = torch.tensor([(data.train.labels == k).sum().item() for k in range(3)]).double()
    by_class = 240 / (3 * counts) if recipe.class_weights else torch.ones(3).double()
    targets = (1 - recipe.label_smoothing) * labels + recipe.label_smoothing / 3
    weights = (labels * by_class).sum(1)
    return (weights * -(targets * log_p).sum(1)).sum(), weights.sum()


def by_formula(recipe: Recipe, data: Dataset) -> tuple[list[Tensor], list[Tensor], float, float]:
    """Final and averaged parameters, training and evaluation loss of one epoch in float64."""
    net = linear().double()
    parameters = list(net.parameters())
    ema = [p.detach().clone() for p in parameters]
    slow = [p.detach().clone() for p in parameters]
    order = epoch_order(240, 0, 0)
    batches = [
        order[start : start + recipe.batch_size] for start in range(0, 240, recipe.batch_size)
    ]
    per_update = len(batches) if recipe.optimizer == "gd" else recipe.grad_accum_steps
    edges = [*range(0, len(batches), per_update), len(batches)]
    epoch_loss = epoch_weight = torch.zeros(())
    for update, (start, stop) in enumerate(pairwise(edges), 1):
        update_loss = update_weight = torch.zeros(())
        for indices in batches[start:stop]:
            labels = torch.eye(3).double()[data.train.labels[indices]]
            if recipe.augment:
                labels = (1 - SHARE) * labels + SHARE * labels.roll(1, 0)
            log_p = net(data.train.images[indices].double() / 255).log_softmax(1)
            loss, weight = loss_sums(log_p, labels, recipe, data)
            update_loss, update_weight = update_loss + loss, update_weight + weight
        epoch_loss, epoch_weight = epoch_loss + update_loss, epoch_weight + update_weight
        objective = update_loss / update_weight + recipe.l1 * parameters[0].abs().sum()
        gradients = torch.autograd.grad(objective, parameters)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        factor = min(1.0, recipe.clip_grad_norm / norm.item()) if recipe.clip_grad_norm else 1.0
        with torch.no_grad():
            decay = min(recipe.ema, (1 + update) / (10 + update))
            for p, gradient, average, slower in zip(parameters, gradients, ema, slow, strict=True):
                p -= 0.1 * factor * gradient
                if recipe.lookahead:
                    slower += 0.5 * (p - slower)
                    p.copy_(slower)
                average.lerp_(p, 1 - decay)
    averaged = ema if recipe.ema else parameters
    with torch.no_grad():
        weight, bias = averaged
        log_p = (data.test.images.flatten(1).double() / 255 @ weight.T + bias).log_softmax(1)
        labels = torch.eye(3).double()[data.test.labels]
        test_loss, test_weight = loss_sums(log_p, labels, recipe, data)
    return (
        [p.detach() for p in parameters],
        ema,
        (epoch_loss / epoch_weight).item(),
        (test_loss / test_weight).item(),
    )


PAIRS = list(combinations(OPTIONS, 2))
NEARLY_ALL = tuple(name for name in OPTIONS if name not in ("gd", "fp16"))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("names", [*PAIRS, NEARLY_ALL], ids="+".join)
def test_loss_options_equal_a_derivation(names: Sequence[str], uneven: Dataset) -> None:
    recipe = replace(PLAIN, **{key: v for name in names for key, v in OPTIONS[name].items()})
    state, plan = begin(recipe, uneven)
    row = list(train(state, plan))[-1]
    assert isinstance(row, EpochStats)
    weights, averaged, train_loss, eval_loss = by_formula(recipe, uneven)
    tolerance = 2e-3 if "fp16" in names else 1e-4
    assert row.train_loss == pytest.approx(train_loss, rel=tolerance)
    assert row.eval_loss == pytest.approx(eval_loss, rel=tolerance)
    start = linear().state_dict().values()
    for p, expected, initial in zip(state.model.parameters(), weights, start, strict=True):
        step = expected - initial  # of the weights from first to last
        assert (p.double() - expected).norm() < 5 * tolerance * step.norm()
    for p, expected in zip((state.ema or {}).values(), averaged, strict=False):
        torch.testing.assert_close(p.double(), expected, rtol=tolerance, atol=1e-5)


@pytest.mark.train
def test_class_weights_with_smoothing_keep_the_frequent_class(
    recipe: Recipe, data: Dataset
) -> None:
    """80 images of one class and 4 of the other: the rare class must not be predicted for all."""
    frequent, rare = (torch.where(data.train.labels == label)[0] for label in (0, 1))
    train_split = data.train.take(torch.cat([frequent, rare[:4]]))
    test_split = data.test.take(torch.where(data.test.labels < 2)[0])
    two = replace(data, classes=data.classes[:2], train=train_split, test=test_split)
    recipe = replace(recipe, epochs=8, label_smoothing=0.2, class_weights=True)
    predictions = fit(recipe, two, quiet=True).predictions
    assert predictions is not None
    assert predictions.accuracy > 0.9
