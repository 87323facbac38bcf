"""Loss against learning rate in a range test."""

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, STYLE, VERMILION, legend_below
from seewhy.train.lr_finder import DEFAULT_SUGGESTION, LRRangeTest
from seewhy.wording import counted

MARKERS = ((VERMILION, "o"), (GREEN, "s"), (PURPLE, "D"), (ORANGE, "^"))


def lr_finder_figure(test: LRRangeTest) -> Figure:
    """Plot the loss against the learning rate, both logarithmic, with all suggestions."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.plot(test.lrs, test.losses, color=BLUE, alpha=0.3, linewidth=1, label="each update")
        axes.plot(test.lrs, test.smoothed, color=BLUE, linewidth=1.8, label="running average")
        axes.plot(
            test.lrs,
            test.centered,
            color="black",
            linestyle="--",
            linewidth=1.2,
            label="centered average",
        )
        for index, (name, lr) in enumerate(test.suggestions.items()):
            color, marker = MARKERS[index % len(MARKERS)]
            nearest = min(range(len(test.lrs)), key=lambda row: abs(test.lrs[row] - lr))
            default = name == DEFAULT_SUGGESTION
            losses = test.centered if default else test.smoothed
            axes.plot(
                [lr],
                [losses[nearest]],
                marker=marker,
                color=color,
                linestyle="",
                label=f"{name}: {lr:.2g}{' (default)' if default else ''}",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_numbers = FuncFormatter(lambda value, _: f"{value:g}")  # 2 rather than 2 x 10⁰
        axes.yaxis.set_major_formatter(plain_numbers)
        axes.yaxis.set_minor_formatter(plain_numbers)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("cross entropy")
        axes.set_title(
            f"LR range test, {counted(len(test.lrs), 'update')} ({test.ended})", loc="left"
        )
        legend_below(figure, axes, ncols=2)
    return figure
