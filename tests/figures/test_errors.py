"""The figure of a run's most confident errors."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.figures.errors import errors_figure


def run_with_errors(data: Dataset, errors: dict[int, float]) -> Any:
    """A run that predicts the next class for the images in `errors`, by their confidence."""
    labels = data.test.labels
    logits = 10.0 * torch.nn.functional.one_hot(labels, 3)
    for index, confidence in errors.items():
        other = (int(labels[index]) + 1) % 3
        probabilities = torch.full((3,), (1 - confidence) / 2)
        probabilities[other] = confidence
        logits[index] = probabilities.log()
    return SimpleNamespace(
        predictions=Predictions(logits, labels, data.classes), data_origin=data.origin
    )


def test_errors_figure_captions(data: Dataset) -> None:
    run = run_with_errors(data, {4: 0.6, 9: 0.9, 20: 0.8})
    figure = errors_figure(run, 2, data)
    captions = [text.get_text() for text in figure.axes[0].texts]
    assert captions == [
        "true: upright\npredicted: level\nprobability 0.90",
        "true: slanting\npredicted: upright\nprobability 0.80",
    ]
    assert figure.texts[-1].get_text() == "2 of 3 errors, most confident first"


def test_errors_figure_leaves_cells_empty(data: Dataset) -> None:
    run = run_with_errors(data, dict.fromkeys(range(7), 0.7))
    assert len(errors_figure(run, 10, data).axes[0].texts) == 7


@pytest.mark.parametrize(
    ("change", "count", "message"),
    [
        ({"predictions": None}, 10, "has not finished"),
        ({}, 10, "has no errors"),
        ({}, 0, "count must be from 1 to 100, found 0"),
    ],
)
def test_errors_figure_without_errors(
    data: Dataset, change: dict[str, None], count: int, message: str
) -> None:
    run = SimpleNamespace(**{**vars(run_with_errors(data, {})), **change})
    with pytest.raises(SeewhyError, match=message):
        errors_figure(run, count, data)
