"""Confident learning against its definition in loops, and on planted label errors."""

import numpy as np
import pytest
import torch

from seewhy.diagnosis.label_issues import confident_joint, find_label_issues
from seewhy.diagnosis.predictions import Predictions


def predictions_of(
    images: int, classes: int, seed: int, sure: float = 2.0, noise: float = 0.0
) -> tuple[Predictions, set[int]]:
    """Logits that favor the true class by `sure`, and labels with a share of `noise` wrong ones."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), truth] += sure
    flipped = rng.random(images) < noise
    labels = np.where(flipped, (truth + rng.integers(1, classes, images)) % classes, truth)
    names = tuple(f"class-{index}" for index in range(classes))
    predictions = Predictions(torch.from_numpy(logits).float(), torch.from_numpy(labels), names)
    return predictions, set(np.flatnonzero(flipped).tolist())


def by_definition(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Probabilities, thresholds (eq. 2), and the confident class of each image (eq. 1)."""
    logits, labels = predictions.logits.double().numpy(), predictions.labels.numpy()
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    classes = probabilities.shape[1]
    own = [
        [probabilities[i, k] for i in range(len(labels)) if labels[i] == k] for k in range(classes)
    ]
    thresholds = np.array([sum(values) / len(values) if values else np.inf for values in own])
    confident = {}
    for i in range(len(labels)):
        reached = [k for k in range(classes) if probabilities[i, k] >= thresholds[k]]
        if reached:
            confident[i] = max(reached, key=lambda k: probabilities[i, k])
    return probabilities, thresholds, confident


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (5, 1), (5, 2), (12, 3)])
def test_confident_joint_and_label_issues_by_definition(classes: int, seed: int) -> None:
    predictions, _ = predictions_of(400, classes, seed, sure=1.5, noise=0.1)
    probabilities, thresholds, confident = by_definition(predictions)
    joint = np.zeros((classes, classes), dtype=int)
    for i, k in confident.items():
        joint[predictions.labels[i], k] += 1
    assert np.array_equal(confident_joint(predictions).numpy(), joint)
    expected = {
        i: k
        for i, k in confident.items()
        if probabilities[i, k] > probabilities[i, predictions.labels[i]]
    }
    expected = {i: k for i, k in expected.items() if k != predictions.labels[i]}
    found = find_label_issues(predictions)
    assert len(expected) > 5
    assert {issue.index: issue.suggested_label for issue in found} == expected
    margins = [issue.self_confidence - issue.probability for issue in found]
    assert margins == sorted(margins)
    for issue in found:
        assert issue.given_label == predictions.labels[issue.index]
        assert issue.probability == pytest.approx(probabilities[issue.index, issue.suggested_label])
        assert issue.self_confidence == pytest.approx(probabilities[issue.index, issue.given_label])
        assert issue.threshold == pytest.approx(thresholds[issue.suggested_label])


def test_label_issues_rank_planted_errors_first() -> None:
    predictions, flipped = predictions_of(2000, 10, seed=4, sure=8.0, noise=0.05)
    found = [issue.index for issue in find_label_issues(predictions)]
    first = found[: len(flipped)]
    assert len(flipped) > 80
    assert len(flipped & set(first)) / len(first) > 0.95
    assert len(flipped & set(found)) / len(flipped) > 0.95
    clean, _ = predictions_of(2000, 10, seed=4, sure=8.0)
    assert len(find_label_issues(clean)) < 0.02 * 2000


def test_label_issues_exclude_correctly_predicted_images() -> None:
    """It reaches the low threshold of the other class only."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.7, 0.3]])
    predictions = Predictions(probabilities.log(), torch.tensor([0, 0, 0, 1, 1]), ("a", "b"))
    assert confident_joint(predictions).tolist() == [[2, 1], [0, 2]]  # thresholds 0.8 and 0.3
    assert find_label_issues(predictions) == ()


def test_label_issues_never_suggest_a_class_without_images() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    predictions = Predictions(logits, torch.tensor([0, 1, 1]), ("a", "b", "c"))
    assert {issue.suggested_label for issue in find_label_issues(predictions)} <= {0, 1}
    assert confident_joint(predictions)[:, 2].tolist() == [0, 0, 0]


def test_confident_joint_of_equal_images() -> None:
    predictions = Predictions(
        torch.tensor([[0.3, 0.1]]).expand(7, 2), torch.zeros(7, dtype=torch.int64), ("a", "b")
    )
    assert confident_joint(predictions).tolist() == [[7, 0], [0, 0]]


def test_label_issue_reason() -> None:
    probabilities = torch.tensor([[0.98, 0.02], [0.9, 0.1], [0.3, 0.7], [0.98, 0.02]])
    predictions = Predictions(probabilities.log(), torch.tensor([0, 0, 1, 1]), ("dog", "cat " * 20))
    [issue] = find_label_issues(predictions)
    assert issue.index == 3
    assert (
        issue.reason == "P(cat cat cat cat cat cat cat c…) = 0.02, P(dog) = 0.98; "
        "mean P(dog) over images labeled dog: 0.94"
    )


def test_label_issues_are_ranked_as_by_cleanlab() -> None:
    """By the normalized margin, `get_normalized_margin_for_each_label` of cleanlab 2.9.0."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 300)
    logits = rng.normal(size=(300, 2)) + 3 * np.eye(2)[labels]
    labels[:40] = 1 - labels[:40]
    issues = find_label_issues(
        Predictions(torch.from_numpy(logits).float(), torch.from_numpy(labels), ("a", "b"))
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = probabilities[np.arange(300), labels]
    others = probabilities.copy()
    others[np.arange(300), labels] = -1
    margin = (own - others.max(1) + 1) / 2
    ranked = [issue.index for issue in issues]
    assert len(ranked) > 10
    assert ranked == sorted(ranked, key=lambda index: margin[index])
