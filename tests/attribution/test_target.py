"""Which score is explained: weights of the logits, written out by hand."""

import numpy as np
import pytest
import torch

from seewhy.attribution.target import check_rows, target_weights
from seewhy.errors import SeewhyError

LOGITS = torch.tensor(
    [[1.0, 3.0, 2.0, 0.0], [4.0, -1.0, 0.0, 3.5]], dtype=torch.float64
)  # predicted 1, 0; runner-up 2, 3
LABELS = torch.tensor([2, 0])
CLASSES = ("cat", "dog", "t-shirt", "7")


def one_hot(*indices):
    return torch.eye(4, dtype=torch.float64)[list(indices)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("predicted", one_hot(1, 0)),
        ("runner-up", one_hot(2, 3)),
        ("true", one_hot(2, 0)),
        (3, one_hot(3, 3)),
        ("3", one_hot(3, 3)),
        (np.int64(2), one_hot(2, 2)),
        ("dog", one_hot(1, 1)),
        ("t-shirt", one_hot(2, 2)),
        ("7", one_hot(3, 3)),  # a name that looks like an index is a name
        ("predicted-runner-up", one_hot(1, 0) - one_hot(2, 3)),
        ("runner-up-predicted", one_hot(2, 3) - one_hot(1, 0)),
        ("predicted-true", one_hot(1, 0) - one_hot(2, 0)),  # nothing where the prediction is right
        ("cat-t-shirt", one_hot(0, 0) - one_hot(2, 2)),
        ("t-shirt-cat", one_hot(2, 2) - one_hot(0, 0)),
        ("dog-predicted", one_hot(1, 1) - one_hot(1, 0)),
        ("0-2", one_hot(0, 0) - one_hot(2, 2)),
        (torch.tensor([3, 1]), one_hot(3, 1)),
        (torch.tensor([3, 1], dtype=torch.int32), one_hot(3, 1)),
        (torch.tensor([3, 1], dtype=torch.uint8), one_hot(3, 1)),
        (LOGITS.float(), LOGITS),  # weights, in the dtype of the logits
    ],
)
def test_weights(target, expected):
    weights = target_weights(target, LOGITS, LABELS, CLASSES)
    assert weights.dtype == torch.float64
    assert torch.equal(weights, expected)


def test_without_names_a_number_is_an_index():
    assert torch.equal(target_weights("1", LOGITS), one_hot(1, 1))
    assert torch.equal(target_weights("7", torch.zeros(1, 9)), torch.eye(9)[[7]])


def test_a_class_may_have_a_hyphen_that_looks_like_a_contrast():
    weights = target_weights("cat-dog", LOGITS, classes=("cat", "dog", "cat-dog", "other"))
    assert torch.equal(weights, one_hot(2, 2))


def test_two_readings_are_refused():
    with pytest.raises(
        SeewhyError, match="means 'a' minus 'b-c' or 'a-b' minus 'c'; name the classes by index"
    ):
        target_weights("a-b-c", LOGITS, classes=("a", "b-c", "a-b", "c"))


def test_the_runner_up_of_equal_logits_is_another_class():
    logits = torch.randint(0, 4, (50, 10), generator=torch.Generator().manual_seed(0)).float()
    predicted, second = (
        target_weights(target, logits).argmax(1).tolist() for target in ("predicted", "runner-up")
    )
    for row, one, other in zip(logits.tolist(), predicted, second, strict=True):
        assert one != other
        assert [row[one], row[other]] == sorted(row, reverse=True)[:2]


def test_weights_carry_no_gradient():
    assert not target_weights(LOGITS.clone().requires_grad_(), LOGITS).requires_grad


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "class 4 does not exist: the model has 4 classes, 0 to 3"),
        (-1, "class -1 does not exist"),
        ("9", "class 9 does not exist"),
        (
            "dgo",
            r"unknown target 'dgo' \(did you mean 'dog'\?\); possible: predicted, true, runner-up, cat, dog, t-shirt, 7, an",
        ),
        ("Predicted", "did you mean 'predicted'"),
        ("-1", "unknown target '-1'"),
        ("cat-", "unknown target 'cat-'"),
        ("", "unknown target ''"),
        (None, "unknown target None"),
        (1.0, "unknown target 1.0"),
        ([0, 1], "unknown target"),
        ("cat-dgo", "unknown target 'cat-dgo'"),
        (torch.tensor([0, 4]), "class 4 does not exist"),
        (torch.tensor([0, -1]), "class -1 does not exist"),
        (torch.tensor([0]), r"found \(1,\) int64"),
        (torch.tensor(0), r"found \(\) int64"),
        (
            torch.tensor([0.0, 1.0]),
            r"class indices \(2,\) int64, or a target weights \(2, 4\) float; found \(2,\) float32",
        ),
        (torch.tensor([True, False]), r"found \(2,\) bool"),
        (torch.ones(2, 4, dtype=torch.int64), r"found \(2, 4\) int64"),
        (torch.ones(2, 3), r"found \(2, 3\) float32"),
    ],
)
def test_targets_that_there_are_not(target, message):
    with pytest.raises(SeewhyError, match=message):
        target_weights(target, LOGITS, LABELS, CLASSES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "target 'true' needs the true classes: give labels"),
        (torch.tensor([0, 1, 2]), r"found \(3,\) int64"),
        (torch.tensor([[0], [1]]), r"found \(2, 1\) int64"),
        (torch.tensor([0.0, 1.0]), r"found \(2,\) float32"),
        (torch.tensor([0, 4]), "class 4 does not exist"),
        ([0, 1], "found list"),
    ],
)
@pytest.mark.parametrize("target", ["true", "predicted-true"])
def test_labels_that_do_not_fit(target, labels, message):
    with pytest.raises(SeewhyError, match=message):
        target_weights(target, LOGITS, labels, CLASSES)


def test_more_names_than_classes():
    with pytest.raises(SeewhyError, match="class 4 does not exist"):
        target_weights("bird", LOGITS, classes=(*CLASSES, "bird"))


def test_a_single_class_has_no_runner_up():
    with pytest.raises(SeewhyError, match="'runner-up' needs a model of at least two classes"):
        target_weights("runner-up", torch.zeros(2, 1))


def test_long_lists_of_classes_are_cut():
    with pytest.raises(SeewhyError) as error:
        target_weights(
            "zzz", torch.zeros(1, 1000), classes=[f"class {index}" for index in range(1000)]
        )
    assert len(str(error.value)) < 400


def test_tensors_have_an_entry_for_each_image():
    check_rows("predicted", None, 3)
    check_rows(torch.zeros(3, 4), torch.zeros(3), 3)
    for given in (torch.zeros(2, 4), torch.tensor(1)):
        with pytest.raises(
            SeewhyError, match="target must have an entry for each of the 3 images, found shape"
        ):
            check_rows(given, None, 3)
    with pytest.raises(
        SeewhyError, match=r"labels must have an entry for each of the 3 images, found shape \(4,\)"
    ):
        check_rows(1, torch.zeros(4), 3)
