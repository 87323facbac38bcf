"""Functions as targets: any score of what a model returns, also of one that is no classifier."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import DataParallel

from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import explain
from seewhy.attribution.faithfulness import deletion, measure_faithfulness
from seewhy.attribution.mosaics import mosaic_game
from seewhy.attribution.scores import trust
from seewhy.attribution.target import forward_pass
from seewhy.errors import SeewhyError
from seewhy.figures.captions import prediction_label
from seewhy.models.classifier import Classifier

LAYERS = ["body.1", "body.3"]
METHODS = (
    "grad-cam",
    "hires-cam",
    "eigen-cam",
    "shapley-cam",
    "score-cam",
    "ablation-cam",
    "gradients",
    "integrated-gradients:steps=4",
    "full-grad",
    "occlusion",
)
QUERY = torch.tensor([1.0, -2.0, 0.5, 1.5])


class Heads(nn.Module):
    """A network that returns logits and an embedding, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head, self.embed = nn.Linear(8, 5), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> dict[str, object]:
        features = self.body(images).mean((2, 3))
        embedding = self.embed(features)
        return {
            "logits": self.head(features),
            "embedding": embedding,
            "aux": {"features": features},
        }


@pytest.fixture
def model() -> Heads:
    return Heads().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def similarity(outputs: dict[str, Tensor]) -> Tensor:
    return outputs["embedding"] @ QUERY


def test_a_logit_as_function_is_explained_as_its_class(model: Heads, images: Tensor) -> None:
    found = explain(model, images, METHODS, LAYERS, lambda outputs: outputs["logits"][:, 2])
    expected = explain(model, images, METHODS, LAYERS, 2, warn=False)
    assert set(found.maps) == set(expected.maps)
    for key, maps in expected.maps.items():
        torch.testing.assert_close(found.maps[key], maps, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.logits[:, 0], expected.logits[:, 2])


def test_gradient_of_a_similarity_is_that_of_autograd(model: Heads, images: Tensor) -> None:
    capture = capture_layers(model, images, "body.3", similarity)["body.3"]
    model.double()
    activation = model.body(images.double()).detach().requires_grad_()
    embedding = activation.mean((2, 3)) @ model.embed.weight.T + model.embed.bias
    (gradient,) = torch.autograd.grad((embedding @ QUERY.double()).sum(), activation)
    torch.testing.assert_close(capture.gradient.double(), gradient, rtol=1e-5, atol=1e-7)


def test_rise_finds_the_brightness_of_a_corner_whatever_is_added() -> None:
    class Corner(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images[:, 0, :4, :4].mean((1, 2)), images.mean((2, 3))

    images = torch.full((1, 3, 8, 8), 0.8)
    methods = ("rise:masks=300",)
    maps = [
        explain(Corner().eval(), images, methods, target=lambda out, shift=shift: out[0] + shift)
        for shift in (0.0, 1000.0)
    ]
    torch.testing.assert_close(maps[0].at("pixels"), maps[1].at("pixels"), rtol=0, atol=0.01)
    heat = maps[1].at("pixels")[0]
    assert heat[:4, :4].mean() > heat[4:].mean() + 0.05


def test_deletion_measures_the_score(model: Heads, images: Tensor) -> None:
    forward = forward_pass(model, images, similarity)
    curve = deletion(forward, torch.rand(5, 12, 12), steps=2).scores
    with torch.no_grad():
        scores = similarity(model(images)), similarity(model(torch.zeros_like(images)))
    torch.testing.assert_close(curve[:, 0], scores[0])
    torch.testing.assert_close(curve[:, 2], scores[1])


def test_measures_of_probabilities_are_left_out(model: Heads, images: Tensor) -> None:
    forward = forward_pass(model, images, similarity)
    with pytest.warns(UserWarning, match="average-drop failed: .* need the probability of one"):
        measured = measure_faithfulness(forward, torch.rand(5, 12, 12), ("road", "average-drop"))
    assert list(measured) == ["road"]
    with pytest.raises(SeewhyError, match="not a pair or a function"):
        measure_faithfulness(forward, torch.rand(5, 12, 12), ["average-drop"])


def test_trust_measures_a_function_without_mosaics(model: Heads, images: Tensor) -> None:
    (score,) = trust(model, images, "grad-cam", "body.3", similarity, steps=2, noise_maps=1)
    assert score.mosaic is None
    assert score.gain.mean == score.gain.mean  # not NaN


def test_only_methods_that_contrast_classes_fail(model: Heads, images: Tensor) -> None:
    found = explain(model, images, ("grad-cam", "finer-cam"), "body.3", similarity, warn=False)
    assert list(found.maps) == [("body.3", "grad-cam")]
    assert "at least two classes" in found.failures["body.3", "finer-cam"]


def test_a_caption_names_the_score(model: Heads, images: Tensor) -> None:
    found = explain(model, images, "grad-cam", "body.3", similarity, warn=False)
    assert found.classes == ("similarity",)
    assert prediction_label(found, 0).lines == (f"similarity {found.logits[0, 0]:.2f}",)


def test_a_function_that_is_not_differentiable_leaves_other_methods(
    model: Heads, images: Tensor
) -> None:
    found = explain(
        model,
        images,
        ("grad-cam", "eigen-cam", "occlusion"),
        "body.3",
        lambda outputs: outputs["embedding"].round().detach()[:, 0],
        warn=False,
    )
    assert found.methods == ("occlusion", "eigen-cam")
    assert "a function given as target is not differ" in found.failures["body.3", "grad-cam"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda out: out["embedding"],
            r"one score per image, .* found \(2, 4\) float32; the model",
        ),
        (lambda out: out["embedding"].sum(), r"one score per image, .* found \(\) float32"),
        (lambda out: out["embedding"].sum(0), r"one score per image, .* found \(4,\) float32"),
        (lambda out: out["embedding"].argmax(1), r"one score per image, .* found \(2,\) int64"),
        (lambda out: 1.0, "one score per image, .* found float"),
        (lambda out: out["embedding"][:, 0].log() / 0, "returns (nan|inf|-inf) for 2 of 2 images"),
        (lambda out: out["x"], r"failed: KeyError: 'x'; .* embedding \(2, 4\) float32, aux dict"),
        (
            lambda out: out["embedding"] @ torch.ones(9),
            "target failed: RuntimeError: size mismatch",
        ),
    ],
)
def test_a_wrong_function_is_one_line(model: Heads, images: Tensor, function, message) -> None:
    with pytest.raises(SeewhyError, match=message) as error:
        explain(model, images[:2], "grad-cam", "body.3", function)
    assert "\n" not in str(error.value)


def test_labels_have_no_meaning_for_a_function(model: Heads, images: Tensor) -> None:
    with pytest.raises(SeewhyError, match="labels are for a target that is a class"):
        explain(model, images, target=similarity, labels=torch.zeros(5, dtype=torch.int64))


def test_output_of_a_classifier_may_be_a_function(model: Heads, images: Tensor) -> None:
    classifier = Classifier(model, output=lambda outputs: outputs["embedding"] * 2)
    with torch.no_grad():
        expected = model(images)["embedding"] * 2
    torch.testing.assert_close(forward_pass(classifier, images).logits, expected)


def test_independent_labels_are_measured_by_their_own_probability(
    model: Heads, images: Tensor
) -> None:
    classifier = Classifier(model, activation="sigmoid")
    forward = forward_pass(classifier, images, 3)
    curve = deletion(forward, torch.rand(5, 12, 12), steps=1).scores
    with torch.no_grad():
        expected = 1 / (1 + (-model(images)["logits"][:, 3].double()).exp())
    torch.testing.assert_close(curve[:, 0].double(), expected, rtol=0, atol=1e-6)
    with pytest.raises(SeewhyError, match="a model with one class per image"):
        mosaic_game(classifier, images, layers="body.3")


@pytest.mark.parametrize("kind", ["half", "double", "parallel", "no_grad", "bf16"])
def test_odd_models_and_callers(kind: str, model: Heads, images: Tensor) -> None:
    query = QUERY

    def score(outputs: dict[str, Tensor]) -> Tensor:
        return outputs["embedding"].to(query.dtype) @ query

    methods = ("grad-cam", "hires-cam", "gradients")
    expected = explain(model, images, methods, LAYERS, score, warn=False)
    precision = "bf16" if kind == "bf16" else "fp32"
    changed = {"half": model.half, "double": model.double, "parallel": lambda: DataParallel(model)}
    found = Classifier(changed.get(kind, lambda: model)().eval(), precision=precision)
    with torch.set_grad_enabled(kind != "no_grad"):
        maps = explain(found, images, methods, LAYERS, score, warn=False).maps
    assert set(maps) == set(expected.maps)
    for key, heat in maps.items():
        right = expected.maps[key].flatten().double()
        assert torch.cosine_similarity(heat.flatten().double(), right, 0) > 0.98, key


def test_a_quantized_model_is_explained_without_gradients(model: Heads, images: Tensor) -> None:
    class Fixed(nn.Module):
        """Its outputs have no gradient, as those of a quantized layer."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model

        @torch.no_grad()
        def forward(self, images: Tensor) -> object:
            return self.net(images)

    methods = ("grad-cam", "gradients", "score-cam", "occlusion")
    found = explain(Fixed().eval(), images, methods, "net.body.3", similarity, warn=False)
    assert found.methods == ("occlusion", "score-cam")
    assert set(found.failures) == {("pixels", "gradients"), ("net.body.3", "grad-cam")}
