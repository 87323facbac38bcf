"""Cards of values in a notebook: well-formed HTML with the numbers of the value."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.attribution.explanation import explain
from seewhy.checks import check
from seewhy.data.dataset import Dataset, Split
from seewhy.data.statistics import describe
from seewhy.diagnosis.predictions import Predictions
from seewhy.experiments.experiment import Experiment
from seewhy.exporting.check import ExportCheck
from seewhy.models.classifier import Classifier
from seewhy.models.registry import build_model
from seewhy.models.summary import model_summary
from seewhy.reporting.notebook import CARDS, to_html
from seewhy.runs.run import Run
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.recipe import Recipe

VOID = {"img", "br"}


class Balance(HTMLParser):
    """Checks that every element is closed in order, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def shown_text(value: object) -> str:
    parser = Balance()
    parser.feed(to_html(value))
    assert not parser.open
    return " ".join(" ".join(parser.text).split())


@pytest.fixture(scope="module")
def range_test() -> LRRangeTest:
    losses = (2.3, 2.3, 2.2, 1.9, 1.4, 1.2, 1.3, 2.0)
    lrs = tuple(10.0**step for step in range(-6, 2))
    return LRRangeTest(lrs, losses, losses, "diverged")


def test_dataset_card(data: Dataset) -> None:
    text = shown_text(data)
    assert text.startswith("Dataset bars classes 4 image shape 3x12x12 fingerprint ")
    assert "train 240 60 60 test 120 29 31 upright level <&> flat $x^2$" in text
    assert to_html(data).count("<img") == 4


def test_description_card(data: Dataset) -> None:
    text = shown_text(describe(data))
    mean = (data.train.images[:, 0].double() / 255).mean().item()
    assert "images 240 train, 120 test" in text
    assert re.search(rf"train R 0\.0000 0\.\d+ {mean:.4f} ", text)


def test_recipe_card_has_changed_fields_first() -> None:
    text = shown_text(Recipe(name="mine", epochs=7))
    assert text.startswith("Recipe mine field value name mine epochs 7.0 Defaults field value")


def test_model_summary_card() -> None:
    text = shown_text(model_summary("speednet:width=0.125", (3, 8, 8), 3))
    assert "image 3x8x8 batch size 1 parameters " in text
    assert "BatchNorm2d" in text


def test_predictions_card() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    logits = torch.tensor([[3.0, 0], [3, 0], [0, 3], [0, 3]])
    text = shown_text(Predictions(logits, labels, ("<b>cat</b>", "dog")))
    assert "images 4 errors 1 accuracy 75.00% (30.06–95.44%)" in text
    assert "<b>cat</b> 3 66.7%" in text  # escaped in the HTML
    assert "<b>cat</b> dog 1" in text


def test_explanation_card(data: Dataset) -> None:
    model = build_model("speednet:width=0.125", 4, data.train)
    classifier = Classifier(model.eval(), data.classes, data.image_shape)
    explanation = explain(
        classifier, data.test.images[:12], ["grad-cam", "layer-cam"], "auto", warn=False
    )
    html = to_html(explanation)
    shown = 10 * len(explanation.maps)
    assert html.count("<img") == shown
    assert "images 12 methods grad-cam, layer-cam layers" in shown_text(explanation)


@pytest.mark.slow
def test_lr_range_test_card(range_test: LRRangeTest) -> None:
    text = shown_text(range_test)
    suggestion = range_test.suggestions["drop-80"]
    assert f"drop-80 (default) {suggestion:.3g}" in text
    assert '<img alt="Loss by learning rate" src="data:image/png;base64,' in to_html(range_test)


@pytest.mark.slow
def test_cards_have_only_elements_that_an_untrusted_notebook_shows(
    range_test: LRRangeTest, data: Dataset
) -> None:
    for value in (range_test, data, describe(data)):
        html = to_html(value).partition("</style>")[2]
        allowed = "p|dl|dt|dd|table|caption|thead|tbody|tr|th|td|details|summary|div|img|br"
        assert set(re.findall(r"<(\w+)", html)) <= set(allowed.split("|"))


def test_experiment_card(experiment_of: Callable[..., Experiment]) -> None:
    experiment = experiment_of(
        {
            "adam": [[(1.0, 2.0, 0.5)], [(1.0, 2.0, 0.52)], [(1.0, 2.1, 0.51)]],
            "sgd": [[(1.0, 2.0, 0.7)], [(1.0, 2.0, 0.72)], [(1.0, 2.1, 0.71)]],
        }
    )
    text = shown_text(experiment)
    assert "trials 6 of 6 finished, 3 seeds" in text
    assert text.index("sgd 0.1 71.00 ± 1.00%") < text.index("adam 0.1 51.00 ± 1.00%")
    assert "sgd adam 20.00" in text


def test_export_check_card(tmp_path: Path) -> None:
    check = ExportCheck(tmp_path / "model.onnx", 60, "test images of bars", 59, 2e-6, 100.0, 250.0)
    text = shown_text(check)
    assert "same predicted class 59 of 60" in text
    assert "speed of the file 250 images/s" in text


@pytest.mark.train
def test_run_card(data: Dataset, recipe: Recipe) -> None:
    from seewhy.runs.training import fit

    run = fit(replace(recipe, epochs=2), data, quiet=True)
    assert run.result is not None
    text = shown_text(run)
    assert f"accuracy {100 * run.result.accuracy:.2f}% (" in text
    assert "2 epochs epoch learning rate" in text
    assert "not finished" in shown_text(replace(run, result=None, predictions=None, history=()))
    assert isinstance(run, Run)
    assert Run in CARDS


def test_data_checks_card(data: Dataset) -> None:
    html = to_html(check(data, only=["class-imbalance", "outliers"]))
    assert "Check of bars" in html
    assert "240 train, 120 test" in html
    assert "&gt; 10" in html
    assert "needs the features of a pretrained model" in html


def test_dataset_card_of_any_number_of_labels() -> None:
    labels = torch.tensor([[True, True, False], [False, True, False]])
    split = Split(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), labels, ["a", "b"])
    text = shown_text(Dataset("tags", ("red", "round", "new"), split, split, None, "0" * 32))
    assert "train 2 0 2" in text
    assert text.endswith("red round")
