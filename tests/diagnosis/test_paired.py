"""Two models on the same images: McNemar's test against scipy, intervals against published examples and their coverage."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from seewhy.diagnosis.paired import compare_predictions, mcnemar, paired_interval
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError

NAMES = ("a", "b", "c", "empty")


def predictions_of(
    right: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] = NAMES
) -> Predictions:
    predicted = np.where(right, labels, (labels + 1) % 3)
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), len(classes)).float()
    return Predictions(logits, torch.from_numpy(labels), classes)


def two(seed: int, images: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    was = rng.random(images) < 0.7
    now = np.where(rng.random(images) < 0.2, rng.random(images) < 0.9, was)
    return rng.integers(0, 3, images), was, now


def test_counts_are_those_of_numpy() -> None:
    labels, was, now = two(0)
    found = compare_predictions(predictions_of(was, labels), predictions_of(now, labels))
    assert found.fixed.tolist() == np.flatnonzero(~was & now).tolist()
    assert found.broken.tolist() == np.flatnonzero(was & ~now).tolist()
    assert (found.images, found.both_wrong) == (300, int((~was & ~now).sum()))
    assert (found.before, found.after) == pytest.approx((was.mean(), now.mean()))
    assert found.change == pytest.approx(now.mean() - was.mean())
    assert [row.name for row in found.classes] == ["a", "b", "c"]
    for index, row in enumerate(found.classes):
        of = labels == index
        assert (row.images, row.before, row.after) == pytest.approx(
            (of.sum(), was[of].mean(), now[of].mean())
        )
        assert row.interval[0] < row.change < row.interval[1]
    assert found.p_value == pytest.approx(
        binomtest(len(found.fixed), len(found.fixed) + len(found.broken)).pvalue
    )
    for number in (
        f"{100 * now.mean():.2f}%",
        f"{len(found.fixed)} fixed",
        f"{len(found.broken)} broken",
        "300 images",
    ):
        assert number in found.conclusion


@pytest.mark.parametrize(
    ("fixed", "broken"),
    [(0, 0), (1, 0), (0, 8), (5, 5), (7, 1), (238, 252), (900, 1100), (60_000, 61_500)],
)
def test_mcnemar_is_the_binomial_test_of_scipy(fixed: int, broken: int) -> None:
    expected = 1.0 if fixed + broken == 0 else binomtest(fixed, fixed + broken).pvalue
    assert mcnemar(fixed, broken) == pytest.approx(expected, rel=1e-8)
    assert mcnemar(broken, fixed) == mcnemar(fixed, broken)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((14, 5, 0, 22), (0.011, 0.226)),  # Altman et al. 2000, Statistics with Confidence, p. 52
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # Newcombe 1998, method 10
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Fagerland, Lydersen & Laake 2017, chapter 8
    ],
)
def test_the_interval_is_that_of_published_examples(
    table: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert paired_interval(*table) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    "shares", [(0.4, 0.3, 0.1, 0.2), (0.55, 0.2, 0.15, 0.1), (0.2, 0.25, 0.25, 0.3)]
)
def test_the_interval_covers_the_truth_19_times_of_20(
    shares: tuple[float, float, float, float],
) -> None:
    """Every table of 40 images, weighted by its multinomial probability."""
    images, change = 40, shares[1] - shares[2]
    covered = total = 0.0
    for both, fixed, broken in itertools.product(range(images + 1), repeat=3):
        counts = (both, fixed, broken, images - both - fixed - broken)
        if counts[3] < 0:
            continue
        ways = math.factorial(images) / math.prod(map(math.factorial, counts))
        probability = ways * math.prod(
            share**count for share, count in zip(shares, counts, strict=True)
        )
        low, high = paired_interval(*counts)
        total += probability
        covered += probability * (low <= change <= high)
    assert total == pytest.approx(1)
    assert 0.94 < covered < 0.98


def test_the_interval_turns_with_the_comparison_and_stays_in_range() -> None:
    low, high = paired_interval(70, 3, 9, 18)
    assert paired_interval(70, 9, 3, 18) == pytest.approx((-high, -low))
    for counts in itertools.product((0, 1, 5), repeat=4):
        if sum(counts):
            low, high = paired_interval(*counts)
            assert -1 <= low <= (counts[1] - counts[2]) / sum(counts) <= high <= 1


def test_a_model_compared_with_itself() -> None:
    labels, was, _ = two(1)
    found = compare_predictions(predictions_of(was, labels), predictions_of(was, labels))
    assert (len(found.fixed), len(found.broken), found.change, found.p_value) == (0, 0, 0, 1)
    assert found.interval[0] < 0 < found.interval[1]
    assert "right and wrong on the same" in found.conclusion


def test_conclusions_tell_luck_from_progress() -> None:
    labels, was, now = two(2)
    assert (
        "no more than luck"
        in compare_predictions(
            predictions_of(was, labels), predictions_of(np.roll(was, 1), labels)
        ).conclusion
    )
    assert (
        ", more than luck explains (p < 0.0001)"
        in compare_predictions(
            predictions_of(was & now, labels), predictions_of(was | now, labels)
        ).conclusion
    )


def test_other_images_are_refused() -> None:
    labels, was, _ = two(3)
    one = predictions_of(was, labels)
    with pytest.raises(SeewhyError, match="the two are of 300 and 299 images; compare two runs"):
        compare_predictions(one, predictions_of(was[1:], labels[1:]))
    with pytest.raises(SeewhyError, match="the two know 4 and 3 classes"):
        compare_predictions(one, predictions_of(was, labels, NAMES[:3]))
    with pytest.raises(SeewhyError, match="unlike classes, first class 1: 'b' and 'x'"):
        compare_predictions(one, predictions_of(was, labels, ("a", "x", "c", "empty")))
    changed = labels.copy()
    changed[[7, 9]] = (labels[[7, 9]] + 1) % 3
    with pytest.raises(
        SeewhyError, match=r"2 of 300 images have unlike labels, first image 7: '.' and '.'"
    ):
        compare_predictions(one, predictions_of(was, changed))
    with pytest.raises(SeewhyError, match="no images"):
        compare_predictions(
            predictions_of(was[:0], labels[:0]), predictions_of(was[:0], labels[:0])
        )
