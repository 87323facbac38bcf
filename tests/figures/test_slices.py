import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from seewhy.diagnosis.shortcuts import ClassAttribution
from seewhy.diagnosis.slices import Slice
from seewhy.figures.slices import class_attribution_figure, slices_figure
from seewhy.figures.style import STYLE


def slice_of(description: str, accuracy: float, images: int = 200) -> Slice:
    return Slice(
        description,
        "attribute",
        torch.arange(images),
        images,
        accuracy,
        (accuracy - 0.05, accuracy + 0.05),
        0.9,
        0.01,
    )


def evidence_of(images: list[int], height: int = 8, width: int = 8) -> ClassAttribution:
    """The evidence for class k lies in pixel k."""
    count = len(images)
    maps = torch.zeros(count, height * width)
    maps[range(count), range(count)] = (torch.tensor(images) > 0).float()
    names = tuple(f"class ${index}$ with a very long name" for index in range(count))
    nothing = torch.zeros(count, 0)
    return ClassAttribution(
        names,
        torch.tensor(images),
        maps.reshape(count, height, width),
        (),
        nothing,
        nothing,
        (None,) * count,
    )


def drawn(figure: Figure) -> Figure:
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    return figure


def test_slices_figure_rows() -> None:
    figure = drawn(
        slices_figure(
            [slice_of("mostly cat (61%) and $dog", 0.4), slice_of("the darkest tenth", 0.7, 1234)],
            0.9,
        )
    )
    [axes] = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in dots] == pytest.approx([40, 70])  # type: ignore[index]
    assert axes.lines[0].get_xdata() == pytest.approx([90, 90])
    assert axes.lines[0].get_linestyle() == "--"
    assert [text.get_text() for text in axes.texts] == ["40% of 200", "70% of 1,234"]
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels == ["mostly cat (61%) and \\$dog", "the darkest tenth"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top


@pytest.mark.slow
def test_slices_figure_of_many_slices() -> None:
    long = (
        "mostly a class with a name without an end (55%) and another such class (21%), "
        "flatter in contrast than 79% of images"
    )
    figure = drawn(slices_figure([slice_of(long, index / 20) for index in range(20)], 1.0))
    assert len(figure.axes[0].get_yticks()) == 8
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(
        box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[index + 1 :]
    )
    assert min(box.x0 for box in boxes) >= 0


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_class_attribution_figure_maps() -> None:
    figure = drawn(class_attribution_figure(evidence_of([5, 0, 9, 1])))
    shown = tiles(figure)
    assert [int(tile.sum(2).argmax()) for tile in shown] == [0, 2, 3]  # class 1 has no images
    colors = mpl.colormaps["inferno"]([0.0, 1.0], bytes=True)[:, :3]
    assert shown[1][0, 2].tolist() == colors[1].tolist()
    assert shown[1][7, 7].tolist() == colors[0].tolist()
    names = [axes.get_title() for axes in figure.axes]
    assert [name[:10] for name in names] == [rf"class \${index}\$"[:10] for index in (0, 2, 3)]


@pytest.mark.slow
def test_class_attribution_figure_of_many_classes() -> None:
    figure = drawn(class_attribution_figure(evidence_of([10] * 5 + [50] * 20 + [9] * 10)))
    assert len(tiles(figure)) == 20
    assert [int(tile.sum(2).argmax()) for tile in tiles(figure)] == list(range(5, 25))
    assert figure.get_suptitle().endswith("20 of 35 classes")
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [
        text.get_window_extent() for text in [*figure.texts, *(axes.title for axes in figure.axes)]
    ]
    assert all(
        box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes
    )
    assert not any(
        box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[index + 1 :]
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 120), (120, 40), (300, 300)])
def test_class_attribution_figure_aspect(height: int, width: int) -> None:
    figure = drawn(class_attribution_figure(evidence_of([3, 4], height, width)))
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx(width / height, rel=0.02)
    assert figure.get_figwidth() == pytest.approx(4.4)
    assert figure.get_figheight() < 4


def test_class_attribution_figure_without_images() -> None:
    figure = drawn(class_attribution_figure(evidence_of([0, 0])))
    assert not figure.axes
    assert figure.texts[0].get_text() == "No class has images with a heat map."
