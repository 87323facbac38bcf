"""Accuracy under attack and under corruption, and samples of the corruptions."""

from collections.abc import Sequence

import matplotlib as mpl
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.data.thumbnails import downscale
from seewhy.diagnosis.corruptions import CORRUPTIONS, corrupt
from seewhy.diagnosis.robustness import RobustnessCurve
from seewhy.errors import SeewhyError
from seewhy.figures.image_grid import MARGIN, Tiles, draw_tiles
from seewhy.figures.style import BLUE, GREEN, PURPLE, STYLE, VERMILION, fix_layout, legend_below
from seewhy.figures.text import text_height, truncate

WIDTH = 4.4  # inches, readable on a phone
GUTTER = 0.2  # inches between the two columns of samples
SAMPLE_STRENGTHS = (1, 3, 5)

_LINES = ((VERMILION, "o", "--"), (BLUE, "s", "-"), (GREEN, "^", "-."), (PURPLE, "D", ":"))


def attack_curves_figure(curves: Sequence[RobustnessCurve]) -> Figure:
    """Plot accuracy [%] against ε [1/255] with 95% intervals, one curve per attack."""
    _check(curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        axes = figure.subplots()
        for index, curve in enumerate(curves):
            color, marker, line = _LINES[index % len(_LINES)]
            x = (255 * curve.levels).tolist()
            low, accuracy, high = (
                (100 * values).tolist() for values in (curve.low, curve.accuracy, curve.high)
            )
            name = curve.name.upper() if curve.name in ("fgsm", "pgd") else curve.name
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(
                x,
                accuracy,
                color=color,
                marker=marker,
                linestyle=line,
                markersize=5,
                label=truncate(name, 1.5),
                clip_on=False,
                zorder=3,
            )
        levels = {level for curve in curves for level in (255 * curve.levels).tolist()}
        ticks = _thin_out(sorted(levels))
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_yticks(range(0, 101, 20))
        axes.set(
            xlim=(0, None),
            ylim=(0, 100),
            xlabel="maximum change per pixel, ε [1/255]",
            ylabel="accuracy [%]",
        )
        axes.set_title(f"Accuracy under attack, {_images(curves[0])}", loc="left")
        legend_below(figure, axes)
    return figure


def corruption_figure(curves: Sequence[RobustnessCurve]) -> Figure:
    """Show accuracy [%] by corruption and strength, the most harmful corruption on top."""
    _check(curves)
    ordered = sorted(curves, key=lambda curve: curve.accuracy[1:].mean().item())
    cells = 100 * torch.stack([curve.accuracy[1:] for curve in ordered])
    rows, columns = cells.shape
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.79 + 0.33 * rows), layout="constrained")
        axes = figure.subplots()
        mesh = axes.pcolormesh(
            cells.numpy(), cmap="cividis", vmin=0, vmax=100, edgecolors="white", linewidth=1.5
        )
        for row, values in enumerate(cells.tolist()):
            for column, value in enumerate(values):
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{value:.0f}",
                    ha="center",
                    va="center_baseline",
                    color=_text_color(mesh.to_rgba(value)),
                )
        names = [truncate(curve.name, 1.2) for curve in ordered]
        axes.set_yticks([row + 0.5 for row in range(rows)], names)
        levels = [f"{level:g}" for level in curves[0].levels[1:].tolist()]
        axes.set_xticks([column + 0.5 for column in range(columns)], levels)
        axes.set_xlabel("corruption strength")
        clean = 100 * curves[0].accuracy[0].item()
        axes.set_title(f"Accuracy [%] on {_images(curves[0])}, clean: {clean:.1f}", loc="left")
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def corruption_samples_figure(image: Tensor, seed: int = 0) -> Figure:
    """Show an image under every corruption of CORRUPTIONS at strengths 1, 3, and 5.

    Args:
        image: (C, H, W) uint8.
        seed: Seed of random corruptions.
    """
    white = torch.full_like(image, 255)
    strips = {"original": torch.stack([image, *[white] * (len(SAMPLE_STRENGTHS) - 1)])}
    for name in CORRUPTIONS:
        strips[name] = torch.cat(
            [corrupt(image[None], name, strength, seed) for strength in SAMPLE_STRENGTHS]
        )
    column_width = (WIDTH - 2 * MARGIN - GUTTER) / 2
    tiles = {name: Tiles(downscale(strip.cpu())[None], 1.0) for name, strip in strips.items()}
    height, width = tiles["original"].extent
    rows = -(-len(tiles) // 2)
    with mpl.rc_context({**STYLE, "axes.titlesize": STYLE["font.size"], "axes.titlepad": 3}):
        row_height = column_width * height / width + text_height(1) + 1.3 * MARGIN
        title_height = text_height(1) + 1.5 * MARGIN
        figure = Figure(figsize=(WIDTH, rows * row_height + title_height), layout="compressed")
        figure.get_layout_engine().set(w_pad=MARGIN, h_pad=0.5 * MARGIN, wspace=0.02, hspace=0)
        grid = figure.subplots(rows, 2, squeeze=False).flat
        for axes, (name, strip) in zip(grid, tiles.items(), strict=False):
            draw_tiles(axes, strip)
            axes.set_title(truncate(name, column_width), loc="left")
        for axes in grid[len(tiles) :]:
            axes.remove()
        strengths = ", ".join(map(str, SAMPLE_STRENGTHS))
        title = f"One image under every corruption, strengths {strengths}"
        size = STYLE["axes.titlesize"]
        figure.suptitle(title, x=MARGIN / WIDTH, ha="left", fontsize=size)
        fix_layout(figure)
    return figure


def _check(curves: Sequence[RobustnessCurve]) -> None:
    if not curves:
        raise SeewhyError("no curves to draw; pass at least one")


def _images(curve: RobustnessCurve) -> str:
    return f"{curve.images:,} image{'s' * (curve.images != 1)}"


def _thin_out(levels: Sequence[float]) -> list[float]:
    """The sorted levels that have room for a tick label."""
    labeled: list[float] = []
    for level in levels:
        if not labeled or level - labeled[-1] >= 0.05 * levels[-1]:
            labeled.append(level)
    return labeled


def _text_color(background: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher contrast (relative luminance of WCAG 2).

    Not exactly black: a dark page replaces black, the default text color, with a light color.
    """
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in to_rgb(background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000001" if luminance > 0.179 else "white"
