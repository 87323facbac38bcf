"""Time and size of the report of a CIFAR-10 run, until it is open in a browser.

Needs the run that `benchmarks/cifar10.py` writes in runs/, and Playwright with a Chromium.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from benchmarks.results import Row, keep
from seewhy.data.sources import reload_data
from seewhy.diagnosis.diagnosis import diagnose
from seewhy.reporting.context import ReportContext
from seewhy.reporting.page import BUDGET, render_page
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import open_run

T = TypeVar("T")

RUN = Path("runs/benchmark-speedrun94-seed0")
REPEATS = 5  # of opening it
CHROMIUM = Path("/usr/bin/chromium")  # the system's, else Playwright's


def main() -> None:
    """Measure and save."""
    run = open_run(RUN)
    assert run.result is not None
    data = reload_data(run.data)
    predictions, predicting = timed(lambda: evaluate(run, data))
    diagnosis, diagnosing = timed(lambda: diagnose(run, data, predictions, quiet=True))
    context = ReportContext(run, run.result, predictions, diagnosis)
    page, writing = timed(lambda: render_page(context))
    path = RUN / "report.html"
    path.write_text(page.html, encoding="utf-8")
    errors = int((~predictions.correct).sum())
    how = f"`benchmarks/report.py`, {run.recipe.model}, {len(predictions.labels):,} test images"
    shown = page.html.count('<li id="image-')
    rows = [
        Row(
            "predictions of the test images, with test-time augmentation",
            f"{predicting:.1f} s",
            how,
        ),
        Row("diagnosis", f"{diagnosing:.1f} s", how),
        Row("the page, figures and images included", f"{writing:.1f} s", how),
        Row(
            "predictions, diagnosis and page",
            f"{predicting + diagnosing + writing:.1f} s",
            f"{how}; one run each",
        ),
        Row(
            "size of the page",
            f"{len(page.html.encode()) / 1e6:.2f} MB",
            f"{shown:,} of {errors:,} errors shown in {BUDGET / 1e6:g} MB",
        ),
        *_opening(path.resolve()),
    ]
    keep("report", "The report", rows)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of `work`, and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _opening(path: Path) -> list[Row]:
    """Time until a new tab can be read, and until the heat maps are painted."""
    readable, painted = [], []
    with sync_playwright() as playwright:
        executable = str(CHROMIUM) if CHROMIUM.exists() else None
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(REPEATS):
            tab = browser.new_context(offline=True).new_page()
            started = time.perf_counter()
            tab.goto(path.as_uri(), wait_until="domcontentloaded")
            readable.append(time.perf_counter() - started)
            painted.append(_when_ready(tab, started))
            tab.context.close()
        browser.close()
    how = f"`benchmarks/report.py`, headless Chromium, median of {REPEATS} fresh tabs"
    return [
        Row("opening: the page can be read", f"{statistics.median(readable):.2f} s", how),
        Row("opening: the heat maps are painted", f"{statistics.median(painted):.2f} s", how),
    ]


def _when_ready(tab: Tab, started: float) -> float:
    tab.wait_for_selector("html[data-ready]")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
