"""What a training shows while it runs: a live line and a table of epochs, or plain lines where there is no terminal."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from seewhy.train.loop import EpochStats, StepStats

REFRESH_SECONDS = 0.25  # the live line is drawn by the training thread itself, so it must be rare enough to cost nothing


class Show(Protocol):
    """Shows one event of a training."""

    def __call__(self, event: StepStats | EpochStats) -> None: ...


@contextmanager
def live_table(
    held_out: str, quiet: bool = False, console: Console | None = None
) -> Iterator[Show]:
    """Yield a function that shows the events of `train`: `held_out` heads the evaluation columns.

    On a terminal a live line is redrawn in place above which finished epochs stay; elsewhere only the epochs are printed.
    """
    console = console or Console(highlight=False)
    if quiet:
        yield lambda event: None
        return
    columns = fitting_columns(console.width, held_out)
    console.print(" ".join(heading.rjust(width) for heading, width, _ in columns), style="bold")
    live = Progress(
        TextColumn("{task.description}"),
        *([BarColumn(bar_width=None)] if console.width >= 72 else []),
        TextColumn("{task.fields[state]}"),
        console=console,
        transient=True,
        auto_refresh=False,
        expand=True,
    )
    task = live.add_task("", total=None, state="")
    drawn = -math.inf

    def show(event: StepStats | EpochStats) -> None:
        nonlocal drawn
        if isinstance(event, EpochStats):
            console.print(" ".join(cell(event).rjust(width) for _, width, cell in columns))
        elif console.is_terminal and time.monotonic() - drawn >= REFRESH_SECONDS:
            drawn = time.monotonic()
            live.update(
                task,
                completed=event.step,
                total=event.steps,
                description=f"epoch {event.epoch:.2f}",
                state=live_state(event),
            )
            live.refresh()

    if not console.is_terminal:
        yield show
        return
    with live:
        yield show


def live_state(event: StepStats) -> str:
    """Loss and accuracy as far as they are known yet, speed and time left in one short line."""
    known = (
        ""
        if math.isnan(event.train_accuracy)
        else f"loss {event.train_loss:.3f}  acc {100 * event.train_accuracy:.1f}%  "
    )
    return f"{known}{event.images_per_second:,.0f} img/s  {clock(event.seconds_left)} left"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with two decimals, or a dash."""
    return "–" if share is None else f"{100 * share:.2f}"


def fitting_columns(width: int, held_out: str) -> list[tuple[str, int, "Cell"]]:
    """(heading, width, cell) of the table of epochs; on a narrow terminal the least needed columns go first."""
    columns: list[tuple[str, int, Cell]] = [
        (
            "epoch",
            6,
            lambda row: f"{row.epoch:g}" if row.epoch.is_integer() else f"{row.epoch:.2f}",
        ),
        ("lr", 9, lambda row: f"{row.lr:.3g}"),
        ("time", 7, lambda row: clock(row.seconds)),
        ("img/s", 7, lambda row: f"{row.images_per_second:,.0f}"),
        ("train loss", 10, lambda row: f"{row.train_loss:.4f}"),
        ("train %", 8, lambda row: percent(row.train_accuracy)),
        (
            f"{held_out} loss",
            6 + len(held_out),
            lambda row: "–" if row.eval_loss is None else f"{row.eval_loss:.4f}",
        ),
        (f"{held_out} %", max(7, 2 + len(held_out)), lambda row: percent(row.eval_accuracy)),
    ]
    for dispensable in ("img/s", "lr", f"{held_out} loss", "train loss", "time"):
        if sum(column[1] + 1 for column in columns) - 1 <= width:
            break
        columns = [column for column in columns if column[0] != dispensable]
    return columns


class Cell(Protocol):
    """Writes one cell of the table of epochs."""

    def __call__(self, row: EpochStats, /) -> str: ...
