"""A drawing of a model: its blocks and layers, the paths between them, and what they cost.

Drawn with matplotlib alone: graphviz, pygraphviz and pydot need a system program, and grandalf and
networkx place nodes, but know neither frames around blocks nor rows of numbers beside them. A model
is nearly a chain, so one row per step and a few lanes for the paths beside it are enough.
"""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from torch import nn

from seewhy.figures.model_layout import Frame, Row, Wire, layout_model
from seewhy.figures.style import BLUE, STYLE, VERMILION
from seewhy.figures.text import text_width, truncate
from seewhy.models.graph import ModelGraph, model_graph
from seewhy.models.operations import label_kind
from seewhy.models.summary_table import count_text

GRAY = "#595959"  # has a counterpart in the report's dark mode
WIDTH = 7.2  # inches; all lengths are inches, downwards from the top left
SHAPE, PARAMETERS, BAR, SHARE = 4.85, 5.8, (5.95, 6.62), 7.08  # right edges of the columns, the bar
LINE_WIDTH = 1.1
TITLE_SIZE = 7.5  # of blocks
COLORS = {"Conv": BLUE, "ConvTranspose": BLUE, "Linear": VERMILION, "Attention": VERMILION}
SYMBOLS = {"add": "+", "multiply": "×", "subtract": "−", "concat": "‖"}


def model_figure(
    model: str | nn.Module | ModelGraph,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
) -> Figure:
    """Draw a model from input to output, with the costs of each step beside it.

    Equal blocks in a row are drawn once; the line marked with ×n counts all of them. Blocks of a
    large model are drawn as one box each.

    Args:
        model: A module, the name of a model such as "resnet18", or the result of `model_graph`.
        image_shape: (C, H, W) of the image.
        num_classes: Number of classes of a model given by name.

    Raises:
        SeewhyError: If the model does not accept the image, or cannot be traced.
    """
    graph = model if isinstance(model, ModelGraph) else model_graph(model, image_shape, num_classes)
    layout = layout_model(graph)
    with mpl.rc_context({**STYLE, "font.size": 8}):
        figure = Figure(figsize=(WIDTH, layout.height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(layout.height, 0)
        axes.set_axis_off()
        _draw_heading(axes, graph)
        for frame in layout.frames:
            _draw_frame(axes, frame, graph.multiply_adds)
        for wire in layout.wires:
            _draw_wire(axes, wire)
        largest = max((row.multiply_adds for row in layout.rows), default=0)
        for row in layout.rows:
            _draw_row(axes, row, graph.multiply_adds, largest)
    return figure


def _draw_heading(axes: Axes, graph: ModelGraph) -> None:
    axes.text(0.1, 0.2, truncate(graph.title, 4), va="center", weight="bold", size=11)
    multiply_adds = count_text(graph.multiply_adds)
    costs = f"{graph.parameters:,} parameters, {multiply_adds} multiply-adds per image"
    axes.text(0.1, 0.42, costs, va="center", color=GRAY)
    for x, text in ((SHAPE, "output"), (PARAMETERS, "parameters"), (SHARE, "multiply-adds")):
        axes.text(x, 0.66, text, ha="right", va="center", color=GRAY, size=7.5)


def _draw_frame(axes: Axes, frame: Frame, total: int) -> None:
    height = frame.bottom - frame.top
    box = FancyBboxPatch(
        (frame.left, frame.top),
        frame.right - frame.left,
        height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=GRAY,
        edgecolor="none",
        alpha=0.09,
    )
    axes.add_patch(box)
    y = frame.top + 0.13
    with mpl.rc_context({"font.size": TITLE_SIZE}):
        name = truncate(frame.name, 0.85 * (frame.x - frame.left - 0.2))  # bold letters are wider
        kind = truncate(frame.type, 1.15) + (f"  ×{frame.count}" if frame.count > 1 else "")
        axes.text(frame.left + 0.1, y, name, va="center", weight="bold")
        axes.text(frame.x + 0.1, y, kind, va="center")
    _draw_numbers(axes, y, frame.shape, frame.parameters, frame.multiply_adds, total, GRAY)


def _draw_row(axes: Axes, row: Row, total: int, largest: int) -> None:
    if row.is_join:
        _draw_join(axes, row)
    else:
        _draw_box(axes, row)
    _draw_numbers(axes, row.y, row.shape, row.parameters, row.multiply_adds, total, "black")
    if row.multiply_adds and largest:
        left, right = BAR
        width = (right - left) * row.multiply_adds / largest
        axes.add_patch(
            Rectangle((left, row.y - 0.05), width, 0.1, facecolor=_color(row), edgecolor="none")
        )


def _draw_box(axes: Axes, row: Row) -> None:
    color = _color(row)
    corner, width, height = (row.left, row.top), row.right - row.left, row.bottom - row.top
    for facecolor, alpha in (("white", 1.0), (color, 0.16)):
        box = FancyBboxPatch(
            corner,
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=facecolor,
            edgecolor="none",
            alpha=alpha,
        )
        axes.add_patch(box)
    outline = FancyBboxPatch(
        corner,
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.04",
        facecolor="none",
        edgecolor=color,
        linewidth=0.8,
    )
    axes.add_patch(outline)
    label = " · ".join(row.operations) + (f"  ×{row.count}" if row.count > 1 else "")
    room = width - 0.14
    if label == "image":
        axes.text(row.x, row.y, label, ha="center", va="center")
        return
    axes.text(row.left + 0.07, row.y, truncate(label, room), va="center")
    if row.layer and text_width(label) + text_width(row.layer) + 0.1 < room:
        x = row.right - 0.07
        axes.text(x, row.y, truncate(row.layer, room), ha="right", va="center", color=GRAY, size=7)


def _draw_join(axes: Axes, row: Row) -> None:
    radius = (row.bottom - row.top) / 2
    circle = Circle((row.x, row.y), radius, facecolor="white", edgecolor="black", linewidth=0.9)
    axes.add_patch(circle)
    symbol = SYMBOLS[row.operations[0]]
    axes.text(row.x, row.y, symbol, ha="center", va="center_baseline", size=9)
    first = row.operations[:1] if symbol == SYMBOLS["concat"] else ()
    text = " · ".join([*first, *row.operations[1:]])
    axes.text(row.x + radius + 0.07, row.y, truncate(text, 1.3), va="center")


def _draw_numbers(
    axes: Axes,
    y: float,
    shape: Sequence[int],
    parameters: int,
    multiply_adds: int,
    total: int,
    color: str,
) -> None:
    cells = [
        (SHAPE, "×".join(map(str, shape))),
        (PARAMETERS, f"{parameters:,}" if parameters else ""),
        (SHARE, _percent(multiply_adds / total) if multiply_adds and total else ""),
    ]
    for x, text in cells:
        axes.text(x, y, text, ha="right", va="center", color=color, size=7.5)


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.0005 else f"{100 * share:.1f}%"


def _draw_wire(axes: Axes, wire: Wire) -> None:
    path = _rounded(wire.points)
    if wire.arrow:
        style = "-|>,head_length=2.6,head_width=1.5"
        patch = FancyArrowPatch(
            path=path,
            arrowstyle=style,
            color=GRAY,
            linewidth=LINE_WIDTH,
            shrinkA=0,
            shrinkB=0,
            mutation_scale=1,
        )
        axes.add_patch(patch)
    else:
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=GRAY, linewidth=LINE_WIDTH))


def _rounded(points: Sequence[tuple[float, float]], radius: float = 0.07) -> Path:
    """A line along points, with rounded corners."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _towards(
    start: tuple[float, float], end: tuple[float, float], distance: float
) -> tuple[float, float]:
    """The point `distance` from `start` towards `end`, at most half of the way."""
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])  # lines are level or upright
    fraction = min(0.5, distance / length) if length else 0.0
    return (
        start[0] + fraction * (end[0] - start[0]),
        start[1] + fraction * (end[1] - start[1]),
    )


def _color(row: Row) -> str:
    return COLORS.get(label_kind(row.operations[0]), GRAY) if not row.is_block else BLUE
