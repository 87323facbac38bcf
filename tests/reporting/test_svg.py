import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from seewhy.figures.style import STYLE
from seewhy.reporting.svg import drawn_svg, inline_svg

NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


def figure() -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot(
            [0, 1, 2], [0.5, -0.25, 1 / 3], "o-", color="#D55E00", alpha=0.5, label="a < b & c"
        )
        axes.imshow([[0, 1], [1, 0]], extent=(0, 1, 0, 1), clip_on=True)
        axes.fill_between([0, 1], [0, 1], hatch="//")
        axes.set_title("costs \\$5 & more", fontweight="bold")
        axes.set_ylabel("<b>bold</b>", rotation=90)
        axes.legend()
    return figure


def original(figure: Figure) -> Element:
    """What matplotlib writes, untouched."""
    return ElementTree.fromstring(drawn_svg(figure))


def name_of(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def drawn(root: Element) -> list[Element]:
    """What is drawn, in order."""
    return [
        each
        for each in root.iter()
        if name_of(each) in ("path", "use", "image", "text", "tspan", "rect", "circle")
    ]


def attribute(element: Element, name: str) -> str | None:
    return next(
        (value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None
    )


@dataclass(frozen=True)
class Pair:
    """A figure as matplotlib writes it, and as a page holds it, under two names."""

    name: str
    before: Element
    text: str
    again: str

    @property
    def after(self) -> Element:
        return ElementTree.fromstring(self.text)


@pytest.fixture(
    scope="module",
    params=["own", pytest.param("report", marks=[pytest.mark.slow, pytest.mark.train])],
)
def pairs(request: pytest.FixtureRequest) -> list[Pair]:
    figures: Mapping[str, Figure] = (
        {"own": figure()} if request.param == "own" else request.getfixturevalue("page").figures
    )
    return [
        Pair(
            name,
            original(each),
            inline_svg(each, name, "words"),
            inline_svg(each, f"{name}2", "words"),
        )
        for name, each in figures.items()
    ]


@pytest.mark.slow
def test_svg_has_nothing_that_the_policy_forbids(pairs: list[Pair]) -> None:
    for pair in pairs:
        for element in pair.after.iter():
            assert "}" not in element.tag, "HTML knows the namespace"
            assert element.tag not in ("style", "script", "metadata", "foreignObject")
            for key, value in element.attrib.items():
                assert key != "style"
                assert not key.startswith("on")
                assert "}" not in key
                assert "http" not in value


def test_ids_are_unique_and_references_resolve(pairs: list[Pair]) -> None:
    seen: set[str] = set()
    references = 0
    for pair in pairs:
        for text in (pair.text, pair.again):  # the same figure twice, too
            root = ElementTree.fromstring(text)
            ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
            assert len(ids) == len(set(ids))
            assert not seen & set(ids)
            seen |= set(ids)
            for element in root.iter():
                for key, value in element.attrib.items():
                    wanted = re.findall(r"url\(#([^)]+)\)", value) + (
                        [value[1:]] if key == "href" and value[0] == "#" else []
                    )
                    references += len(wanted)
                    assert set(wanted) <= set(ids)
    assert references > 10


def test_coordinates_are_those_of_matplotlib(pairs: list[Pair]) -> None:
    for pair in pairs:
        before, after = drawn(pair.before), drawn(pair.after)
        assert [name_of(element) for element in before] == [element.tag for element in after]
        for one, other in zip(before, after, strict=True):
            for key in ("d", "x", "y", "width", "height", "transform"):
                was, now = attribute(one, key) or "", other.attrib.get(key, "")
                if key == "transform" and not now:
                    assert was == "" or was.startswith(("rotate(-0 ", "rotate(0 "))
                    continue
                assert re.findall(r"[a-zA-Z]+", was.replace("e-", "")) == re.findall(
                    r"[a-zA-Z]+", now.replace("e-", "")
                )
                found, expected = (
                    [float(number) for number in NUMBER.findall(text)] for text in (now, was)
                )
                assert found == pytest.approx(expected, abs=0.06)


def test_texts_and_colors_are_those_of_matplotlib(pairs: list[Pair]) -> None:
    for pair in pairs:
        texts = [
            [
                element.text
                for element in root.iter()
                if name_of(element) in ("text", "tspan") and (element.text or "").strip()
            ]
            for root in (pair.before, pair.after)
        ]
        assert texts[0] == texts[1]
        uses = [(each.attrib["href"][1:], each.get("stroke")) for each in pair.after.iter("use")]
        for one, other in zip(drawn(pair.before), drawn(pair.after), strict=True):
            style = dict(
                part.split(": ", 1) for part in (one.get("style") or "").split("; ") if ": " in part
            )
            for key in ("stroke", "fill", "stroke-width", "opacity", "stroke-dasharray"):
                if key not in style or "url" in style[key]:
                    continue
                if (
                    key == "stroke" and key not in other.attrib
                ):  # a marker, which has the color of each use
                    assert {stroke for marker, stroke in uses if marker == other.get("id")} == {
                        style[key].rstrip(";")
                    }
                else:
                    assert other.get(key) == style[key].rstrip(";")


def test_markers_inherit_the_color_of_their_use() -> None:
    """A rule for `svg.plot [stroke=...]` reaches a <use>, but not the copy inside it."""
    root = ElementTree.fromstring(inline_svg(figure(), "own", "words"))
    shown = {each.attrib["id"]: each for each in root.iter("path") if "id" in each.attrib}
    colored = [each for each in root.iter("use") if each.get("stroke") == "#d55e00"]
    assert len(colored) >= 3
    assert all("stroke" not in shown[each.attrib["href"][1:]].attrib for each in colored)


def test_text_is_escaped() -> None:
    text = inline_svg(figure(), "own", 'a "quoted" <description> & more')
    root = ElementTree.fromstring(text)
    assert {"a < b & c", "costs $5 & more", "<b>bold</b>"} <= {
        element.text for element in root.iter("text")
    }
    assert "<b>" not in text
    assert root.attrib["aria-label"] == 'a "quoted" <description> & more'
    assert root.attrib["role"] == "img"
    assert root.attrib["viewBox"] == "0 0 216 144"  # 3 x 2 inches in points
    assert {
        element.get("font-weight")
        for element in root.iter("text")
        if element.text == "costs $5 & more"
    } <= {"bold", "700"}


def test_inline_svg_is_smaller_and_reproducible(pairs: list[Pair]) -> None:
    assert inline_svg(figure(), "own", "words") == inline_svg(figure(), "own", "words")
    for pair in pairs:
        assert len(pair.text) < len(ElementTree.tostring(pair.before))


def test_characters_that_xml_forbids_are_dropped() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "a\x0bb\x00c", parse_math=False)
    assert ">abc</text>" in inline_svg(figure, "odd", "odd")
