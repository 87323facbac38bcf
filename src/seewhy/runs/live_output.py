"""Lines of output above a line that is redrawn: on a terminal, in a notebook, or in a file."""

import html
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from seewhy.progress import make_console

REFRESH_SECONDS = 0.25  # long, because the training thread draws the live line
MIN_BAR_WIDTH = 72  # of the terminal
NOTEBOOK_WIDTH = 100  # columns
NOTEBOOK_CSS = "margin: 0; color: inherit; background: none; font-family: monospace"


class LiveLine(NamedTuple):
    """The state of a task for the live line."""

    description: str
    state: str
    completed: int
    total: int


class LiveOutput(NamedTuple):
    """Where a task prints its lines and its live line; `width` is in columns."""

    width: int
    print: Callable[[RenderableType, str], None]  # with a style such as "bold"
    update: Callable[[Callable[[], LiveLine]], None]  # the function is called if it is time to draw


@contextmanager
def live_output(console: Console | None = None) -> Iterator[LiveOutput]:
    """Yield the output of a task; by default standard output, in a notebook its cell."""
    console = console or make_console()
    if console.is_jupyter:
        yield _notebook_output()
    elif console.is_terminal:
        with _terminal_output(console) as output:
            yield output
    else:
        yield LiveOutput(console.width, _printer(console), lambda make: None)


def _printer(console: Console) -> Callable[[RenderableType, str], None]:
    return lambda text, style: console.print(text, style=style or None)


@contextmanager
def _terminal_output(console: Console) -> Iterator[LiveOutput]:
    live = Progress(
        TextColumn("{task.description}", markup=False),
        *([BarColumn(bar_width=None)] if console.width >= MIN_BAR_WIDTH else []),
        TextColumn("{task.fields[state]}", markup=False),
        console=console,
        transient=True,
        auto_refresh=False,
        expand=True,
    )
    task = live.add_task("", total=None, state="")

    def draw(line: LiveLine) -> None:
        live.update(
            task,
            completed=line.completed,
            total=line.total,
            description=line.description,
            state=line.state,
        )
        live.refresh()

    with live:
        yield LiveOutput(console.width, _printer(console), _limited(draw))


def _notebook_output() -> LiveOutput:
    """One output of the cell, which is replaced as it grows."""
    from IPython.display import display

    lines = io.StringIO()
    console = Console(
        file=lines, width=NOTEBOOK_WIDTH, highlight=False, force_jupyter=False, color_system=None
    )
    handle: Any = display(  # type: ignore[no-untyped-call]
        {"text/plain": ""}, raw=True, display_id=True
    )

    def draw(live: str = "") -> None:
        text = (lines.getvalue() + live).rstrip("\n")
        page = f'<pre style="{NOTEBOOK_CSS}">{html.escape(text)}</pre>'
        handle.update({"text/plain": text, "text/html": page}, raw=True)

    def print_(text: RenderableType, style: str) -> None:
        console.print(text)
        draw()

    update = _limited(lambda line: draw(f"{line.description}  {line.state}"))
    return LiveOutput(NOTEBOOK_WIDTH, print_, update)


def _limited(draw: Callable[[LiveLine], None]) -> Callable[[Callable[[], LiveLine]], None]:
    """Draw at most every REFRESH_SECONDS."""
    last = -math.inf

    def update(make: Callable[[], LiveLine]) -> None:
        nonlocal last
        if time.monotonic() - last >= REFRESH_SECONDS:
            last = time.monotonic()
            draw(make())

    return update
