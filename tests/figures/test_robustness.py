"""Figures of robustness: what they show, and that it can be read."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.diagnosis.corruptions import CORRUPTIONS, corrupt
from seewhy.diagnosis.robustness import RobustnessCurve
from seewhy.errors import SeewhyError
from seewhy.figures.robustness import (
    attack_curves_figure,
    corruption_figure,
    corruption_samples_figure,
)
from seewhy.figures.style import STYLE

EPSILONS = (0.0, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255)


def curve(
    name: str, accuracy: list[float], levels: tuple[float, ...] = EPSILONS, images: int = 250
) -> RobustnessCurve:
    middle = torch.tensor(accuracy)
    return RobustnessCurve(
        name,
        torch.tensor(levels),
        middle,
        (middle - 0.05).clamp_min(0),
        (middle + 0.05).clamp_max(1),
        images,
    )


def strengths(name: str, accuracy: list[float], images: int = 250) -> RobustnessCurve:
    return curve(name, accuracy, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), images)


def drawn(figure: Figure) -> Figure:
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    return figure


def assert_all_text_is_inside(figure: Figure) -> None:
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += [
            *axes.texts,
            *axes.get_xticklabels(),
            *axes.get_yticklabels(),
            axes.xaxis.label,
            axes.yaxis.label,
        ]
        texts += [axes.title, axes._left_title]
    drawn(figure)
    for text in texts:
        if text.get_text():
            box = text.get_window_extent()
            assert box.x0 >= -0.5
            assert box.y0 >= -0.5
            assert box.x1 <= figure.bbox.width + 0.5, text
            assert box.y1 <= figure.bbox.height + 0.5


# --- attacks


def test_attack_curves_figure_lines() -> None:
    fgsm, pgd = (
        curve("fgsm", [0.9, 0.7, 0.5, 0.4, 0.3, 0.2]),
        curve("pgd", [0.9, 0.6, 0.4, 0.1, 0.05, 0.0]),
    )
    figure = attack_curves_figure([fgsm, pgd])
    (axes,) = figure.axes
    for line, band, each in zip(axes.lines, axes.collections, (fgsm, pgd), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [0, 0.5, 1, 2, 4, 8], atol=1e-5)
        np.testing.assert_allclose(line.get_ydata(), 100 * each.accuracy.numpy(), atol=1e-5)
        corners = band.get_paths()[0].vertices
        for level, low, high in zip(
            line.get_xdata(), each.low.tolist(), each.high.tolist(), strict=True
        ):
            at = corners[np.abs(corners[:, 0] - level) < 1e-5, 1]
            assert (at.min(), at.max()) == pytest.approx((100 * low, 100 * high), abs=1e-4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["FGSM", "PGD"]
    assert (
        len({line.get_marker() for line in axes.lines})
        == len({line.get_linestyle() for line in axes.lines})
        == 2
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "0",
        "0.5",
        "1",
        "2",
        "4",
        "8",
    ]
    assert "1/255" in axes.get_xlabel()
    assert "%" in axes.get_ylabel()
    assert axes.get_title(loc="left") == "Accuracy under attack, 250 images"
    assert_all_text_is_inside(figure)


def test_attack_curves_figure_ticks() -> None:
    levels = (0.0, 0.01 / 255, 0.1 / 255, 1 / 255, 1.05 / 255, 8 / 255)
    (axes,) = attack_curves_figure([curve("fgsm", [0.9, 0.7, 0.5, 0.4, 0.3, 0.2], levels)]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "curves",
    [
        [curve("pgd", [1.0] * 6, images=1)],
        [
            curve(name, [1.0, 0.5, 0.5, 0.2, 0.1, 0.0])
            for name in ("$x$ and a name that is very long indeed", "b", "c", "d", "e")
        ],
        [curve("pgd", [0.5], (0.0,))],
    ],
)
def test_attack_curves_figure_of_extremes(curves: list[RobustnessCurve]) -> None:
    assert_all_text_is_inside(attack_curves_figure(curves))


# --- corruptions


def test_corruption_figure_cells() -> None:
    curves = [
        strengths("blur", [0.912, 0.9, 0.8, 0.7, 0.6, 0.5]),
        strengths("noise", [0.912, 0.4, 0.3, 0.2, 0.1, 0.004]),
        strengths("jpeg", [0.912, 1.0, 1.0, 1.0, 1.0, 0.996]),
    ]
    figure = corruption_figure(curves)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["noise", "blur", "jpeg"]
    assert axes.yaxis_inverted()
    said = {
        (int(text.get_position()[1]), int(text.get_position()[0])): text.get_text()
        for text in axes.texts
    }
    expected = [["40", "30", "20", "10", "0"], ["90", "80", "70", "60", "50"], ["100"] * 5]
    assert [[said[row, column] for column in range(5)] for row in range(3)] == expected
    np.testing.assert_allclose(axes.collections[0].get_array()[0], [40, 30, 20, 10, 0.4], atol=1e-5)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    assert axes.get_title(loc="left") == "Accuracy [%] on 250 images, clean: 91.2"
    assert_all_text_is_inside(figure)


@pytest.mark.slow
def test_corruption_figure_contrast() -> None:
    figure = corruption_figure(
        [
            strengths(str(row), [0.9, *(row / 20 + 0.01 * torch.arange(5)).tolist()])
            for row in range(20)
        ]
    )
    (axes,) = drawn(figure).axes
    cells = axes.collections[0].get_facecolors().reshape(20, 5, 4)
    for text in axes.texts:
        column, row = map(int, text.get_position())
        below, above = sorted((luminance(cells[row, column, :3]), luminance(text.get_color())))
        assert (above + 0.05) / (below + 0.05) >= 4.5  # WCAG 2.1, 1.4.3


def luminance(color: np.ndarray | str) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in to_rgb(color)
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_corruption_figure_names_are_not_formulas() -> None:
    figure = corruption_figure([strengths("$x$ and a name that is very long indeed", [1.0] * 6, 1)])
    assert_all_text_is_inside(figure)
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label.startswith(r"\$x\$")
    assert label.endswith("…")
    assert "1 image," in figure.axes[0].get_title(loc="left")


# --- samples


def photograph(channels: int, height: int, width: int) -> Tensor:
    image = torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0))
    return (200 * image).byte()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_corruption_samples_figure_images(channels: int) -> None:
    image = photograph(channels, 20, 20)
    figure = corruption_samples_figure(image, seed=3)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["original", *CORRUPTIONS]
    assert "1, 3, 5" in figure.get_suptitle()
    original, *strips = (axes.images[0].get_array() for axes in figure.axes)
    assert np.array_equal(original[:, :20].transpose(2, 0, 1), image.expand(3, -1, -1))
    assert (original[:, 20:] == 255).all()
    for name, strip in zip(CORRUPTIONS, strips, strict=True):
        for place, strength in enumerate((1, 3, 5)):
            expected = corrupt(image[None], name, strength, seed=3)[0].expand(3, -1, -1).numpy()
            assert np.array_equal(
                strip[:, 21 * place : 21 * place + 20].transpose(2, 0, 1), expected
            )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (32, 20), (150, 300)])
def test_corruption_samples_figure_does_not_overlap(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        CORRUPTIONS, "$mine$ with a name that is longer than its images", CORRUPTIONS["fog"]
    )
    figure = corruption_samples_figure(photograph(3, *size))
    assert_all_text_is_inside(figure)
    boxes = [axes.bbox for axes in figure.axes] + [
        text.get_window_extent()
        for text in [*figure.texts, *(axes._left_title for axes in figure.axes)]
    ]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    assert figure.get_figwidth() == pytest.approx(4.4)
    for axes in figure.axes:  # pixels are square
        height, width = axes.images[0].get_array().shape[:2]
        assert axes.bbox.width / width == pytest.approx(axes.bbox.height / height)


def test_robustness_figures_without_curves() -> None:
    for figure in (attack_curves_figure, corruption_figure):
        with pytest.raises(SeewhyError, match="no curves to draw; pass at least one"):
            figure([])
