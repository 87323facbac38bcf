import numpy as np

from seewhy.figures.lr_finder import lr_figure
from seewhy.train.lr_finder import SUGGESTIONS, RangeTest, smoothed


def test_the_lines_are_the_test_and_the_marks_the_suggestions() -> None:
    rates = np.logspace(-6, 0, 30).tolist()
    losses = [2.3 - 0.05 * max(0, place - 12) for place in range(30)]
    found = RangeTest(tuple(rates), tuple(losses), tuple(smoothed(losses, 0.9)), "at the end of the range")
    (axes,) = lr_figure(found).axes
    each, smooth, centred, *marks = axes.lines
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(each.get_xydata(), np.c_[rates, losses])
    np.testing.assert_allclose(smooth.get_ydata(), found.smoothed)
    np.testing.assert_allclose(centred.get_ydata(), found.centred)
    assert [float(mark.get_xdata()[0]) for mark in marks] == list(found.suggestions.values())
    assert [str(mark.get_label()).partition(":")[0] for mark in marks] == list(SUGGESTIONS)
    assert len({mark.get_marker() for mark in marks}) == len(marks)  # never colour alone
