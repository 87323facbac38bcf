import numpy as np
import pytest

from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.train.lr_finder import LR_SUGGESTIONS, LRRangeTest, exponential_average


@pytest.mark.slow
def test_lr_finder_figure() -> None:
    rates = np.logspace(-6, 0, 30).tolist()
    losses = [2.3 - 0.05 * max(0, step - 12) for step in range(30)]
    range_test = LRRangeTest(
        tuple(rates),
        tuple(losses),
        tuple(exponential_average(losses, 0.9)),
        "at the end of the range",
    )
    (axes,) = lr_finder_figure(range_test).axes
    each, smooth, centered, *marks = axes.lines
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(each.get_xydata(), np.c_[rates, losses])
    np.testing.assert_allclose(smooth.get_ydata(), range_test.smoothed)
    np.testing.assert_allclose(centered.get_ydata(), range_test.centered)
    assert [float(mark.get_xdata()[0]) for mark in marks] == list(range_test.suggestions.values())
    assert [str(mark.get_label()).partition(":")[0] for mark in marks] == list(LR_SUGGESTIONS)
    assert len({mark.get_marker() for mark in marks}) == len(marks)  # never color alone
