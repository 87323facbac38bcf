import matplotlib as mpl
import pytest
import torch
from matplotlib.figure import Figure

from seewhy.diagnosis.paired import ClassChange, PairedComparison
from seewhy.figures.paired import paired_figure
from seewhy.figures.style import BLUE, STYLE, VERMILION


def comparison_of(
    changes: list[float], half: float = 0.02, names: list[str] | None = None
) -> PairedComparison:
    names = names or [f"class {index}" for index in range(len(changes))]
    rows = tuple(
        ClassChange(name, 100, 0.5, 0.5 + change, change, (change - half, change + half))
        for name, change in zip(names, changes, strict=True)
    )
    empty = torch.zeros(0, dtype=torch.int64)
    return PairedComparison(100, 0.5, 0.5, empty, empty, 50, 0.0, (-0.1, 0.1), 1.0, rows, "")


def dots(figure: Figure) -> list[tuple[float, str, object]]:
    """Change, marker and color of each class, from below."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() in ("^", "v", "o")]
    return [
        (float(line.get_xdata()[0]), str(line.get_marker()), line.get_color()) for line in lines
    ]  # type: ignore[index]


def drawn(figure: Figure) -> Figure:
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    return figure


def test_paired_figure_rows() -> None:
    figure = drawn(
        paired_figure(comparison_of([0.01, -0.05, 0.04], names=["cat", "dog", "a $1 b$"]))
    )
    [axes] = figure.axes
    assert dots(figure) == [
        (pytest.approx(-5), "v", VERMILION),
        (pytest.approx(1), "o", "0.4"),
        (pytest.approx(4), "^", BLUE),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog", "cat", r"a \$1 b\$"]
    whiskers = [line.get_xdata() for line in axes.lines if line.get_marker() == "None"][1:]
    assert [list(ends) for ends in whiskers] == [
        pytest.approx([-7, -3]),
        pytest.approx([-1, 3]),
        pytest.approx([2, 6]),
    ]
    assert figure.get_size_inches().tolist() == [4.4, 3.1]


@pytest.mark.slow
def test_paired_figure_of_many_classes() -> None:
    figure = drawn(paired_figure(comparison_of([(index - 40) / 1000 for index in range(100)])))
    shown = [change for change, _, _ in dots(figure)]
    assert len(shown) == 40
    assert shown == sorted(shown)
    assert max(shown) == pytest.approx(5.9)
    assert min(shown) == pytest.approx(-4)  # of -40 to 59 thousandths the 40 largest, either way
    assert "40 of 100 classes" in figure.axes[0].get_title(loc="left")


def test_paired_figure_of_one_class() -> None:
    assert dots(drawn(paired_figure(comparison_of([0.0])))) == [(0, "o", "0.4")]
