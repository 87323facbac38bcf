"""A section of the report, and the HTML of its figures, images and tables."""

import base64
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from seewhy.escaping import csv_text, html_text, visible
from seewhy.reporting.formatting import p_value, percent, percent_interval, round_up, signed_points
from seewhy.reporting.sprites import Sprites
from seewhy.reporting.svg import inline_svg
from seewhy.wording import counted


@dataclass(frozen=True)
class Section:
    """A section of the report."""

    title: str
    finding: str  # one or two sentences with the main result
    html: str
    data: Mapping[str, Any] = field(default_factory=dict)  # JSON for the scripts of the page
    figures: Mapping[str, Figure] = field(default_factory=dict)  # by file name, without suffix


def figure_html(figure: Figure, name: str, description: str) -> Markup:
    """A figure as inline SVG.

    Args:
        figure: A matplotlib figure.
        name: Prefix of its ids, unique in the page.
        description: Text alternative for readers who cannot see the figure.
    """
    return Markup(inline_svg(figure, name, description))


def sprite_html(sprites: Sprites, key: Hashable, label: str) -> Markup:
    """An image of the page as HTML, or its label alone if there is no image of that key.

    Args:
        sprites: The images of the page.
        key: Of the image, such as `("test", index)` for a test image.
        label: Text alternative for readers who cannot see the image.
    """
    sprite, label = sprites[key], visible(label)
    if sprite is None:
        return Markup('<span class="tile missing">{}</span>').format(label)
    return Markup(
        '<svg class="tile" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<use href="#s{}" x="{}" y="{}"/></svg>'
    ).format(sprites.width, sprites.height, label, sprite.sheet, -sprite.left, -sprite.top)


def csv_link(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as a data URL, for a download that needs no script."""
    content = base64.b64encode(csv_text(header, rows).encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{content}"


def render(template: str, **values: object) -> str:
    """Render a template in assets/; all values are escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("seewhy.reporting", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=html_text,
    )
    environment.globals["sprite_html"] = sprite_html
    filters = (counted, p_value, percent, percent_interval, round_up, signed_points)
    environment.filters |= {function.__name__: function for function in filters}
    return environment
