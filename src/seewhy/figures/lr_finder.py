"""The loss against the learning rate of a range test."""

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from seewhy.figures.style import BLUE, GREEN, ORANGE, PURPLE, STYLE, VERMILION
from seewhy.train.lr_finder import DEFAULT_SUGGESTION, LRRangeTest

MARKS = ((VERMILION, "o"), (GREEN, "s"), (PURPLE, "D"), (ORANGE, "^"))


def lr_finder_figure(test: LRRangeTest) -> Figure:
    """Loss of each update and its smoothed course against the learning rate, both axes logarithmic, with every suggestion."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained")
        axes = figure.subplots()
        axes.plot(test.rates, test.losses, color=BLUE, alpha=0.3, linewidth=1, label="each update")
        axes.plot(test.rates, test.smoothed, color=BLUE, linewidth=1.8, label="smoothed")
        axes.plot(
            test.rates,
            test.centered,
            color="black",
            linestyle="--",
            linewidth=1.2,
            label="smoothed to both sides",
        )
        for place, (name, rate) in enumerate(test.suggestions.items()):
            color, marker = MARKS[place % len(MARKS)]
            nearest = min(range(len(test.rates)), key=lambda at: abs(test.rates[at] - rate))
            axes.plot(
                [rate],
                [(test.centered if name == DEFAULT_SUGGESTION else test.smoothed)[nearest]],
                marker=marker,
                color=color,
                linestyle="",
                label=f"{name}: {rate:.2g}{', taken by find' if name == DEFAULT_SUGGESTION else ''}",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            ticks(FuncFormatter(lambda value, place: f"{value:g}"))  # 2 rather than 2 x 10⁰
        axes.set_xlabel("learning rate")
        axes.set_ylabel("cross entropy")
        axes.set_title(f"Range test, {len(test.rates)} updates, {test.ended}", loc="left")
        axes.legend(frameon=False, loc="best")
    return figure
