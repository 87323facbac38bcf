"""Models in half precision, lazy, scripted or quantized: they work, or one line says why not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Dataset
from seewhy.diagnosis.diagnosis import diagnose
from seewhy.diagnosis.predictions import predict_split
from seewhy.errors import SeewhyError
from seewhy.exporting.exporter import export
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features
from seewhy.models.inference import compute_logits
from seewhy.models.summary import model_summary


def network() -> nn.Sequential:
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pooled, nn.Linear(8, 3)).eval()


def message(call: Callable[[], object]) -> str:
    """The message of the SeewhyError of a call, which is one line."""
    with pytest.raises(SeewhyError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def images(data: Dataset) -> Tensor:
    return data.test.images[:4]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_dtype_take_uint8_and_float32_images(
    dtype: torch.dtype, images: Tensor
) -> None:
    exact, model = network(), network().to(dtype)
    close = {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(
        compute_logits(model, images), compute_logits(exact, images), **close
    )
    for given in (images, images.float() / 255, images.double() / 255):
        for method in ("grad-cam", "gradients"):
            [found] = explain(model, given, method, warn=False).maps.values()
            [right] = explain(exact, images, method, warn=False).maps.values()
            similarity = torch.cosine_similarity(found.float().flatten(), right.flatten(), 0)
            assert similarity > 0.99
    assert model_summary(model, (3, 8, 8), 3).parameters == 251


def test_a_lazy_layer_without_weights_is_named(images: Tensor, tmp_path) -> None:
    def lazy() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(3)).eval()

    model = lazy()
    shaped = Classifier(model, image_shape=(3, 8, 8))
    for call in (
        lambda: compute_logits(model, images),
        lambda: explain(model, images),
        lambda: model_summary(model, (3, 8, 8), 3),
        lambda: export(shaped, tmp_path / "x.pt2"),
    ):
        assert message(call).startswith("the layer '2' (LazyLinear) has no weights yet; call the")
    model(torch.rand(1, 3, 8, 8))
    assert compute_logits(model, images).shape == (4, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "program",
    [torch.jit.script, lambda model: torch.jit.trace(model, torch.rand(2, 3, 8, 8))],
    ids=["script", "trace"],
)
def test_a_torchscript_program_predicts_and_says_what_it_cannot(
    program: Callable[[nn.Module], nn.Module], images: Tensor, tmp_path
) -> None:
    model = program(network())
    logits = compute_logits(model, images)
    torch.testing.assert_close(logits, compute_logits(network(), images))
    torch.testing.assert_close(extract_features(model, images), logits)
    within = nn.Sequential(model, nn.Identity()).eval()
    torch.testing.assert_close(extract_features(within, images), logits)
    assert "is a TorchScript program" in message(lambda: explain(model, images))
    assert "is a TorchScript program" in message(lambda: model_summary(model, (3, 8, 8), 3))
    shaped = Classifier(model, image_shape=(3, 8, 8))
    assert "is a TorchScript program" in message(lambda: export(shaped, tmp_path / "x.pt2"))


def test_images_that_a_model_cannot_take_are_described(images: Tensor) -> None:
    text = message(lambda: compute_logits(network(), images[:, :1]))
    assert text.startswith("the model cannot take images of 1x8x8 float32: Given groups=1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")
def test_a_quantized_model_is_diagnosed_without_attacks(data: Dataset) -> None:
    model = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear})
    assert len(predict_split(model, data.test).labels) == len(data.test)
    found = diagnose(model, data, quiet=True, minutes=0.01)
    assert (found.attacks, len(found.adversarial.index)) == ((), 0)
    assert "is quantized" in found.attack_error
    assert found.corruptions


@pytest.mark.parametrize("target", [[0, 2, 1, 1], np.uint64(1), np.array(1)], ids=str)
def test_target_may_be_an_array_of_numpy(target, images: Tensor) -> None:
    given = np.array(target, np.uint8) if isinstance(target, list) else target
    expected = torch.tensor(target) if isinstance(target, list) else 1
    found = explain(network(), images, target=given, warn=False)
    right = explain(network(), images, target=expected, warn=False)
    assert torch.equal(found.at("1"), right.at("1"))
    weights = np.eye(3)[[0, 2, 1, 1]]
    assert torch.equal(
        explain(network(), images, target=weights, warn=False).weights.argmax(1),
        torch.tensor([0, 2, 1, 1]),
    )


@pytest.mark.parametrize("index", [10**30, -(10**30), 2**63, -1, 3])
def test_a_class_index_of_any_size_is_refused_in_one_line(index: int, images: Tensor) -> None:
    text = message(lambda: explain(network(), images, target=index))
    assert text == f"class {index} does not exist: the model has 3 classes, 0 to 2"
    assert text == message(lambda: explain(network(), images, target=(0, index)))


@pytest.mark.parametrize("value", [-1, 2.5, None, True])
def test_layers_and_methods_of_another_type_are_refused_in_one_line(value, images: Tensor) -> None:
    assert message(lambda: explain(network(), images, layers=value)).startswith("layers must be ")
    assert message(lambda: explain(network(), images, value)).startswith("methods must be ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"classes": (0, 1, 2)},
            "must be text, found 0 of type int; pass tuple(map(str, classes))",
        ),
        ({"classes": np.array([0, 1, 2])}, "must be text, found"),
        ({"classes": "abc"}, "classes must be a tuple of names, found 'abc'"),
        ({"classes": 5}, "classes must be a tuple of names, found 5"),
        ({"image_shape": (3, "8", 8)}, "must be (channels, height, width), found (3, '8', 8)"),
        ({"image_shape": (3, 8.5, 8)}, "must be (channels, height, width), found (3, 8.5, 8)"),
        ({"image_shape": 8}, "must be (channels, height, width), found 8"),
        ({"tta": 3}, "expected a str, found int"),
        ({"preprocessing": "x"}, "expected a Preprocessing, found str"),
    ],
    ids=str,
)
def test_fields_of_a_classifier_of_another_type(options, expected: str) -> None:
    assert expected in message(lambda: Classifier(network(), **options))


def test_arrays_as_fields_of_a_classifier() -> None:
    classifier = Classifier(network(), np.array(["a", "b", "c"]), np.array([3, 8, 8]))
    assert classifier.classes == ("a", "b", "c")
    assert type(classifier.classes[0]) is str
    assert classifier.image_shape == (3, 8, 8)


class WithRoot(nn.Module):
    """Plus the length of a vector of zeros, whose gradient is not a number."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + (0 * x).square().sum((1, 2, 3)).sqrt()[:, None] * torch.arange(3)


@pytest.mark.slow
def test_a_model_with_gradients_that_are_not_finite_is_diagnosed_without_attacks(
    data: Dataset,
) -> None:
    found = diagnose(WithRoot().eval(), data, quiet=True, minutes=0.01)
    assert found.attacks == ()
    assert "are not finite" in found.attack_error
    assert found.corruptions
