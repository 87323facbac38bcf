"""Binary cross entropy and average precision, against NumPy, torch and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from labeled_bars import RECIPE, bars, labeled_bars
from sklearn.metrics import average_precision_score
from torch import nn

from seewhy.data.dataset import label_weights
from seewhy.data.memory import check_dataset
from seewhy.errors import SeewhyError
from seewhy.train.batches import epoch_order
from seewhy.train.loop import EpochStats, train
from seewhy.train.objective import average_precision, binary_cross_entropy
from seewhy.train.plan import make_plan
from seewhy.train.state import new_state

PLAIN = replace(
    RECIPE,
    epochs=1,
    lr=0.1,
    optimizer="sgd",
    weight_decay=0.0,
    schedule="constant",
    augment=(),
)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_loss_is_that_of_the_formula(smoothing: float, weights: list[float] | None) -> None:
    generator = np.random.default_rng(0)
    logits, labels = 3 * generator.normal(size=(7, 3)), generator.random((7, 3))  # as if mixed
    smooth = (1 - smoothing) * labels + smoothing / 2
    probability = 1 / (1 + np.exp(-logits))
    own = np.ones(3) if weights is None else np.array(weights)
    losses = -own * smooth * np.log(probability) - (1 - smooth) * np.log(1 - probability)
    loss, images = binary_cross_entropy(
        torch.tensor(logits),
        torch.tensor(labels),
        smoothing,
        None if weights is None else torch.tensor(weights).double(),
    )
    assert images.item() == 7
    assert (loss / images).item() == pytest.approx(losses.mean(), rel=1e-12)


def test_training_is_plain_gradient_descent_on_the_loss_of_torch() -> None:
    data = labeled_bars()
    weights = label_weights(data.train, 3)
    counts = data.train.labels.double().sum(0)
    torch.testing.assert_close(weights, ((120 - counts) / counts).float())
    extremes = torch.stack([data.train.labels[:, 0] | True, data.train.labels[:, 0] & False], 1)
    assert label_weights(replace(data.train, labels=extremes), 2).tolist() == [1, 1]

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    plan = make_plan(PLAIN, data, "cpu")
    state = new_state(plan, network())
    *_, last = train(state, plan)
    expected, rows = network(), epoch_order(120, 0, 0)
    criterion = nn.BCEWithLogitsLoss(pos_weight=weights)
    losses = []
    for indices in rows.split(40):
        labels = 0.9 * data.train.labels[indices].float() + 0.05
        loss = criterion(expected(data.train.images[indices] / 255), labels)
        expected.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in expected.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    for mine, theirs in zip(state.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert isinstance(last, EpochStats)
    assert last.train_loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert data.validation is not None
    logits = expected(data.validation.images / 255).detach()
    right = ((logits > 0) == data.validation.labels).all(1).double().mean().item()
    assert last.eval_accuracy == pytest.approx(right)
    nll = nn.BCEWithLogitsLoss()(logits, data.validation.labels.float()).item()
    assert last.eval_nll == pytest.approx(nll, rel=1e-5)
    macro = average_precision_score(data.validation.labels.numpy(), logits.numpy())
    assert last.eval_average_precision == pytest.approx(macro, abs=1e-12)
    assert last.eval_score == last.eval_average_precision


def test_average_precision_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((60, 4)) < [0.5, 0.1, 0.9, 0.3]
    scores = generator.integers(0, 9, (60, 4)).astype(float)  # with ties
    found = average_precision(torch.tensor(scores), torch.tensor(labels))
    assert found == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    labels[:, 0], labels[:, 1] = True, False  # undefined
    found = average_precision(torch.tensor(scores), torch.tensor(labels))
    assert found == pytest.approx(average_precision_score(labels[:, 2:], scores[:, 2:]), abs=1e-12)
    assert np.isnan(average_precision(torch.tensor(scores[:, :2]), torch.tensor(labels[:, :2])))


def test_balanced_sampling_needs_one_class_per_image() -> None:
    recipe = replace(PLAIN, class_weights=False, sampler="balanced")
    with pytest.raises(SeewhyError, match="any number of labels; use class_weights=true"):
        make_plan(recipe, labeled_bars(), "cpu")


def test_splits_of_both_kinds_are_one_line() -> None:
    data = replace(labeled_bars(), test=replace(bars(5, 1), labels=torch.zeros(5).long()))
    with pytest.raises(SeewhyError, match=r"one class per image \(N,\), others several labels"):
        check_dataset(data)
