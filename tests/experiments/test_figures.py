import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from scipy.stats import t as student
from scipy.stats import ttest_rel

from seewhy.errors import SeewhyError
from seewhy.experiments.experiment import Experiment
from seewhy.experiments.figures import (
    band,
    experiment_figure,
    recipes_figure,
    seeds_figure,
    shown_recipes,
)
from seewhy.figures.style import BLUE, STYLE

Make = Callable[..., Experiment]
OPTIMIZERS = ("sgd:momentum=0.9,nesterov=true", "adam", "gd", "a $1 b$")
LONG = [f"{optimizer} · {steps}" for optimizer in OPTIMIZERS for steps in ("crop:1", "no augment")]


def course(
    accuracy: float, epochs: int = 4, pace: float = 1.0, loss: float = 0.5
) -> list[tuple[float, float, float]]:
    """Seconds, loss and accuracy of each epoch: a loss from 2 to `loss`, a rising accuracy."""
    shares = [epoch / epochs for epoch in range(1, epochs + 1)]
    return [
        (pace * epoch, 2 + (loss - 2) * share, accuracy * share)
        for epoch, share in enumerate(shares, 1)
    ]


def recipes(
    accuracies: Mapping[str, Sequence[float]], **how: Any
) -> dict[str, list[list[tuple[float, float, float]]]]:
    return {
        name: [course(accuracy, **how) for accuracy in each] for name, each in accuracies.items()
    }


def drawn(figure: Figure) -> Figure:
    """As it is saved; warnings are errors, but for names that the font cannot write."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(io.BytesIO(), format="svg")
    return figure


def points(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xydata())


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def bounds(axes: Axes) -> list[np.ndarray]:
    """Of each band of an axes the corners, in order of x and y."""
    return [
        np.unique(np.asarray(each.get_paths()[0].vertices), axis=0) for each in axes.collections
    ]


@pytest.mark.slow
def test_recipes_figure_has_means_and_ranges(experiment_of: Make) -> None:
    seeds = [
        [(1, 2.0, 0.5), (2, 1.0, None), (3, 0.5, 0.75)],
        [(1, 1.0, 0.7), (2, 0.9, None), (3, 0.8, 0.85)],
    ]
    made = experiment_of({"adam": [*seeds, "it did not finish"]})
    [axes] = drawn(recipes_figure(made, "train_loss", "epoch")).axes
    [line] = axes.lines
    np.testing.assert_allclose(points(line), [[1, 1.5], [2, 0.95], [3, 0.65]])
    assert {(1, 1), (1, 2), (2, 0.9), (2, 1), (3, 0.5), (3, 0.8)} == {
        tuple(corner) for corner in bounds(axes)[0].round(9).tolist()
    }
    [axes] = drawn(recipes_figure(made, "eval_accuracy", "epoch")).axes
    np.testing.assert_allclose(
        points(axes.lines[0]), [[1, 60], [3, 80]]
    )  # the second epoch was not evaluated


@pytest.mark.slow
def test_recipes_figure_interpolates_seconds(experiment_of: Make) -> None:
    """On straight lines interpolation is exact: 10 - x from 1 to 4 and 7 - x from 2 to 6."""
    slow, fast = [(x, 7.0 - x, 0.5) for x in (2, 4, 6)], [(x, 10.0 - x, 0.5) for x in (1, 2, 3, 4)]
    [axes] = drawn(
        recipes_figure(experiment_of({"adam": [slow, fast]}), "train_loss", "seconds")
    ).axes
    np.testing.assert_allclose(points(axes.lines[0]), [[x, 8.5 - x] for x in (2, 3, 4)])
    corners = bounds(axes)[0]
    assert {tuple(corner) for corner in corners.tolist()} == {
        (x, y - x) for x in (2, 3, 4) for y in (7, 10)
    }


def test_band_of_curves_without_common_x() -> None:
    found = band([[(1.0, 3.0)], [(2.0, 5.0)], [(6.0, 4.0)]])
    assert (found.x.tolist(), found.mean.tolist(), found.low.tolist(), found.high.tolist()) == (
        [3],
        [4],
        [3],
        [5],
    )


@pytest.mark.slow
def test_recipes_figure_has_distinct_and_constant_styles(
    experiment_of: Make,
) -> None:
    made = experiment_of(
        recipes(
            {name: (0.9 - 0.01 * place, 0.91 - 0.01 * place) for place, name in enumerate(LONG)}
        )
    )
    figures = [
        recipes_figure(made, metric, by)
        for metric in ("train_loss", "eval_accuracy")
        for by in ("epoch", "seconds")
    ]
    looks = [
        [
            (each.get_color(), each.get_linestyle(), each.get_marker())
            for each in drawn(one).axes[0].lines
        ]
        for one in figures
    ]
    assert all(each == looks[0] for each in looks)
    assert len({color for color, _, _ in looks[0]}) == 8
    assert len({marker for _, _, marker in looks[0]}) == 8
    for figure in figures:
        [legend] = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            name.replace("$", r"\$") for name in LONG
        ]
        assert same_color(legend.legend_handles[2].get_color(), looks[0][2][0])
        width, height = figure.bbox.size
        for text in (*figure.texts, *legend.get_texts()):
            box = text.get_window_extent()
            assert -1 <= box.x0 < box.x1 <= width + 1
            assert -1 <= box.y0 < box.y1 <= height + 1
        axes_box = figure.axes[0].get_tightbbox()
        assert axes_box is not None
        assert legend.get_window_extent().y1 <= axes_box.y0 + 1


@pytest.mark.slow
def test_recipes_figure_labels_lines_at_their_ends(experiment_of: Make) -> None:
    made = experiment_of(recipes({"adam": (0.9, 0.9), "sgd $x$": (0.5, 0.5), "gd": (0.2, 0.2)}))
    figure = drawn(recipes_figure(made, "eval_accuracy", "epoch"))
    assert not figure.legends
    [axes] = figure.axes
    names = {text.get_text(): text for text in axes.texts}
    assert set(names) == {"adam", r"sgd \$x\$", "gd"}
    for name, height in (("adam", 90), (r"sgd \$x\$", 50), ("gd", 20)):
        box = names[name].get_window_extent()
        assert (box.y0 + box.y1) / 2 == pytest.approx(
            axes.transData.transform((4, height))[1], abs=4
        )
        assert axes.get_window_extent().x1 <= box.x0 < box.x1 <= figure.bbox.width


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accuracies", "pace"),
    [
        ({"adam": 0.9, "sgd": 0.9001}, 1),
        ({"adam": 0.9, "sgd:momentum=0.9,nesterov=true": 0.5}, 1),
        ({"adam": 0.9, "sgd": 0.5}, 2),
    ],
    ids=["lines that meet", "a long name", "a line that ends early"],
)
def test_recipes_figure_has_a_legend_if_labels_do_not_fit(
    accuracies: dict[str, float], pace: float, experiment_of: Make
) -> None:
    made = {
        name: [course(value, pace=pace if place else 1)]
        for place, (name, value) in enumerate(accuracies.items())
    }
    figure = drawn(recipes_figure(experiment_of(made), "eval_accuracy", "seconds"))
    assert not figure.axes[0].texts
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(accuracies)


@pytest.mark.slow
def test_recipes_figure_shows_the_eight_most_accurate(experiment_of: Make) -> None:
    order = np.random.default_rng(0).permutation(12)
    made = experiment_of(recipes({f"r{place}": (0.5 + 0.01 * place,) for place in order}))
    expected = [f"r{place}" for place in order if place >= 4]
    assert list(shown_recipes(made)) == expected
    for metric in ("train_loss", "eval_accuracy"):
        figure = drawn(recipes_figure(made, metric))
        assert [text.get_text() for text in figure.legends[0].get_texts()] == expected
        assert "the 8 of 12 recipes with the highest test accuracy" in " ".join(texts(figure))
    assert "the 8 of 12 recipes" in " ".join(texts(drawn(experiment_figure(made))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selected_on", "split"), [("last epoch", "Test"), ("validation", "Validation")]
)
def test_recipes_figure_names_the_evaluated_split(
    selected_on: str, split: str, experiment_of: Make
) -> None:
    made = experiment_of(recipes({"adam": (0.9, 0.8)}), selected_on=selected_on)
    assert f"{split} accuracy by second: mean and range of 2 seeds" in texts(
        recipes_figure(made, "eval_accuracy", "seconds")
    )
    assert f"{split} accuracy by epoch" in texts(experiment_figure(made))


@pytest.mark.slow
def test_experiment_figure(experiment_of: Make) -> None:
    made = experiment_of(
        recipes({name: (0.9 - 0.01 * place,) for place, name in enumerate(LONG)})
        | {"bad": ["not finite"]}
    )
    for by, unit in (("epoch", "epoch"), ("seconds", "second")):
        figure = drawn(experiment_figure(made, by))
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == [
            f"Training loss by {unit}",
            f"Test loss by {unit}",
            f"Training accuracy by {unit}",
            f"Test accuracy by {unit}",
        ]
        assert [len(axes.lines) for axes in figure.axes] == [8] * 4
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ["".join(label.split()) for label in labels] == [
            "".join(name.replace("$", r"\$").split()) for name in LONG
        ]
        assert "8 recipes on digits, one seed" in texts(figure)


@pytest.mark.slow
def test_experiment_figure_has_its_legend_beside_fitting_panels(experiment_of: Make) -> None:
    made = experiment_of(
        {
            name: [[(1, 2.0 + gap, 0.80 + gap), (2, 1.9 + gap, 0.85 + gap)]]
            for name, gap in (("adam", 0.0), ("sgd", 0.01))
        }
    )
    figure = drawn(experiment_figure(made))
    box = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        assert axes.get_window_extent().x1 <= box.x0
        low, high = axes.get_ylim()
        values = np.concatenate([points(line)[:, 1] for line in axes.lines])
        assert low <= values.min() <= values.max() <= high
        spread = values.max() - values.min()
        assert high - low <= 1.3 * spread or spread == 0  # the curves fill their panel
    assert box.x1 <= figure.bbox.x1


def test_seeds_figure_says_that_one_seed_allows_no_test(experiment_of: Make) -> None:
    figure = drawn(seeds_figure(experiment_of(recipes({"adam": (0.9,), "sgd": (0.8,)}))))
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert keys == ["one seed allows no test"]


@pytest.mark.slow
def test_seeds_figure_marks_significance(experiment_of: Make) -> None:
    accuracies = {
        "near": (0.900, 0.880, 0.905),
        "worse": (0.852, 0.851, 0.849),
        "best": (0.91, 0.9, 0.904),
    }
    p_values = {
        name: ttest_rel(accuracies["best"], accuracies[name]).pvalue for name in ("near", "worse")
    }
    assert p_values["near"] > 0.05 > 3 * p_values["worse"]  # of three pairs
    figure = drawn(seeds_figure(experiment_of(recipes(accuracies) | {"bad": ["not finite"]})))
    [axes] = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    means = [
        line
        for line in axes.lines
        if len(set(points(line)[:, 0])) == 1 and line.get_marker() == "None"
    ]
    intervals = [line for line in axes.lines if line.get_alpha() is not None]
    for place, name in enumerate(("best", "near", "worse")):
        values = 100 * np.array(accuracies[name])
        np.testing.assert_allclose(points(dots[place]), [[value, place] for value in values])
        np.testing.assert_allclose(points(means[place])[:, 0], values.mean())
        ends = student.interval(0.95, 2, values.mean(), values.std(ddof=1) / np.sqrt(3))
        np.testing.assert_allclose(points(intervals[place])[:, 0], ends)
        assert f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" in texts(figure)
    assert [same_color(line.get_color(), BLUE) for line in dots] == [True, True, False]
    assert [line.get_markerfacecolor() == "none" for line in dots] == [False, False, True]
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert keys == [
        "best, or not significantly different from the best",
        "significantly worse than the best",
    ]
    names = [text.get_text() for text in axes.texts if "±" not in text.get_text()]
    assert names == ["best", "near", "worse"]


def test_seeds_figure_draws_an_arrow_outside_the_axis(experiment_of: Make) -> None:
    figure = drawn(
        seeds_figure(
            experiment_of(recipes({"a": (0.9, 0.91), "b": (0.9, 0.905), "far": (0.1, 0.12)}))
        )
    )
    [axes] = figure.axes
    left, right = axes.get_xlim()
    assert 80 < left < 90
    assert 91 < right <= 101
    [arrow] = [line for line in axes.lines if line.get_marker() == "<"]
    assert points(arrow).tolist() == [[0, 2]]  # at the left edge
    assert sum(line.get_marker() == "o" for line in axes.lines) == 2
    assert "11.00 ± 1.41" in texts(figure)


def test_seeds_figure_puts_the_lowest_loss_on_top(experiment_of: Make) -> None:
    made = {"high": [course(0.9, loss=0.5)], "low": [course(0.8, loss=0.25)]}
    figure = drawn(seeds_figure(experiment_of(made), "train_loss"))
    dots = [points(line).tolist() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dots == [[[0.25, 0]], [[0.5, 1]]]


@pytest.mark.slow
def test_seeds_figure_shows_thirty_recipes(experiment_of: Make) -> None:
    figure = drawn(
        seeds_figure(
            experiment_of(recipes({f"r{place}": (0.5 + 0.01 * place,) for place in range(40)}))
        )
    )
    assert sum(line.get_marker() == "o" for line in figure.axes[0].lines) == 30
    assert "the 30 best of 40 recipes" in figure.axes[0].get_title(loc="left")


ODD = {
    "one seed": recipes({"adam": (0.9,), "sgd": (0.8,)}),
    "one epoch": recipes({"adam": (0.9, 0.8), "sgd": (0.8, 0.8)}, epochs=1),
    "one of everything": recipes({"adam": (0.9,)}, epochs=1),
    "equal": recipes({"adam": (0.9, 0.9), "sgd": (0.9, 0.9)}),
    "perfect": recipes({"adam": (1.0, 1.0)}, loss=0.0),
    "nothing right": recipes({"adam": (0.0, 0.0)}),
    "no time": recipes({"adam": (0.9, 0.8)}, pace=0.0),
    "steep": recipes({"adam": (0.9, 0.8)}, loss=0.001),
    "a failure": recipes({"adam": (0.9, 0.8)}) | {"bad": ["not finite", "not begun"]},
    "a name from elsewhere": recipes({"学習率 $\\frac": (0.9,), "-": (0.1,)}),
}


FAST = ("one of everything", "a failure", "a name from elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ODD]
)
def test_figures_of_odd_experiments(name: str, experiment_of: Make) -> None:
    made = experiment_of(ODD[name])
    drawn(recipes_figure(made, "train_loss", "seconds"))
    drawn(recipes_figure(made, "eval_accuracy", "epoch"))
    drawn(seeds_figure(made))
    drawn(seeds_figure(made, "train_loss"))


@pytest.mark.slow
def test_recipes_figure_has_a_logarithmic_axis_for_steep_losses(experiment_of: Make) -> None:
    scales = [
        recipes_figure(experiment_of(recipes({"adam": (0.9,)}, loss=loss))).axes[0].get_yscale()
        for loss in (0.2, 0.01, 0.0)
    ]
    assert scales == ["linear", "log", "linear"]


@pytest.mark.parametrize("draw", [recipes_figure, seeds_figure, experiment_figure])
def test_figures_need_a_finished_trial(
    draw: Callable[[Experiment], Figure], experiment_of: Make
) -> None:
    with pytest.raises(SeewhyError, match="no trial of experiment has finished; resume it first"):
        draw(experiment_of({"bad": ["not finite"]}))


def test_figures_reject_unknown_names(experiment_of: Make) -> None:
    made = experiment_of(recipes({"adam": (0.9,)}))
    with pytest.raises(
        SeewhyError, match=r"unknown curve 'train_los' \(did you mean 'train_loss'\?\)"
    ):
        recipes_figure(made, "train_los")
    with pytest.raises(SeewhyError, match=r"unknown x axis 'hours'.*possible: epoch, seconds"):
        recipes_figure(made, by="hours")
    with pytest.raises(SeewhyError, match="unknown metric 'loss'"):
        seeds_figure(made, "loss")


def test_recipes_figure_says_that_recipes_have_different_numbers_of_seeds(
    experiment_of: Make,
) -> None:
    made = experiment_of(recipes({"adam": (0.9, 0.8, 0.7), "sgd": (0.9,)}))
    assert "Test accuracy by epoch: mean and range of up to 3 seeds" in texts(
        recipes_figure(made, "eval_accuracy")
    )
