"""A forward fixes images, logits and a score; whatever the model returns and however it is batched."""

import pytest
import torch
from torch import nn

import seewhy.attribution.target as target_module
from seewhy.attribution.target import forward_pass, predict_logits, run_model
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier


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


def test_a_question_holds_logits_scores_and_target():
    model, images = linear_net(), images_of()
    expected = logits_by_hand(model, images)
    forward = forward_pass(model, images)
    torch.testing.assert_close(forward.logits, expected)
    torch.testing.assert_close(forward.scores, expected.amax(1))
    assert torch.equal(forward.target, expected.argmax(1))
    assert forward.model is model
    assert forward.precision == "fp32"
    assert torch.equal(forward.images, images)


def test_the_score_of_a_contrast_is_the_difference_and_its_target_the_class_argued_for():
    model, images = linear_net(), images_of()
    expected = logits_by_hand(model, images)
    forward = forward_pass(Classifier(model, ("cat", "bird", "dog")), images, ("dog", "cat"))
    torch.testing.assert_close(forward.scores, expected[:, 2] - expected[:, 0])
    assert forward.target.tolist() == [2] * 5


def test_labels_are_the_true_classes():
    model, images, labels = linear_net(), images_of(), torch.tensor([0, 1, 2, 1, 0])
    torch.testing.assert_close(
        forward_pass(model, images, "true", labels=labels).scores,
        logits_by_hand(model, images)[torch.arange(5), labels],
    )


def test_stored_images_are_divided_by_255():
    stored = torch.randint(
        0, 256, (3, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = linear_net()
    expected = logits_by_hand(model, stored.double() / 255)
    torch.testing.assert_close(
        forward_pass(model.float(), stored).logits, expected.float(), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("pixels", "sizes"), [(1, [4, 4, 1]), (6 * 24, [6, 3]), (10_000, [9])])
def test_batches_change_nothing(monkeypatch, pixels, sizes):
    monkeypatch.setitem(target_module.BATCH_PIXELS, "cpu", pixels)
    inner, images = linear_net(), images_of(9)
    model = Recorder(inner).eval()
    forward = forward_pass(model, images)
    torch.testing.assert_close(forward.logits, logits_by_hand(inner, images))
    assert model.sizes == sizes
    torch.testing.assert_close(
        predict_logits(forward, images.flip(0)), logits_by_hand(inner, images.flip(0))
    )


def test_part_of_a_question():
    forward = forward_pass(linear_net(), images_of(), "runner-up")
    for index in (slice(1, 3), torch.tensor([4, 0])):
        part = forward.take(index)
        assert torch.equal(part.scores, forward.scores[index])
        assert torch.equal(part.images, forward.images[index])
        assert torch.equal(part.target, forward.target[index])


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_wherever_it_is_asked(around):
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


def test_bf16_is_near_and_comes_back_as_float32():
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


def test_a_compiled_model_is_asked_as_it_was_written():
    model = linear_net()
    assert forward_pass(torch.compile(model, backend="eager"), images_of()).model is model


def test_a_model_that_writes_into_its_input_does_not_change_the_images():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).mul_(4).mean((2, 3))

    images = images_of()
    forward = forward_pass(InPlace().eval(), images)
    assert torch.equal(images, images_of())
    torch.testing.assert_close(forward.logits, 4 * (images_of().mean((2, 3)) - 0.5))


def test_mistakes_are_one_line():
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
    with pytest.raises(SeewhyError, match=r"the model cannot take images of 3x4x6 float32"):
        forward_pass(model, images.float())
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
def test_what_is_no_matter_of_the_images_stays_as_it_is(error):
    with pytest.raises(type(error)) as raised:
        run_model(Raising(error), images_of())
    assert raised.value is error
