"""No legend lies on data, in any figure."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import seewhy
from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.sanity import SanityCheck
from seewhy.attribution.scores import TrustScore
from seewhy.diagnosis.calibration import (
    measure_calibration,
    risk_coverage_curve,
    temperature_scaling,
)
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.robustness import RobustnessCurve
from seewhy.figures.calibration import reliability_figure, risk_coverage_figure
from seewhy.figures.curves import accuracy_figure, curves_figure, loss_figure, lr_schedule_figure
from seewhy.figures.image_map import image_map_figure
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.figures.robustness import attack_curves_figure
from seewhy.figures.style import STYLE
from seewhy.figures.thresholds import precision_recall_figure, roc_figure
from seewhy.figures.trust import trust_figure
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest, exponential_average


def predictions() -> Predictions:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(400, 4, generator=generator)
    labels = (logits / 2).softmax(1).multinomial(1, generator=generator)[:, 0]
    return Predictions(logits, labels, ("a", "b", "c", "d"))


def reliability() -> Figure:
    found = temperature_scaling(predictions())
    return reliability_figure(measure_calibration(predictions()), found.after)


def history() -> list[EpochStats]:
    return [
        EpochStats(n, n, 0.1, 0.9, 5.0 * n, 100.0, 2.0 / n, 1 - 0.5 / n, 1.5, 0.5)
        for n in range(1, 7)
    ]


def range_test() -> Figure:
    losses = [2.3 + np.sin(step) for step in range(40)]  # everywhere, so no corner is free
    rates, smoothed = np.logspace(-6, 0, 40), exponential_average(losses, 0.5)
    return lr_finder_figure(LRRangeTest(tuple(rates), tuple(losses), tuple(smoothed), "at the end"))


def attacks() -> Figure:
    levels, ones = torch.linspace(0, 8 / 255, 6), torch.ones(6)
    accuracies = (ones, 0.5 * ones, torch.linspace(1, 0, 6), torch.linspace(0, 1, 6))
    return attack_curves_figure(
        [
            RobustnessCurve(f"attack {n}", levels, each, each - 0.02, each + 0.02, 250)
            for n, each in enumerate(accuracies)
        ]
    )


def trusted() -> Figure:
    check = SanityCheck(("a",), torch.zeros(1, 2), True)
    gains = [BootstrapSummary(gain, (gain - 0.5, gain + 0.5)) for gain in (-0.4, 0.0, 0.4)]
    return trust_figure(
        [
            TrustScore(layer, method, gain, gain, check, None, None, None, 1.0)
            for layer in ("layer1", "layer2")
            for method, gain in zip(("cam", "rise", "grad-cam"), gains, strict=True)
        ]
    )


def image_map() -> Figure:
    positions = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    found = predictions()
    return image_map_figure(
        positions,
        found.labels,
        found.classes,
        found.correct,
        train_positions=positions.flip(1),
        train_labels=found.labels,
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "reliability": reliability,
    "risk and coverage": lambda: risk_coverage_figure(risk_coverage_curve(predictions())),
    "roc": lambda: roc_figure(predictions()),
    "precision and recall": lambda: precision_recall_figure(predictions()),
    "attacks": attacks,
    "range test": range_test,
    "curves": lambda: curves_figure(history()),
    "loss": lambda: loss_figure(history()),
    "accuracy": lambda: accuracy_figure(history()),
    "schedule": lambda: lr_schedule_figure(history()),
    "trust": trusted,
    "map of images": image_map,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_legend_is_beside_the_data(name: str) -> None:
    """Neither on the axes, where data may be, nor on their labels; and inside the figure."""
    figure = FIGURES[name]()
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
        assert legends
        for legend in legends:
            box = legend.get_window_extent()
            for axes in figure.axes:
                assert not box.overlaps(axes.get_tightbbox()), axes.get_title(loc="left")
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1
            data = min(figure.axes[0].get_window_extent().height, box.height)
            assert data == box.height, "more room for the legend than for the data"


def test_every_figure_with_a_legend_is_tested() -> None:
    """tests/experiments/test_figures.py has those of experiments; colorbars are no legends."""
    files = (Path(seewhy.__file__).parent / "figures").glob("*.py")
    with_legend = {path.stem for path in files if "legend" in path.read_text()}
    tested = {
        "calibration",
        "curves",
        "image_map",
        "lr_finder",
        "robustness",
        "thresholds",
        "trust",
    }
    assert with_legend - {"style", "explanations"} == tested
