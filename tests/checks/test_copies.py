"""Planted copies: equal and nearly equal images, within and across splits."""

from collections.abc import Callable

import numpy as np

from seewhy.checks import check
from seewhy.checks.result import FOUND, OK
from seewhy.data.dataset import Dataset


def test_copies_are_found_within_and_across_splits(
    images: np.ndarray, data_of: Callable[..., Dataset]
) -> None:
    clean = check(data_of(images), only=["duplicates", "near-duplicates"])
    assert (clean["duplicates"].verdict, clean["near-duplicates"].verdict) == (OK, OK)
    images[7] = images[3]  # in train, with different labels below
    images[54] = images[10]  # in test, of one in train
    images[12] = np.clip(1.1 * images[20].astype(float) + 5, 0, 255)
    images[58] = images[31, :, :, ::-1]
    labels = np.arange(60) % 2
    labels[7] = 1 - labels[3]
    result = check(data_of(images, labels), only=["duplicates", "near-duplicates"])

    def pairs(name: str) -> list[tuple[tuple[str, int], ...]]:
        findings = result[name].findings
        return [tuple((each.split, each.index) for each in f.images) for f in findings]

    exact, near = result["duplicates"], result["near-duplicates"]
    assert pairs("duplicates") == [(("train", 10), ("test", 14)), (("train", 3), ("train", 7))]
    assert exact.verdict == FOUND
    assert exact.sentence == (
        "2 of 60 images have the pixels of another image, 1 across splits, where they inflate the "
        "accuracy and 1 with different labels."
    )
    assert pairs("near-duplicates") == [
        (("train", 31), ("test", 18)),
        (("train", 12), ("train", 20)),
    ]
    assert [finding.note for finding in near.findings] == ["mirrored, different labels", ""]
    assert exact.findings[1].note == "different labels"


def test_three_equal_images_are_two_copies(
    images: np.ndarray, data_of: Callable[..., Dataset]
) -> None:
    images[[5, 9]] = images[2]
    result = check(data_of(images), only=["duplicates", "near-duplicates"])
    assert result["duplicates"].found == 2
    assert result["near-duplicates"].found == 0


def test_each_copy_in_another_split_is_counted(
    images: np.ndarray, data_of: Callable[..., Dataset]
) -> None:
    """Also if it is a copy of an image that is there already."""
    images[[45, 52]] = images[3]
    labels = np.arange(60) % 2
    labels[[3, 45, 52]] = 0, 1, 0
    found = check(data_of(images, labels), only="duplicates")["duplicates"]
    assert "2 across splits" in found.sentence
    assert "1 with different labels" in found.sentence
