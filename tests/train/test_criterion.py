"""Smaller last batches, and what epochs measure: criterion, NLL, and the watched loss."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from linear_training import PLAIN, assert_equal, begin, by_hand, entropy, linear, trained

from seewhy.data.dataset import Dataset, Split, class_weights
from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS
from seewhy.runs.training import fit
from seewhy.train.loop import EpochStats, StepStats, train
from seewhy.train.plan import make_plan
from seewhy.train.world import World

KEEP = replace(PLAIN, batch_size=100, drop_last=False)


@pytest.mark.parametrize(
    ("changes", "cuts"),
    [
        ({}, [0, 100, 200, 240]),
        ({"grad_accum_steps": 2}, [0, 200, 240]),
        ({"grad_accum_steps": 3}, [0, 240]),
        ({"optimizer": "gd"}, [0, 240]),
        ({"epochs": 0.34}, [0, 100]),
    ],
)
def test_smaller_last_batch_weights_images_equally(
    changes: dict[str, Any], cuts: list[int], data: Dataset
) -> None:
    state, _ = trained(replace(KEEP, **changes), data)
    assert_equal(state.model, by_hand(data, entropy, cuts))
    assert state.updates == len(cuts) - 1


def test_smaller_last_batch_counts_every_image(data: Dataset) -> None:
    state, plan = begin(replace(KEEP, epochs=2), data)
    assert [plan.images_before(step) for step in range(7)] == [0, 100, 200, 240, 340, 440, 480]
    seconds = []
    for event in train(state, plan):
        if isinstance(event, StepStats):
            images = plan.images_before(event.step) % 240 or 240
            assert event.images_per_second == pytest.approx(images / state.epoch_seconds)
        else:
            seconds.append(event.seconds)
            assert event.images_per_second * (seconds[-1] - sum(seconds[-2:-1])) == pytest.approx(
                240
            )


def test_smaller_last_batch_resumes_within_an_epoch(data: Dataset) -> None:
    from seewhy.train.state import load_state_dict, state_dict

    whole, _ = trained(replace(KEEP, epochs=2, augment=("crop:1",)), data)
    state, plan = begin(replace(KEEP, epochs=2, augment=("crop:1",)), data)
    events = train(state, plan)
    while state.step < 2:
        next(events)
    again, _ = begin(plan.recipe, data)
    load_state_dict(again, state_dict(state))
    list(train(again, plan))
    for mine, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("batch_size", "processes", "message"),
    [
        (239, 1, "a last batch of 1 image, too small for BatchNorm"),
        (119, 4, "a last batch of 2 images, too small for 4 processes"),
    ],
)
def test_smaller_last_batch_must_not_be_too_small(
    batch_size: int, processes: int, message: str, data: Dataset
) -> None:
    with pytest.raises(SeewhyError, match=message):
        make_plan(replace(KEEP, batch_size=batch_size), data, "cpu", World(0, processes))
    make_plan(replace(KEEP, batch_size=batch_size, drop_last=True), data, "cpu")


def test_evaluation_has_the_criterion_of_the_training(data: Dataset) -> None:
    """Smoothed and weighted as in training; the plain negative log-likelihood beside it."""
    labels = torch.tensor([0] * 160 + [1] * 60 + [2] * 20)
    uneven = replace(data, train=Split(data.train.images, labels, data.train.names))
    recipe = replace(PLAIN, label_smoothing=0.2, class_weights=True)
    state, events = trained(recipe, uneven)
    row = events[-1]
    assert isinstance(row, EpochStats)
    with torch.no_grad():
        log_p = state.model.eval()(data.test.images.float() / 255).double().log_softmax(1)
    target = torch.full((60, 3), 0.2 / 3, dtype=torch.float64)
    target[torch.arange(60), data.test.labels] += 0.8
    weights = class_weights(uneven.train, 3).double()[data.test.labels]
    losses = -(target * log_p).sum(1)
    assert row.eval_loss == pytest.approx(
        ((weights * losses).sum() / weights.sum()).item(), rel=1e-5
    )
    nll = -log_p[torch.arange(60), data.test.labels].mean().item()
    assert row.eval_nll == pytest.approx(nll, rel=1e-5)
    assert abs(row.eval_loss - nll) > 0.01


def test_evaluation_of_training_images_has_their_loss(data: Dataset) -> None:
    """With frozen weights and the training images as test images, both losses are the same."""
    same = replace(data, test=data.train)
    _, events = trained(replace(PLAIN, lr=1e-12, label_smoothing=0.2), same)
    row = events[-1]
    assert row.train_loss == pytest.approx(row.eval_loss, rel=1e-5)
    assert row.eval_nll != pytest.approx(row.eval_loss, rel=2e-5)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("on", ["train", "test"])
def test_plateau_watches_train_or_test(on: str, validated: bool, data: Dataset) -> None:
    wrong = replace(data.test, labels=(data.test.labels + 1) % 3)
    data = replace(data, validation=wrong) if validated else data
    state, events = trained(replace(PLAIN, epochs=3, schedule=f"plateau:on={on}"), data)
    rows = [event for event in events if isinstance(event, EpochStats)]
    if on == "train":
        assert state.watched_losses == [row.train_loss for row in rows]
        return
    with torch.no_grad():
        logits = state.model.eval()(data.test.images.float() / 255)
    last = F.cross_entropy(logits, data.test.labels).item()
    assert state.watched_losses[-1] == pytest.approx(last, rel=1e-5)
    assert (state.watched_losses[-1] == rows[-1].eval_loss) == (not validated)


def test_run_says_that_the_test_loss_was_watched(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "linear", lambda num_classes, sample: linear())
    for on, used in (("test", "schedule plateau:on=test"), ("train", "")):
        run = fit(replace(PLAIN, model="linear", schedule=f"plateau:on={on}"), data, quiet=True)
        assert run.result is not None
        assert run.result.test_used_by == used


def test_loss_scale_and_skipped_updates_are_recorded(data: Dataset) -> None:
    """Two updates overflow at scales of 2^60 and 2^59; three without an overflow double it."""
    spec = "dynamic:init_scale=1152921504606846976,growth_interval=4"
    fp16 = replace(PLAIN, precision="fp16", loss_scale=spec)
    state, events = trained(fp16, data)
    row = events[-1]
    assert row.loss_scale == state.scaler.get_scale()
    assert row.skipped_updates is not None
    assert 0 < row.skipped_updates <= 6
    assert row.loss_scale == 2.0 ** (60 - row.skipped_updates)
    _, events = trained(replace(fp16, loss_scale="dynamic:init_scale=1024,growth_interval=3"), data)
    assert (events[-1].loss_scale, events[-1].skipped_updates) == (4096.0, 0)
    _, events = trained(PLAIN, data)
    assert (events[-1].loss_scale, events[-1].skipped_updates) == (None, None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dynamic:growth_factor=1", "needs init_scale > 0, growth_factor > 1"),
        ("dynamic:init_scale=0", "needs init_scale > 0"),
        ("dynamic:growth_interval=0", "growth_interval >= 1"),
        ("static", "unknown loss scale 'static'"),
    ],
)
def test_loss_scale_rejects_settings_out_of_range(spec: str, message: str, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=message):
        make_plan(replace(PLAIN, loss_scale=spec), data, "cpu")
