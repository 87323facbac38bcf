"""The progress of a run on the console: its settings, a table of epochs, and a live line."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seewhy.data.augment import augmentation_name
from seewhy.progress import clock
from seewhy.runs.live_output import LiveLine, live_output
from seewhy.train.loop import EpochStats, Event, StepStats
from seewhy.train.plan import TrainingPlan
from seewhy.train.probe import FeatureStats, ProbeStats
from seewhy.wording import counted

NOT_EVALUATED = "–"
SMALL_LR = 1e-4  # below, six decimals would have few digits


@contextmanager
def live_table(
    plan: TrainingPlan,
    history: Sequence[EpochStats] = (),
    quiet: bool = False,
    console: Console | None = None,
) -> Iterator[Callable[[Event], None]]:
    """Yield a function that shows the events of `train`.

    The settings of the run come first, and the best epoch seen at the end. On a terminal and in a
    notebook a live line is redrawn below the finished epochs; elsewhere only epochs are printed.
    `history` are the earlier epochs of a resumed run.
    """
    if quiet:
        yield lambda event: None
        return
    rows = list(history)
    held_out, images = evaluated_split(plan), len(plan.eval_split)
    with live_output(console) as output:
        columns = fitting_columns(output.width, held_out, images, plan.data.multi_label)

        def show(event: Event) -> None:
            if isinstance(event, EpochStats):
                row = Row(event, event.seconds - (rows[-1].seconds if rows else 0.0))
                rows.append(event)
                cells = (column.cell(row).rjust(column.width) for column in columns)
                output.print(" ".join(cells), "")
            elif isinstance(event, ProbeStats):
                output.print(probe_text(event), "")
            else:
                output.update(lambda: live_line(event))

        output.print(_settings_table(plan), "")
        heading = " ".join(column.heading.rjust(column.width) for column in columns)
        output.print(f"\n{heading}", "bold")
        yield show
        if best := best_seen_text(rows, held_out):
            output.print(best, "")


def live_line(event: StepStats | FeatureStats) -> LiveLine:
    """The progress of an epoch or of the features of a probe, and its state."""
    if isinstance(event, FeatureStats):
        state = f"{event.images_per_second:,.0f} img/s  {clock(event.seconds_left)} left"
        return LiveLine(
            f"features of {counted(event.total, 'image')}", state, event.images, event.total
        )
    return LiveLine(f"epoch {event.epoch:.2f}", live_state(event), event.step, event.steps)


def live_state(event: StepStats) -> str:
    """Loss and accuracy if they are known yet, speed, and time left."""
    metrics = ""
    if not math.isnan(event.train_accuracy):
        metrics = f"loss {event.train_loss:.3f}  acc {percent(event.train_accuracy, 1)}%  "
    speed = f"{event.images_per_second:,.0f} img/s"
    return f"{metrics}{speed}  {clock(event.seconds_left)} left"


def probe_text(probe: ProbeStats) -> str:
    """A line with the result of a probe."""
    views = f" in {probe.views} views" if probe.views > 1 else ""
    images = counted(probe.images, "image")
    text = f"probe: {probe.features:,} features of {images}{views}, C {probe.c:.3g}"
    if probe.validation is None:
        return text
    best = probe.validation.best
    accuracy = percent(probe.validation.accuracies[best], 1)
    return (
        f"{text}, by {probe.validation.folds}-fold cross-validation "
        f"({accuracy}%, log-loss {probe.validation.losses[best]:.3f})"
    )


def percent(share: float | None, decimals: int = 2) -> str:
    """A fraction in [0, 1] in percent, without the sign, such as `95.30`; a dash for None."""
    return NOT_EVALUATED if share is None else f"{100 * share:.{decimals}f}"


def settings(plan: TrainingPlan) -> dict[str, str]:
    """The settings of a run that its table of epochs does not show, by their names."""
    recipe = plan.recipe
    regularization = {
        "weight decay": recipe.weight_decay,
        "label smoothing": recipe.label_smoothing,
        "L1": recipe.l1,
        "gradient norm at most": recipe.clip_grad_norm,
        "EMA": recipe.ema,
    }
    device = {"device": f"{plan.device}, {plan.precision}"}
    if plan.probe is not None:
        device["probe"] = recipe.probe
    if plan.steps == 0:
        return device
    parts = [f"{name} {value:g}" for name, value in regularization.items() if value]
    batch = f"{plan.batch_size} images, {plan.steps_per_epoch:,} per epoch"
    if plan.grad_accum_steps > 1:
        batch += f", {plan.grad_accum_steps} per update"
    return device | {
        "optimizer": recipe.optimizer,
        "learning rate": f"{lr_text(plan.lr)}, {recipe.schedule}",
        "batch": batch,
        "regularization": ", ".join(parts) or "none",
        "augmentation": " ".join(map(augmentation_name, recipe.augment)) or "none",
    }


def _settings_table(plan: TrainingPlan) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in settings(plan).items():
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def evaluated_split(plan: TrainingPlan) -> str:
    """The name of the evaluated split in headers: "valid", or "test" without one."""
    return "test" if plan.data.validation is None else "valid"


def best_seen_text(history: Sequence[EpochStats], held_out: str) -> str:
    """The epoch with the highest evaluated score, and whether it is selected."""
    evaluated = [row for row in history if row.eval_score is not None]
    if len(evaluated) < 2:
        return ""
    best = max(evaluated, key=lambda row: row.eval_score or 0.0)
    score, epoch = f"{percent(best.eval_score)}%", _epoch_text(best.epoch)
    if best.eval_average_precision is not None:
        score += " mean average precision"
    if held_out == "test":
        return f"best epoch seen: {epoch}, {score} (not selected: the last epoch is kept)"
    return f"best epoch: {epoch}, {score} (selected on the validation split)"


class Row(NamedTuple):
    """A row of the table of epochs."""

    stats: EpochStats
    seconds: float  # training time of this epoch alone


class Column(NamedTuple):
    """A column of the table of epochs."""

    heading: str
    width: int
    cell: Callable[[Row], str]


def fitting_columns(
    width: int, held_out: str, images: int, multi_label: bool = False
) -> list[Column]:
    """The columns of the table of epochs that fit a terminal; the least important are left out.

    `held_out` is the name of the evaluated split, and `images` its number of images. With
    `multi_label`, the mean average precision is shown, and an image is correct with all labels.
    """
    loss, correct = f"{held_out} loss", "correct"
    score = f"{held_out} mAP" if multi_label else f"{held_out} %"
    columns = [
        Column("epoch", 6, lambda row: _epoch_text(row.stats.epoch)),
        Column("lr", 9, lambda row: lr_text(row.stats.lr)),
        Column("time", 7, lambda row: clock(row.seconds)),
        Column("total", 7, lambda row: clock(row.stats.seconds)),
        Column("img/s", 7, lambda row: f"{row.stats.images_per_second:,.0f}"),
        Column("train loss", 10, lambda row: f"{row.stats.train_loss:.4f}"),
        Column("train %", 7, lambda row: percent(row.stats.train_accuracy)),
        Column(loss, len(loss), lambda row: _loss_text(row.stats.eval_loss)),
        Column(score, len(score), lambda row: percent(row.stats.eval_score)),
        Column(
            correct,
            max(len(correct), 2 * len(str(images)) + 1),
            lambda row: _correct_text(row.stats.eval_accuracy, images),
        ),
    ]
    for optional in ("img/s", "lr", loss, "train loss", "total", correct, "time"):
        if sum(column.width + 1 for column in columns) - 1 <= width:
            break
        columns = [column for column in columns if column.heading != optional]
    return columns


def lr_text(lr: float) -> str:
    """A learning rate with six decimals, or in scientific notation if it is smaller than 1e-4."""
    return f"{lr:.3e}" if 0 < lr < SMALL_LR else f"{lr:.6f}"


def _epoch_text(epoch: float) -> str:
    return f"{epoch:g}" if epoch.is_integer() else f"{epoch:.2f}"


def _loss_text(loss: float | None) -> str:
    return NOT_EVALUATED if loss is None else f"{loss:.4f}"


def _correct_text(accuracy: float | None, images: int) -> str:
    return NOT_EVALUATED if accuracy is None else f"{round(accuracy * images)}/{images}"
