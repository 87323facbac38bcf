"""A run, its report, and odd cases, shared by the tests of the report."""

from dataclasses import replace

import pytest
import torch
from diagnosis_cases import (
    CLASSES,
    DiagnosedCase,
    bars,
    diagnosed_case,
    make_case,
    same_fixture,
)
from torch import nn

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.predictions import Predictions
from seewhy.models.classifier import Classifier
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.page import Page, render_page
from seewhy.runs.environment import current_environment
from seewhy.runs.result import RunResult
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe

__all__ = ["diagnosed_case", "make_case", "same_fixture"]  # fixtures of both packages


@pytest.fixture(scope="session")
def data() -> Dataset:
    """Four classes of bars; some test labels are wrong, and one test image is also in training."""
    train, test = bars(240, seed=1), bars(120, seed=2)
    wrong = torch.arange(0, 120, 9)
    labels = test.labels.index_copy(0, wrong, (test.labels[wrong] + 1 + wrong // 9 % 3) % 4)
    images = test.images.index_copy(0, torch.tensor([5]), train.images[7:8])
    return Dataset(
        "bars", CLASSES, train, replace(test, labels=labels, images=images), None, "5" * 32
    )


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """Learns the bars in a second, with some errors."""
    return Recipe(
        name="small",
        model="speednet:width=0.125",
        epochs=3,
        batch_size=40,
        lr=0.5,
        optimizer="sgd:momentum=0.85",
        precision="fp32",
    )


@pytest.fixture(scope="session")
def run(small_recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(small_recipe, data, tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture(scope="session")
def later(small_recipe: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with another seed and an epoch more."""
    return fit(
        replace(small_recipe, seed=1, epochs=4),
        data,
        tmp_path_factory.mktemp("runs") / "later",
        quiet=True,
    )


@pytest.fixture(scope="session")
def context(run: Run, data: Dataset) -> ReportContext:
    """The context of the run, with its diagnosis in the run directory."""
    return make_context(run, data=data, quiet=True, minutes=None)


@pytest.fixture(scope="session")
def page(context: ReportContext) -> Page:
    return render_page(context)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that share the trained runs."""
    for item in items:
        if {"run", "later"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.train)


@pytest.fixture(scope="session")
def odd(diagnosed_case: DiagnosedCase) -> ReportContext:
    """The context of each odd case, as if its model were that of a run."""
    model, data, predictions, diagnosis = diagnosed_case
    run = run_of(model, data, predictions)
    assert run.result is not None
    return ReportContext(run.classifier, run.data_origin, predictions, diagnosis, run)


def run_of(model: nn.Module, data: Dataset, predictions: Predictions) -> Run:
    """A run with this model, without training."""
    history = (EpochStats(1.0, 10, 0.1, 0.9, 1.0, 100.0, 2.0, 0.5, 1.0, 0.6),)
    result = RunResult(
        accuracy=predictions.accuracy,
        plain_accuracy=predictions.accuracy,
        interval=predictions.interval,
        test_images=len(predictions.labels),
        test_nll=1.0,
        calibration_error=0.1,
        selected_on="last epoch",
        selected_epoch=1.0,
        epochs=1.0,
        steps=10,
        train_seconds=1.0,
        images_per_second=100.0,
        parameters=1000,
        optimizer_bytes=4000,
    )
    return Run(
        recipe=Recipe(name="odd"),
        classifier=Classifier(model, data.classes),
        history=history,
        predictions=predictions,
        result=result,
        environment=current_environment(torch.device("cpu"), "fp32"),
        data_origin=data.origin,
        directory=None,
    )
