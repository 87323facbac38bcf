import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from seewhy.figures.curves import (
    accuracy_figure,
    curves_figure,
    loss_figure,
    lr_schedule_figure,
    whole_ticks,
)
from seewhy.figures.style import save_figure
from seewhy.train.loop import EpochStats

HISTORY = [
    EpochStats(1, 10, 0.1, 0.9, 5.0, 100.0, 2.0, 0.30, 1.8, 0.35),
    EpochStats(2, 20, 0.2, 0.9, 10.0, 100.0, 1.0, 0.60, None, None),
    EpochStats(3, 30, 0.0, 0.9, 15.0, 100.0, 0.5, 0.80, 0.6, 0.7512),
]


@pytest.mark.slow
def test_curves_figure_lines() -> None:
    loss, accuracy, rate = curves_figure(HISTORY).axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[1, 2.0], [2, 1.0], [3, 0.5]],
        [[1, 1.8], [3, 0.6]],
    ]  # type: ignore[union-attr]
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([30, 60, 80])  # type: ignore[union-attr]
    assert accuracy.lines[1].get_ydata().tolist() == pytest.approx([35, 75.12])  # type: ignore[union-attr]
    assert rate.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.0]  # type: ignore[union-attr]


@pytest.mark.slow
def test_save_figure_keeps_text_in_svg(tmp_path: Path) -> None:
    svg, png = save_figure(
        curves_figure(HISTORY, "valid", "my recipe"), tmp_path / "figures" / "curves"
    )
    text = re.sub(r"<[^>]+>", " ", svg.read_text())
    for words in (
        "my recipe: 3 epochs, training time 15 s",
        "valid, last 75.12%",
        "Loss",
        "Learning rate",
    ):
        assert words in text
    with Image.open(png) as image:
        assert image.width >= 1000
    assert sorted(path.name for path in svg.parent.iterdir()) == ["curves.png", "curves.svg"]


def test_curves_figure_of_one_epoch() -> None:
    curves_figure([EpochStats(0.5, 5, 0.1, 0.9, 1.0, 1.0, 1.0, 0.5, 1.0, 0.5)])
    figure = curves_figure(HISTORY[1:2])
    assert len(figure.axes[0].lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [curves_figure, loss_figure, accuracy_figure, lambda rows, _: lr_schedule_figure(rows)]
)
def test_legends_never_cover_a_curve(make: Callable[..., Figure]) -> None:
    figure = make(HISTORY, "test")
    figure.draw_without_rendering()
    [legend] = figure.legends
    box = legend.get_window_extent()
    assert not any(axes.get_legend() for axes in figure.axes)
    assert all(box.y1 <= axes.get_window_extent().y0 for axes in figure.axes)
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= box.y0


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("epochs", "whole"), [(1, True), (3, True), (20, True), (0.5, False)])
def test_epoch_ticks_are_whole(epochs: float, whole: bool) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_xlim(0, 1.02 * epochs)
    whole_ticks(axes, epochs)
    figure.draw_without_rendering()
    ticks = axes.get_xticks()
    assert all(tick.is_integer() for tick in ticks) == whole
    assert 2 <= sum(0 <= tick <= 1.02 * epochs for tick in ticks) <= 12
