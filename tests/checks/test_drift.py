"""Splits that differ in their images, and the interval of a cross-validated AUROC."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from seewhy.checks import check
from seewhy.checks.drift import auroc_interval
from seewhy.checks.result import FOUND, NOT_JUDGED, OK
from seewhy.data.dataset import Dataset

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
