"""Comparisons of two models on the same images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from seewhy.diagnosis.paired import compare_predictions
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


def test_comparison_by_brute_force() -> None:
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


def test_comparison_of_a_model_with_itself() -> None:
    labels, was, _ = two(1)
    same = compare_predictions(predictions_of(was, labels), predictions_of(was, labels))
    assert (len(same.fixed), len(same.broken), same.change, same.p_value) == (0, 0, 0, 1)
    assert same.interval[0] < 0 < same.interval[1]
    assert same.conclusion == (
        f"Accuracy on 300 images stays at {100 * was.mean():.2f}%: "
        "both models classify the same images correctly."
    )


def test_conclusion_states_significance() -> None:
    labels, was, now = two(2)
    conclusions = [
        compare_predictions(predictions_of(one, labels), predictions_of(other, labels)).conclusion
        for one, other in ((was, np.roll(was, 1)), (was & now, was | now))
    ]
    assert "broken; not significantly different (McNemar test, p = " in conclusions[0]
    assert "broken; significantly different (McNemar test, p < 0.0001)." in conclusions[1]


def relabeled(labels: np.ndarray, indices: list[int]) -> np.ndarray:
    changed = labels.copy()
    changed[indices] = (labels[indices] + 1) % 3
    return changed


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda was, labels: predictions_of(was[1:], labels[1:]),
            "the two predictions have 300 and 299 images; compare two runs",
        ),
        (
            lambda was, labels: predictions_of(was, labels, NAMES[:3]),
            "the models have 4 and 3 classes",
        ),
        (
            lambda was, labels: predictions_of(was, labels, ("a", "x", "c", "empty")),
            "the classes of the models differ, first class 1: 'b' and 'x'",
        ),
        (
            lambda was, labels: predictions_of(was, relabeled(labels, [7, 9])),
            "the labels of 2 of 300 images differ, first of image 7: '.' and '.'",
        ),
    ],
)
def test_comparison_refuses_other_images(
    other: Callable[[np.ndarray, np.ndarray], Predictions], message: str
) -> None:
    labels, was, _ = two(3)
    with pytest.raises(SeewhyError, match=message):
        compare_predictions(predictions_of(was, labels), other(was, labels))
