"""A map of images as points, colored by class."""

from collections.abc import Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from seewhy.errors import SeewhyError, describe_value
from seewhy.figures.style import STYLE, VERMILION
from seewhy.figures.text import truncate

MAX_NAMED = 20  # classes in the legend
_SIDE = 4.6  # inches


def image_map_figure(
    positions: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    correct: Tensor | None = None,
    *,
    train_positions: Tensor | None = None,
    train_labels: Tensor | None = None,
) -> Figure:
    """Draw a point for each image in the color of its class; errors have a ring.

    Training images, if there are any, are small crosses behind the points.

    Args:
        positions: (N, 2) float in [0, 1], from the left and from the top, as of
            `seewhy.diagnosis.image_map`.
        labels: (N,) int64, true or predicted classes.
        classes: Class names; more than 20 are not named in the figure.
        correct: (N,) bool, whether the prediction is right.
        train_positions: (R, 2) float in [0, 1], of training images on the same map.
        train_labels: (R,) int64, their classes.

    Raises:
        SeewhyError: For shapes that do not match.
    """
    _check_shapes(positions, labels)
    if train_positions is None or train_labels is None:
        train_positions, train_labels = positions[:0], labels[:0]
    _check_shapes(train_positions, train_labels)
    colors = class_colors(len(classes))
    with mpl.rc_context({**STYLE, "font.size": 8}):
        figure = Figure(figsize=(_SIDE, _SIDE), layout="constrained")
        axes = figure.subplots()
        size = min(9.0, max(1.0, 4000 / max(len(positions) + len(train_positions), 1)))
        if len(train_positions):
            axes.scatter(
                train_positions[:, 0],
                train_positions[:, 1],
                c=[colors[k] for k in train_labels],
                marker="+",
                s=2 * size,
                linewidths=0.4,
                alpha=0.6,
                rasterized=True,
            )
        settings = {"s": size, "linewidths": 0, "rasterized": True}
        axes.scatter(positions[:, 0], positions[:, 1], c=[colors[k] for k in labels], **settings)
        if correct is not None and not correct.all():
            wrong = positions[~correct]
            axes.scatter(
                wrong[:, 0],
                wrong[:, 1],
                s=2.5 * size,
                facecolors="none",
                edgecolors=VERMILION,
                linewidths=0.5,
                rasterized=True,
            )
        axes.set(xticks=[], yticks=[], xlim=(-0.02, 1.02), ylim=(1.02, -0.02), aspect="equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        shown = torch.unique(torch.cat([labels, train_labels])).tolist()
        if len(train_positions):
            for marker, label in (("o", "test image"), ("+", "training image")):
                axes.plot([], [], marker, color="0.5", label=label, markersize=4)
        if len(shown) <= MAX_NAMED:
            for index in shown:
                axes.plot(
                    [],
                    [],
                    "o",
                    color=colors[index],
                    label=truncate(classes[index], 1),
                    markersize=4,
                )
        if len(train_positions) or len(shown) <= MAX_NAMED:
            figure.legend(loc="outside lower center", ncols=4, frameon=False, handletextpad=0.1)
    return figure


def _check_shapes(positions: Tensor, labels: Tensor) -> None:
    if positions.ndim != 2 or positions.shape[1] != 2 or len(labels) != len(positions):
        raise SeewhyError(
            f"a map needs positions (N, 2) and labels (N,), found {describe_value(positions)} and "
            f"{describe_value(labels)}"
        )


def class_colors(count: int) -> list[str]:
    """A color for each class: hues at the golden angle, alternately dark and light."""
    colors = []
    for index in range(count):
        hue, lightness = (index * 0.618034) % 1, (0.42, 0.62, 0.78)[index % 3]
        value = lightness + 0.65 * min(lightness, 1 - lightness)  # from HSL to HSV
        rgb = mpl.colors.hsv_to_rgb((hue, 2 * (1 - lightness / value), value))
        colors.append(mpl.colors.to_hex(rgb))
    return colors
