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
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from seewhy.diagnosis.metrics import (
    Confusion,
    balanced_accuracy,
    class_scores,
    top_k_accuracy,
    worst_confusions,
)
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")


@pytest.fixture
def result() -> Predictions:
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


def test_scores_are_those_of_scikit_learn(result: Predictions) -> None:
    predicted = result.logits.numpy().argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        result.labels.numpy(), predicted, labels=range(6), zero_division=np.nan
    )
    scores = class_scores(result)
    assert tuple(score.name for score in scores) == CLASSES
    assert [score.images for score in scores] == support.tolist()
    np.testing.assert_allclose([score.accuracy for score in scores], recall, rtol=1e-12)
    np.testing.assert_allclose([score.precision for score in scores], precision, rtol=1e-12)
    np.testing.assert_allclose([score.f1 for score in scores], f1, rtol=1e-12)
    assert [score.predicted for score in scores] == np.bincount(predicted, minlength=6).tolist()
    assert math.isnan(scores[5].accuracy)
    assert math.isnan(scores[4].precision)


def test_intervals_are_those_of_scipy(result: Predictions) -> None:
    predicted, labels = result.logits.argmax(1), result.labels
    for index, score in enumerate(class_scores(result)[:4]):
        right = int(((predicted == index) & (labels == index)).sum())
        for interval, images in ((score.interval, labels), (score.precision_interval, predicted)):
            theirs = binomtest(right, int((images == index).sum())).proportion_ci(
                0.95, method="wilson"
            )
            assert interval == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_what_has_no_images_has_no_interval(result: Predictions) -> None:
    scores = class_scores(result)
    assert all(map(math.isnan, (*scores[5].interval, *scores[4].precision_interval)))
    assert not any(map(math.isnan, (*scores[5].precision_interval, *scores[4].interval)))


def test_what_a_class_is_mistaken_for(result: Predictions) -> None:
    pairs = list(zip(result.labels.tolist(), result.logits.argmax(1).tolist(), strict=True))
    for index, score in enumerate(class_scores(result)[:5]):
        times = Counter(predicted for true, predicted in pairs if true == index != predicted)
        assert score.confusions == max(times.values()) == times[CLASSES.index(score.confused_with)]


def test_mistaken_for_nothing_and_for_two_equally() -> None:
    scores = class_scores(said([(0, 0), (0, 0), (1, 3), (1, 2), (1, 1)]))
    assert [(score.confused_with, score.confusions) for score in scores[:3]] == [
        ("", 0),
        ("cat", 1),
        ("", 0),
    ]


def test_a_class_that_never_occurs_and_is_never_predicted_has_no_f1() -> None:
    scores = class_scores(said([(0, 0), (1, 0), (0, 2)]))
    assert scores[1].f1 == scores[2].f1 == 0
    assert math.isnan(scores[3].f1)


def test_worst_confusions_are_counted_and_ordered(result: Predictions) -> None:
    pairs = Counter(zip(result.labels.tolist(), result.logits.argmax(1).tolist(), strict=True))
    mistakes = {pair: times for pair, times in pairs.items() if pair[0] != pair[1]}
    expected = sorted(mistakes, key=lambda pair: (-mistakes[pair], pair))
    found = worst_confusions(result)
    assert [(row.true, row.predicted) for row in found] == expected
    assert [row.images for row in found] == [mistakes[pair] for pair in expected]
    assert [row.share for row in found] == pytest.approx(
        [row.images / sum(mistakes.values()) for row in found]
    )
    assert sum(row.share for row in found) == pytest.approx(1)
    assert worst_confusions(result, 3) == found[:3]
    assert worst_confusions(result, 1000) == found


def test_equally_frequent_confusions_are_in_the_order_of_the_classes() -> None:
    found = worst_confusions(said([(3, 0), (1, 2), (1, 0), (5, 5), (0, 3), (3, 0)]))
    assert found == (
        Confusion(3, 0, 2, 0.4),
        Confusion(0, 3, 1, 0.2),
        Confusion(1, 0, 1, 0.2),
        Confusion(1, 2, 1, 0.2),
    )


def test_without_mistakes_there_are_no_confusions() -> None:
    assert worst_confusions(said([(0, 0), (2, 2)])) == ()


def test_balanced_accuracy_is_that_of_scikit_learn(result: Predictions) -> None:
    kept = (
        result.labels < 4
    )  # the classes that are predicted are those that occur, of which scikit-learn would warn
    some = replace(
        result, logits=result.logits[kept, :4], labels=result.labels[kept], classes=CLASSES[:4]
    )
    theirs = balanced_accuracy_score(some.labels, some.logits.argmax(1))
    assert balanced_accuracy(some) == pytest.approx(theirs, abs=1e-12)
    assert abs(balanced_accuracy(some) - some.accuracy) > 1e-4  # so that the two differ here


def test_balanced_accuracy_is_the_mean_over_classes_with_images() -> None:
    assert balanced_accuracy(said([(0, 0), (0, 0), (0, 0), (0, 1), (1, 5)])) == 0.375


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_is_that_of_scikit_learn(result: Predictions, k: int) -> None:
    theirs = top_k_accuracy_score(result.labels, result.logits, k=k, labels=range(6))
    assert top_k_accuracy(result, k) == pytest.approx(theirs, abs=1e-12)


def test_top_k_of_equal_logits_agrees_with_the_predicted_class() -> None:
    even = Predictions(torch.zeros(6, 6), torch.arange(6), CLASSES)
    assert [top_k_accuracy(even, k) for k in (1, 2, 3)] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert top_k_accuracy(even, 1) == pytest.approx(even.accuracy)


def test_top_k_is_certain_where_there_are_no_more_classes(result: Predictions) -> None:
    assert top_k_accuracy(result, 6) == top_k_accuracy(result, 100) == 1


@pytest.mark.parametrize(
    "measure", [class_scores, worst_confusions, balanced_accuracy, top_k_accuracy]
)
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            Predictions(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), ("a", "b")),
            "no predictions to measure",
        ),
        (
            Predictions(torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "b")),
            r"need logits \(2, 2\), found \(2, 3\)",
        ),
        (
            Predictions(torch.zeros(2, 2), torch.tensor([0, 2]), ("a", "b")),
            "labels must be from 0 to 1, .* found 0 to 2",
        ),
        (
            Predictions(torch.zeros(2, 2), torch.tensor([-1, 0]), ("a", "b")),
            "labels must be from 0 to 1, .* found -1 to 0",
        ),
        (
            Predictions(torch.tensor([[0, torch.nan], [1, 0]]), torch.tensor([0, 1]), ("a", "b")),
            "logits of 1 of 2 images",
        ),
    ],
)
def test_predictions_that_cannot_be_measured_are_refused(measure, broken, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SeewhyError, match=message):
        measure(broken)


def test_counts_below_one_are_refused(result: Predictions) -> None:
    with pytest.raises(
        SeewhyError, match="count must be at least 1, or None for all confusions, found 0"
    ):
        worst_confusions(result, 0)
    with pytest.raises(SeewhyError, match="k must be at least 1, found 0"):
        top_k_accuracy(result, 0)
