"""Figures as inline SVG: unique ids, no inline styles, and colors that dark mode can replace."""

import re
from weakref import WeakKeyDictionary
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from matplotlib.figure import Figure

from seewhy.escaping import visible
from seewhy.figures.style import figure_svg

_DRAWN: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()
_COORDINATES = ("d", "transform", "points", "x", "y", "width", "height")


def drawn_svg(figure: Figure) -> str:
    """A finished figure as the text of an SVG file, drawn once for the page and the file."""
    if figure not in _DRAWN:
        _DRAWN[figure] = figure_svg(figure)
    return _DRAWN[figure]


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an <svg> element.

    A content-security policy with hashes forbids style attributes. Their properties become
    presentation attributes, which a style sheet can override: in dark mode, black and white become
    the colors of the page. The font is that of the page.

    Args:
        figure: A matplotlib figure.
        name: Prefix of its ids, unique in the page.
        description: Text alternative.
    """
    text = drawn_svg(figure)
    root = ElementTree.fromstring(text)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    for element in root.iter():
        _simplify(element, name, used)
    _inherit_marker_colors(root)
    _flatten(root)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "class": "plot",
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": visible(description),
    }
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(element: Element, name: str, used: set[str]) -> None:
    """Turn the style of an element into attributes, and drop unused ids, namespaces and digits."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {
        key.rpartition("}")[2]: value for key, value in element.attrib.items()
    }  # without namespaces, which HTML implies
    attributes |= _presentation(attributes.pop("style", ""))
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    for key, value in attributes.items():
        if key in _COORDINATES:
            attributes[key] = _rounded(value)
        elif key == "id":
            attributes[key] = f"{name}-{value}"
        elif value.startswith("#") and key == "href":
            attributes[key] = f"#{name}-{value[1:]}"
        else:
            attributes[key] = value.replace("url(#", f"url(#{name}-")
    if attributes.get("transform", "").startswith("rotate(0 "):
        del attributes["transform"]
    element.attrib = attributes
    if element.tag not in ("text", "tspan"):
        element.text = None
    element.tail = None


def _inherit_marker_colors(root: Element) -> None:
    """Remove the stroke of markers if their uses have one: a style sheet reaches only the uses."""
    colored = {use.get("href", "")[1:] for use in root.iter("use") if "stroke" in use.attrib}
    plain = {use.get("href", "")[1:] for use in root.iter("use") if "stroke" not in use.attrib}
    for path in root.iter("path"):
        if path.get("id") in colored - plain:
            path.attrib.pop("stroke", None)


def _flatten(parent: Element) -> None:
    """Unwrap groups without attributes, and drop empty groups and the style sheet."""
    children: list[Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == "style" or (child.tag in ("defs", "g") and not len(child)):
            continue
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    parent[:] = children


def _presentation(style: str) -> dict[str, str]:
    """The declarations of a style as attributes; of the font only its size and weight."""
    attributes: dict[str, str] = {}
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size, weight = re.search(r"([\d.]+)px", value), re.search(r"\b(bold|[1-9]00)\b", value)
            attributes |= {"font-size": size[1]} if size else {}
            attributes |= {"font-weight": weight[1]} if weight else {}
        elif key and key != "font-family":
            attributes[key] = value
    return attributes


def _rounded(text: str) -> str:
    """Coordinates to a tenth of a point, on one line; scales and matrices unchanged."""
    if "scale" in text or "matrix" in text:
        return text
    return " ".join(
        re.sub(
            r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text
        ).split()
    ).replace("-0 ", "0 ")
