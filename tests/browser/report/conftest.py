"""Reports of a small run, made once for all tests, and a reader of a report."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from matplotlib.figure import Figure
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page, expect

from seewhy.data.dataset import Dataset, Split
from seewhy.data.shapes import SHAPES, draw_shapes
from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.diagnosis.predictions import Predictions
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.page import render_page
from seewhy.reporting.svg import inline_svg
from seewhy.runs.directory import DIAGNOSIS
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.serialization import load
from seewhy.train.recipe import Recipe

MARKUP = "</script><img src=x onerror=alert(1)>"  # a class name that must stay text
SIGNS = 'a, "b" & 100%=#'  # a class name with all special characters of an address, CSV and HTML
FOLDER = "image-folder"  # of the images; a report must not show it
SAMPLE_SIZES = {
    "seewhy.diagnosis.saliency.TRUST_IMAGES": 6,
    "seewhy.diagnosis.diagnosis.TRUST_IMAGES": 6,
    "seewhy.diagnosis.diagnosis.ATTACK_IMAGES": 40,
    "seewhy.diagnosis.diagnosis.CORRUPTION_IMAGES": 40,
}  # images; small, because their number is not under test
SAVED = 60_000  # bytes that a page is context to shrink by
RECIPE = Recipe(
    name="tiny",
    model="speednet:width=0.125",
    epochs=3,
    batch_size=50,
    lr=0.5,
    optimizer="sgd:momentum=0.85,nesterov=true",
    schedule="linear:warmup=0.2",
    augment=("crop:2",),
    precision="fp32",
)


@dataclass(frozen=True)
class Reports:
    """Reports on disk, and what they are made of."""

    root: Path

    @property
    def directory(self) -> Path:
        return self.root / "run"

    @property
    def page(self) -> Path:
        """The report of the run, compared with one of half as many epochs."""
        return self.directory / "report.html"

    @property
    def sampled(self) -> Path:
        """The same with a budget that is `SAVED` below the size of `page`."""
        return self.root / "sampled.html"

    @property
    def full(self) -> Path:
        """A full report, which ignores that budget."""
        return self.root / "full.html"

    @property
    def perfect(self) -> Path:
        """A report of predictions without errors."""
        return self.root / "perfect.html"

    @property
    def run(self) -> Run:
        return open_run(self.directory)

    @property
    def before(self) -> Run:
        return open_run(self.root / "before")

    @property
    def predictions(self) -> Predictions:
        predictions = self.run.predictions
        assert predictions is not None
        return predictions

    @property
    def diagnosis(self) -> Diagnosis:
        return load(Diagnosis, self.directory / DIAGNOSIS)

    def errors(self) -> dict[int, tuple[int, int]]:
        """True and predicted class of each misclassified image, from predictions.npz."""
        with np.load(self.directory / "predictions.npz") as arrays:
            true, predicted = arrays["labels"], arrays["logits"].argmax(1)
        return {
            int(index): (int(true[index]), int(predicted[index]))
            for index in np.flatnonzero(true != predicted)
        }

    def worst_confusion(self) -> tuple[int, int]:
        """The true and the predicted class of the most frequent confusion."""
        confusions = list(self.errors().values())
        return max(sorted(set(confusions)), key=confusions.count)


@pytest.fixture(scope="session")
def shapes() -> Dataset:
    """The data of the reports."""
    classes = (MARKUP, SIGNS, *list(SHAPES)[2:])
    return Dataset("shapes", classes, _split(500, 0), _split(200, 1), None, "0" * 32)


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory, shapes: Dataset) -> Reports:
    """Made by the first worker of pytest-xdist; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "reports"
    root.mkdir(exist_ok=True)
    reports = Reports(root)
    with FileLock(root / "lock"):
        if not (root / "made").exists():
            with pytest.MonkeyPatch.context() as patch:
                _make(reports, shapes, patch)
            (root / "made").touch()
    return reports


def _make(reports: Reports, data: Dataset, patch: pytest.MonkeyPatch) -> None:
    for name, count in SAMPLE_SIZES.items():
        patch.setattr(name, count)
    # all maps are of a layer; test_viewer.py adds one of the whole model
    cams = ("grad-cam", "hires-cam", "layer-cam")
    patch.setattr("seewhy.attribution.explanation.AUTO_METHODS", cams)
    run = fit(RECIPE, data, reports.directory, device="cpu", quiet=True)
    before = fit(
        replace(RECIPE, epochs=1.5), data, reports.root / "before", device="cpu", quiet=True
    )
    context = make_context(run, data, before, quiet=True, minutes=None)
    assert context.diagnosis.saliency is not None
    assert context.diagnosis.saliency.images == 6  # the sizes above are in force
    patch.setattr("seewhy.reporting.section.inline_svg", _drawn_once())
    _write(reports.page, context)
    patch.setattr("seewhy.reporting.page.BUDGET", reports.page.stat().st_size - SAVED)
    _write(reports.sampled, context)
    sites = {"site": ("north", "south", "south", "") * 50}
    _write(reports.full, replace(context, baseline=None, full=True, metadata=sites))
    patch.setattr("seewhy.reporting.section.inline_svg", inline_svg)
    assert run.predictions is not None
    assert run.result is not None
    perfect = Predictions(
        10 * F.one_hot(run.predictions.labels).float(),
        run.predictions.labels,
        run.predictions.classes,
    )
    result = replace(run.result, accuracy=1.0, plain_accuracy=1.0, interval=perfect.interval)
    context = make_context(
        replace(run, directory=None, predictions=perfect, result=result),
        data=data,
        quiet=True,
        minutes=None,
    )
    _write(reports.perfect, context)


def _drawn_once() -> Callable[[Figure, str, str], str]:
    """`inline_svg` for pages about the same run, which have the same figures."""
    drawn: dict[tuple[str, str], str] = {}

    def draw(figure: Figure, name: str, description: str) -> str:
        if (name, description) not in drawn:
            drawn[name, description] = inline_svg(figure, name, description)
        return drawn[name, description]

    return draw


def _write(path: Path, context: ReportContext) -> None:
    path.write_text(render_page(context).html, encoding="utf-8")


def _split(count: int, seed: int) -> Split:
    images, labels, masks = draw_shapes(count, np.random.default_rng(seed))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    names = [f"{FOLDER}/<b>{index:04}.png" for index in range(count)]
    return Split(pixels, torch.from_numpy(labels), names, torch.from_numpy(masks))


class Reader:
    """A report in a browser, ready to be read."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.emulate_media(
            reduced_motion="reduce"
        )  # else the next click would meet a page that is still scrolling

    def ready(self) -> None:
        """Wait until the maps are unpacked."""
        expect(self.page.locator("html")).to_have_attribute("data-ready", "")

    def go(self, address: str) -> None:
        """Go to an address in the page, given without #."""
        self.page.evaluate("address => { location.hash = address }", address)

    def address(self) -> str:
        return str(self.page.evaluate("location.hash"))

    def says(self, pattern: str) -> None:
        """Wait until the address matches, and the page has followed it."""
        expect(self.page).to_have_url(re.compile(pattern))
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def shown(self) -> list[int]:
        """The visible images of the gallery, in order."""
        ids = self.page.locator("#gallery > li:not([hidden])").evaluate_all(
            "cards => cards.map(card => card.id)"
        )
        return [int(each.removeprefix("image-")) for each in ids]

    def shows(self, images: int) -> None:
        """Wait until the gallery reports a number of images."""
        expect(self.page.locator("#gallery-count")).to_have_text(
            re.compile(rf"^{images} images?\b")
        )

    def heat(self, canvas: Locator) -> NDArray[np.uint8]:  # (height, width, 4)
        """The pixels of a canvas."""
        height, width, pixels = canvas.evaluate("""canvas => {
            const context = canvas.getContext("2d");
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.height, canvas.width, [...data]];
        }""")
        return np.array(pixels, np.uint8).reshape(height, width, 4)

    def set(self, name: str, value: str) -> None:
        """Set one of the controls above the gallery."""
        control = self.page.locator(f"form.controls [name={name}]")
        if control.evaluate("control => control.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)

    def contrasts(self, selector: str) -> list[float]:
        """The WCAG 2 contrast of each text with its background, also in figures."""
        return [_contrast_of(*pair) for pair in self.page.locator(selector).evaluate_all(COLORS)]

    def contrast(self, one: list[float], other: list[float]) -> float:
        """The WCAG 2 contrast of two colors, each red, green and blue in [0, 255]."""
        return _contrast(one, other)


# an element's color, and the colors behind its center from front to back, down to an opaque one
COLORS = """elements => elements.map(element => {
    const channels = (text, opacity = "1") => {
        const [red, green, blue, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
        return [red, green, blue, alpha * Number(opacity)];
    };
    const isText = element instanceof SVGElement;
    const own = getComputedStyle(element);
    const layers = [];
    if (isText) {
        element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
        const { x, y, width, height } = element.getBoundingClientRect();
        const behind = element.ownerSVGElement.contains.bind(element.ownerSVGElement);
        const stack = document.elementsFromPoint(x + width / 2, y + height / 2);
        for (const each of stack.filter(behind)) {
            const { fill, fillOpacity, opacity } = getComputedStyle(each);
            if (each instanceof SVGGeometryElement && fill !== "none") {
                layers.push(channels(fill, fillOpacity * opacity));
            }
        }
    }
    for (let each = element; each !== null; each = each.parentElement) {
        layers.push(channels(getComputedStyle(each).backgroundColor));
    }
    const last = layers.findIndex(layer => layer[3] === 1);
    return [channels(isText ? own.fill : own.color), ...layers.slice(0, last + 1)];
})"""


def _contrast_of(ink: list[float], *layers: list[float]) -> float:
    """The contrast of a text with the blend of the layers behind it."""
    ground = np.zeros(3)
    for *color, alpha in reversed(layers):
        ground = alpha * np.array(color) + (1 - alpha) * ground
    return _contrast(ink[:3], ground.tolist())


def _contrast(one: list[float], other: list[float]) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: list[float]) -> float:
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        for x in (value / 255 for value in color)
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.fixture
def reader_of() -> Callable[[Page], Reader]:
    """`reader_of(page)`, for a page that has no script to wait for."""
    return Reader


@pytest.fixture
def read(open_page: Callable[..., Page]) -> Callable[..., Reader]:
    """`read(path, dark=True)` opens a report and waits until its script is ready, if it has one."""

    def opened(path: Path, javascript: bool = True, **how: Any) -> Reader:
        reader = Reader(open_page(path, javascript=javascript, **how))
        if javascript:
            reader.ready()
        return reader

    return opened
