"""Models that take more or others than images: `Classifier(model, inputs=…)`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Split
from seewhy.data.labeled_images import as_dataset
from seewhy.diagnosis.attacks import autocast_model, fgsm
from seewhy.diagnosis.predictions import predict_split
from seewhy.errors import SeewhyError
from seewhy.exporting.exporter import export
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features
from seewhy.models.inference import compute_logits
from seewhy.models.normalization import Normalize
from seewhy.models.summary import model_summary

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
MASK = torch.ones(1, 1, 8, 8)
MASK[..., 4:] = 0


class Net(nn.Module):
    """A network that takes an image and a mask, and returns its logits among others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.head, self.other = nn.Linear(8, 3), nn.Linear(8, 3)

    def run(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(image * mask).mean((2, 3))
        return self.other(features), self.head(features)


class Keywords(Net):
    def forward(self, *, pixel_values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(pixel_values, mask)


class Positions(Net):
    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(image, mask)


class Batch(Net):
    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.run(batch["image"], batch["mask"])


class Plain(Net):
    def forward(self, image: Tensor) -> Tensor:
        return self.run(image, MASK)[1]


KINDS: list[tuple[type[Net], Callable[[Tensor], object]]] = [
    (Keywords, lambda images: {"pixel_values": images, "mask": MASK}),
    (Positions, lambda images: (images, MASK)),
    (Batch, lambda images: ({"image": images, "mask": MASK},)),
]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(("kind", "inputs"), KINDS)
def test_whatever_runs_the_model_gives_it_its_inputs(
    kind: type[Net], inputs: Callable[[Tensor], object], images: Tensor
) -> None:
    plain = Classifier(Plain().eval(), ("a", "b", "c"), (3, 8, 8))
    found = Classifier(kind().eval(), ("a", "b", "c"), (3, 8, 8), output=1, inputs=inputs)
    assert torch.equal(compute_logits(found, images), compute_logits(plain, images))
    assert torch.equal(extract_features(found, images), extract_features(plain, images))
    for method in ("grad-cam", "gradients", "rise:masks=10"):
        [heat], [right] = (
            explain(each, images, method, "body", warn=False).maps.values()
            for each in (found, plain)
        )
        assert torch.equal(heat, right)
    moved, expected = (fgsm(autocast_model(each), images, LABELS) for each in (found, plain))
    assert torch.equal(moved.images, expected.images)
    assert replace(found, precision="fp32").model is found.model  # the inputs are given once
    assert model_summary(found.model, (3, 8, 8)).parameters == 278


def test_the_normalization_comes_before_the_inputs(images: Tensor) -> None:
    normalize = Normalize([0.5] * 3, [0.25] * 3)
    classifier = Classifier(
        Positions().eval(),
        output=lambda outputs: outputs[1],
        preprocess=normalize,
        inputs=lambda given: (given, MASK),
    )
    logits = compute_logits(classifier, images)
    with torch.no_grad():
        expected = Plain().eval()(normalize(images / 255))
    torch.testing.assert_close(logits, expected)


@pytest.mark.slow
def test_an_exported_file_has_the_inputs_inside(tmp_path: Path, images: Tensor) -> None:
    data = as_dataset((images, LABELS), ("a", "b", "c"))
    classifier = Classifier(
        Keywords().eval(),
        data.classes,
        (3, 8, 8),
        output=1,
        inputs=lambda given: {"pixel_values": given, "mask": MASK},
    )
    export(classifier, tmp_path / "model.pt2", data=data, quiet=True)
    program = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(program(images / 255), compute_logits(classifier, images))


def test_a_model_without_its_inputs_gets_one_line(images: Tensor) -> None:
    message = "missing 1 required positional argument: 'mask'; for a model that takes others"
    for call in (compute_logits, explain):
        with pytest.raises(SeewhyError, match=message):
            call(Positions().eval(), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": {"image": 1}}, "inputs must be a function of images, found dict; pass inputs="),
        ({"preprocess": 3}, "preprocess must be a function of images, found int"),
        ({"inputs": lambda images: {"mask": MASK}}, "missing 1 required .*: 'image'; for a model"),
        (
            {"inputs": lambda images: (images, MASK), "output": lambda outputs: outputs[7]},
            r"given as output failed: IndexError: tuple index out of range; .*, here 0 \(6, 3\) fl",
        ),
        (
            {"inputs": lambda images: (images, MASK), "output": lambda outputs: outputs[0][:, 0]},
            "must return logits .* to explain a score, pass target=lambda scores: scores",
        ),
    ],
)
def test_wrong_functions_are_one_line(options, message: str, images: Tensor) -> None:
    with pytest.raises(SeewhyError, match=message) as error:
        compute_logits(Classifier(Positions().eval(), **options), images)
    assert "\n" not in str(error.value)


def test_labels_that_are_independent_are_not_measured_as_classes(images: Tensor) -> None:
    classifier = Classifier(Plain().eval(), activation="sigmoid")
    with pytest.raises(SeewhyError, match="activation 'sigmoid', so it does not choose one class"):
        predict_split(classifier, Split(images, LABELS, []))
