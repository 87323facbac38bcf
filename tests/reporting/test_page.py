import base64
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from seewhy.data.dataset import Dataset
from seewhy.diagnosis.diagnosis import slice_examples
from seewhy.diagnosis.slices import Slice
from seewhy.errors import SeewhyError
from seewhy.reporting import page as module
from seewhy.reporting.context import ReportContext
from seewhy.reporting.document import render_document
from seewhy.reporting.page import Page, limit_errors, render_page, report
from seewhy.reporting.section import Section, sprite_html
from seewhy.reporting.sections import SECTIONS
from seewhy.reporting.sprites import Sprites
from seewhy.runs.run import Run, open_run

MakeSection = Callable[[ReportContext, Sprites], Section | None]
OPTIONAL = {"td", "th", "tr"}  # end tags
VOID = {"meta", "link", "input", "br", "hr", "img", "wbr"}


class Parsed(HTMLParser):
    """The elements of a page, its text, and the content of its scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: list[tuple[str, dict[str, str], str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), "duplicate attribute"
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
def parsed(page: Page) -> Parsed:
    parsed = Parsed(page.html)
    assert parsed.open == []
    return parsed


@pytest.mark.parametrize(("side", "body"), [(32, "<body>"), (100, '<body class="photos">')])
def test_thumbnails_of_photographs_are_smoothed(side: int, body: str) -> None:
    """The pixels of small images stay sharp."""
    sprites = Sprites({"a": torch.zeros(3, side, side, dtype=torch.uint8)})
    assert sprites["a"] is not None
    assert body in render_document("title", "headline", {}, "source", sprites.sheets())


def test_policy_allows_only_the_style_and_script_of_the_page(parsed: Parsed) -> None:
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


def test_page_loads_nothing(parsed: Parsed) -> None:
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
            urls = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"'`]*", text)
            assert set(urls) <= {"http://www.w3.org/2000/svg"}
            assert "@import" not in text
            assert tag == "script" or "url(" not in text


def test_ids_are_unique_and_references_resolve(parsed: Parsed) -> None:
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


def test_page_has_the_numbers_of_the_summary(
    run: Run, context: ReportContext, parsed: Parsed
) -> None:
    assert run.directory is not None
    summary = json.loads((run.directory / "summary.json").read_text())
    wrong = round(summary["test_images"] * (1 - summary["accuracy"]))
    accuracy = f"{100 * summary['accuracy']:.2f}%"
    low, high = (100 * bound for bound in summary["interval"])
    assert f"{accuracy} (95% CI {low:.2f}–{high:.2f}%, 120 images)" in parsed.text
    assert f"small on bars: Test accuracy {accuracy} (120 images)" in parsed.text  # the title
    assert f"{wrong:,} of 120 test images are misclassified" in parsed.text
    data = parsed.data()["errors"]
    assert sorted(data["index"]) == sorted(
        (~context.predictions.correct).nonzero().flatten().tolist()
    )
    assert data["classes"] == list(context.predictions.classes)
    for row, index in enumerate(data["index"]):
        expected = context.predictions.logits[index].double().softmax(0)
        assert data["probabilities"][row] == pytest.approx(
            expected[data["top"][row]].tolist(), abs=6e-4
        )
        assert data["confusions"][row] == [
            int(context.predictions.labels[index]),
            int(expected.argmax()),
        ]
        assert data["loss"][row] == pytest.approx(
            -expected[context.predictions.labels[index]].log().item(), abs=6e-4
        )
        assert data["names"][row] == f"bar-{index}.png"


def sprites_of(html: str) -> dict[str, np.ndarray]:
    """The pixels (height, width, 3) of each sheet."""
    urls = re.findall(r'<image id="(s\d+)"[^>]* href="data:image/webp;base64,([^"]*)"', html)
    return {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
        for name, content in urls
    }


def test_gallery_shows_the_right_images(
    data: Dataset, context: ReportContext, page: Page, parsed: Parsed
) -> None:
    pixels = sprites_of(page.html)
    position = {
        each["id"]: number
        for number, (tag, each) in enumerate(parsed.elements)
        if tag == "li" and "id" in each
    }
    for index in context.diagnosis.errors.tolist():
        start = position[f"image-{index}"]
        use = next(each for tag, each in parsed.elements[start:] if tag == "use")
        label = next(each["aria-label"] for tag, each in parsed.elements[start:] if tag == "svg")
        left, top = -int(use["x"]), -int(use["y"])
        shown = pixels[use["href"][1:]][top : top + 12, left : left + 12]
        np.testing.assert_array_equal(shown, data.test.images[index].permute(1, 2, 0).numpy())
        assert label.startswith(f"true {data.classes[data.test.labels[index]]}, predicted ")


def test_class_names_are_escaped(page: Page, parsed: Parsed) -> None:
    assert "level <&> flat" in parsed.text
    assert "<&>" not in page.html
    assert "$x^2$" in parsed.text


def test_names_with_characters_that_act_are_written_out(context: ReportContext) -> None:
    """Changes of the writing direction and control characters, in all sections and figures."""
    classes = ("upright\u202e\x9b2J", "level\x1b[2J", "$x^2$", "the\u2028rest")
    names = [f"\x1b]0;x\x07\u202e{index}.png" for index in range(len(context.diagnosis.names))]
    hostile = replace(
        context,
        predictions=replace(context.predictions, classes=classes),
        diagnosis=replace(context.diagnosis, names=tuple(names)),
    )
    html = render_page(hostile).html
    assert html.count("upright\\u202e") > 5
    acting = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
    assert not re.search(acting, html)
    for data in re.findall(r'type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL):
        assert "\\u202e" not in data.replace("\\\\u202e", "")  # the scripts do not see it either


@pytest.fixture
def few_sections() -> Iterator[None]:
    """Pages without the sections that have figures, which are slow."""
    sections = dict(SECTIONS)
    for name in set(SECTIONS) - {"overview", "errors", "label-issues", "comparison"}:
        del SECTIONS[name]
    yield
    SECTIONS.clear()
    SECTIONS.update(sections)  # in the original order


def confusions_of(context: ReportContext) -> list[tuple[int, int]]:
    predictions = context.predictions
    return [
        (int(predictions.labels[index]), int(predictions.predicted[index]))
        for index in context.diagnosis.errors.tolist()
    ]


@pytest.mark.usefixtures("few_sections")
def test_render_page_shows_diverse_errors_within_the_budget(
    context: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST_ERRORS", 1)
    unlimited = render_page(context)
    size, confusions = len(unlimited.html.encode()), confusions_of(context)
    repeated = len(confusions) - len(set(confusions))
    budget = round(size - 0.5 * repeated * unlimited.bytes_per_error)
    monkeypatch.setattr(module, "BUDGET", budget)
    page = render_page(context)
    parsed = Parsed(page.html)
    data = parsed.data()["errors"]
    shown = len(data["index"])
    assert len(page.html.encode()) <= budget
    assert len(set(confusions)) <= shown < len(confusions)
    assert f"Showing {shown} of {len(confusions)} errors" in parsed.text
    errors = context.diagnosis.errors.tolist()
    most_confident = dict(zip(reversed(confusions), reversed(errors), strict=True))
    assert set(most_confident.values()) <= set(data["index"])
    assert data["index"] == [index for index in errors if index in data["index"]]
    rows = [errors.index(index) for index in data["index"]]
    assert data["confusions"] == [list(confusions[row]) for row in rows]
    full = render_page(replace(context, full=True))
    assert Parsed(full.html).data()["errors"]["index"] == errors


def test_limit_errors_keeps_the_maps_of_the_errors(context: ReportContext) -> None:
    limited = limit_errors(context, 4).diagnosis
    assert len(limited.errors) >= 4
    errors = context.diagnosis.errors.tolist()
    rows = [errors.index(index) for index in limited.errors.tolist()]
    assert rows == sorted(rows)
    before, after = context.diagnosis.saliency, limited.saliency
    assert before is not None
    assert after is not None
    for values, kept in zip(before.maps.values, after.maps.values, strict=True):
        assert kept.equal(values[rows])


def test_limit_errors_keeps_the_examples_of_slices(context: ReportContext) -> None:
    errors = context.diagnosis.errors
    weak = Slice("all", "attribute", torch.arange(120), 120, 0.8, (0.7, 0.9), 0.9, 0.01)
    diagnosis = replace(context.diagnosis, slices=(weak,))
    limited = limit_errors(replace(context, diagnosis=diagnosis), 1).diagnosis
    examples = slice_examples(weak, context.predictions)
    assert set(examples.tolist()) <= set(limited.errors.tolist())
    assert len(limited.errors) < len(errors)


@pytest.mark.usefixtures("few_sections")
def test_render_page_shows_the_fewest_errors_above_any_budget(
    context: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUDGET", 1000)
    monkeypatch.setattr(module, "FEWEST_ERRORS", 2)
    parsed = Parsed(render_page(context).html)
    shown = len(parsed.data()["errors"]["index"])
    assert shown == len(limit_errors(context, 2).diagnosis.errors) < len(context.diagnosis.errors)
    assert f"Showing {shown} of {len(context.diagnosis.errors)} errors" in parsed.text


def test_render_page_renders_only_the_gallery_again(
    context: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report over budget calls each other section once, and its images stay in place."""
    calls: Counter[str] = Counter()

    def counted(key: str, make_section: MakeSection) -> MakeSection:
        def section(context: ReportContext, sprites: Sprites) -> Section | None:
            calls[key] += 1
            return make_section(context, sprites)

        return section

    def stub(context: ReportContext, sprites: Sprites) -> Section:
        index = context.diagnosis.errors.tolist()[-1]
        return Section("Stub", "1 image.", sprite_html(sprites, ("test", index), "stub"))

    for key, make_section in SECTIONS.items():
        light = make_section if key in ("errors", "overview", "label-issues") else stub
        monkeypatch.setitem(SECTIONS, key, counted(key, light))
    monkeypatch.setattr(module, "BUDGET", 1000)
    monkeypatch.setattr(module, "FEWEST_ERRORS", 2)
    page = render_page(context)
    assert calls["errors"] > 1
    assert {calls[key] for key in SECTIONS if key != "errors"} == {1}
    sheets, tile = sprites_of(page.html), context.diagnosis.errors.tolist()[-1]
    stub_html = re.search(
        r'aria-label="stub"><use href="#(s\d+)" x="(-?\d+)" y="(-?\d+)"', page.html
    )
    assert stub_html is not None
    left, top = -int(stub_html[2]), -int(stub_html[3])
    shown = sheets[stub_html[1]][top : top + 12, left : left + 12]
    thumbnails = context.diagnosis.thumbnails
    [expected] = thumbnails.images[thumbnails.indices == tile]
    np.testing.assert_array_equal(shown, expected.permute(1, 2, 0).numpy())


@pytest.mark.usefixtures("few_sections")
def test_sections_may_be_added_and_left_out(
    context: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(context: ReportContext, sprites: Sprites) -> Section:
        return Section(
            "Mine & yours",
            f"{len(context.predictions.labels)} images are <new>.",
            "<p id='own'>own</p>",
            {"text": "</script><b>7 & 8"},
        )

    monkeypatch.setitem(SECTIONS, "mine", mine)
    monkeypatch.setitem(SECTIONS, "nothing", lambda context, sprites: None)
    parsed = Parsed(render_page(context).html)
    assert parsed.open == []
    ids = [each.get("id") for tag, each in parsed.elements if tag == "section"]
    assert ids[-1] == "mine"
    assert "nothing" not in ids
    assert "comparison" not in ids  # there is no run to compare with
    assert "120 images are <new>." in parsed.text
    assert "Mine & yours" in parsed.text
    assert ("p", {"id": "own"}) in parsed.elements
    assert parsed.data()["mine"] == {"text": "</script><b>7 & 8"}


@pytest.mark.usefixtures("few_sections")
def test_page_needs_no_gallery(context: ReportContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SECTIONS, "errors")
    monkeypatch.setattr(module, "BUDGET", 1000)
    html = render_page(context).html
    assert "<script" not in html
    assert 'id="overview"' in html


def test_report_writes_the_page_and_its_figures(
    context: ReportContext, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = context.run
    assert run.directory is not None
    figures = {
        name: figure for name, figure in page.figures.items() if name in ("trust", "coverage")
    }
    monkeypatch.setattr(module, "render_page", lambda context: replace(page, figures=figures))
    with monkeypatch.context() as patch:  # the figures of the page are not drawn again
        patch.setattr(Figure, "savefig", lambda *_, **__: pytest.fail("drawn twice"))
        path = report(run, quiet=True)
    assert path == run.directory / "report.html"
    assert path.read_text() == page.html
    for name in ("trust", "coverage"):
        root = ElementTree.parse(run.directory / "figures" / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.attrib["width"].removesuffix("pt")) > 150
    path.write_text("before")
    assert report(run, path=tmp_path / "other.html", quiet=True) == tmp_path / "other.html"
    assert (tmp_path / "other.html").read_text() == page.html
    assert path.read_text() == "before"


def test_report_to_another_file_writes_nothing_into_the_runs(
    run: Run,
    later: Run,
    data: Dataset,
    context: ReportContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the diagnosis nor the figures of both runs; they may be read-only."""
    directories = [tmp_path / "first", tmp_path / "second"]
    for each, copied in zip((run, later), directories, strict=True):
        assert each.directory is not None
        shutil.copytree(each.directory, copied)
        (copied / "diagnosis.npz").unlink(missing_ok=True)
    monkeypatch.setattr("seewhy.reporting.context.diagnose", lambda *_, **__: context.diagnosis)
    monkeypatch.setattr(module, "render_page", lambda context: Page("page", {"f": Figure()}))
    before = {path: path.stat().st_mtime_ns for each in directories for path in each.rglob("*")}
    first, second = map(open_run, directories)
    path = report(first, data, tmp_path / "new" / "report.html", against=second, quiet=True)
    assert path.read_text() == "page"
    after = {path: path.stat().st_mtime_ns for each in directories for path in each.rglob("*")}
    assert after == before


def test_report_of_a_read_only_run_says_at_once_what_to_do(
    context: ReportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the system, because root may write everywhere."""
    monkeypatch.setattr("seewhy.files.os.access", lambda *_: False)
    monkeypatch.setattr(module, "make_context", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(SeewhyError, match=r"cannot be written; pass another file with --output"):
        report(context.run)


def test_page_has_the_figures_of_all_sections(page: Page) -> None:
    expected = {
        "trust",
        "confusion",
        "classes",
        "roc",
        "precision_recall",
        "reliability",
        "coverage",
        "attacks",
        "corruptions",
        "class_attribution",
    }
    assert expected | {"loss", "accuracy", "lr_schedule"} <= set(page.figures)


@pytest.mark.parametrize(("seconds", "minutes"), [(100, "4"), (290, "10")])
def test_page_proposes_twice_the_time_that_was_allowed_or_taken(
    context: ReportContext, seconds: float, minutes: str
) -> None:
    diagnosis = replace(context.diagnosis, minutes=2.0, seconds=seconds, slice_images=9)
    assert diagnosis.limited
    text = module._source(replace(context, diagnosis=diagnosis))
    assert text.endswith(f"seewhy report RUN --fresh --report-minutes {minutes} takes more.")


def test_report_of_a_run_without_directory_needs_a_path(
    context: ReportContext, data: Dataset
) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"this run has no directory; pass a path, as in report\(run, path='report.html'\)",
    ):
        report(replace(context.run, directory=None), data=data, quiet=True)


@pytest.mark.usefixtures("few_sections")
def test_file_names_have_directories_only_with_paths(context: ReportContext) -> None:
    assert "photos/" not in render_page(context).html
    assert (
        Parsed(render_page(replace(context, paths=True)).html)
        .data()["errors"]["names"][0]
        .startswith("photos/2/bar-")
    )
