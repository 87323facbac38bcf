"""The classifier of a model, of a run, and of published weights."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError
from seewhy.models import classifier as module
from seewhy.models.classifier import Classifier, as_classifier, pretrained_classifier
from seewhy.models.published import PretrainedInfo


class HeadedModel(nn.Module):
    """With a layer called `classifier`, as torchvision's VGG and timm's EfficientNet have."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(2, 3)


def test_as_classifier_of_classifier_run_and_module() -> None:
    classifier = Classifier(nn.Linear(2, 3), ("a", "b", "c"))
    assert as_classifier(classifier) is classifier
    assert as_classifier(SimpleNamespace(classifier=classifier)) is classifier
    model = HeadedModel()
    made = as_classifier(model)
    assert made.model is model
    assert (made.classes, made.image_shape, made.precision, made.tta) == ((), None, "fp32", "none")
    assert made.preprocessing == Preprocessing()


def test_classifier_class_names() -> None:
    model = nn.Linear(2, 3)
    assert Classifier(model).class_names(3) == ("0", "1", "2")
    assert Classifier(model, ["a", "b", "c"]).class_names(3) == ("a", "b", "c")  # type: ignore[arg-type]


def test_classifier_device() -> None:
    assert Classifier(nn.Linear(2, 3, device="meta")).device == torch.device("meta")


def test_classifier_repr() -> None:
    model = nn.Linear(2, 4)
    assert repr(Classifier(model)) == "Classifier(Linear, fp32, on cpu)"
    classifier = Classifier(
        model, ("a", "b", "c", "d"), (3, 8, 9), "bf16", "flip", Preprocessing(0.875)
    )
    assert repr(classifier) == (
        "Classifier(Linear, 4 classes (a, b, c, …), images 3x8x9, bf16, tta flip, crop 0.875, "
        "on cpu)"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_classifier("resnet18"), "expected a Classifier, a Run, or .*, found str"),
        (lambda: as_classifier(SimpleNamespace(classifier=1)), "found SimpleNamespace"),
        (
            lambda: replace(Classifier(nn.ReLU()), precision="fp8"),
            "unknown precision 'fp8'; possible: fp32, bf16, fp16",
        ),
        (
            lambda: Classifier(nn.ReLU(), image_shape=(8, 8)),
            r"must be \(channels, height, width\), found \(8, 8\)",
        ),
        (lambda: Classifier(nn.ReLU(), image_shape=(3, 0, 8)), r"found \(3, 0, 8\)"),
        (
            lambda: Classifier(nn.ReLU(), ("a", "b")).class_names(1),
            "returns a single number per image; for two classes, let it return two logits: torch",
        ),
        (
            lambda: Classifier(nn.ReLU(), ("a", "b")).class_names(3),
            "the model has 3 classes, but the classifier has 2 class names; give one name per",
        ),
        (
            lambda: pretrained_classifier("resnet18"),
            "resnet18 has no trained weights; pass the directory of a run, timm:NAME",
        ),
        (lambda: pretrained_classifier("davidnet:dropout=0.1"), "has no trained weights"),
        (lambda: pretrained_classifier("timm:some", image_size=0), "at least 1, found 0"),
    ],
)
def test_classifier_errors(make, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        make()


def test_pretrained_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(text: str, num_classes: int, sample) -> nn.Module:
        built.append((text, num_classes, tuple(sample.images.shape[1:])))
        return nn.Linear(1, num_classes)

    info = PretrainedInfo(("cat", "dog"), 64, Preprocessing(0.875))
    monkeypatch.setattr(module, "pretrained_info", lambda name: info)
    monkeypatch.setattr(module, "build_model", build)
    random_state = torch.get_rng_state()
    classifier = pretrained_classifier("timm:some")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (classifier.classes, classifier.image_shape) == (("cat", "dog"), (3, 64, 64))
    assert classifier.preprocessing == info.preprocessing
    assert not classifier.model.training
    larger = pretrained_classifier("timm:some,pretrained=true", image_size=96)
    assert larger.image_shape == (3, 96, 96)
    assert built == [
        ("timm:some,pretrained=true", 2, (3, 64, 64)),
        ("timm:some,pretrained=true", 2, (3, 96, 96)),
    ]
    with pytest.raises(SeewhyError, match="has no trained weights"):
        pretrained_classifier("timm:some,pretrained=false")
