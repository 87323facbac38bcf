"""The progress of a run on the console: a table of epochs, and on a terminal a live line."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from seewhy.train.loop import EpochStats, Event, StepStats

REFRESH_SECONDS = 0.25  # long, because the training thread draws the live line
MIN_BAR_WIDTH = 72  # of the terminal
NOT_EVALUATED = "–"


@contextmanager
def live_table(
    held_out: str, quiet: bool = False, console: Console | None = None
) -> Iterator[Callable[[Event], None]]:
    """Yield a function that shows the events of `train`.

    On a terminal a live line is redrawn below the finished epochs; elsewhere only epochs are
    printed. `held_out` is in the headers of the evaluation columns: "test" or "valid".
    """
    console = console or Console(highlight=False)
    if quiet:
        yield lambda event: None
        return
    columns = fitting_columns(console.width, held_out)
    heading = " ".join(column.heading.rjust(column.width) for column in columns)
    console.print(heading, style="bold")
    live = Progress(
        TextColumn("{task.description}"),
        *([BarColumn(bar_width=None)] if console.width >= MIN_BAR_WIDTH else []),
        TextColumn("{task.fields[state]}"),
        console=console,
        transient=True,
        auto_refresh=False,
        expand=True,
    )
    task = live.add_task("", total=None, state="")
    last_refresh = -math.inf

    def show(event: Event) -> None:
        nonlocal last_refresh
        if isinstance(event, EpochStats):
            console.print(" ".join(column.cell(event).rjust(column.width) for column in columns))
        elif console.is_terminal and time.monotonic() - last_refresh >= REFRESH_SECONDS:
            last_refresh = time.monotonic()
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
    """Loss and accuracy if they are known yet, speed, and time left."""
    metrics = ""
    if not math.isnan(event.train_accuracy):
        metrics = f"loss {event.train_loss:.3f}  acc {percent(event.train_accuracy, 1)}%  "
    speed = f"{event.images_per_second:,.0f} img/s"
    return f"{metrics}{speed}  {clock(event.seconds_left)} left"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def percent(share: float | None, decimals: int = 2) -> str:
    """A fraction in [0, 1] in percent, without the sign, such as `95.30`; a dash for None."""
    return NOT_EVALUATED if share is None else f"{100 * share:.{decimals}f}"


class Column(NamedTuple):
    """A column of the table of epochs."""

    heading: str
    width: int
    cell: Callable[[EpochStats], str]


def fitting_columns(width: int, held_out: str) -> list[Column]:
    """The columns of the table of epochs that fit a terminal; the least important are left out."""
    eval_loss, eval_accuracy = f"{held_out} loss", f"{held_out} %"
    columns = [
        Column("epoch", 6, lambda row: _epoch_text(row.epoch)),
        Column("lr", 9, lambda row: f"{row.lr:.3g}"),
        Column("time", 7, lambda row: clock(row.seconds)),
        Column("img/s", 7, lambda row: f"{row.images_per_second:,.0f}"),
        Column("train loss", 10, lambda row: f"{row.train_loss:.4f}"),
        Column("train %", 8, lambda row: percent(row.train_accuracy)),
        Column(eval_loss, 6 + len(held_out), lambda row: _loss_text(row.eval_loss)),
        Column(eval_accuracy, max(7, 2 + len(held_out)), lambda row: percent(row.eval_accuracy)),
    ]
    for optional in ("img/s", "lr", eval_loss, "train loss", "time"):
        if sum(column.width + 1 for column in columns) - 1 <= width:
            break
        columns = [column for column in columns if column.heading != optional]
    return columns


def _epoch_text(epoch: float) -> str:
    return f"{epoch:g}" if epoch.is_integer() else f"{epoch:.2f}"


def _loss_text(loss: float | None) -> str:
    return NOT_EVALUATED if loss is None else f"{loss:.4f}"
