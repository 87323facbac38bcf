"""Confident learning against its definition written out in loops, and against labels that were made wrong."""

import numpy as np
import pytest
import torch

from seewhy.diagnosis.label_issues import confident_joint, find_label_issues
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError


def predictions_of(
    images: int, classes: int, seed: int, sure: float = 2.0, noise: float = 0.0
) -> tuple[Predictions, set[int]]:
    """Logits that favor the true class by `sure`, and labels of which a share of `noise` is another class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), truth] += sure
    flipped = rng.random(images) < noise
    labels = np.where(flipped, (truth + rng.integers(1, classes, images)) % classes, truth)
    names = tuple(f"class-{index}" for index in range(classes))
    result = Predictions(torch.from_numpy(logits).float(), torch.from_numpy(labels), names)
    return result, set(np.flatnonzero(flipped).tolist())


def by_definition(result: Predictions) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Probabilities, thresholds (eq. 2), and of each image that reaches one the most probable class that it reaches (eq. 1)."""
    logits, labels = result.logits.double().numpy(), result.labels.numpy()
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
def test_joint_and_suspects_are_those_of_the_definition(classes: int, seed: int) -> None:
    result, _ = predictions_of(400, classes, seed, sure=1.5, noise=0.1)
    probabilities, thresholds, confident = by_definition(result)
    joint = np.zeros((classes, classes), dtype=int)
    for i, k in confident.items():
        joint[result.labels[i], k] += 1
    assert np.array_equal(confident_joint(result).numpy(), joint)
    expected = {
        i: k
        for i, k in confident.items()
        if probabilities[i, k] > probabilities[i, result.labels[i]]
    }
    expected = {i: k for i, k in expected.items() if k != result.labels[i]}
    found = find_label_issues(result)
    assert len(expected) > 5
    assert {suspect.index: suspect.suggested_label for suspect in found} == expected
    margins = [suspect.self_confidence - suspect.probability for suspect in found]
    assert margins == sorted(margins)
    for suspect in found:
        assert suspect.given_label == result.labels[suspect.index]
        assert suspect.probability == pytest.approx(
            probabilities[suspect.index, suspect.suggested_label]
        )
        assert suspect.self_confidence == pytest.approx(
            probabilities[suspect.index, suspect.given_label]
        )
        assert suspect.threshold == pytest.approx(thresholds[suspect.suggested_label])


def test_planted_errors_rank_first() -> None:
    result, flipped = predictions_of(2000, 10, seed=4, sure=8.0, noise=0.05)
    found = [suspect.index for suspect in find_label_issues(result)]
    first = found[: len(flipped)]
    assert len(flipped) > 80
    assert len(flipped & set(first)) / len(first) > 0.95
    assert len(flipped & set(found)) / len(flipped) > 0.95
    clean, _ = predictions_of(2000, 10, seed=4, sure=8.0)
    assert len(find_label_issues(clean)) < 0.02 * 2000


def test_an_image_that_is_still_called_what_it_is_labeled_is_no_suspect() -> None:
    """It reaches the low threshold of the other class only."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.7, 0.3]])
    result = Predictions(probabilities.log(), torch.tensor([0, 0, 0, 1, 1]), ("a", "b"))
    assert confident_joint(result).tolist() == [[2, 1], [0, 2]]  # thresholds 0.8 and 0.3
    assert find_label_issues(result) == ()


def test_a_class_without_images_is_never_suggested() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 9.0]])
    result = Predictions(logits, torch.tensor([0, 1, 1]), ("a", "b", "c"))
    assert {suspect.suggested_label for suspect in find_label_issues(result)} <= {0, 1}
    assert confident_joint(result)[:, 2].tolist() == [0, 0, 0]


def test_images_that_are_all_alike_reach_their_own_mean() -> None:
    result = Predictions(
        torch.tensor([[0.3, 0.1]]).expand(7, 2), torch.zeros(7, dtype=torch.int64), ("a", "b")
    )
    assert confident_joint(result).tolist() == [[7, 0], [0, 0]]


def test_the_reason_names_classes_and_numbers() -> None:
    probabilities = torch.tensor([[0.98, 0.02], [0.9, 0.1], [0.3, 0.7], [0.98, 0.02]])
    result = Predictions(probabilities.log(), torch.tensor([0, 0, 1, 1]), ("dog", "cat " * 20))
    [suspect] = find_label_issues(result)
    assert suspect.index == 3
    assert (
        suspect.reason
        == "P(cat cat cat cat cat cat cat c…) = 0.02, P(dog) = 0.98; mean P(dog) over images labeled dog: 0.94"
    )


def test_logits_that_are_not_finite_are_refused() -> None:
    logits = torch.zeros(3, 2)
    logits[1, 0] = torch.nan
    with pytest.raises(SeewhyError, match="the logits of 1 of 3 images are not finite"):
        find_label_issues(Predictions(logits, torch.zeros(3, dtype=torch.int64), ("a", "b")))
