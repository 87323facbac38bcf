"""The report of a model that seewhy did not train."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Dataset
from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.normalization import Normalize
from seewhy.models.onnx_file import FileModel
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.page import report
from seewhy.runs.prediction import measured_data
from seewhy.runs.run import Run


@pytest.fixture
def quick(context: ReportContext, monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """The data of each diagnosis that is made; it takes no time."""
    made: list[Dataset] = []

    def diagnose(classifier: Classifier, data: Dataset, *_: Any, **__: Any) -> Diagnosis:
        made.append(data)
        return context.diagnosis

    monkeypatch.setattr("seewhy.reporting.context.diagnose", diagnose)
    return made


def test_report_of_a_module(run: Run, data: Dataset, tmp_path: Path) -> None:
    model = copy.deepcopy(run.model).train()
    path = report(model, data, tmp_path / "report.html", quiet=True, minutes=0.02)
    assert all(part.training for part in model.modules())  # measured in evaluation mode
    page = path.read_text()
    name = type(run.model).__name__
    assert f"<h1>{name} on bars</h1>" in page
    assert '<section id="model"' in page
    for absent in ('<section id="training"', "training time", "seewhy report"):
        assert absent not in page
    assert data.classes[0] in page  # the classes are those of the data


def test_a_model_without_gradients_is_reported(run: Run, data: Dataset, tmp_path: Path) -> None:
    file = Classifier(FileModel(lambda pixels: run.model(pixels).detach()).eval(), name="my.onnx")
    path = report(file, data, tmp_path / "report.html", quiet=True, minutes=0.02)
    page = path.read_text()
    assert "my.onnx on bars" in page
    assert "Not measured: a model in an exported file has no gradients" in page
    assert "adversarial accuracy" not in page


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["dataset", "arrays", "loader", "relabeled"])
def test_any_labeled_images_give_the_same_predictions(run: Run, data: Dataset, kind: str) -> None:
    images, labels = data.test.images, data.test.labels
    order = torch.tensor([2, 0, 1, 3])
    classes = tuple(data.classes[int(index)] for index in order.argsort())
    values: dict[str, Any] = {
        "dataset": data,
        "arrays": (images, labels),
        "loader": DataLoader(TensorDataset(images.float() / 255, labels), batch_size=32),
        "relabeled": replace(data, classes=classes, test=replace(data.test, labels=order[labels])),
    }
    found = make_context(run.classifier, values[kind], quiet=True)
    assert run.predictions is not None
    assert torch.equal(found.predictions.labels, labels)
    torch.testing.assert_close(found.predictions.logits, run.predictions.logits, atol=1e-4, rtol=0)


def test_the_measured_split_becomes_the_test_split(run: Run, data: Dataset) -> None:
    _, everything = measured_data(run.classifier, data, "all")
    assert len(everything.test) == len(data.train) + len(data.test)
    assert list(everything.splits) == ["test"]
    _, trained = measured_data(run.classifier, data, "train")
    assert torch.equal(trained.test.labels, data.train.labels)


def test_synonyms_and_case_of_class_names_match(run: Run, data: Dataset) -> None:
    classes = ("Upright", "LEVEL", "very_thin", "d")
    named = replace(run.classifier, classes=("upright, vertical", "level", "very thin", "d"))
    classifier, measured = measured_data(named, replace(data, classes=classes))
    assert measured.classes == classifier.classes
    assert torch.equal(measured.test.labels, data.test.labels)
    with pytest.raises(SeewhyError, match="unknown to the model: thin; the model has upright, ve"):
        measured_data(named, replace(data, classes=("upright", "level", "thin", "d")))
    ambiguous = replace(named, classes=("bar, upright", "bar, level", "c", "d"))
    with pytest.raises(SeewhyError, match="classes unknown to the model: bar;"):
        measured_data(ambiguous, replace(data, classes=("bar", "level", "c", "d")))


def test_numbered_classes_are_as_many_as_outputs(run: Run, data: Dataset) -> None:
    few = data.test.labels < 2
    images, labels = data.test.images[few], data.test.labels[few]
    classifier, measured = measured_data(run.model, (images, labels))
    assert classifier.classes == measured.classes == ("0", "1", "2", "3")


def test_preprocess_is_part_of_the_model(run: Run, data: Dataset) -> None:
    """A network that takes normalized images, as most people train it."""
    normalize = Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = run.model

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.net(images * normalize.std + normalize.mean)
            return logits

    classifier = Classifier(Inner().eval(), data.classes, preprocess=normalize)
    assert classifier.name == "Inner"
    found = replace(classifier, precision="fp32")  # which does not normalize twice
    pixels = data.test.images[:8].float() / 255
    torch.testing.assert_close(found.model(pixels), run.model(pixels), atol=1e-4, rtol=1e-4)
    assert not any(part.training for part in found.model.modules())
    explanation = explain(found, pixels[:2], layers="auto")  # layers have their own names
    assert all(found.model.get_submodule(layer) is not None for layer in explanation.layers)
    assert all(layer.startswith("net.") for layer in explanation.layers)


def test_two_models_are_compared_on_the_same_images(
    run: Run, later: Run, data: Dataset, quick: list[Dataset]
) -> None:
    found = make_context(run.classifier, data, later.classifier, quiet=True)
    assert len(quick) == 1
    assert found.baseline is not None
    assert later.predictions is not None
    assert torch.equal(found.baseline.predictions.predicted, later.predictions.predicted)
    assert found.baseline.source == found.baseline.title
    run_against_model = make_context(run, data, later.classifier, quiet=True)
    assert run_against_model.run is run
    assert run_against_model.baseline is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, data: report(model), "report needs data, as in report"),
        (lambda model, data: report(model, data), "add the file to write, as in report"),
        (lambda model, data: report("model", data), "expected a Classifier, a Run, or a torch.nn"),
        (lambda model, data: report(model, 3, "x.html"), "data must be a Dataset, a pair"),
        (
            lambda model, data: report(Classifier(model, image_shape=(3, 8, 9)), data, "x.html"),
            "bars has images of 3x12x12, but the model takes 3x8x9",
        ),
        (
            lambda model, data: report(model, data, "x.html", split="dev"),
            "unknown split 'dev'",
        ),
    ],
)
def test_report_says_what_is_missing(call: Any, message: str, run: Run, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=message):
        call(run.model, data)
    assert not Path("x.html").exists()
