"""The fixtures of the browser tests, on small pages with one problem each."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ELSEWHERE = "http://127.0.0.1:9/"  # the discard port, on which nobody answers
POLICY = (
    "<meta http-equiv='Content-Security-Policy' "
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


@pytest.fixture(autouse=True)
def asyncio_is_free():
    """Browser tests must not break asyncio.run for later tests in this process."""
    yield
    assert asyncio.run(asyncio.sleep(0, "ran")) == "ran"


@pytest.fixture
def write(tmp_path):
    """Write a page with this head and body, and return its path."""

    def written(body, head=""):
        path = tmp_path / "page.html"
        start = "<!doctype html><html lang='en'><meta charset='utf-8'><title>A page</title>"
        path.write_text(
            f"{start}<meta name='viewport' content='width=device-width'>{head}<body>{body}",
            encoding="utf-8",
        )
        return path

    return written


def matches(page, query):
    return page.evaluate("query => matchMedia(query).matches", query)


def test_quiet_page_passes(open_page, write):
    body = (
        "<h1>One</h1><img alt='' src='data:image/gif;base64,"
        "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7'>"
        "<script>document.querySelector('h1').textContent += ' and two'; "
        "console.log('said')</script>"
    )
    path = write(body)
    page = open_page(path)
    assert page.locator("h1").inner_text() == "One and two"
    assert (open_page.records.errors, open_page.records.warnings, open_page.records.exceptions) == (
        [],
        [],
        [],
    )
    assert open_page.records.requests == [path.as_uri()]


@pytest.mark.parametrize(
    ("body", "head", "problem"),
    [
        (
            "<script>document.title = 'changed'</script>",
            POLICY,
            "console error: .*Content Security Policy",
        ),
        ("<script>console.error('broken')</script>", "", "console error: broken"),
        ("<script>throw new TypeError('no such map')</script>", "", "exception: .*no such map"),
        ("<script>Promise.reject(new Error('late'))</script>", "", "exception: .*late"),
        (f"<img alt='' src='{ELSEWHERE}'>", "", f"request: {ELSEWHERE}"),
        (f"<script>fetch('{ELSEWHERE}').catch(() => 0)</script>", "", f"request: {ELSEWHERE}"),
        (f"<script>navigator.sendBeacon('{ELSEWHERE}')</script>", "", f"request: {ELSEWHERE}"),
        ("<script>new WebSocket('ws://127.0.0.1:9/')</script>", "", "request: ws://127.0.0.1:9/"),
    ],
    ids=["policy", "error", "exception", "rejection", "image", "fetch", "beacon", "socket"],
)
def test_noisy_page_fails(visit, write, body, head, problem):
    visit(write(body, head))
    with pytest.raises(AssertionError, match=problem):
        visit.check()


def test_requests_are_blocked(visit, write):
    """A server on this machine gets no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        page = visit(
            write(
                f"<script>fetch('http://127.0.0.1:{server.getsockname()[1]}')"
                ".catch(() => document.title = 'none')</script>"
            )
        )
        page.wait_for_function("document.title === 'none'")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_blocked_script_does_not_run(visit, write):
    assert visit(write("<script>document.title = 'changed'</script>", POLICY)).title() == "A page"
    assert visit(write("<script>document.title = 'changed'</script>")).title() == "changed"


def test_events_after_loading_count(visit, write):
    page = visit(write("<button onclick=\"console.error('pressed')\">Press</button>"))
    assert visit.records.problems() == []
    page.click("button")
    with pytest.raises(AssertionError, match="pressed"):
        visit.check()


def test_every_page_counts(visit, write):
    visit(write("<script>console.error('in the first')</script>"))
    visit(write("fine"))
    with pytest.raises(AssertionError, match="in the first"):
        visit.check()


def test_popups_count(visit, write):
    page = visit(write(f"<a target='_blank' href='{ELSEWHERE}'>Away</a>"))
    with page.expect_popup():
        page.click("a")
    with pytest.raises(AssertionError, match=f"request: {ELSEWHERE}"):
        visit.check()


def test_warnings_are_recorded(open_page, write):
    open_page(write("<script>console.warn('old')</script>"))
    assert open_page.records.warnings == ["old"]


def test_javascript_can_be_disabled(open_page, write):
    body = "<noscript>Without</noscript><script>document.write('With')</script>"
    assert open_page(write(body), javascript=False).locator("body").inner_text() == "Without"
    assert open_page(write(body)).locator("body").inner_text() == "With"


def test_color_scheme(open_page, write):
    head = (
        "<style>body { background: white } "
        "@media (prefers-color-scheme: dark) { body { background: rgb(1, 2, 3) } }</style>"
    )
    found = [
        open_page(write("", head), dark=dark).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for dark in (False, True)
    ]
    assert found == ["rgb(255, 255, 255)", "rgb(1, 2, 3)"]


def test_media(open_page, write):
    assert matches(open_page(write(""), print=True), "print")
    assert matches(open_page(write("")), "screen")


def test_viewport(open_page, write):
    sizes = [
        open_page(write(""), viewport=size).evaluate("[innerWidth, innerHeight]")
        for size in [(390, 844), (1600, 500)]
    ]
    assert sizes == [[390, 844], [1600, 500]]


def test_touch_emulates_a_phone(open_page, write):
    phone = open_page(write(""), touch=True, viewport=(390, 844))
    assert matches(phone, "(hover: none) and (pointer: coarse)")
    assert phone.evaluate("innerWidth") == 390
    assert not matches(open_page(write("")), "(hover: none) or (pointer: coarse)")


def test_phone_shows_a_page_without_viewport_at_desktop_width(open_page, tmp_path):
    (tmp_path / "page.html").write_text("<!doctype html><title>Wide</title>")
    assert (
        open_page(tmp_path / "page.html", touch=True, viewport=(390, 844)).evaluate("innerWidth")
        > 900
    )


def test_pages_are_isolated(open_page, write):
    path = write("")
    open_page(path).evaluate("localStorage.setItem('theme', 'dark')")
    assert open_page(path).evaluate("localStorage.getItem('theme')") is None


GOOD = (
    "<main><h1>Heading</h1>"
    "<img alt='a bar' src='data:image/gif;base64,R0lGODlhAQABAAAAACw='></main>"
)


def test_axe_accepts_an_accessible_page(open_page, write, axe):
    assert axe(open_page(write(GOOD))) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (GOOD.replace("alt='a bar'", ""), "image-alt: "),
        (GOOD.replace("<h1>", "<h1 style='color: #bbb; background: white'>"), "color-contrast: "),
        (GOOD.replace("<h1>", "<button></button><h1>"), "button-name: "),
    ],
)
def test_axe_reports_violations(open_page, write, axe, body, rule):
    found = axe(open_page(write(body)))
    assert [violation.startswith(rule) for violation in found] == [True]
    assert "<img" in found[0] or "<h1" in found[0] or "<button" in found[0]


def test_axe_keeps_the_content_security_policy(visit, write, axe):
    page = visit(write("<main><h1>Heading</h1><button></button></main>", POLICY))
    assert [violation.split(":")[0] for violation in axe(page)] == ["button-name"]
    assert visit.records.problems() == []
    page.evaluate(
        """document.body.append(
            Object.assign(document.createElement('script'), {text: 'document.title = 1'})
        )"""
    )
    assert page.title() == "A page"
    with pytest.raises(AssertionError, match="Content Security Policy"):
        visit.check()


NOISY = "<!doctype html><title>Noisy</title><script>console.error('broken')</script>"
FIXTURES = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")


def session(directory, fixtures, **environment):
    """Exit status and output of pytest on a test that opens a noisy page."""
    (directory / "conftest.py").write_text(fixtures, encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n    browser: needs Chromium\n")
    (directory / "page.html").write_text(NOISY)
    (directory / "test_it.py").write_text(
        "from pathlib import Path\ndef test_it(open_page): open_page(Path('page.html'))"
    )
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "test_it.py",
    ]
    completed = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.returncode, completed.stdout + completed.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("browser")  # so that this is skipped where there is none
def test_noisy_page_fails_the_session(tmp_path):
    status, output = session(tmp_path, FIXTURES)
    assert (status, "console error: broken" in output) == (1, True), output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("required", "outcome"), [("", (0, "1 skipped")), ("1", (1, "no Chromium"))]
)
def test_missing_browser_skips_unless_required(tmp_path, required, outcome):
    """Where there is no Chromium, the system's or Playwright's."""
    nowhere = {
        "PATH": str(tmp_path),
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path),
        "SEEWHY_REQUIRE_BROWSER": required,
    }
    status, output = session(tmp_path, FIXTURES.replace("/usr/bin", "/nowhere"), **nowhere)
    assert (status, outcome[1] in output) == (outcome[0], True), output
