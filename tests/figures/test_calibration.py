"""Figures of calibration: their lines and labels, and that nothing is cut off."""

import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seewhy.diagnosis.calibration import (
    Calibration,
    RiskCoverageCurve,
    measure_calibration,
    risk_coverage_curve,
    temperature_scaling,
)
from seewhy.diagnosis.predictions import Predictions
from seewhy.figures.calibration import reliability_figure, risk_coverage_figure
from seewhy.figures.style import STYLE

NAN = math.nan
BINS = Calibration(
    edges=torch.linspace(0, 1, 5, dtype=torch.float64),
    images=torch.tensor([0, 30, 5, 65]),
    confidence=torch.tensor([NAN, 0.4, 0.6, 0.9], dtype=torch.float64),
    accuracy=torch.tensor([NAN, 0.2, 1.0, 0.8], dtype=torch.float64),
    ece=0.1234,
    mce=0.4,
    brier=0.3,
    nll=0.5,
)
CURVE = RiskCoverageCurve(
    coverage=torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64),
    accuracy=torch.tensor([1.0, 0.95, 0.9125], dtype=torch.float64),
    confidence=torch.tensor([0.99996, 0.987, 0.3], dtype=torch.float64),
    aurc=0.03456,
)


def predictions(images: int, classes: int, spread: float = 2.0) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(images, classes, generator=generator)
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    return Predictions(logits, labels, tuple(map(str, range(classes))))


def assert_nothing_is_cut_off(figure: Figure) -> None:
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert drawn.x0 > -0.01
    assert drawn.y0 > -0.01
    assert drawn.x1 < width + 0.01
    assert drawn.y1 < height + 0.01


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.slow
def test_reliability_figure_bins_with_few_images_are_hollow() -> None:
    axes = reliability_figure(BINS).axes[0]
    diagonal, line, few = axes.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [100, 100]]
    np.testing.assert_allclose(line.get_xydata(), [[40, 20], [90, 80]])
    np.testing.assert_allclose(few.get_xydata(), [[60, 100]])
    assert few.get_markerfacecolor() == "white"
    assert few.get_linestyle() == "None"


def test_reliability_figure_stems() -> None:
    (stems,) = reliability_figure(BINS).axes[0].collections
    np.testing.assert_allclose(
        stems.get_segments(), [[[40, 40], [40, 20]], [[60, 60], [60, 100]], [[90, 90], [90, 80]]]
    )


def test_reliability_figure_histogram() -> None:
    strip = reliability_figure(BINS).axes[1]
    np.testing.assert_allclose(strip.patches[0].get_data().values, [0, 30, 5, 65])
    np.testing.assert_allclose(strip.patches[0].get_data().edges, [0, 25, 50, 75, 100])


def test_reliability_figure_legend() -> None:
    result = predictions(500, 10, 4.0)
    scaling = temperature_scaling(result)
    figure = reliability_figure(scaling.before, scaling.after)
    assert labels(figure) == [
        f"as trained, ECE {100 * scaling.before.ece:.1f}%",
        f"temperature-scaled, ECE {100 * scaling.after.ece:.1f}%",
    ]
    before, after = figure.axes[0].lines[1], figure.axes[0].lines[3]
    assert before.get_linestyle() != after.get_linestyle()
    assert before.get_marker() != after.get_marker()
    assert labels(reliability_figure(BINS)) == ["this model, ECE 12.3%"]


def test_risk_coverage_figure_lines() -> None:
    axes = risk_coverage_figure(CURVE).axes[0]
    best, curve, every = axes.lines
    np.testing.assert_allclose(curve.get_xydata(), [[10, 100], [50, 95], [100, 91.25]])
    assert every.get_xydata().tolist() == [[100, 91.25]]
    share, accuracy = best.get_xydata().T
    assert (accuracy[share <= 91.25] == 100).all()
    np.testing.assert_allclose(accuracy[share > 91.25], 100 * 91.25 / share[share > 91.25])
    assert axes.texts[0].get_text() == "all images: 91.25%"
    assert labels(axes.figure)[1] == "this model, AURC 0.0346"


def test_risk_coverage_figure_thresholds() -> None:
    (above,) = risk_coverage_figure(CURVE).axes[0].child_axes
    assert above.get_xticks().tolist() == [20, 40, 60, 80, 100]
    assert [text.get_text() for text in above.get_xticklabels()] == ["99", "99", "30", "30", "30"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("confidence", "text"),
    [
        (0.31, "31"),
        (0.994, "99"),
        (0.9962, "99.6"),
        (0.99962, "99.96"),
        (0.999999, ">99.99"),
        (1.0, "100"),
    ],
)
def test_risk_coverage_figure_threshold_digits(confidence: float, text: str) -> None:
    one = torch.ones(1, dtype=torch.float64)
    (above,) = (
        risk_coverage_figure(RiskCoverageCurve(one, one, one * confidence, 0.0)).axes[0].child_axes
    )
    assert [label.get_text() for label in above.get_xticklabels()] == [text]


@pytest.mark.slow
@pytest.mark.parametrize(("images", "classes"), [(3, 3), (3000, 100)])
def test_calibration_figures_fit(images: int, classes: int) -> None:
    result = predictions(images, classes)
    scaling = temperature_scaling(result)
    assert_nothing_is_cut_off(reliability_figure(scaling.before, scaling.after))
    assert_nothing_is_cut_off(risk_coverage_figure(risk_coverage_curve(result)))


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False])
def test_calibration_figures_of_an_extreme_model(right: bool) -> None:
    labels = torch.arange(20) % 2
    result = Predictions(
        40 * torch.nn.functional.one_hot(labels if right else 1 - labels, 2).float(),
        labels,
        ("a", "b"),
    )
    assert_nothing_is_cut_off(reliability_figure(measure_calibration(result)))
    assert_nothing_is_cut_off(risk_coverage_figure(risk_coverage_curve(result)))
