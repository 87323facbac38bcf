"""Rare classes, and splits with other shares of the classes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from seewhy.checks import check
from seewhy.checks.result import FOUND, NOT_JUDGED, OK
from seewhy.data.dataset import Dataset, Split

NAMES = ["class-imbalance", "small-classes", "label-drift"]
ABC = ("a", "b", "c")


def blank(count: int) -> np.ndarray:
    return np.zeros((count, 1, 4, 4), dtype=np.uint8)


def test_rare_classes_are_found(data_of: Callable[..., Dataset]) -> None:
    train = np.repeat([0, 1, 2], [240, 40, 8])
    labels = np.concatenate([train, [0, 1]])
    result = check(data_of(blank(290), labels, test=2, classes=ABC), only=NAMES)
    [rare], [small] = result["class-imbalance"].findings, result["small-classes"].findings
    assert (rare.subject, rare.value, small.subject, small.value) == ("c", 30, "c", 8)
    assert "1 of 3 classes has less than a tenth of the images of a (240)" in (
        result["class-imbalance"].sentence
    )
    even = np.concatenate([np.repeat([0, 1, 2], 10), [0, 1]])
    result = check(data_of(blank(32), even, test=2, classes=ABC), only=NAMES)
    assert result.found == ()
    assert result["class-imbalance"].value == 1


def test_label_drift_is_the_total_variation_of_a_significant_difference(
    data_of: Callable[..., Dataset],
) -> None:
    train, test = np.repeat([0, 1], [70, 50]), np.repeat([0, 1], [20, 40])
    labels = np.concatenate([train, test])
    result = check(data_of(blank(180), labels, test=60), only=NAMES)["label-drift"]
    assert result.verdict == FOUND
    assert result.value == pytest.approx(abs(70 / 120 - 20 / 60))
    expected = chi2_contingency([[70, 50], [20, 40]], correction=False).pvalue
    assert result.findings[0].note == f"ant: -25.0 points, p = {expected:.2g}"
    few = np.concatenate([np.repeat([0, 1], [7, 5]), np.repeat([0, 1], [2, 4])])
    result = check(data_of(blank(18), few, test=6), only=NAMES)["label-drift"]
    assert (result.verdict, result.value) == (OK, pytest.approx(0.25))


def test_splits_that_were_drawn_do_not_drift(data_of: Callable[..., Dataset]) -> None:
    from dataclasses import replace

    data = replace(data_of(blank(60)), held_out=("test",))
    result = check(data, only=["label-drift", "drift", "property-drift"])
    assert {each.verdict for each in result.checks.values()} == {NOT_JUDGED}
    assert result["drift"].sentence == "the splits were drawn at random from one source"


def three_splits(train: np.ndarray, test: np.ndarray, validation: np.ndarray) -> Dataset:
    def split(labels: np.ndarray) -> Split:
        names = list(map(str, range(len(labels))))
        return Split(torch.from_numpy(blank(len(labels))), torch.from_numpy(labels), names)

    return Dataset("three", ("ant", "bee"), split(train), split(test), split(validation), "0" * 32)


def test_label_drift_names_a_split_that_differs_significantly() -> None:
    """A few images may differ more by chance."""
    train, test = np.repeat([0, 1], 500), np.repeat([0, 1], [600, 300])
    result = check(three_splits(train, test, np.array([0, 0, 0, 1])), only="label-drift")
    found = result["label-drift"]
    assert [each.subject for each in found.findings] == ["test"]
    assert (
        found.sentence == "The shares of the classes in test differ by 16.7% from those in train."
    )
    assert found.value == pytest.approx(1 / 6)


def test_a_small_label_drift_of_many_images_is_significant() -> None:
    train, test = np.repeat([0, 1], 5000), np.repeat([0, 1], [5500, 4500])
    result = check(three_splits(train, test, train[::100]), only="label-drift")["label-drift"]
    assert result.verdict == OK
    assert (
        result.sentence == "The shares of the classes in test differ by 5.0% from those in train."
    )
