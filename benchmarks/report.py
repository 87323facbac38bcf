"""From a trained CIFAR-10 run to a report that is open in a browser: seconds, bytes, and what is shown.

Needs the run that `benchmarks/cifar10.py` leaves below runs/, and for the last rows playwright with a Chromium.
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
CHROMIUM = Path("/usr/bin/chromium")  # the system's where there is one, else playwright's


def main() -> None:
    """Measure and keep."""
    run = open_run(RUN)
    assert run.result is not None
    data = reload_data(run.data)
    result, predicting = timed(lambda: evaluate(run, data))
    diagnosis, diagnosing = timed(lambda: diagnose(run, data, result, quiet=True))
    context = ReportContext(run, run.result, result, diagnosis)
    made, writing = timed(lambda: render_page(context))
    path = RUN / "report.html"
    path.write_text(made.html, encoding="utf-8")
    wrong = int((~result.correct).sum())
    how = f"`benchmarks/report.py`, {run.recipe.model}, {len(result.labels):,} test images"
    whole = made.html.count('<li id="image-')
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
            f"{len(made.html.encode()) / 1e6:.2f} MB",
            f"{whole:,} of {wrong:,} mistakes in {BUDGET / 1e6:g} MB",
        ),
        *_opening(path.resolve()),
    ]
    keep("report", "The report", rows)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _opening(path: Path) -> list[Row]:
    """How long a new tab takes until the page can be read, and until the heat is painted."""
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
    how = f"`benchmarks/report.py`, Chromium without a screen, median of {REPEATS} fresh tabs"
    return [
        Row("opening: the page can be read", f"{statistics.median(readable):.2f} s", how),
        Row("opening: the heat is painted", f"{statistics.median(painted):.2f} s", how),
    ]


def _when_ready(tab: Tab, started: float) -> float:
    tab.wait_for_selector("html[data-ready]")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
