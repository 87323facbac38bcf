"""Figures of classes: their marks and labels, and that nothing is cut off."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.figures.classes import class_figure, confusion_figure
from seewhy.figures.style import STYLE


def predictions_of(counts: torch.Tensor, classes: Sequence[str]) -> Predictions:
    """Predictions with a confusion matrix (K, K): true class by row, predicted class by column."""
    cells = torch.arange(counts.numel()).repeat_interleave(counts.flatten())
    labels, predicted = cells // len(classes), cells % len(classes)
    logits = torch.nn.functional.one_hot(predicted, len(classes)).float()
    return Predictions(logits, labels, tuple(classes))


SCORED = predictions_of(
    torch.tensor([[9, 1, 0, 0], [0, 0, 0, 0], [14, 0, 6, 0], [0, 0, 8, 12]]),
    ("good", "none", "bad", "fair"),
)


def predictions(images: int, classes: int, name: str = "class {}") -> Predictions:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    logits = torch.randn(images, classes, generator=generator) + 2 * torch.nn.functional.one_hot(
        labels, classes
    )
    return Predictions(logits, labels, tuple(name.format(index) for index in range(classes)))


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def assert_nothing_is_cut_off(figure: Figure) -> None:
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    width, height = figure.get_size_inches()
    assert drawn.x0 > -0.01
    assert drawn.y0 > -0.01
    assert drawn.x1 < width + 0.01
    assert drawn.y1 < height + 0.01
    assert not any(
        one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[index + 1 :]
    )


def test_class_figure_rows() -> None:
    figure = class_figure(SCORED)
    axes = figure.axes[0]
    assert names(figure) == ["bad", "fair", "good"]
    intervals = {row.name: row.interval for row in SCORED.by_class}
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[30, 0], [60, 1], [90, 2]])
    np.testing.assert_allclose(
        axes.collections[0].get_segments(),
        [[[100 * end, y] for end in intervals[name]] for y, name in enumerate(names(figure))],
    )
    assert [label.get_text() for label in axes.child_axes[0].get_yticklabels()] == [
        "30.0",
        "60.0",
        "90.0",
    ]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert axes.get_title(loc="left") == "Accuracy by class, 3 of 4 with images"


@pytest.mark.slow
def test_class_figure_mean() -> None:
    axes = class_figure(SCORED).axes[0]
    assert axes.lines[1].get_xdata() == pytest.approx([60, 60])
    assert axes.texts[0].get_text() == "mean 60.0"


@pytest.mark.slow
def test_class_figure_of_many_classes() -> None:
    counts = torch.diag(torch.arange(100).flip(0))
    counts[:, 0] += torch.arange(100)  # of 99 images each; the worst class is the last one
    counts[0] = torch.tensor([99] + [0] * 99)
    figure = class_figure(predictions_of(counts, [f"class {index}" for index in range(100)]))
    assert names(figure) == [f"class {index}" for index in range(99, 59, -1)]
    assert figure.axes[0].get_title(loc="left") == "The 40 worst of 100 classes"
    assert figure.axes[0].texts[0].get_text() == "mean 50.0"
    few = class_figure(predictions(40, 10))
    assert few.axes[0].get_title(loc="left") == "Accuracy by class, worst first"
    assert few.get_figheight() < figure.get_figheight() / 2


@pytest.mark.parametrize("draw", [class_figure, confusion_figure])
def test_figures_without_predictions(draw: Callable[[Predictions], Figure]) -> None:
    with pytest.raises(SeewhyError, match="no predictions"):
        draw(predictions(0, 2))


@pytest.mark.slow
def test_confusion_figure_cells() -> None:
    counts = torch.tensor([[6, 3, 1], [0, 5, 0], [0, 0, 0]])
    figure = confusion_figure(predictions_of(counts, ["a", "b", "c"]))
    axes = figure.axes[0]
    errors, right = (image.get_array() for image in axes.images)
    np.testing.assert_allclose(errors.filled(-1), [[-1, 30, 10], [0, -1, 0], [0, 0, -1]])
    assert np.array_equal(~np.ma.getmaskarray(right), np.eye(3, dtype=bool))
    assert axes.images[0].get_clim() == pytest.approx((0, 30))
    written = {
        (int(text.get_position()[1]), int(text.get_position()[0])): text.get_text()
        for text in axes.texts
    }
    assert written == {(0, 0): "6", (0, 1): "3", (0, 2): "1", (1, 1): "5"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


@pytest.mark.slow
def test_confusion_figure_counts_up_to_20_classes() -> None:
    few, many = (
        confusion_figure(predictions_of(torch.ones(size, size).long(), [""] * size))
        for size in (20, 21)
    )
    assert (len(few.axes[0].texts), len(many.axes[0].texts)) == (400, 0)


@pytest.mark.slow
def test_confusion_figure_of_many_classes() -> None:
    counts = torch.eye(130, dtype=torch.int64) * 10
    counts[torch.arange(30, 130), torch.arange(30, 130).roll(1)] = 5
    figure = confusion_figure(predictions_of(counts, [f"class {index}" for index in range(130)]))
    assert names(figure) == [f"class {index}" for index in range(30, 130)]
    assert "100 of 130 classes" in figure.get_suptitle()
    errors = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(errors[1, 0], 100 * 5 / 15)


@pytest.mark.slow
def test_class_names_are_not_formulas() -> None:
    result = predictions(40, 2, "${}$ and $")
    for figure in (
        class_figure(result),
        confusion_figure(result),
    ):
        assert_nothing_is_cut_off(figure)
        assert sorted(names(figure)) == [r"\$0\$ and \$", r"\$1\$ and \$"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "classes"),
    [
        (3, 3),
        (200, 10),
        pytest.param(300, 20, marks=pytest.mark.slow),
        pytest.param(900, 100, marks=pytest.mark.slow),
    ],
)
def test_class_figures_fit(images: int, classes: int) -> None:
    result = predictions(
        images, classes, "class {} with a name that is much too long for the margin"
    )
    assert_nothing_is_cut_off(class_figure(result))
    assert_nothing_is_cut_off(confusion_figure(result))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_confusion_figure_without_errors(classes: int) -> None:
    counts = 5 * torch.eye(classes, dtype=torch.int64)
    figure = confusion_figure(
        predictions_of(counts, [f"class {index}" for index in range(classes)])
    )
    assert len(figure.axes) == 1
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("names", "rotation"), [("0123456789", 0), (["a long name"] * 10, 90)])
def test_confusion_figure_rotates_only_long_names(names: Sequence[str], rotation: int) -> None:
    labels = torch.arange(10)
    figure = confusion_figure(Predictions(torch.eye(10), labels, tuple(names)))
    ticks = figure.axes[0].get_xticklabels()
    assert {tick.get_rotation() for tick in ticks if tick.get_text()} == {rotation}
