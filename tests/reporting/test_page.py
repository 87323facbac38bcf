import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.reporting import page as module
from seewhy.reporting.context import ReportContext
from seewhy.reporting.page import Page, page, report
from seewhy.reporting.section import Section
from seewhy.reporting.sections.table import SECTIONS
from seewhy.runs.run import Run

OPTIONAL = {"td", "th", "tr"}  # to be closed
VOID = {"meta", "link", "input", "br", "hr", "img", "wbr"}


class Parsed(HTMLParser):
    """The elements of a page with their attributes, their text, and the content of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: list[tuple[str, dict[str, str], str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), "an attribute is there twice"
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        while tag in OPTIONAL and self.open[-1] in (["td", "th"] if tag != "tr" else OPTIONAL):
            self.open.pop()  # a cell ends where the next begins
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1] in OPTIONAL and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            tag, attributes = self.elements[-1]
            self.raw.append((tag, attributes, data))
        else:
            self.text += data

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.elements:
            for key, value in attributes.items():
                yield tag, key, value

    def data(self) -> Any:
        (text,) = (
            text for _, attributes, text in self.raw if attributes.get("type") == "application/json"
        )
        return json.loads(text)


@pytest.fixture(scope="module")
def parsed(made: Page) -> Parsed:
    found = Parsed(made.html)
    assert found.open == []
    return found


def test_the_policy_allows_what_is_there_and_nothing_else(parsed: Parsed) -> None:
    (policy,) = (
        each["content"]
        for tag, each in parsed.elements
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    directives = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    assert directives["default-src"] == ["'none'"]
    assert directives["base-uri"] == directives["form-action"] == ["'none'"]
    assert directives["img-src"] == ["data:"]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        texts = [
            text
            for name, attributes, text in parsed.raw
            if name == tag and "type" not in attributes
        ]
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in texts
        ]
        assert len(hashes) == 1
        assert directives[directive] == hashes


def test_nothing_asks_for_anything_outside(parsed: Parsed) -> None:
    for tag, key, value in parsed.attributes():
        assert key != "style"
        assert not key.startswith("on"), "an event handler"
        assert "http:" not in value
        assert "https:" not in value
        assert "javascript:" not in value
        if key in ("src", "srcset", "action", "poster", "xlink:href"):
            raise AssertionError(f"{tag} has {key}")
        if key == "href":
            assert value.startswith(("#", "data:image/", "data:text/csv", "data:,"))
    for tag, attributes, text in parsed.raw:
        if attributes.get("type") != "application/json":
            found = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"'`]*", text)
            assert set(found) <= {"http://www.w3.org/2000/svg"}
            assert "@import" not in text
            assert tag == "script" or "url(" not in text


def test_ids_are_unique_and_every_reference_is_to_one(parsed: Parsed) -> None:
    ids = Counter(value for _, key, value in parsed.attributes() if key == "id")
    assert set(ids.values()) == {1}
    references = 0
    for _, key, value in parsed.attributes():
        wanted = re.findall(r"url\(#([^)]+)\)", value) if not value.startswith("data:") else []
        if key == "href" and value.startswith("#"):
            wanted.append(value[1:])
        if key in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            wanted += value.split()
        references += len(wanted)
        assert set(wanted) <= set(ids)
    assert references > 100


def test_the_numbers_are_those_of_the_summary(
    run: Run, asked: ReportContext, parsed: Parsed
) -> None:
    assert run.directory is not None
    summary = json.loads((run.directory / "summary.json").read_text())
    wrong = round(summary["images"] * (1 - summary["accuracy"]))
    accuracy = f"{100 * summary['accuracy']:.2f}%"
    low, high = (100 * bound for bound in summary["interval"])
    assert (
        f"{accuracy} of 120 test images are classified correctly (95% interval {low:.2f} to {high:.2f}%)"
        in parsed.text
    )
    assert f"small on bars: {accuracy} of 120 test images" in parsed.text  # the title
    assert f"{wrong:,} of 120 test images are misclassified" in parsed.text
    data = parsed.data()["mistakes"]
    assert sorted(data["index"]) == sorted((~asked.test.correct).nonzero().flatten().tolist())
    assert data["classes"] == list(asked.test.classes)
    for row, index in enumerate(data["index"]):
        expected = asked.test.logits[index].double().softmax(0)
        assert data["probabilities"][row] == pytest.approx(
            expected[data["top"][row]].tolist(), abs=6e-4
        )
        assert data["kinds"][row] == [int(asked.test.labels[index]), int(expected.argmax())]
        assert data["loss"][row] == pytest.approx(
            -expected[asked.test.labels[index]].log().item(), abs=6e-4
        )
        assert data["names"][row] == f"bar-{index}.png"


def test_what_is_shown_of_a_mistake_is_its_image(
    data: Dataset, asked: ReportContext, parsed: Parsed
) -> None:
    sheets = {
        each["id"]: each["href"] for tag, each in parsed.elements if tag == "image" and "id" in each
    }
    pixels = {
        name: np.asarray(
            Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
        )
        for name, url in sheets.items()
        if re.fullmatch(r"s\d+", name)
    }
    where = {
        each["id"]: place
        for place, (tag, each) in enumerate(parsed.elements)
        if tag == "li" and "id" in each
    }
    for index in asked.diagnosis.errors.tolist():
        start = where[f"image-{index}"]
        use = next(each for tag, each in parsed.elements[start:] if tag == "use")
        label = next(each["aria-label"] for tag, each in parsed.elements[start:] if tag == "svg")
        left, top = -int(use["x"]), -int(use["y"])
        shown = pixels[use["href"][1:]][top : top + 12, left : left + 12]
        np.testing.assert_array_equal(shown, data.test.images[index].permute(1, 2, 0).numpy())
        assert label.startswith(f"true {data.classes[data.test.labels[index]]}, predicted ")


def test_names_are_data_not_markup(made: Page, parsed: Parsed) -> None:
    assert "level <&> flat" in parsed.text
    assert "<&>" not in made.html
    assert "$x^2$" in parsed.text


@pytest.fixture
def few_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the sections that have figures, which take most of their time."""
    for name in set(SECTIONS) - {"verdict", "mistakes", "labels", "comparison"}:
        monkeypatch.delitem(SECTIONS, name)


def kinds_of(asked: ReportContext) -> list[tuple[int, int]]:
    return [
        (int(asked.test.labels[index]), int(asked.test.predicted[index]))
        for index in asked.diagnosis.errors.tolist()
    ]


@pytest.mark.usefixtures("few_sections")
def test_a_small_budget_shows_fewer_mistakes_of_all_kinds(
    asked: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST", 1)
    whole = page(asked)
    size, kinds = len(whole.html.encode()), kinds_of(asked)
    budget = round(size - 0.5 * (len(kinds) - len(set(kinds))) * whole.bytes_of_mistake)
    monkeypatch.setattr(module, "BUDGET", budget)
    made = page(asked)
    found = Parsed(made.html)
    data = found.data()["mistakes"]
    shown = len(data["index"])
    assert len(made.html.encode()) <= budget
    assert len(set(kinds)) <= shown < len(kinds)
    assert f"{shown} of {len(kinds)} mistakes are shown" in found.text
    mistakes = asked.diagnosis.errors.tolist()
    surest = dict(zip(reversed(kinds), reversed(mistakes), strict=True))
    assert set(surest.values()) <= set(data["index"])
    assert data["index"] == [index for index in mistakes if index in data["index"]]
    rows = [mistakes.index(index) for index in data["index"]]
    assert data["kinds"] == [list(kinds[row]) for row in rows]
    looks = asked.diagnosis.saliency
    assert looks is not None
    expected = module._with_mistakes(asked, shown).diagnosis.saliency
    assert expected is not None
    for kept, values in zip(expected.maps.values, looks.maps.values, strict=True):
        assert kept.equal(values[rows])
    full = page(replace(asked, full=True))
    assert Parsed(full.html).data()["mistakes"]["index"] == mistakes


@pytest.mark.usefixtures("few_sections")
def test_a_budget_that_fits_nothing_ends_with_a_few_mistakes(
    asked: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUDGET", 1000)
    monkeypatch.setattr(module, "FEWEST", 2)
    found = Parsed(page(asked).html)
    assert len(found.data()["mistakes"]["index"]) == 2
    assert f"2 of {len(asked.diagnosis.errors)} mistakes are shown" in found.text


@pytest.mark.usefixtures("few_sections")
def test_a_section_from_outside_appears_and_one_of_nothing_does_not(
    asked: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(study: ReportContext, album: object) -> Section:
        text = "</script><b>7 & 8"
        return Section(
            "Mine & yours",
            f"{len(study.test.labels)} images were <asked>.",
            "<p id='own'>own</p>",
            {"text": text},
        )

    monkeypatch.setitem(SECTIONS, "mine", mine)
    monkeypatch.setitem(SECTIONS, "nothing", lambda study, album: None)
    found = Parsed(page(asked).html)
    assert found.open == []
    ids = [each.get("id") for tag, each in found.elements if tag == "section"]
    assert ids[-1] == "mine"
    assert "nothing" not in ids
    assert "comparison" not in ids  # there is no other run
    assert "120 images were <asked>." in found.text
    assert "Mine & yours" in found.text
    assert ("p", {"id": "own"}) in found.elements
    assert found.data()["mine"] == {"text": "</script><b>7 & 8"}


def test_report_writes_the_page_and_its_figures(
    asked: ReportContext, made: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asked.run
    assert run.directory is not None
    some = {name: figure for name, figure in made.figures.items() if name in ("trust", "coverage")}
    monkeypatch.setattr(module, "page", lambda asked: replace(made, figures=some))
    path = report(run, quiet=True)
    assert path == run.directory / "report.html"
    assert path.read_text() == made.html
    for name in ("trust", "coverage"):
        assert "<svg" in (run.directory / "figures" / f"{name}.svg").read_text()
        with Image.open(run.directory / "figures" / f"{name}.png") as picture:
            assert picture.width > 300
    path.write_text("before")
    assert report(run, path=tmp_path / "other.html", quiet=True) == tmp_path / "other.html"
    assert (tmp_path / "other.html").read_text() == made.html
    assert path.read_text() == "before"


def test_the_page_has_the_figures_of_all_sections(made: Page) -> None:
    expected = {
        "trust",
        "confusion",
        "classes",
        "reliability",
        "coverage",
        "attacks",
        "corruptions",
        "evidence",
    }
    assert expected | {"loss", "accuracy", "rate"} <= set(made.figures)


def test_a_run_without_a_directory_needs_a_path(asked: ReportContext, data: Dataset) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"this run has no directory; name the file, as in report\(run, path='report.html'\)",
    ):
        report(replace(asked.run, directory=None), data=data, quiet=True)


@pytest.mark.usefixtures("few_sections")
def test_file_names_have_directories_only_where_they_are_asked_for(asked: ReportContext) -> None:
    assert "photos/" not in page(asked).html
    assert (
        Parsed(page(replace(asked, paths=True)).html)
        .data()["mistakes"]["names"][0]
        .startswith("photos/2/bar-")
    )
