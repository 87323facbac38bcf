"""What changed from one model to another."""

import matplotlib as mpl
from matplotlib.figure import Figure

from seewhy.diagnosis.paired import ClassChange, PairedComparison
from seewhy.figures.image_grid import truncate
from seewhy.figures.style import BLUE, STYLE, VERMILION

MOST_CLASSES = 40
_NAME = 1.1  # inches, of a class


def paired_figure(comparison: PairedComparison) -> Figure:
    """Change of the accuracy of each class in percentage points with its 95% interval, the best on top.

    Of more than 40 classes those that changed most. A triangle points up or down where the interval is on one side of zero.
    """
    rows = sorted(comparison.classes, key=lambda each: -abs(each.change))[:MOST_CLASSES]
    rows.sort(key=lambda each: each.change)
    crowded = len(rows) > 15
    with mpl.rc_context(
        {**STYLE, "font.size": 6 if crowded else 8, "axes.titlesize": 9, "axes.labelsize": 8}
    ):
        figure = Figure(
            figsize=(4.4, max(3.1, 0.12 * len(rows) + 0.8) if crowded else 3.1),
            layout="constrained",
        )
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=0.8)
        for place, row in enumerate(rows):
            color, marker = _look(row)
            low, high = (100 * bound for bound in row.interval)
            axes.plot(
                [low, high],
                [place, place],
                color=color,
                linewidth=1 if crowded else 1.5,
                solid_capstyle="butt",
            )
            filled = color if marker != "o" else "white"
            size = 3.5 if crowded else 6
            axes.plot(
                100 * row.change,
                place,
                marker,
                color=color,
                markerfacecolor=filled,
                markersize=size,
                zorder=3,
            )
        axes.set_yticks(range(len(rows)), [truncate(row.name, _NAME) for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("Change of accuracy [percentage points]")
        total = len(comparison.classes)
        of = f"\nthe {len(rows)} of {total} classes that changed most" if total > len(rows) else ""
        axes.set_title(f"▲ better   ▼ worse   ○ may be luck{of}", loc="left", x=0)
    return figure


def _look(row: ClassChange) -> tuple[str, str]:
    """Color and marker: better, worse, or neither for sure."""
    if row.interval[0] > 0:
        return BLUE, "^"
    return (VERMILION, "v") if row.interval[1] < 0 else ("0.4", "o")
