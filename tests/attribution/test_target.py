"""Which score is explained: weights of the logits, written out by hand."""

import numpy as np
import pytest
import torch

from seewhy.attribution.target import TargetSpec
from seewhy.errors import SeewhyError

LOGITS = torch.tensor(
    [[1.0, 3.0, 2.0, 0.0], [4.0, -1.0, 0.0, 3.5]], dtype=torch.float64
)  # predicted 1, 0; runner-up 2, 3
LABELS = torch.tensor([2, 0])
CLASSES = ("cat", "dog", "t-shirt", "7")


def one_hot(*indices):
    return torch.eye(4, dtype=torch.float64)[list(indices)]


def weights_of(target, logits=LOGITS, labels=None, classes=()):
    return TargetSpec(target, labels, classes).weights(logits)


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
        (("predicted", "runner-up"), one_hot(1, 0) - one_hot(2, 3)),
        (("runner-up", "predicted"), one_hot(2, 3) - one_hot(1, 0)),
        (("predicted", "true"), one_hot(1, 0) - one_hot(2, 0)),  # zero for a correct prediction
        (("cat", "t-shirt"), one_hot(0, 0) - one_hot(2, 2)),
        (("dog", "predicted"), one_hot(1, 1) - one_hot(1, 0)),
        (("7", 2), one_hot(3, 3) - one_hot(2, 2)),
        (("0", np.int64(2)), one_hot(0, 0) - one_hot(2, 2)),
        ((0, 2), one_hot(0, 0) - one_hot(2, 2)),
        (torch.tensor([3, 1]), one_hot(3, 1)),
        (torch.tensor([3, 1], dtype=torch.int32), one_hot(3, 1)),
        (torch.tensor([3, 1], dtype=torch.uint8), one_hot(3, 1)),
        (LOGITS.float(), LOGITS),  # weights, in the dtype of the logits
    ],
)
def test_weights(target, expected):
    weights = weights_of(target, LOGITS, LABELS, CLASSES)
    assert weights.dtype == torch.float64
    assert torch.equal(weights, expected)


def test_number_is_index_without_names():
    assert torch.equal(weights_of("1"), one_hot(1, 1))
    assert torch.equal(weights_of("7", torch.zeros(1, 9)), torch.eye(9)[[7]])


def test_class_name_may_contain_hyphen():
    assert torch.equal(
        weights_of("cat-dog", classes=("cat", "dog", "cat-dog", "other")), one_hot(2, 2)
    )


def test_runner_up_of_equal_logits_is_another_class():
    logits = torch.randint(0, 4, (50, 10), generator=torch.Generator().manual_seed(0)).float()
    predicted, second = (
        weights_of(target, logits).argmax(1).tolist() for target in ("predicted", "runner-up")
    )
    for row, one, other in zip(logits.tolist(), predicted, second, strict=True):
        assert one != other
        assert [row[one], row[other]] == sorted(row, reverse=True)[:2]


def test_weights_can_enter_a_graph_but_carry_none():
    assert not weights_of(LOGITS.clone().requires_grad_()).requires_grad
    with torch.inference_mode():
        target = LOGITS.clone()
    (weights_of(target) * torch.ones((), requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "class 4 does not exist: the model has 4 classes, 0 to 3"),
        (-1, "class -1 does not exist"),
        ("9", "class 9 does not exist"),
        (
            "dgo",
            r"unknown target 'dgo' \(did you mean 'dog'\?\); possible: predicted, true, runner-up, "
            "cat, dog, t-shirt, 7, an index from 0 to 3, or a pair such as",
        ),
        ("Predicted", "did you mean 'predicted'"),
        ("-1", "unknown target '-1'"),
        ("cat-dog", r"unknown target 'cat-dog'.* or a pair such as \('predicted', 'runner-up'\)"),
        ("", "unknown target ''"),
        (None, "unknown target None"),
        (1.0, "unknown target 1.0"),
        ([0, 1], r"unknown target \[0, 1\]"),
        (("cat", "dgo"), r"unknown target 'dgo' \(did you mean 'dog'\?\)"),
        (("cat", 4), "class 4 does not exist"),
        (("cat",), r"unknown target \('cat',\)"),
        (("cat", "dog", "7"), "unknown target"),
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
def test_weights_rejects_target(target, message):
    with pytest.raises(SeewhyError, match=message):
        weights_of(target, LOGITS, LABELS, CLASSES)


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
@pytest.mark.parametrize("target", ["true", ("predicted", "true")])
def test_weights_rejects_labels(target, labels, message):
    with pytest.raises(SeewhyError, match=message):
        weights_of(target, LOGITS, labels, CLASSES)


@pytest.mark.parametrize(
    ("target", "logits", "classes", "message"),
    [
        ("bird", LOGITS, (*CLASSES, "bird"), "class 4 does not exist"),
        ("runner-up", torch.zeros(2, 1), (), "'runner-up' needs a model of at least two classes"),
    ],
)
def test_weights_rejects_number_of_classes(target, logits, classes, message):
    with pytest.raises(SeewhyError, match=message):
        weights_of(target, logits, classes=classes)


def test_long_list_of_classes_is_cut():
    classes = tuple(f"class {index}" for index in range(1000))
    with pytest.raises(SeewhyError) as error:
        weights_of("zzz", torch.zeros(1, 1000), classes=classes)
    assert len(str(error.value)) < 400


def test_check_wants_an_entry_for_each_image():
    TargetSpec("predicted").check(3)
    TargetSpec(torch.zeros(3, 4), torch.zeros(3)).check(3)
    for target in (torch.zeros(2, 4), torch.tensor(1)):
        with pytest.raises(
            SeewhyError, match="target must have an entry for each of the 3 images, found shape"
        ):
            TargetSpec(target).check(3)
    with pytest.raises(
        SeewhyError, match=r"labels must have an entry for each of the 3 images, found shape \(4,\)"
    ):
        TargetSpec(1, torch.zeros(4)).check(3)
