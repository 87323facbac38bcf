"""Targets as weights of the logits, and forward passes."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.attribution.target import Relative, TargetSpec, forward_pass, predict_logits, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size
from seewhy.models.classifier import Classifier

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
        (Relative.PREDICTED, one_hot(1, 0)),
        ("runner-up", one_hot(2, 3)),
        ("true", one_hot(2, 0)),
        (3, one_hot(3, 3)),
        ("predicted", one_hot(1, 0)),
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


def test_number_is_index_if_no_name_is_a_number():
    assert torch.equal(weights_of("3", classes=("cat", "dog", "bird", "t-shirt")), one_hot(3, 3))
    with pytest.raises(SeewhyError, match="class 4 does not exist"):
        weights_of("4", classes=("cat", "dog", "bird", "t-shirt"))


def test_number_among_numeric_names_is_a_name():
    """Index 0 is class "1": a text must never mean one where the other is meant."""
    numbers = ("1", "2", "3", "4")
    assert torch.equal(weights_of("3", classes=numbers), one_hot(2, 2))
    assert torch.equal(weights_of(3, classes=numbers), one_hot(3, 3))
    with pytest.raises(SeewhyError, match="no class is named '0'"):
        weights_of("0", classes=numbers)


@pytest.mark.parametrize("target", ["true", ("predicted", "true")])
def test_class_named_like_a_relative_target_is_ambiguous(target):
    classes = ("false", "true", "other", "none")
    with pytest.raises(
        SeewhyError,
        match="'true' is ambiguous: the true class of each image or class 1; pass a class index, "
        "such as 1",
    ):
        weights_of(target, labels=LABELS, classes=classes)
    assert torch.equal(weights_of(1, classes=classes), one_hot(1, 1))
    assert torch.equal(weights_of(Relative.TRUE, labels=LABELS, classes=classes), one_hot(2, 0))


def test_class_name_that_occurs_twice_is_ambiguous():
    with pytest.raises(SeewhyError, match="'cat' is ambiguous: class 0 or class 3; pass a class"):
        weights_of("cat", classes=("cat", "dog", "bird", "cat"))


def test_explain_takes_the_predicted_class_whatever_the_names():
    model, images = linear_net(), images_of(2)
    classifier = Classifier(model, ("predicted", "true", "runner-up"))
    forward = forward_pass(classifier, images)
    assert torch.equal(forward.target, forward.logits.argmax(1))


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
        ("3", "no class is named '3'; it is not taken as an index, .* names, such as '7'"),
        (("cat", "0"), "no class is named '0'"),
        (True, "unknown target True"),
        (("dog", 1), r"target \('dog', 1\) is the difference of a class and itself"),
        (("predicted", "predicted"), "is the difference of a class and itself"),
        (
            "dgo",
            r"unknown target 'dgo' \(did you mean 'dog'\?\); possible: predicted, true, runner-up, "
            "cat, dog, t-shirt, 7, an index from 0 to 3, or two of these",
        ),
        ("Predicted", "did you mean 'predicted'"),
        ("-1", "unknown target '-1'"),
        ("cat-dog", r"unknown target 'cat-dog'.* or two of these"),
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
            r"class indices \(2,\) int64, or the target weights \(2, 4\) float; found \(2,\)",
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
        (None, "target 'true' needs the true classes, which .*pass labels"),
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
        ("runner-up", torch.zeros(2, 1), (), "'runner-up' needs a model with at least two classes"),
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


def linear_net(classes=3):
    """Logits that the test can compute itself: `weight` times the pixels plus `bias`."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 6, classes)).double().eval()


def images_of(count=5):
    return torch.rand(
        count, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def logits_by_hand(model, images):
    return images.flatten(1) @ model[1].weight.detach().T + model[1].bias.detach()


class Recorder(nn.Module):
    """Remembers the sizes of its batches."""

    def __init__(self, model):
        super().__init__()
        self.model, self.sizes = model, []

    def forward(self, x):
        assert not torch.is_grad_enabled()
        self.sizes.append(len(x))
        return self.model(x)


def test_forward_pass_fields():
    model, images = linear_net(), images_of()
    expected = logits_by_hand(model, images)
    forward = forward_pass(model, images)
    torch.testing.assert_close(forward.logits, expected)
    torch.testing.assert_close(forward.scores, expected.amax(1))
    assert torch.equal(forward.target, expected.argmax(1))
    assert forward.model is model
    assert forward.precision == "fp32"
    assert torch.equal(forward.images, images)


def test_score_of_pair_is_difference():
    model, images = linear_net(), images_of()
    expected = logits_by_hand(model, images)
    forward = forward_pass(Classifier(model, ("cat", "bird", "dog")), images, ("dog", "cat"))
    torch.testing.assert_close(forward.scores, expected[:, 2] - expected[:, 0])
    assert forward.target.tolist() == [2] * 5


def test_target_true_uses_labels():
    model, images, labels = linear_net(), images_of(), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(
        forward_pass(model, images, "true", labels=labels).scores,
        logits_by_hand(model, images)[torch.arange(5), labels],
    )


def test_forward_pass_of_uint8_images():
    stored = torch.randint(
        0, 256, (3, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = linear_net()
    expected = logits_by_hand(model, stored.double() / 255)
    torch.testing.assert_close(
        forward_pass(model.float(), stored).logits, expected.float(), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("count", "sizes"), [(4, [4, 4, 1]), (6, [6, 3]), (100, [9])])
def test_forward_pass_in_batches(images_per_batch, count, sizes):
    images_per_batch(count)
    inner, images = linear_net(), images_of(9)
    model = Recorder(inner).eval()
    batch_size(model, images)  # takes a pass, the first time
    model.sizes.clear()
    forward = forward_pass(model, images)
    torch.testing.assert_close(forward.logits, logits_by_hand(inner, images))
    assert model.sizes == sizes
    torch.testing.assert_close(
        predict_logits(forward, images.flip(0)), logits_by_hand(inner, images.flip(0))
    )


def test_forward_pass_take():
    forward = forward_pass(linear_net(), images_of(), "runner-up")
    for index in (slice(1, 3), torch.tensor([4, 0])):
        part = forward.take(index)
        assert torch.equal(part.scores, forward.scores[index])
        assert torch.equal(part.images, forward.images[index])
        assert torch.equal(part.target, forward.target[index])


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_forward_pass_ignores_outer_grad_modes(around):
    model = linear_net()
    expected = logits_by_hand(model, images_of())
    with around():
        forward = forward_pass(model, images_of())
        again = predict_logits(forward, images_of())
    torch.testing.assert_close(forward.logits, expected)
    torch.testing.assert_close(again, expected)
    assert (
        (forward.logits * torch.ones((), requires_grad=True)).sum().requires_grad
    )  # the result may enter a graph


def test_forward_pass_in_bf16():
    torch.manual_seed(0)
    model, images = (
        nn.Sequential(nn.Flatten(), nn.Linear(72, 64), nn.Linear(64, 3)).eval(),
        images_of().float(),
    )
    exact = forward_pass(model, images)
    rounded = forward_pass(Classifier(model, precision="bf16"), images)
    assert rounded.logits.dtype == torch.float32
    assert 0 < (exact.logits - rounded.logits).abs().max() < 0.02 * exact.logits.abs().max()
    assert torch.equal(predict_logits(rounded, images), rounded.logits)


@pytest.mark.slow
def test_forward_pass_unwraps_compiled_model():
    model = linear_net()
    assert forward_pass(torch.compile(model, backend="eager"), images_of()).model is model


def test_forward_pass_of_in_place_model():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).mul_(4).mean((2, 3))

    images = images_of()
    forward = forward_pass(InPlace().eval(), images)
    assert torch.equal(images, images_of())
    torch.testing.assert_close(forward.logits, 4 * (images_of().mean((2, 3)) - 0.5))


def test_forward_pass_errors():
    model, images = linear_net(), images_of()
    with pytest.raises(SeewhyError, match="evaluation mode"):
        forward_pass(linear_net().train(), images)
    with pytest.raises(SeewhyError, match="values in"):
        forward_pass(model, images * 2)
    with pytest.raises(
        SeewhyError, match=r"the model cannot take images of 3x4x4 float64: mat1 and mat2"
    ) as error:
        forward_pass(model, images[..., :4])
    assert isinstance(error.value.__cause__, RuntimeError)
    assert "\n" not in str(error.value)
    with pytest.raises(SeewhyError, match=r"must return logits \(N, K\)"):
        forward_pass(nn.Identity().eval(), images)


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory left"), KeyError("a bug"), ZeroDivisionError()]
)
def test_run_model_keeps_other_errors(error):
    with pytest.raises(type(error)) as raised:
        run_model(Raising(error), images_of())
    assert raised.value is error
