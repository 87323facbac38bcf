"""Change of accuracy from one model to another."""

import matplotlib as mpl
from matplotlib.figure import Figure

from seewhy.diagnosis.paired import ClassChange, PairedComparison
from seewhy.figures.style import BLUE, STYLE, VERMILION
from seewhy.figures.text import truncate
from seewhy.wording import counted

MAX_CLASSES = 40
_NAME_WIDTH = 1.1  # inches


def paired_figure(comparison: PairedComparison) -> Figure:
    """Plot the change of accuracy of each class in percentage points with its 95% interval.

    The largest gain is on top; triangles mark significant changes. Of more than 40 classes those
    with the largest changes are shown.
    """
    rows = sorted(comparison.classes, key=lambda row: -abs(row.change))[:MAX_CLASSES]
    rows.sort(key=lambda row: row.change)
    crowded = len(rows) > 15
    height = max(3.1, 0.12 * len(rows) + 0.8) if crowded else 3.1
    sizes = {"font.size": 6 if crowded else 8, "axes.titlesize": 9, "axes.labelsize": 8}
    with mpl.rc_context({**STYLE, **sizes}):
        figure = Figure(figsize=(4.4, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        for y, row in enumerate(rows):
            color, marker = _style(row)
            low, high = row.interval
            axes.plot(
                [100 * low, 100 * high],
                [y, y],
                color=color,
                linewidth=1 if crowded else 1.5,
                solid_capstyle="butt",
            )
            axes.plot(
                100 * row.change,
                y,
                marker,
                color=color,
                markerfacecolor="white" if marker == "o" else color,
                markersize=3.5 if crowded else 6,
                zorder=3,
            )
        axes.set_yticks(range(len(rows)), [truncate(row.name, _NAME_WIDTH) for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("change of accuracy [percentage points]")
        total = len(comparison.classes)
        of = (
            f"\n{len(rows)} of {counted(total, 'class')}, largest changes"
            if total > len(rows)
            else ""
        )
        axes.set_title(f"▲ better   ▼ worse   ○ not significant{of}", loc="left", x=0)
    return figure


def _style(row: ClassChange) -> tuple[str, str]:
    """Color and marker of a gain, a loss, or a change that is not significant."""
    if row.interval[0] > 0:
        return BLUE, "^"
    return (VERMILION, "v") if row.interval[1] < 0 else ("0.4", "o")
