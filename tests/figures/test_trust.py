import math

import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure

from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.sanity import SanityCheck
from seewhy.attribution.scores import TrustScore
from seewhy.figures.style import STYLE
from seewhy.figures.trust import trust_figure


def verdict_of(
    layer: str, method: str, gain: float, half: float = 0.05, passed: bool = True
) -> TrustScore:
    summary, check = (
        BootstrapSummary(gain, (gain - half, gain + half)),
        SanityCheck(("a",), torch.zeros(1, 2), passed),
    )
    return TrustScore(layer, method, summary, summary, check, None, None, None, 1.0)


def dots(figure: Figure) -> dict[tuple[str, float], tuple[str, bool]]:
    """By layer and gain the marker, and whether it is filled."""
    [axes] = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    found = {}
    for line in axes.lines:
        values = list(line.get_xdata())  # type: ignore[arg-type]
        if len(values) == 1:
            place = names[round(float(line.get_ydata()[0]))]  # type: ignore[index]
            found[place, round(float(values[0]), 6)] = (
                str(line.get_marker()),
                line.get_markerfacecolor() != "white",
            )
    return found


def drawn(figure: Figure) -> Figure:
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    return figure


def test_trust_figure_markers() -> None:
    verdicts = [
        verdict_of("late", "grad-cam", 0.3),
        verdict_of("late", "hires-cam", 0.02),
        verdict_of("early", "grad-cam", 0.2, passed=False),
        verdict_of("early", "hires-cam", -0.1),
    ]
    figure = drawn(trust_figure(verdicts))
    found = dots(figure)
    assert {place: filled for place, (_, filled) in found.items()} == {
        ("late", 0.3): True,
        ("late", 0.02): False,
        ("early", 0.2): False,
        ("early", -0.1): False,
    }
    assert found["late", 0.3][0] == found["early", 0.2][0] != found["late", 0.02][0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["grad-cam", "hires-cam"]
    whiskers = [
        list(line.get_xdata()) for line in figure.axes[0].lines if len(list(line.get_xdata())) == 2
    ]  # type: ignore[arg-type]
    assert pytest.approx([0.25, 0.35]) in whiskers
    assert figure.get_size_inches().tolist() == [4.4, 3.1]


@pytest.mark.slow
def test_trust_figure_of_many_methods() -> None:
    verdicts = [
        verdict_of(f"network.backbone.stages.{i}.blocks.{i}", f"method-{j}", i / 9 + j / 99)
        for i in range(6)
        for j in range(9)
    ]
    figure = drawn(trust_figure(verdicts))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == 6  # the ends are shown, which tell them apart
    assert names[0].startswith("…")
    assert names[0].endswith(".blocks.5")
    looks = {
        (line.get_marker(), line.get_color())
        for line in figure.axes[0].lines
        if len(list(line.get_xdata())) == 1
    }  # type: ignore[arg-type]
    assert len(looks) == 9
    drawn(trust_figure([verdict_of("a", "b", 0.1, half=math.nan)]))
