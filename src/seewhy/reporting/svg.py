"""Figures as SVG inside a page: no ids that meet those of others, no inline styles, colors that a dark page can change."""

import io
import re
import warnings
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib as mpl
from matplotlib.figure import Figure

from seewhy.figures.style import STYLE

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_FORBIDDEN = dict.fromkeys(
    [code for code in range(32) if chr(code) not in "\t\n\r"] + [0xFFFE, 0xFFFF]
)  # in XML
_COORDINATES = ("d", "transform", "points", "x", "y", "width", "height")


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an <svg> element with a text alternative; `name` keeps its ids apart from those of other figures.

    A content-security policy with hashes forbids style attributes, so their properties become attributes of their own, which
    a style sheet can override: black and white ones follow the page's ink and paper. The font is the page's.
    """
    stream = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": "seewhy"}), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # text stays text in the SVG
        figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    text = stream.getvalue().translate(_FORBIDDEN)
    root = ElementTree.fromstring(text)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    for each in root.iter():
        _simplify(each, name, used)
    _color_uses(root)
    _unwrap(root)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "class": "plot",
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": description,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(each: Element, name: str, used: set[str]) -> None:
    """Drop what a page does not need of an element, and let its attributes say what its style says."""
    each.tag = each.tag.rpartition("}")[2]
    attributes = {
        key.rpartition("}")[2]: value for key, value in each.attrib.items()
    }  # without namespaces: HTML knows them
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
    each.attrib = attributes
    if each.tag not in ("text", "tspan"):
        each.text = None
    each.tail = None


def _color_uses(root: Element) -> None:
    """Take the colors off markers, whose every use says them too: a style sheet reaches the use, but not the copy inside it."""
    colored = {use.get("href", "")[1:] for use in root.iter("use") if "stroke" in use.attrib}
    plain = {use.get("href", "")[1:] for use in root.iter("use") if "stroke" not in use.attrib}
    for each in root.iter("path"):
        if each.get("id") in colored - plain:
            each.attrib.pop("stroke", None)


def _unwrap(parent: Element) -> None:
    """Put the content of groups that say nothing in their place, and drop the style sheet: the page's says it."""
    children: list[Element] = []
    for child in parent:
        _unwrap(child)
        if child.tag == "style" or (child.tag in ("defs", "g") and not len(child)):
            continue
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    parent[:] = children


def _presentation(style: str) -> dict[str, str]:
    """The properties of a style as attributes; of the font only size and weight."""
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
    """Numbers to a tenth of a point, on one line; that of a rotation and of a scale as they are."""
    if "scale" in text or "matrix" in text:
        return text
    return " ".join(
        re.sub(
            r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text
        ).split()
    ).replace("-0 ", "0 ")
