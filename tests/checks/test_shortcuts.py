"""Properties that predict the label, and the test whether they do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.checks import check
from seewhy.checks.measures import quantile_bins
from seewhy.checks.properties import balanced_accuracy_test, out_of_fold_classes
from seewhy.checks.result import FOUND, OK
from seewhy.data.dataset import Dataset, stratified_folds
from seewhy.data.sources import load


def test_border_color_that_gives_the_label_away_is_found(
    images: np.ndarray, data_of: Callable[..., Dataset]
) -> None:
    clean = check(data_of(images), only=["shortcuts"])["shortcuts"]
    assert clean.verdict == OK
    images[1::2, 0, :, :4] = 255
    result = check(data_of(images), only=["shortcuts"])["shortcuts"]
    assert result.verdict == FOUND
    assert "border color" in {finding.subject for finding in result.findings}
    assert result.sentence.startswith("A model may learn ")


def test_file_type_and_size_that_give_the_label_away_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number}.{('jpg', 'png')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        height = 30 + number % 2 if number > 6 else 31
        pixels = rng.integers(0, 256, (height, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, quality=95)
    result = check(load(tmp_path, image_size=16, quiet=True), only=["shortcuts"])["shortcuts"]
    notes = {finding.subject: finding.note for finding in result.findings}
    assert notes["file type"] == "balanced accuracy 100.0%, chance 50.0%"
    assert {"bytes per pixel", "image size", "aspect ratio"} <= set(notes)


def test_p_value_of_balanced_accuracy_equals_that_of_random_orders() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 15])
    predicted = np.where(rng.random(105) < 0.12, labels, rng.integers(0, 3, 105))
    accuracy, p_value = balanced_accuracy_test(predicted, labels)
    expected = np.mean([(predicted[labels == each] == each).mean() for each in range(3)])
    assert accuracy == pytest.approx(expected)
    shuffled = []
    for _ in range(1500):
        order = rng.permutation(labels)
        shuffled.append(np.mean([(predicted[order == each] == each).mean() for each in range(3)]))
    as_good = float(np.mean(np.array(shuffled) >= accuracy))
    assert 0.005 < as_good < 0.5  # so that the comparison says something
    assert p_value == pytest.approx(as_good, abs=0.03)
    assert balanced_accuracy_test(np.zeros(105, dtype=int), labels) == (pytest.approx(1 / 3), 1)


def test_classes_by_bins_are_those_of_naive_bayes() -> None:
    from sklearn.naive_bayes import CategoricalNB

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    bins = np.stack([rng.integers(0, 4, 200), (labels + rng.integers(0, 3, 200)) % 5], 1)
    predicted = out_of_fold_classes(bins, labels, 3)
    fold_of = stratified_folds(labels, 5, seed=0)
    for fold in range(5):
        test = fold_of == fold
        prior = np.full(3, 1 / 3)
        model = CategoricalNB(alpha=1, class_prior=prior, min_categories=[4, 5])
        expected = model.fit(bins[~test], labels[~test]).predict(bins[test])
        assert predicted[test].tolist() == expected.tolist()


def test_a_property_of_few_images_has_bins_of_its_own() -> None:
    """Most values are equal: the others are above or below them."""
    common = np.full(95, 256.0)
    sizes = quantile_bins(np.concatenate([common, [64, 300, 400, 640, 640]]))
    assert (sizes[:95] == sizes[0]).all()
    assert sizes[95] < sizes[0] < sizes[96:].min()
    flags = quantile_bins(np.repeat([0.0, 1.0], [95, 5]))
    assert len(np.unique(flags)) == 2
    values = np.random.default_rng(0).random(1000)
    assert np.bincount(quantile_bins(values)).max() < 110


def test_a_border_of_the_rare_class_is_found(
    images: np.ndarray, data_of: Callable[..., Dataset]
) -> None:
    """The file type of a class with less than a tenth of the images gives it away."""
    labels = (np.arange(60) % 15 == 0).astype(int)
    images[:, :, :4], images[:, :, :, :4] = 0, 0
    images[:, :, -4:], images[:, :, :, -4:] = 0, 0
    images[labels == 1, :, :4] = 255
    result = check(data_of(images, labels, test=0), only="shortcuts")["shortcuts"]
    assert "border color" in {finding.subject for finding in result.findings}
