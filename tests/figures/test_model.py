"""The drawing of a model: what it shows, and that nothing overlaps."""

import functools
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.figures.model import model_figure
from seewhy.figures.model_layout import Layout, layout_model
from seewhy.figures.style import write_figure
from seewhy.models.graph import ModelGraph, model_graph
from seewhy.models.registry import blank_sample, build_model


class Inception(nn.Module):
    """Four branches; the last one is pooled first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, 4, 1)
        self.three = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 3, 1, 1))
        self.five = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 5, 1, 2))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def inception() -> nn.Module:
    blocks = [Inception(3), Inception(16), Inception(16)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


@functools.cache
def graph_of(name: str) -> ModelGraph:
    if name == "inception":
        return model_graph(inception(), (3, 8, 8))
    with torch.device("meta"):
        model = build_model(name, 10, blank_sample(3, 32, 32))
    return model_graph(model)


NAMES = (
    "davidnet",
    "inception",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet18", "vgg16", "speednet", "speednet:depth=3")
    ),
)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.slow
def test_layout_folds_equal_blocks() -> None:
    layout = layout_model(graph_of("resnet18"))
    assert [(frame.name, frame.count) for frame in layout.frames] == [
        ("layer1.0–1", 2),
        *((f"layer{stage}.{block}", 1) for stage in (2, 3, 4) for block in (0, 1)),
    ]
    assert layout.frames[0].parameters == 4 * (64 * 64 * 9 + 128)
    rows = [row for row in layout.rows if row.count > 1]
    assert not rows
    vgg = layout_model(graph_of("vgg16"))
    (row,) = [row for row in vgg.rows if row.count > 1]
    assert (row.operations, row.count) == (("Conv 3×3", "ReLU"), 2)
    assert row.parameters == 2 * (512 * 512 * 9 + 512)
    assert not vgg.frames


@pytest.mark.parametrize("name", NAMES)
def test_layout_counts_everything(name: str) -> None:
    graph, layout = graph_of(name), layout_model(graph_of(name))
    outside = [
        row for row in layout.rows if not any(f.top < row.y < f.bottom for f in layout.frames)
    ]
    for field in ("parameters", "multiply_adds"):
        parts = [getattr(part, field) for part in (*outside, *layout.frames)]
        assert sum(parts) == getattr(graph, field)


@pytest.mark.parametrize("name", NAMES)
def test_layout_has_no_overlaps(name: str) -> None:
    layout = layout_model(graph_of(name))
    for above, below in pairwise(layout.rows):
        assert above.bottom + 0.08 < below.top
    for one, other in combinations(layout.frames, 2):
        assert one.bottom < other.top or other.bottom < one.top
    for row in layout.rows:
        assert row.left + 0.15 <= row.right <= 3.9
        assert row.left <= row.x <= row.right
        assert row.bottom < layout.height
    assert_no_wire_through_a_box(layout)


def assert_no_wire_through_a_box(layout: Layout) -> None:
    for wire in layout.wires:
        for (x0, y0), (x1, y1) in pairwise(wire.points):
            assert x0 == x1 or y0 == y1
            for row in layout.rows:
                apart = (
                    max(x0, x1) <= row.left + 1e-9
                    or min(x0, x1) >= row.right - 1e-9
                    or max(y0, y1) <= row.top + 1e-9
                    or min(y0, y1) >= row.bottom - 1e-9
                )
                assert apart, (wire, row)


def test_layout_shows_the_shortcut() -> None:
    """A wire leaves the main lane above the first convolution and ends in the addition."""
    layout = layout_model(graph_of("davidnet"))
    frame = layout.frames[0]
    first, _, join = (row for row in layout.rows if frame.top < row.y < frame.bottom)
    assert join.is_join
    shortcut = next(wire for wire in layout.wires if wire.points[-1] == (join.left, join.y))
    assert shortcut.points[0][0] == first.x
    assert frame.top < shortcut.points[0][1] < first.top
    assert shortcut.points[1][0] < first.left


def test_layout_of_parallel_branches() -> None:
    layout = layout_model(graph_of("inception"))
    assert [(frame.name, frame.count) for frame in layout.frames] == [("0", 1), ("1–2", 2)]
    block = [row for row in layout.rows if layout.frames[0].top < row.y < layout.frames[0].bottom]
    lanes = [row.x for row in block]
    assert len(set(lanes)) == 4
    assert lanes[0] == lanes[-1] == max(lanes)  # the first branch and the join
    ends = [wire for wire in layout.wires if wire.points[-1][1] in (block[-1].y, block[-1].top)]
    assert len(ends) == 4


class Deep(nn.Module):
    """More blocks than a drawing has rows for, each with another width."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.stage = nn.ModuleList(Widening(4 + index) for index in range(25))
        self.head = nn.Linear(29, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.stage:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Widening(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels + 1, 1)
        self.shortcut = nn.Conv2d(channels, channels + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu() + self.shortcut(x)


@pytest.mark.slow
def test_layout_of_a_large_model_shows_blocks_as_boxes() -> None:
    graph = model_graph(Deep(), (3, 4, 4))
    layout = layout_model(graph)
    assert not layout.frames
    boxes = [row for row in layout.rows if row.is_block]
    assert [box.operations for box in boxes] == [("Widening",)] * 25
    assert boxes[3].layer == "stage.3"
    assert sum(row.parameters for row in layout.rows) == graph.parameters


def test_model_figure_texts() -> None:
    shown = texts(model_figure(graph_of("davidnet")))
    for text in (
        "6,573,130 parameters, 379.27 M multiply-adds per image",
        "Conv 3×3 · MaxPool 2×2 · BatchNorm · ReLU",
        "layer1.1",
        "Residual",
        "128×16×16",
        "147,712",
        "10.0%",  # 128 · 128 · 9 · 16 · 16 of 379 M
        "<0.1%",
        "+",
    ):
        assert text in shown, text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["davidnet", "inception"])
def test_model_figure_fits(name: str) -> None:
    figure = model_figure(graph_of(name))
    figure.canvas.draw()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.slow
def test_write_figure(tmp_path: Path) -> None:
    figure = model_figure(graph_of("davidnet"))
    write_figure(figure, tmp_path / "new" / "net.svg")
    assert "BatchNorm" in (tmp_path / "new" / "net.svg").read_text(encoding="utf-8")
    with pytest.raises(SeewhyError, match=r"suffix '.gif', .*possible: .svg, .png, .pdf"):
        write_figure(figure, tmp_path / "net.gif")
