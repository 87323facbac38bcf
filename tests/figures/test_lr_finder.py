import numpy as np

from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.train.lr_finder import LR_SUGGESTIONS, LRRangeTest, exponential_average


def test_the_lines_are_the_test_and_the_marks_the_suggestions() -> None:
    rates = np.logspace(-6, 0, 30).tolist()
    losses = [2.3 - 0.05 * max(0, place - 12) for place in range(30)]
    found = LRRangeTest(
        tuple(rates),
        tuple(losses),
        tuple(exponential_average(losses, 0.9)),
        "at the end of the range",
    )
    (axes,) = lr_finder_figure(found).axes
    each, smooth, centered, *marks = axes.lines
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(each.get_xydata(), np.c_[rates, losses])
    np.testing.assert_allclose(smooth.get_ydata(), found.smoothed)
    np.testing.assert_allclose(centered.get_ydata(), found.centered)
    assert [float(mark.get_xdata()[0]) for mark in marks] == list(found.suggestions.values())
    assert [str(mark.get_label()).partition(":")[0] for mark in marks] == list(LR_SUGGESTIONS)
    assert len({mark.get_marker() for mark in marks}) == len(marks)  # never color alone
