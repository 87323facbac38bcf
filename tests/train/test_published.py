"""The built-in recipes against the published logs of their originals, number by number."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from seewhy.data.augment import bind_augmentations
from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset, Split
from seewhy.train.optimizers import SGD
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipes import RECIPES

# learning rates in the last step of each epoch
DAVIDNET_24 = (
    *(0.045, 0.102857, 0.160714, 0.218571, 0.276429, 0.334286, 0.392143, 0.45, 0.423596, 0.397191),
    *([None] * 12),  # not quoted
    *(0.053934, 0.027529),
)
RESNET18_ADAM_ONECYCLE = (
    *("0.001059", "0.002068", "0.003077", "0.004085", "0.005094", "0.004755"),
    *([None] * 12),
    *("0.000340", "5.094e-07"),
)


def plan_of(name: str) -> TrainingPlan:
    """The plan of a recipe on 50,000 images, which share the memory of one."""
    images, labels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.arange(50_000) % 10
    train = Split(images.expand(50_000, -1, -1, -1), labels, ["image"] * 50_000)
    test = Split(images.expand(10, -1, -1, -1), labels[:10], ["image"] * 10)
    data = Dataset("cifar10", tuple("0123456789"), train, test, None, "0" * 32)
    return make_plan(RECIPES[name], data, "cpu")


def epoch_rates(plan: TrainingPlan) -> list[float]:
    """The learning rate in the last step of each epoch."""
    return [
        plan.lr * plan.lr_factor(plan.epoch_steps(epoch)[-1], ())
        for epoch in range(plan.num_epochs)
    ]


def test_davidnet_24_rates_are_those_published() -> None:
    plan = plan_of("davidnet-24")
    rates = epoch_rates(plan)
    assert len(rates) == len(DAVIDNET_24)
    for rate, published in zip(rates, DAVIDNET_24, strict=True):
        assert published is None or rate == pytest.approx(published, abs=5.1e-7)
    first_steps = [plan.epoch_steps(epoch)[0] for epoch in range(24)]
    assert [plan.lr * plan.lr_factor(step, ()) for step in first_steps] == rates


def test_davidnet_24_rates_equal_torch() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = OneCycleLR(
        optimizer,
        max_lr=0.45,
        total_steps=25,
        pct_start=8 / 25,
        anneal_strategy="linear",
        div_factor=10,
        final_div_factor=40,
        cycle_momentum=False,
    )
    expected = []
    for _ in range(24):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert epoch_rates(plan_of("davidnet-24")) == pytest.approx(expected, rel=1e-6)


def test_davidnet_24_loss_needs_label_smoothing_of_02() -> None:
    """The published training loss of 1.017 at 96.84% is above the floor of 0.867 of 0.2."""

    def floor(smoothing: float) -> float:
        """The smallest possible cross entropy with ten classes: the entropy of the labels."""
        target = torch.full((1, 10), smoothing / 10, dtype=torch.float64)
        target[0, 0] += 1 - smoothing
        return F.cross_entropy(target.log(), torch.tensor([0]), label_smoothing=smoothing).item()

    assert floor(0.2) == pytest.approx(0.867, abs=5e-4)
    assert floor(0.1) == pytest.approx(0.50, abs=5e-3)
    assert floor(RECIPES["davidnet-24"].label_smoothing) == pytest.approx(0.867, abs=5e-4)


def test_resnet18_adam_onecycle_rates_are_those_published() -> None:
    plan = plan_of("resnet18-adam-onecycle")
    assert (plan.steps_per_epoch, plan.steps) == (1563, 31_260)
    assert plan.lr == 0.00509413801481895
    rates = epoch_rates(plan)
    assert len(rates) == len(RESNET18_ADAM_ONECYCLE)
    for rate, published in zip(rates, RESNET18_ADAM_ONECYCLE, strict=True):
        digits = ".3e" if published is not None and "e" in published else ".6f"
        assert published is None or f"{rate:{digits}}" == published


def hidden_share(step: str, count: int) -> Tensor:
    """Fraction of each white image of 32x32 pixels that `step` fills."""
    images = torch.full((count, 1, 32, 32), 255, dtype=torch.uint8)
    batch = Batch(images, torch.zeros(count, 1), torch.arange(count), 0)
    after = bind_augmentations([f"{step},fill=0"])(batch, torch.Generator().manual_seed(0))
    return (after.images == 0).double().mean((1, 2, 3))


@pytest.mark.slow
def test_resnet18_adam_onecycle_hides_as_many_pixels_as_published() -> None:
    """A hole of 16 in an image padded from 32 to 64: 10.5% on average, not 19.1%."""
    step = RECIPES["resnet18-adam-onecycle"].augment[-1]
    assert step == "cutout:16,where=anywhere,padding=16"
    # per axis 49 positions, which cover 512 pixels of the inner 32 in all
    expected = (512 / 49 / 32) ** 2
    assert expected == pytest.approx(0.105, abs=2e-3)
    shares = hidden_share(step, 20_000)
    assert shares.mean().item() == pytest.approx(
        expected, abs=4 * shares.std().item() / 20_000**0.5
    )
    centered = hidden_share("cutout:16", 20_000)
    assert centered.mean().item() == pytest.approx(
        0.191, abs=4 * centered.std().item() / 20_000**0.5
    )


def test_resnet18_adam_onecycle_order_of_augmentations() -> None:
    assert RECIPES["resnet18-adam-onecycle"].augment[:2] == ("flip", "crop:4")


@pytest.mark.parametrize(
    ("name", "steps", "left_out"),
    [
        ("resnet18-onecycle", 98, 0),
        ("resnet18-plateau", 391, 0),
        ("resnet18-steplr", 391, 0),
        ("resnet18-steplr-cutout", 391, 0),
        ("davidnet-24", 98, 0),
        ("davidnet-24-plus", 98, 20),
    ],
)
def test_published_epochs_hold_all_images(name: str, steps: int, left_out: int) -> None:
    plan = plan_of(name)
    assert plan.steps_per_epoch == steps
    assert plan.images_before(steps) == 50_000 - left_out


def test_resnet18_plateau_watches_the_test_loss() -> None:
    """Its rate drops after epoch 15, as published, if the test loss has no 10% gain from 11 on."""
    plan = plan_of("resnet18-plateau")
    assert plan.watched_split == "test"
    assert plan.test_used_by == f"schedule {RECIPES['resnet18-plateau'].schedule}"
    losses = [2.0 * 0.88**epoch for epoch in range(10)] + [2.0 * 0.88**9 * 0.95] * 10
    rates = [plan.lr * plan.lr_factor(epoch * 391, losses[:epoch]) for epoch in range(20)]
    assert rates == pytest.approx([0.01] * 15 + [0.001] * 5)
    # a training loss that falls by 10% in each five epochs never drops it
    falling = [2.0 * 0.97**epoch for epoch in range(20)]
    assert plan.lr_factor(plan.steps - 1, falling[:19]) == 1.0
