"""Figures of ROC and precision-recall curves: their lines, the areas below them, and labels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.thresholds import ranking_scores
from seewhy.figures.style import figure_svg
from seewhy.figures.thresholds import precision_recall_figure, roc_figure

Draw = Callable[[Predictions], Figure]
BOTH = pytest.mark.parametrize("draw", [roc_figure, precision_recall_figure])


def predictions(images: int, classes: int, spread: float = 2.0) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(images, classes, generator=generator)
    labels = (0.6 * logits).softmax(1).multinomial(1, generator=generator)[:, 0]
    return Predictions(logits, labels, tuple(f"class {index}" for index in range(classes)))


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def line(figure: Figure, start: str) -> np.ndarray:
    """Points (M, 2) of the line whose label starts so."""
    (found,) = (each for each in figure.axes[0].lines if str(each.get_label()).startswith(start))
    return np.asarray(found.get_xydata())


@pytest.mark.slow
def test_roc_figure_of_two_classes_is_the_curve_of_the_second() -> None:
    of_two = predictions(60, 2)
    figure = roc_figure(of_two)
    (row,) = ranking_scores(of_two).classes
    assert labels(figure) == ["random predictions", f"class 1, {row.auroc:.3f}"]
    x, y, _ = roc_curve(of_two.labels, of_two.probabilities[:, 1])
    drawn = line(figure, "class 1")
    found = set(map(tuple, drawn.round(4).tolist()))
    assert found >= set(zip((100 * x).round(4).tolist(), (100 * y).round(4).tolist(), strict=True))
    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) / 1e4 == pytest.approx(row.auroc)


@pytest.mark.slow
def test_precision_recall_figure_of_two_classes_is_the_curve_of_the_second() -> None:
    of_two = predictions(60, 2)
    figure = precision_recall_figure(of_two)
    (row,) = ranking_scores(of_two).classes
    assert labels(figure) == ["random predictions", f"class 1, {row.average_precision:.3f}"]
    np.testing.assert_allclose(line(figure, "random")[:, 1], 100 * row.prevalence)
    y, x, _ = precision_recall_curve(of_two.labels, of_two.probabilities[:, 1])
    points = set(zip((100 * x).round(4).tolist(), (100 * y).round(4).tolist(), strict=True))
    assert set(map(tuple, line(figure, "class 1").round(4).tolist())) <= points


@pytest.mark.slow
@BOTH
def test_curves_of_many_classes_are_the_mean_and_the_worst(draw: Draw) -> None:
    of_many = predictions(6000, 12)
    figure, scores = draw(of_many), ranking_scores(of_many)
    if draw is roc_figure:
        areas, mean = {row.name: row.auroc for row in scores.classes}, scores.macro_auroc
    else:
        areas = {row.name: row.average_precision for row in scores.classes}
        mean = scores.macro_average_precision
    worst = sorted(areas, key=areas.__getitem__)[:4]
    assert labels(figure) == [
        "random predictions",
        *(f"{name}, {areas[name]:.3f}" for name in worst),
        f"mean of 12 classes, {mean:.3f}",
    ]
    for name, area in [*((name, areas[name]) for name in worst), ("mean", mean)]:
        drawn = line(figure, f"{name} " if name == "mean" else f"{name}, ")
        assert len(drawn) <= 201
        assert np.trapezoid(drawn[:, 1], drawn[:, 0]) / 1e4 == pytest.approx(area, abs=0.01)
    assert len(figure_svg(figure)) < 50_000


@pytest.mark.slow
@BOTH
def test_curves_need_two_true_classes(draw: Draw) -> None:
    one = Predictions(torch.randn(5, 3), torch.ones(5, dtype=torch.int64), ("a", "b", "c"))
    figure = draw(one)
    assert not figure.axes[0].lines
    assert "no class has both" in figure.axes[0].texts[0].get_text()
