"""A model whose labels are independent: evaluating, predicting and its report."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.cli.main import main
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.reporting.multi_label_page import label_errors, report_multi_label
from seewhy.runs.multi_label import evaluate_multi_label
from seewhy.runs.prediction import predict

CLASSES = ("red", "green", "blue")


class Colors(nn.Module):
    """Logits of the brightest pixel of each channel; blue is never seen."""

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.body, self.sigmoid = nn.Conv2d(3, 3, 1), sigmoid
        with torch.no_grad():
            self.body.weight.copy_(20 * torch.eye(3)[:, :, None, None])
            self.body.weight[2] = 0
            self.body.bias.fill_(-10)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.body(images).amax((2, 3))
        return logits.sigmoid() if self.sigmoid else logits


def classifier(sigmoid: bool = False) -> Classifier:
    """As a function of a module, for the command line too."""
    return Classifier(Colors(sigmoid).eval(), CLASSES, (3, 8, 8), activation="sigmoid")


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(24, 3, generator=generator) < 0.5
    images = torch.zeros(24, 3, 8, 8, dtype=torch.uint8)
    images[:, :, 2:4, 5:7] = 220 * labels[:, :, None, None].byte()
    labels[0] = ~labels[0]  # a wrong label
    return images, labels


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_model_is_measured_also_if_it_ends_in_its_sigmoid(
    data: tuple[Tensor, Tensor], sigmoid: bool
) -> None:
    predictions = evaluate_multi_label(classifier(sigmoid), data)
    images, labels = data
    expected = (images.amax((2, 3)).double() / 255 * 20 - 10).sigmoid()
    expected[:, 2] = torch.tensor(-10.0).double().sigmoid()
    torch.testing.assert_close(predictions.probabilities.double(), expected, atol=2e-6, rtol=0)
    assert torch.equal(predictions.predicted[:, :2], images.amax((2, 3))[:, :2] > 0)
    right = (predictions.predicted == labels).all(1).double().mean().item()
    assert predictions.exact_match == right


def test_labels_are_matched_by_name(data: tuple[Tensor, Tensor]) -> None:
    class Named:
        classes = ("blue", "red", "green")

        def __iter__(self):
            yield data[0], data[1][:, [2, 0, 1]]

    found, expected = (evaluate_multi_label(classifier(), each) for each in (Named(), data))
    assert found.classes == CLASSES
    assert torch.equal(found.labels, expected.labels)
    Named.classes = ("blue", "red", "grey")
    with pytest.raises(SeewhyError, match="labels blue, red, grey, but the model has red, green"):
        evaluate_multi_label(classifier(), Named())


def test_another_activation_is_refused(data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(SeewhyError, match=r'is Classifier\(model, classes, activation="sigmoid"\)'):
        evaluate_multi_label(Colors().eval(), data)


def test_errors_are_of_as_many_labels_as_possible(data: tuple[Tensor, Tensor]) -> None:
    predictions = evaluate_multi_label(classifier(), data)
    missed = label_errors(predictions, missed=True, most=2)
    assert {CLASSES[each.label] for each in missed} >= {"blue"}
    for each in missed:
        assert predictions.labels[each.image, each.label]
        assert each.probability < 0.5
    for each in label_errors(predictions, missed=False):
        assert (each.image, each.probability > 0.5) == (0, True)


def test_report(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    path = report_multi_label(
        classifier(), data, tmp_path / "report.html", validation=data, json=tmp_path / "a.json"
    )
    html = path.read_text()
    assert re.findall(r'<section id="([a-z]+)"', html) == ["overview", "labels", "errors"]
    assert "Never predicted" not in html  # blue has a threshold from the validation images
    assert "which need one class per image" in html
    assert "has the highest F1 on other images" in html
    assert "heat map of grad-cam" in html
    values = json.loads((tmp_path / "a.json").read_text())
    assert [row["name"] for row in values["labels"]] == list(CLASSES)
    assert values["images"] == 24
    report_multi_label(classifier(), data, path)
    assert "Never predicted: blue." in path.read_text()


def test_a_model_without_maps_says_why(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    class Means(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) - 0.02

    model = Classifier(Means().eval(), CLASSES, activation="sigmoid")
    html = report_multi_label(model, data, tmp_path / "report.html").read_text()
    assert "No heat maps: " in html


def test_predict_lists_labels_with_their_own_probabilities() -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 0))
    (prediction,) = predict(classifier(), [image])
    assert [row.name for row in prediction.top] == ["red", "green", "blue"]
    assert all(row.probability > 0.99 for row in prediction.top[:2])


def test_command_line(
    data: tuple[Tensor, Tensor], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["path,labels"]
    for index, (image, labels) in enumerate(zip(*data, strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
        names = [name for name, has in zip(CLASSES, labels, strict=True) if has]
        lines.append(f"{index}.png,{'|'.join(names)}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colors_model.py").write_text(
        "import torch\n"
        "from seewhy import Classifier\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        return 20 * images.amax((2, 3)) - 10\n"
        "def build():\n"
        "    names = ('red', 'green', 'blue')\n"
        "    return Classifier(Net().eval(), names, (3, 8, 8), activation='sigmoid')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["evaluate", "colors_model:build", "--data", "labels.csv"]) == 0
    printed = capsys.readouterr().out
    assert "all labels right for 95.83% of 24 images of labels.csv" in printed
    assert main(["evaluate", "colors_model:build", "--data", "labels.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact_match"] == pytest.approx(23 / 24, abs=1e-6)
    assert main(["report", "colors_model:build", "--data", "labels.csv", "--quiet"]) == 0
    assert (tmp_path / "report.html").exists()
    assert main(["evaluate", "colors_model:build", "--data", "digits"]) == 2
    assert "found 'digits'; it has a column of image paths" in capsys.readouterr().err
    refused = ["evaluate", "colors_model:build", "--data", "labels.csv", "--split", "all"]
    assert main(refused) == 2
    assert "--split is for the data of the run itself" in capsys.readouterr().err
    refused = ["report", "colors_model:build", "--data", "labels.csv", "--map-train"]
    assert main([*refused, "--output", "mapped.html"]) == 2
    assert "--map-train are for models that choose one class" in capsys.readouterr().err
    refused = ["evaluate", "colors_model:build", "--data", "labels.csv", "--calibrated"]
    assert main(refused) == 2
    assert "are for models that choose one class for each image" in capsys.readouterr().err
