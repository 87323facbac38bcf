"""Splits that differ in their images, and the interval of a cross-validated AUROC."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from seewhy.checks import check
from seewhy.checks.drift import auroc_interval
from seewhy.checks.result import FOUND, NOT_JUDGED, OK
from seewhy.data.dataset import Dataset, Split

NAMES = ["drift", "property-drift"]


@pytest.mark.slow
def test_images_that_are_brighter_in_test_are_drift(
    images: np.ndarray, data_of: Callable[..., Dataset]
) -> None:
    same = check(data_of(images, test=24), only=NAMES)
    assert [same[name].verdict for name in NAMES] == [OK, OK]
    low, high = same["drift"].interval or (1, 0)
    assert low < 0.5 < high or same["drift"].value == pytest.approx(0.5, abs=0.1)
    images[36:] = np.clip(images[36:].astype(int) + 70, 0, 255)
    result = check(data_of(images, test=24), only=NAMES)
    assert [result[name].verdict for name in NAMES] == [FOUND, FOUND]
    [finding] = result["property-drift"].findings
    assert finding.subject == "test"
    assert "brightness" in finding.note or "color" in finding.note
    assert "Images in test differ from those in train" in result["drift"].sentence


def test_few_images_do_not_drift(images: np.ndarray, data_of: Callable[..., Dataset]) -> None:
    result = check(data_of(images, test=10), only=["drift"])["drift"]
    assert (result.verdict, result.sentence) == (NOT_JUDGED, "test has fewer than 20 images")


def test_auroc_is_the_mean_of_the_folds_with_delongs_variance() -> None:
    rng = np.random.default_rng(0)
    positive, fold_of = rng.random(90) < 0.4, np.arange(90) % 3
    scores = np.round(rng.normal(size=90) + positive, 1)  # with ties
    auroc, (low, high) = auroc_interval(scores, positive, fold_of)
    areas, variance = [], 0.0
    for fold in range(3):
        chosen = fold_of == fold
        areas.append(roc_auc_score(positive[chosen], scores[chosen]))
        own, others = (scores[chosen & each] for each in (positive, ~positive))
        wins = (own[:, None] > others) + 0.5 * (own[:, None] == others)
        variance += wins.mean(1).var(ddof=1) / len(own) + wins.mean(0).var(ddof=1) / len(others)
    assert auroc == pytest.approx(np.mean(areas))
    assert high - auroc == pytest.approx(1.96 * variance**0.5 / 3, rel=1e-3)
    assert auroc - low == pytest.approx(high - auroc)


def test_drift_names_a_split_that_differs_significantly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small split may have a larger area by chance."""
    found = {"test": (0.7, (0.62, 0.78)), "validation": (0.8, (0.45, 1.0))}
    results = iter([*found.values(), (0.4, (0.2, 0.6)), found["validation"]])
    monkeypatch.setattr("seewhy.checks.drift.auroc_interval", lambda *given: next(results))
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (30, 1, 16, 16), dtype=np.uint8))
    split = Split(pixels, torch.arange(30) % 2, list(map(str, range(30))))
    data = Dataset("three", ("a", "b"), split, split, split, "0" * 32)
    result = check(data, only="drift")["drift"]
    assert [each.subject for each in result.findings] == ["test"]
    assert (result.value, result.interval) == found["test"]
    assert result.sentence.startswith("Images in test differ from those in train")
    result = check(data, only="drift")["drift"]
    assert result.verdict == OK
    assert "validation may differ from those in train in layout and colors, but not signi" in (
        result.sentence
    )
