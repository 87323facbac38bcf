"""Formatting of numbers and names in reports."""

import math
from collections.abc import Sequence

from seewhy.attribution.statuses import PIXELS
from seewhy.diagnosis.predictions import Predictions
from seewhy.figures.trust import WHOLE_MODEL
from seewhy.wording import counted


def percent(share: float, digits: int = 1) -> str:
    """A fraction in [0, 1] as `90.9%`; a dash for nan."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f}%"


def percent_interval(interval: Sequence[float], digits: int = 1) -> str:
    """An interval of fractions as `90.3–91.4%`."""
    low, high = interval
    return f"{100 * low:.{digits}f}–{100 * high:.{digits}f}%"


def signed_points(share: float, digits: int = 1) -> str:
    """A difference of fractions in percentage points, as `+1.2`."""
    return f"{100 * share:+.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """`p = 0.037`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def round_up(threshold: float) -> str:
    """A threshold in [0, 1], rounded up, with enough digits to stay below 1."""
    for digits in range(3, 9):
        rounded = math.ceil(threshold * 10**digits) / 10**digits
        if rounded < 1 or threshold >= 1:
            return f"{rounded:.{digits}f}"
    return f"{threshold!r}"


def count_of(number: int, total: int, singular: str) -> str:
    """`153 test images`, `12 of 153 test images`."""
    return (
        counted(total, singular) if number == total else f"{number:,} of {counted(total, singular)}"
    )


def duration(seconds: float) -> str:
    """`3.4 s`, `42 s`, `28 min`, `1 h 12 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def prediction_label(predictions: Predictions, index: int) -> str:
    """The alternative text of an image, as `true cat, predicted dog (0.91)`."""
    true, predicted = (
        predictions.classes[labels[index]] for labels in (predictions.labels, predictions.predicted)
    )
    return f"true {true}, predicted {predicted} ({predictions.confidence[index]:.2f})"


def layer_labels(layers: Sequence[str]) -> dict[str, str]:
    """Labels of layers ordered by depth, by layer name: `early (layer1)`, …, `late (layer4)`."""
    between = len(layers) - 2
    middle = [f"middle {number}" if between > 1 else "middle" for number in range(1, between + 1)]
    depths = ["early", *middle, "late"] if len(layers) > 1 else ["last"] * len(layers)
    return {layer: f"{depth} ({layer})" for layer, depth in zip(layers, depths, strict=True)}


def map_name(method: str, layer: str, layers: Sequence[str]) -> str:
    """A kind of heat map, as `grad-cam at the late layer (layer4)` or `le-grad (whole model)`."""
    if layer == PIXELS:
        return f"{method} ({WHOLE_MODEL})"
    depth, name = layer_labels(layers)[layer].split(" (", 1)
    return f"{method} at the {depth} layer ({name}"
