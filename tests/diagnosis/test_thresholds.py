"""ROC and precision-recall curves against scikit-learn and counting; thresholds against search."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.thresholds import best_threshold, ranking_scores, threshold_curve
from seewhy.errors import SeewhyError


def random_predictions(images: int, classes: int, ties: bool = False) -> Predictions:
    generator = torch.Generator().manual_seed(images)
    logits = 2 * torch.randn(images, classes, generator=generator)
    labels = (0.7 * logits).softmax(1).multinomial(1, generator=generator)[:, 0]
    if ties:
        logits = logits.round()
    return Predictions(logits, labels, tuple(f"class {index}" for index in range(classes)))


def two_classes(probabilities: Sequence[float], labels: Sequence[int]) -> Predictions:
    """Predictions of a positive class with these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    logits = torch.stack([(1 - p).log(), p.log()], 1).clamp(min=-1e3)
    return Predictions(logits, torch.tensor(labels), ("healthy", "ill"))


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("classes", [3, 10])
def test_ranking_scores_are_those_of_scikit_learn(classes: int, ties: bool) -> None:
    predictions = random_predictions(300, classes, ties)
    labels, probabilities = predictions.labels.numpy(), predictions.probabilities.numpy()
    scores = ranking_scores(predictions)
    for row, expected in zip(scores.classes, np.eye(classes)[labels].T, strict=True):
        assert row.name == f"class {row.index}"
        assert row.images == expected.sum()
        assert row.prevalence == pytest.approx(expected.mean())
        own = probabilities[:, row.index]
        assert row.auroc == pytest.approx(roc_auc_score(expected, own), abs=1e-12)
        precision = average_precision_score(expected, own)
        assert row.average_precision == pytest.approx(precision, abs=1e-12)
    one_hot = np.eye(classes)[labels]
    assert scores.macro_auroc == pytest.approx(roc_auc_score(one_hot, probabilities), abs=1e-12)
    assert scores.macro_average_precision == pytest.approx(
        average_precision_score(one_hot, probabilities), abs=1e-12
    )


def test_ranking_scores_auroc_is_the_statistic_of_mann_and_whitney() -> None:
    """The fraction of pairs of an image of the class and another in order; a tie is half a pair."""
    predictions = random_predictions(120, 4, ties=True)
    for row in ranking_scores(predictions).classes:
        p, own = predictions.probabilities[:, row.index], predictions.labels == row.index
        pairs = p[own][:, None] - p[~own]
        assert (pairs == 0).any()
        wins = (pairs > 0).double() + (pairs == 0).double() / 2
        assert row.auroc == pytest.approx(wins.mean().item(), abs=1e-12)


def test_ranking_scores_in_closed_form() -> None:
    """By hand: ill, healthy and ill, two ill and one healthy at the same probability, healthy."""
    predictions = two_classes(
        [0.9, 0.8, 0.7, 0.5, 0.5, 0.5, 0.1],
        [1, 0, 1, 1, 0, 1, 0],
    )
    (row,) = ranking_scores(predictions).classes
    assert (row.name, row.index, row.images) == ("ill", 1, 4)
    assert row.prevalence == pytest.approx(4 / 7)
    # pairs in order of 12: 3 of the first, 2 of the second, 1.5 of both that are tied
    assert row.auroc == pytest.approx((3 + 2 + 1.5 + 1.5) / 12)
    # precision at the first 1, at the second 2 of 3, at both that are tied 4 of 6
    assert row.average_precision == pytest.approx((1 + 2 / 3 + 2 * 4 / 6) / 4)


def test_ranking_scores_of_a_class_without_images_are_nan() -> None:
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 2
    scores = ranking_scores(Predictions(logits, labels, ("a", "b", "c")))
    *rows, missing = scores.classes
    assert math.isnan(missing.auroc)
    assert math.isnan(missing.average_precision)
    assert missing.undefined == "no image is of this class"
    assert [row.undefined for row in rows] == ["", ""]
    assert scores.macro_auroc == pytest.approx(np.mean([row.auroc for row in rows]))


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_ranking_scores_of_a_single_true_class_are_nan(classes: int) -> None:
    logits = torch.randn(5, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.full((5,), classes - 1)
    scores = ranking_scores(Predictions(logits, labels, tuple("abc"[:classes])))
    assert scores.classes[-1].undefined == "all images are of this class"
    assert math.isnan(scores.macro_auroc)
    assert math.isnan(scores.macro_average_precision)


def test_ranking_scores_of_many_images_take_little_time() -> None:
    predictions = random_predictions(10_000, 10)
    _ = predictions.probabilities
    started = time.process_time()
    ranking_scores(predictions)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_threshold_curve_is_that_of_scikit_learn(ties: bool) -> None:
    """Its points are among scikit-learn's, and each of those is on a line between two of them."""
    predictions = random_predictions(200, 4, ties)
    own = (predictions.labels == 2).numpy()
    p = predictions.probabilities[:, 2].numpy()
    curve = threshold_curve(predictions, "class 2")
    assert curve.name == "class 2"
    fpr, tpr, thresholds = roc_curve(own, p, drop_intermediate=False)
    assert curve.thresholds[0] == math.inf
    position = np.searchsorted(-thresholds, -curve.thresholds.numpy())
    np.testing.assert_array_equal(thresholds[position], curve.thresholds)
    np.testing.assert_allclose(curve.false_positive_rate, fpr[position])
    np.testing.assert_allclose(curve.recall, tpr[position])
    between = np.searchsorted(position, np.arange(len(fpr)))
    before = np.maximum(between - 1, 0)
    left_out = ~np.isin(np.arange(len(fpr)), position)
    assert left_out.any()
    np.testing.assert_allclose(tpr[left_out], curve.recall[before[left_out]])
    np.testing.assert_allclose(tpr[left_out], curve.recall[between[left_out]])
    precision, recall, lowest = precision_recall_curve(own, p)
    position = np.searchsorted(lowest, curve.thresholds[1:].numpy())
    np.testing.assert_allclose(curve.precision[1:], precision[position])
    np.testing.assert_allclose(curve.recall[1:], recall[position])
    assert (curve.recall[0], curve.precision[0]) == (recall[-1], precision[-1])


def test_threshold_curve_by_name_and_index() -> None:
    predictions = random_predictions(50, 3)
    by_name, by_index = (threshold_curve(predictions, each) for each in ("class 1", 1))
    assert torch.equal(by_name.recall, by_index.recall)
    with pytest.raises(SeewhyError, match=r"unknown class 'klass 1'.*did you mean 'class 1'"):
        threshold_curve(predictions, "klass 1")
    for index in (3, -1):
        with pytest.raises(SeewhyError, match=f"from 0 to 2, or a name, found {index}"):
            threshold_curve(predictions, index)


@pytest.mark.parametrize(
    "costs", [(1, 1), (1, 20), (20, 1), (0, 1), (1, 0), (1e308, 1e308)], ids=str
)
def test_best_threshold_costs_least_of_all(costs: tuple[float, float]) -> None:
    predictions = random_predictions(150, 3, ties=True)
    found = best_threshold(predictions, 1, *costs)
    p, own = predictions.probabilities[:, 1].double(), predictions.labels == 1

    def cost(threshold: float) -> float:
        positive = p >= threshold
        wrong = [(positive & ~own).double().mean(), (~positive & own).double().mean()]
        return sum(each * share.item() for each, share in zip(costs, wrong, strict=True))

    assert found.cost == pytest.approx(min(map(cost, [math.inf, *p.tolist()])))
    assert found.cost == pytest.approx(cost(found.threshold))
    positive = p >= found.threshold
    assert found.accuracy == pytest.approx((positive == own).double().mean().item())
    assert found.recall == pytest.approx(positive[own].double().mean().item())
    if positive.any():
        assert found.precision == pytest.approx(own[positive].double().mean().item())
    else:
        assert math.isnan(found.precision)


def test_best_threshold_of_equal_costs_is_closest_to_that_of_calibrated_probabilities() -> None:
    """Elkan 2001: with calibrated probabilities, cost of a false positive / sum of both."""
    labels = [1, 0, 1, 0, 1, 0]
    for probabilities, expected in (
        ([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], 0.7),  # two errors at 0.9, at 0.7 and at 0.2
        ([0.99, 0.97, 0.96, 0.6, 0.52, 0.1], 0.52),
        ([0.52, 0.4, 0.2, 0.15, 0.12, 0.1], 0.52),
    ):
        found = best_threshold(two_classes(probabilities, labels), "ill", 1, 1)
        assert found.threshold == pytest.approx(expected)
        assert found.cost == pytest.approx(2 / 6)


def test_best_threshold_is_infinite_if_false_positives_cost_too_much() -> None:
    found = best_threshold(two_classes([0.9, 0.8, 0.2], [0, 1, 0]), "ill", 1000, 1)
    assert (found.threshold, found.recall) == (math.inf, 0)
    assert math.isnan(found.precision)
    assert found.cost == pytest.approx(1 / 3)


@pytest.mark.parametrize("costs", [(-1, 1), (0, 0), (math.nan, 1), (1, math.inf)], ids=str)
def test_best_threshold_needs_costs(costs: tuple[float, float]) -> None:
    with pytest.raises(SeewhyError, match=f"found {costs[0]} for a false positive and {costs[1]}"):
        best_threshold(random_predictions(10, 2), 1, *costs)
