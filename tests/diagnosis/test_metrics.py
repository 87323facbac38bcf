"""Scores by class against scikit-learn and against counting by hand."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from seewhy.diagnosis.metrics import (
    Confusion,
    balanced_accuracy,
    class_scores,
    macro_f1,
    top_k_accuracy,
    uneven_scores,
    worst_confusions,
)
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")


@pytest.fixture
def predictions() -> Predictions:
    """300 images of six classes: none is of the last, and the fifth is never predicted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (300,), generator=generator)
    logits = torch.randn(300, 6, generator=generator)
    logits[torch.arange(300), labels] += 1.5
    logits[:, 4] -= 20
    return Predictions(logits, labels, CLASSES)


def said(pairs: list[tuple[int, int]], classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Predictions by pairs of true and predicted class."""
    labels, predicted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return Predictions(
        torch.nn.functional.one_hot(predicted, len(classes)).float(), labels, classes
    )


def test_class_scores_equal_scikit_learn(predictions: Predictions) -> None:
    predicted = predictions.logits.numpy().argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.labels.numpy(), predicted, labels=range(6), zero_division=np.nan
    )
    scores = class_scores(predictions)
    assert tuple(score.name for score in scores) == CLASSES
    assert [score.images for score in scores] == support.tolist()
    np.testing.assert_allclose([score.accuracy for score in scores], recall, rtol=1e-12)
    np.testing.assert_allclose([score.precision for score in scores], precision, rtol=1e-12)
    np.testing.assert_allclose([score.f1 for score in scores], f1, rtol=1e-12)
    assert [score.predicted for score in scores] == np.bincount(predicted, minlength=6).tolist()
    assert math.isnan(scores[5].accuracy)
    assert math.isnan(scores[4].precision)


def test_class_score_intervals_equal_scipy(predictions: Predictions) -> None:
    predicted, labels = predictions.logits.argmax(1), predictions.labels
    for index, score in enumerate(class_scores(predictions)[:4]):
        right = int(((predicted == index) & (labels == index)).sum())
        for interval, images in ((score.interval, labels), (score.precision_interval, predicted)):
            theirs = binomtest(right, int((images == index).sum())).proportion_ci(
                0.95, method="wilson"
            )
            assert interval == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_class_score_intervals_of_no_images_are_nan(predictions: Predictions) -> None:
    scores = class_scores(predictions)
    assert all(map(math.isnan, (*scores[5].interval, *scores[4].precision_interval)))
    assert not any(map(math.isnan, (*scores[5].precision_interval, *scores[4].interval)))


def test_class_scores_name_the_most_frequent_confusion(predictions: Predictions) -> None:
    pairs = list(
        zip(predictions.labels.tolist(), predictions.logits.argmax(1).tolist(), strict=True)
    )
    for index, score in enumerate(class_scores(predictions)[:5]):
        times = Counter(predicted for true, predicted in pairs if true == index != predicted)
        assert score.confusions == max(times.values()) == times[CLASSES.index(score.confused_with)]


def test_class_scores_without_confusions_and_with_ties() -> None:
    scores = class_scores(said([(0, 0), (0, 0), (1, 3), (1, 2), (1, 1)]))
    assert [(score.confused_with, score.confusions) for score in scores[:3]] == [
        ("", 0),
        ("cat", 1),
        ("", 0),
    ]


def test_f1_of_an_absent_class_is_nan() -> None:
    scores = class_scores(said([(0, 0), (1, 0), (0, 2)]))
    assert scores[1].f1 == scores[2].f1 == 0
    assert math.isnan(scores[3].f1)


def test_worst_confusions_are_counted_and_ordered(predictions: Predictions) -> None:
    pairs = Counter(
        zip(predictions.labels.tolist(), predictions.logits.argmax(1).tolist(), strict=True)
    )
    errors = {pair: times for pair, times in pairs.items() if pair[0] != pair[1]}
    expected = sorted(errors, key=lambda pair: (-errors[pair], pair))
    found = worst_confusions(predictions)
    assert [(row.true, row.predicted) for row in found] == expected
    assert [row.images for row in found] == [errors[pair] for pair in expected]
    assert [row.share for row in found] == pytest.approx(
        [row.images / sum(errors.values()) for row in found]
    )
    assert sum(row.share for row in found) == pytest.approx(1)
    assert worst_confusions(predictions, 3) == found[:3]
    assert worst_confusions(predictions, 1000) == found


def test_worst_confusions_order_ties_by_class() -> None:
    found = worst_confusions(said([(3, 0), (1, 2), (1, 0), (5, 5), (0, 3), (3, 0)]))
    assert found == (
        Confusion(3, 0, 2, 0.4),
        Confusion(0, 3, 1, 0.2),
        Confusion(1, 0, 1, 0.2),
        Confusion(1, 2, 1, 0.2),
    )


def test_worst_confusions_without_errors() -> None:
    assert worst_confusions(said([(0, 0), (2, 2)])) == ()


def test_balanced_accuracy_equals_scikit_learn(predictions: Predictions) -> None:
    kept = (
        predictions.labels < 4
    )  # the classes that are predicted are those that occur, of which scikit-learn would warn
    some = replace(
        predictions,
        logits=predictions.logits[kept, :4],
        labels=predictions.labels[kept],
        classes=CLASSES[:4],
    )
    theirs = balanced_accuracy_score(some.labels, some.logits.argmax(1))
    assert balanced_accuracy(some) == pytest.approx(theirs, abs=1e-12)
    assert abs(balanced_accuracy(some) - some.accuracy) > 1e-4  # so that the two differ here


def test_balanced_accuracy_ignores_classes_without_images() -> None:
    assert balanced_accuracy(said([(0, 0), (0, 0), (0, 0), (0, 1), (1, 5)])) == 0.375


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_scikit_learn(predictions: Predictions, k: int) -> None:
    theirs = top_k_accuracy_score(predictions.labels, predictions.logits, k=k, labels=range(6))
    assert top_k_accuracy(predictions, k) == pytest.approx(theirs, abs=1e-12)


def test_top_k_accuracy_of_equal_logits() -> None:
    even = Predictions(torch.zeros(6, 6), torch.arange(6), CLASSES)
    assert [top_k_accuracy(even, k) for k in (1, 2, 3)] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert top_k_accuracy(even, 1) == pytest.approx(even.accuracy)


def test_top_k_accuracy_of_all_classes_is_one(predictions: Predictions) -> None:
    assert top_k_accuracy(predictions, 6) == top_k_accuracy(predictions, 100) == 1


def test_metrics_refuse_counts_below_one(predictions: Predictions) -> None:
    with pytest.raises(
        SeewhyError, match="count must be at least 1, or None for all confusions, found 0"
    ):
        worst_confusions(predictions, 0)
    with pytest.raises(SeewhyError, match="k must be at least 1, found 0"):
        top_k_accuracy(predictions, 0)


def test_macro_f1_equals_scikit_learn(predictions: Predictions) -> None:
    theirs = f1_score(predictions.labels, predictions.predicted, average="macro", zero_division=0)
    assert macro_f1(predictions) == pytest.approx(theirs, abs=1e-12)
    # class 4 never occurs, but is predicted; class 3 occurs, but is never predicted
    pairs = [(0, 0), (0, 4), (1, 1), (1, 1), (2, 1), (3, 0)]
    expected = f1_score(*zip(*pairs, strict=True), average="macro", zero_division=0)
    assert macro_f1(said(pairs)) == pytest.approx(expected, abs=1e-12)


def test_uneven_scores_begin_at_half_as_many_images_again() -> None:
    even = [(0, 0)] * 10 + [(1, 1)] * 10 + [(5, 5)] * 14
    assert uneven_scores(said(even)) is None
    uneven = uneven_scores(said([*even, (5, 1)]))
    assert uneven is not None
    assert (
        uneven.balanced_accuracy
        == balanced_accuracy(said([*even, (5, 1)]))
        == pytest.approx((1 + 1 + 14 / 15) / 3)
    )
    assert uneven.macro_f1 == macro_f1(said([*even, (5, 1)]))
