"""What a section of the report is, and how its numbers and pieces are written."""

import base64
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from seewhy.diagnosis.predictions import Predictions
from seewhy.files import csv_text
from seewhy.reporting.sprites import Sprites
from seewhy.reporting.svg import inline_svg


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    finding: str  # one sentence with a number
    html: str
    data: Mapping[str, Any] = field(default_factory=dict)  # for the page's script, as JSON
    figures: Mapping[str, Figure] = field(
        default_factory=dict
    )  # by the name of their file in the run directory


def render(template: str, **values: object) -> str:
    """A template of this package, with everything in `values` escaped."""
    return _environment().get_template(template).render(**values)


def panel(figure: Figure, name: str, description: str) -> Markup:
    """A figure as a part of the page; `description` says in words what it shows."""
    return Markup(inline_svg(figure, name, description))


def picture(album: Sprites, key: Hashable, label: str) -> Markup:
    """An image of the album with its text alternative; where there is no image of that key, the text alone."""
    tile = album[key]
    if tile is None:
        return Markup('<span class="tile missing">{}</span>').format(label)
    return Markup(
        '<svg class="tile" viewBox="0 0 {} {}" role="img" aria-label="{}"><use href="#s{}" x="{}" y="{}"/></svg>'
    ).format(album.width, album.height, label, tile.sheet, -tile.left, -tile.top)


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as `90.9%`."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f}%"


def at_least(threshold: float) -> str:
    """A threshold in [0, 1], rounded up, with as many digits as it takes to stay below 1."""
    for digits in range(3, 9):
        rounded = math.ceil(threshold * 10**digits) / 10**digits
        if rounded < 1 or threshold >= 1:
            return f"{rounded:.{digits}f}"
    return f"{threshold!r}"


def between(interval: Sequence[float], digits: int = 1) -> str:
    """An interval of shares as `90.3 to 91.4%`."""
    low, high = interval
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}%"


def count(number: int, thing: str, things: str = "") -> str:
    """`1 mistake`, `1,200 mistakes`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def be(number: int) -> str:
    """`is` of one, `are` of several."""
    return "is" if number == 1 else "are"


def alternative(result: Predictions, index: int) -> str:
    """What an image is to those who do not see it, as in `true cat, predicted dog 0.91`."""
    true, predicted = (
        result.classes[labels[index]] for labels in (result.labels, result.predicted)
    )
    return f"true {true}, predicted {predicted} {result.confidence[index]:.2f}"


def csv_link(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A data URL of a table, to be downloaded without a script."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv_text(header, rows).encode()).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("seewhy.reporting", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals["picture"] = picture
    environment.filters |= {"percent": percent, "between": between, "at_least": at_least}
    return environment
