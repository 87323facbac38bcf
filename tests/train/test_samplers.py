from dataclasses import replace

import pytest
import torch

import seewhy
from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.train.batches import epoch_order
from seewhy.train.plan import make_plan
from seewhy.train.samplers import balanced, bind_sampler

LABELS = torch.tensor([0] * 700 + [1] * 40 + [3] * 7)[torch.randperm(747)]  # class 2 is missing


def test_balanced_sampler_takes_equally_many_of_each_class() -> None:
    order = balanced(LABELS, seed=0, epoch=0)
    assert order.dtype == torch.int64
    assert len(order) == 747
    assert (torch.bincount(LABELS[order])[[0, 1, 3]] - 249).abs().max() <= 1
    times = torch.bincount(order, minlength=747)
    for label in (1, 3):  # repeated equally often
        assert times[label == LABELS].max() - times[label == LABELS].min() <= 1
    assert times[LABELS == 0].max() == 1
    later = balanced(LABELS, seed=0, epoch=1)
    frequent = [set(each[LABELS[each] == 0].tolist()) for each in (order, later)]
    assert 80 < len(frequent[0] & frequent[1]) < 100  # expected: 249 * 249 / 700
    assert (LABELS[order[:374]] == 3).double().mean() > 0.25  # mixed, not class by class


def test_balanced_sampler_depends_on_seed_and_epoch_only() -> None:
    order = balanced(LABELS, seed=5, epoch=2)
    torch.rand(3)
    assert torch.equal(order, balanced(LABELS, seed=5, epoch=2))
    assert not torch.equal(order, balanced(LABELS, seed=5, epoch=3))
    assert not torch.equal(order, balanced(LABELS, seed=6, epoch=2))


def test_balanced_sampler_with_a_power_of_a_half_is_square_root_sampling() -> None:
    drawn = [LABELS[balanced(LABELS, 0, epoch, power=0.5)] for epoch in range(40)]
    numbers = torch.bincount(torch.cat(drawn)).double()
    roots = torch.bincount(LABELS).double().sqrt()
    assert torch.allclose(numbers / 40, 747 * roots / roots.sum(), atol=0.4)


def test_shuffle_is_the_order_of_an_epoch() -> None:
    sampler = bind_sampler("shuffle")
    assert torch.equal(sampler(LABELS, 3, 1), epoch_order(747, 3, 1))


@pytest.mark.train
def test_training_takes_the_images_of_the_sampler(data: Dataset) -> None:
    seen: list[torch.Tensor] = []

    def record(batch: Batch, generator: torch.Generator) -> Batch:
        seen.append(batch.indices)
        return batch

    rare = (data.train.labels < 5) & (torch.arange(len(data.train)) % 5 > 0)
    few = replace(data, train=data.train.take((~rare).nonzero().flatten()), fingerprint="")
    recipe = replace(
        seewhy.RECIPES["demo"], augment=(record,), sampler="balanced", epochs=2, batch_size=64
    )
    seewhy.fit(recipe, few, quiet=True)
    indices, steps = torch.cat(seen), len(seen) // 2
    labels = few.train.labels
    expected = [balanced(labels, recipe.seed, epoch) for epoch in range(2)]
    assert len({len(each) for each in seen}) == 1  # equal batches
    count = len(seen[0]) * steps
    assert torch.equal(indices, torch.cat([order[:count] for order in expected]))


def test_sampler_errors_are_one_line(data: Dataset) -> None:
    recipe = seewhy.RECIPES["demo"]
    for changes, message in [
        ({"sampler": "even"}, "unknown sampler 'even'.*balanced, shuffle"),
        ({"sampler": "balanced:power=2"}, "power must be above 0 and at most 1, found 2"),
        ({"sampler": "balanced", "class_weights": True}, "use one of them"),
    ]:
        with pytest.raises(SeewhyError, match=message) as caught:
            make_plan(replace(recipe, **changes), data)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
