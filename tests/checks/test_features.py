"""Planted wrong labels and off-topic images, by the features of a network that sees colors."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.checks import check
from seewhy.checks.features import credible_limit
from seewhy.checks.result import NOT_JUDGED
from seewhy.data.dataset import Dataset
from seewhy.models.classifier import Classifier


@pytest.fixture(scope="module")
def network() -> Classifier:
    """Its features are the mean colors of four quarters."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    return Classifier(layers, image_shape=(3, 16, 16), name="colors")


def colored(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noise of 16x16, reddish for class 0 and greenish for class 1."""
    rng = np.random.default_rng(seed)
    images = rng.integers(80, 140, (len(labels), 3, 16, 16))
    shift = rng.integers(-15, 15, (len(labels), 3, 1, 1))
    images += shift
    images[np.arange(len(labels)), labels] += 60
    return images.astype(np.uint8)


def test_wrong_labels_and_off_topic_images_are_found(
    network: Classifier, data_of: Callable[..., Dataset]
) -> None:
    true = np.arange(120) % 2
    images, given = colored(true), true.copy()
    wrong = [4, 31, 77, 110]  # the last one is in the test split
    given[wrong] = 1 - given[wrong]
    images[50, 0], images[50, 1], images[50, 2] = 0, 0, 255
    names = ["outliers", "label-issues"]
    result = check(data_of(images, given), network, only=names)
    [outlier] = result["outliers"].findings
    assert (outlier.images[0].split, outlier.images[0].index) == ("train", 50)
    assert outlier.value > 5
    issues = result["label-issues"].findings
    assert [each.images[0].file for each in issues[1:]] == [
        each.images[0].file for each in sorted(issues[1:], key=lambda issue: issue.value)
    ]
    assert {each.images[0].file for each in issues} == {
        "train-50.png",
        "train-4.png",
        "train-31.png",
        "train-77.png",
        "test-10.png",
    }
    assert issues[0].note == "suggested: none of the classes"
    by_file = {each.images[0].file: each.note for each in issues}
    assert by_file["train-4.png"].startswith("suggested: ant, ")
    assert all(each.value < 0.5 for each in issues[1:])
    assert "5 of 120 labels are suspicious" in result["label-issues"].sentence
    clean = check(data_of(colored(true), true), network, only=names)
    assert clean.found == ()
    assert "agrees with 100.0% of the labels." in clean["label-issues"].sentence


def test_many_images_far_from_their_neighbors_are_no_outliers(
    network: Classifier, data_of: Callable[..., Dataset]
) -> None:
    true = np.arange(100) % 2
    images = colored(true)
    images[:70] = (images[0] + np.random.default_rng(0).integers(0, 2, (70, 1, 1, 1))).astype(
        np.uint8
    )
    result = check(data_of(images, true), network, only=["outliers"])["outliers"]
    assert not result.findings


def test_contradictions_by_a_weak_probe_are_its_own_errors(
    network: Classifier, data_of: Callable[..., Dataset]
) -> None:
    rng = np.random.default_rng(1)
    true = np.arange(200) % 2
    images = colored(true)
    random = rng.random(200) < 0.5  # half of the images say nothing about their label
    images[random] = rng.integers(90, 150, (int(random.sum()), 3, 16, 16))
    images[random, :2] += rng.integers(0, 25, (int(random.sum()), 2, 1, 1), np.uint8)
    result = check(data_of(images, true, test=0), network, only=["label-issues"])["label-issues"]
    assert {finding.note for finding in result.findings} <= {"suggested: none of the classes"}
    assert "most of them by its own errors" in result.sentence


def test_credible_limit_compares_with_a_calibrated_probe() -> None:
    calibrated = torch.tensor([[0.04, 0.96]]).expand(1000, 2)
    own = torch.full((1000,), 0.96)
    own[:40] = 0.04  # as many as the probe expects
    assert credible_limit(calibrated, own) == 0
    own[:100] = 0.04
    assert credible_limit(calibrated, own) == 0.1
    few = torch.tensor([[0.04, 0.96]]).expand(25, 2)  # one is expected
    assert credible_limit(few, torch.tensor([0.04] * 3 + [0.96] * 22)) == 0  # 8% by chance
    assert credible_limit(few, torch.tensor([0.04] * 4 + [0.96] * 21)) == 0.1


def test_checks_by_features_need_a_model(data_of: Callable[..., Dataset]) -> None:
    labels = np.arange(60) % 2
    result = check(data_of(colored(labels), labels), only=["outliers", "label-issues"])
    for each in result.checks.values():
        assert each.verdict == NOT_JUDGED
        assert each.sentence.startswith("needs the features of a pretrained model")


def test_few_images_or_one_class_are_not_judged_by_features(
    network: Classifier, data_of: Callable[..., Dataset]
) -> None:
    labels = np.array([0, 1] * 5)
    few = check(data_of(colored(labels), labels, test=2), network, only=["outliers"])
    assert "each may be the only one of its kind" in few["outliers"].sentence
    one = np.zeros(30, dtype=np.int64)
    result = check(data_of(colored(one), one), network, only=["label-issues"])
    assert result["label-issues"].verdict == NOT_JUDGED
    single = np.array([0, 1, 1])
    result = check(data_of(colored(single), single, test=1), network, only=["label-issues"])
    assert result["label-issues"].sentence == "no class has two images to compare"
