"""Fixtures for a real browser: pages that report no problems, and accessibility checks.

`make check` and `make test` fetch Chromium and the packages of package.json. Without them these
tests are skipped, or fail if SEEWHY_REQUIRE_BROWSER=1, as in CI.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Playwright,
    sync_playwright,
)

PACKAGES = Path(__file__).with_name("node_modules")
DEBIAN = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",  # which root, as in a container, cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OFFLINE = ("file:", "data:", "blob:", "about:")  # allowed requests
AXE = """async () => (await axe.run()).violations.flatMap(violation => violation.nodes.map(
    node => `${violation.id}: ${node.failureSummary} ${node.html}`
))"""
# True after the pending tasks of the page's scripts; at once without JavaScript, where no promise
# ever resolves.
SETTLED = (
    "matchMedia('(scripting: none)').matches || new Promise(done => setTimeout(() => done(true)))"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this directory, so that `make check` leaves them out."""
    here = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Records:
    """Console messages, exceptions and requests of the pages of a test, in order."""

    errors: list[str] = field(default_factory=list)  # of the console
    warnings: list[str] = field(default_factory=list)  # of the console
    exceptions: list[str] = field(default_factory=list)  # that no script caught
    requests: list[str] = field(default_factory=list)  # addresses, of documents too

    def problems(self) -> list[str]:
        """One line for each console error, exception, and request that leaves this machine."""
        online = [address for address in self.requests if not address.startswith(OFFLINE)]
        problems = {"console error": self.errors, "exception": self.exceptions, "request": online}
        return [f"{kind}: {text}" for kind, texts in problems.items() for text in texts]


class Visit:
    """Open pages, each in its own context, and record their problems in `records`."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.records = Records()
        self.contexts: list[BrowserContext] = []

    def __call__(
        self,
        path: Path,
        javascript: bool = True,
        viewport: tuple[int, int] = (1280, 900),  # CSS pixels, width and height
        dark: bool = False,
        touch: bool = False,
        print: bool = False,
    ) -> Page:
        """Load the page at `path` without network access; `touch` emulates a phone."""
        context = self.browser.new_context(
            java_script_enabled=javascript,
            viewport={"width": viewport[0], "height": viewport[1]},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            is_mobile=touch,
            offline=True,
        )
        self.contexts.append(context)
        self._record(context)
        page = context.new_page()
        page.emulate_media(media="print" if print else "screen")
        page.goto(path.resolve().as_uri())
        return page

    def check(self) -> None:
        """Close the pages; raise AssertionError if one has a problem."""
        for page in [page for context in self.contexts for page in context.pages]:
            page.evaluate(SETTLED)
        self.close()
        problems = self.records.problems()
        assert not problems, "\n".join(problems)

    def close(self) -> None:
        while self.contexts:
            self.contexts.pop().close()

    def _record(self, context: BrowserContext) -> None:
        """Listen to the pages of a context and to those that they open."""

        def hear(message: ConsoleMessage) -> None:
            kept = {"error": self.records.errors, "warning": self.records.warnings}.get(
                message.type
            )
            if kept is not None:
                kept.append(message.text)

        context.on("console", hear)
        context.on("weberror", lambda event: self.records.exceptions.append(str(event.error)))
        context.on("request", lambda request: self.records.requests.append(request.url))
        # routed, so that it is told before the page may be closed, and goes nowhere
        context.route_web_socket("**/*", lambda socket: self.records.requests.append(socket.url))


@pytest.fixture(scope="session")
def chromium() -> Iterator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """Headless Chromium, one for each worker of pytest-xdist, and Playwright's event loop."""
    with sync_playwright() as playwright:
        try:
            browser = _launched(playwright)
        except Error as error:
            unavailable(f"no Chromium, which `make check` fetches: {error.message}")
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield browser, loop
        asyncio._set_running_loop(loop)
        browser.close()


def _launched(playwright: Playwright) -> Browser:
    """The system's Chromium, else the one that `playwright install chromium` fetched."""
    system = shutil.which("chromium") or (DEBIAN if DEBIAN.exists() else None)
    return playwright.chromium.launch(executable_path=system, args=list(ARGUMENTS))


@pytest.fixture
def browser(chromium: tuple[Browser, asyncio.AbstractEventLoop]) -> Iterator[Browser]:
    """The worker's Chromium.

    Playwright leaves its event loop marked as running, so `asyncio.run` fails in this thread.
    The mark is therefore set only during browser tests.
    """
    browser, loop = chromium
    asyncio._set_running_loop(loop)
    yield browser
    asyncio._set_running_loop(None)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Like `open_page`, for a test that calls `visit.check` itself."""
    visit = Visit(browser)
    yield visit
    visit.close()


@pytest.fixture
def open_page(visit: Visit) -> Iterator[Visit]:
    """Open a file, `open_page(path, dark=True)`; a page with problems fails the test at its end."""
    yield visit
    visit.check()


@pytest.fixture(scope="session")
def package() -> Callable[[str], Path]:
    """The path of a file in node_modules, such as "axe-core/axe.min.js"."""

    def find(name: str) -> Path:
        path = PACKAGES / name
        if not path.exists():
            unavailable(f"no {path}, which `make check` fetches; npm must be installed")
        return path

    return find


@pytest.fixture(scope="session")
def axe(package: Callable[[str], Path]) -> Callable[[Page], list[str]]:
    """`axe(page)` returns the violations that axe-core finds, "rule: what to fix, element".

    The page needs JavaScript. Its content-security policy stays in force: scripts that Playwright
    evaluates are exempt.
    """
    source = package("axe-core/axe.min.js").read_text(encoding="utf-8")

    def violations(page: Page) -> list[str]:
        page.evaluate(source)
        return list(page.evaluate(AXE))

    return violations


def unavailable(what: str) -> NoReturn:
    """Skip the test, or fail it where a browser is required."""
    if os.environ.get("SEEWHY_REQUIRE_BROWSER") == "1":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
