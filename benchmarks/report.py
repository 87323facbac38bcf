"""From a trained CIFAR-10 run to a report in a browser: time and file size.

Needs the run that `benchmarks/cifar10.py` leaves below runs/, and Playwright with Chromium.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

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
REPEATS = 5  # of opening the report
CHROMIUM = Path("/usr/bin/chromium")  # else Playwright's own


def main() -> None:
    """Measure, and write the results."""
    run = open_run(RUN)
    assert run.result is not None
    result, data = run.result, reload_data(run.data_origin)
    predictions, predict_seconds = timed(lambda: evaluate(run, data))
    diagnosis, diagnose_seconds = timed(lambda: diagnose(run, data, predictions, quiet=True))
    context = ReportContext(run.classifier, run.data_origin, predictions, diagnosis, run)
    page, render_seconds = timed(lambda: render_page(context))
    path = RUN / "report.html"
    path.write_text(page.html, encoding="utf-8")
    errors, shown = int((~predictions.correct).sum()), page.html.count('<li id="image-')
    total = predict_seconds + diagnose_seconds + render_seconds
    size = len(page.html.encode()) / 1e6
    how = f"`benchmarks/report.py`, {run.recipe.model}, {result.test_images:,} test images"
    rows = [
        Row("predictions with test-time augmentation", f"{predict_seconds:.1f} s", how),
        Row("diagnosis", f"{diagnose_seconds:.1f} s", how),
        Row("rendering, with figures and images", f"{render_seconds:.1f} s", how),
        Row("predictions, diagnosis and rendering", f"{total:.1f} s", f"{how}; one run each"),
        Row(
            "file size",
            f"{size:.2f} MB",
            f"{shown:,} of {errors:,} errors within {BUDGET / 1e6:g} MB",
        ),
        *_measure_opening(path.resolve()),
    ]
    keep("report", "The report", rows)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """The result of a function, and the seconds it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _measure_opening(path: Path) -> list[Row]:
    """The time until a new tab is readable, and until the heat maps are painted."""
    readable, painted = [], []
    with sync_playwright() as playwright:
        executable = str(CHROMIUM) if CHROMIUM.exists() else None
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        for _ in range(REPEATS):
            tab = browser.new_context(offline=True).new_page()
            start = time.perf_counter()
            tab.goto(path.as_uri(), wait_until="domcontentloaded")
            readable.append(time.perf_counter() - start)
            tab.wait_for_selector("html[data-ready]")
            painted.append(time.perf_counter() - start)
            tab.context.close()
        browser.close()
    how = f"`benchmarks/report.py`, headless Chromium, median of {REPEATS} fresh tabs"
    return [
        Row("opening, until readable", f"{statistics.median(readable):.2f} s", how),
        Row("opening, until heat maps are painted", f"{statistics.median(painted):.2f} s", how),
    ]


if __name__ == "__main__":
    main()
