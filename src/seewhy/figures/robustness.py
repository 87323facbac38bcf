"""Accuracy under attack and under corruption, and what the corruptions look like."""

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
from seewhy.figures.image_grid import MARGIN, Tiles, show, text_height, truncate
from seewhy.figures.style import BLUE, GREEN, PURPLE, STYLE, VERMILION

WIDTH = 4.4  # inches, which a phone shows at a readable size
GUTTER = 0.2  # inches between the two columns of samples
SHOWN = (1, 3, 5)  # strengths of which there are samples

_LOOKS = ((VERMILION, "o", "--"), (BLUE, "s", "-"), (GREEN, "^", "-."), (PURPLE, "D", ":"))


def attack_curves_figure(curves: Sequence[RobustnessCurve]) -> Figure:
    """Accuracy [%] against epsilon [1/255] with 95% intervals; each attack has its line, marker and color."""
    _check(curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        for place, curve in enumerate(curves):
            color, marker, line = _LOOKS[place % len(_LOOKS)]
            x = (255 * curve.levels).tolist()
            low, middle, high = (
                (100 * values).tolist() for values in (curve.low, curve.accuracy, curve.high)
            )
            name = truncate(
                curve.name.upper() if curve.name in ("fgsm", "pgd") else curve.name, 1.5
            )
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(
                x,
                middle,
                color=color,
                marker=marker,
                linestyle=line,
                markersize=5,
                label=name,
                clip_on=False,
                zorder=3,
            )
        ticks = _spaced(
            sorted({level for curve in curves for level in (255 * curve.levels).tolist()})
        )
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_yticks(range(0, 101, 20))
        axes.set(
            xlim=(0, None),
            ylim=(0, 100),
            xlabel="largest change of a value [1/255]",
            ylabel="accuracy [%]",
        )
        axes.set_title(f"Accuracy under attack, {_images(curves[0])}", loc="left")
        axes.legend(loc="best", edgecolor="none", framealpha=0.7)
    return figure


def corruption_figure(curves: Sequence[RobustnessCurve]) -> Figure:
    """Accuracy [%] in cells: a row for each corruption, the most harmful on top, and a column for each strength."""
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
                ink = _ink(mesh.to_rgba(value))
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{value:.0f}",
                    ha="center",
                    va="center_baseline",
                    color=ink,
                )
        axes.set_yticks(
            [row + 0.5 for row in range(rows)], [truncate(curve.name, 1.2) for curve in ordered]
        )
        axes.set_xticks(
            [column + 0.5 for column in range(columns)],
            [f"{level:g}" for level in curves[0].levels[1:].tolist()],
        )
        axes.set_xlabel("strength of the corruption")
        clean = 100 * curves[0].accuracy[0].item()
        axes.set_title(f"Accuracy [%] of {_images(curves[0])}, {clean:.1f} uncorrupted", loc="left")
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def corruption_samples_figure(image: Tensor, seed: int = 0) -> Figure:
    """One image (C, H, W) uint8 as it is, and under every entry of CORRUPTIONS at strengths 1, 3 and 5."""
    white = torch.full_like(image, 255)
    strips = {"original": torch.stack([image, *[white] * (len(SHOWN) - 1)])}
    for name in CORRUPTIONS:
        strips[name] = torch.cat([corrupt(image[None], name, strength, seed) for strength in SHOWN])
    tiles = {name: downscale(strip.cpu())[None] for name, strip in strips.items()}
    half = (WIDTH - 2 * MARGIN - GUTTER) / 2
    scale = half / Tiles(tiles["original"], 1.0).extent[1]
    with mpl.rc_context(STYLE):
        name_height, title = text_height(1) + 0.5 * MARGIN, text_height(1) + 2 * MARGIN
        pitch = name_height + Tiles(tiles["original"], scale).extent[0] + 1.5 * MARGIN
        height = title + -(-len(tiles) // 2) * pitch
        figure = Figure(figsize=(WIDTH, height))
        heading = "One image under every corruption, strengths " + ", ".join(map(str, SHOWN))
        size = mpl.rcParams["axes.titlesize"]
        figure.text(MARGIN / WIDTH, 1 - MARGIN / height, heading, va="top", fontsize=size)
        for place, (name, strip) in enumerate(tiles.items()):
            row, column = divmod(place, 2)
            left, top = MARGIN + column * (half + GUTTER), title + row * pitch + name_height
            figure.text(
                left / WIDTH, 1 - (top - 0.5 * MARGIN) / height, truncate(name, half), va="bottom"
            )
            show(figure, Tiles(strip, scale), left, top)
    return figure


def _check(curves: Sequence[RobustnessCurve]) -> None:
    if not curves:
        raise SeewhyError("there is nothing to draw: give at least one curve")


def _images(curve: RobustnessCurve) -> str:
    return f"{curve.images:,} image{'s' * (curve.images != 1)}"


def _spaced(levels: Sequence[float]) -> list[float]:
    """The levels that have room for a label, left to right."""
    kept: list[float] = []
    for level in levels:
        if not kept or level - kept[-1] >= 0.05 * levels[-1]:
            kept.append(level)
    return kept


def _ink(color: tuple[float, ...]) -> str:
    """Black or white, whichever stands out more from the color (relative luminance of WCAG 2).

    A black that says its color: pure black is the default, in whose place a dark page puts its light ink.
    """
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in to_rgb(color)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000001" if luminance > 0.179 else "white"
