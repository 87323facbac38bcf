"""Progress on stderr: a bar on a terminal, a few plain lines in a log, nothing if quiet."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from seewhy.escaping import visible

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0
MIN_DONE = 0.2  # fraction of a task, below which the time left cannot be told


def note(text: str, quiet: bool = False) -> None:
    """Print one line on stderr, unless quiet."""
    if not quiet:
        print(visible(text), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print lines on standard output."""
    print(visible(text, keep="\n"), flush=True)  # visible while the command is still running


def make_console(stderr: bool = False) -> "Console":
    """A terminal on standard output or stderr, for which all strings are data, without markup."""
    from rich.console import Console
    from rich.text import Text

    class DataConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text, keep="\n"), **options)

    return DataConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


@contextmanager
def progress(description: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show progress; call the yielded function with the number of newly completed items.

    On a terminal a bar; otherwise a line at the beginning, every ten seconds, and at the end.
    """
    if quiet:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(description, total) as advance:
            yield advance
    else:
        with _lines(description, total) as advance:
            yield advance


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(description), total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(description: str, total: int) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0
    note(f"{description}: 0 of {total:,}")

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if done < total and time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            left = _time_left(start, done / total)
            note(f"{description}: {done:,} of {total:,}{left}")

    yield advance
    note(f"{description}: {done:,} in {time.monotonic() - start:.1f} s")


def _time_left(start: float, done: float) -> str:
    """`, about m:ss left` if enough is done to tell, else empty; `done` is a fraction."""
    if done <= MIN_DONE:
        return ""
    return f", about {clock((time.monotonic() - start) * (1 - done) / done)} left"


class Steps(Protocol):
    """The steps of a task, as `named_steps` yields them."""

    def begin(self, name: str) -> None:
        """The next step begins, and the one before has ended."""

    def advance(self, fraction: float) -> None:
        """A further fraction of the current step is done."""


@contextmanager
def named_steps(title: str, shares: Mapping[str, float], quiet: bool) -> Iterator[Steps]:
    """Show the current step of a task by name, and the time left.

    On a terminal a bar; otherwise a line when a step begins, and every ten seconds within it.

    Args:
        title: The task, such as "diagnosing".
        shares: Names of the steps in their order, with their usual shares of the time.
        quiet: Show nothing.
    """
    if quiet:
        yield _Steps(title, shares, lambda text, done: None)
    elif sys.stderr.isatty():
        with _step_bar() as show:
            yield _Steps(title, shares, show)
    else:
        start = time.monotonic()
        yield _Steps(title, shares, _StepLines())
        note(f"{title}: done in {clock(time.monotonic() - start)}")


class _Steps:
    def __init__(
        self, title: str, shares: Mapping[str, float], show: Callable[[str, float], None]
    ) -> None:
        self.title, self.show, self.names = title, show, list(shares)
        total = sum(shares.values())
        self.shares = {name: share / total for name, share in shares.items()}
        self.start, self.current, self.within = time.monotonic(), "", 0.0

    def begin(self, name: str) -> None:
        self.current, self.within = name, 0.0
        self._update()

    def advance(self, fraction: float) -> None:
        self.within = min(1.0, self.within + fraction)
        self._update()

    def _update(self) -> None:
        number = self.names.index(self.current)
        before = sum(self.shares[name] for name in self.names[:number])
        done = before + self.within * self.shares[self.current]
        text = f"{self.title}, step {number + 1} of {len(self.names)}: {self.current}"
        self.show(text + _time_left(self.start, done), done)


class _StepLines:
    """Prints a line when a step begins, and every ten seconds within it."""

    def __init__(self) -> None:
        self.last, self.step = time.monotonic(), ""

    def __call__(self, text: str, done: float) -> None:
        step = text.partition(", about")[0]
        if step != self.step or time.monotonic() - self.last > _SECONDS_BETWEEN_LINES:
            self.last, self.step = time.monotonic(), step
            note(text)


@contextmanager
def _step_bar() -> Iterator[Callable[[str, float], None]]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    # The spinner moves within a step, too.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(*columns, console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda text, done: bar.update(task, description=text, completed=done)


@contextmanager
def waiting(text: str, quiet: bool = False, brief: bool = False) -> Iterator[None]:
    """Name a task that cannot tell how far it is: a spinner on a terminal, a line in a log.

    A brief one, of a few seconds, has no line in a log.
    """
    if quiet:
        yield
    elif sys.stderr.isatty():
        with make_console(stderr=True).status(text):
            yield
    else:
        note(text, brief)
        yield


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
