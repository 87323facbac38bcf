"""The recorder of a run, which writes the files of its directory during training."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from seewhy.files import make_directory, write_error
from seewhy.models.classifier import Classifier
from seewhy.progress import note
from seewhy.runs.checkpoint import (
    BEST,
    CheckpointPolicy,
    newest_checkpoint,
    save_checkpoint,
    weights_of,
)
from seewhy.runs.cross_validation import OutOfFold
from seewhy.runs.directory import (
    CHECKPOINTS,
    HISTORY,
    TENSORBOARD,
    WEIGHTS,
    append_epoch,
    write_command,
    write_environment,
    write_history,
    write_lr_range_test,
    write_probe,
    write_recipe,
    write_status,
)
from seewhy.runs.environment import Environment
from seewhy.runs.output import link_latest
from seewhy.runs.weights import save_classifier
from seewhy.train.averaging import Weights
from seewhy.train.loop import EpochStats, Event, NonFiniteError
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.plan import TrainingPlan
from seewhy.train.probe import FeatureStats, ProbeStats
from seewhy.train.recipe import as_dict
from seewhy.train.state import TrainState, state_dict


@dataclass(frozen=True, eq=False)
class ResumeState:
    """The state of a run before its first step: empty, or restored after an interruption."""

    history: Sequence[EpochStats] = ()
    best: Weights | None = None  # of the best epoch on the validation split
    range_test: LRRangeTest | None = None  # which chose the learning rate
    probe: ProbeStats | None = None  # which set the head


@dataclass(frozen=True, eq=False)
class Session:
    """A training session: everything that a run needs besides its state."""

    plan: TrainingPlan
    environment: Environment
    directory: Path | None = None  # None if this process writes nothing
    start: ResumeState = field(default_factory=ResumeState)
    checkpoint: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    quiet: bool = False  # show nothing
    out_of_fold: OutOfFold | None = None  # of a cross-validation, whose folds have finished


class Recorder:
    """Record the history and the best weights of a run, and write its directory.

    A context manager: at the end of the block it writes status.json; on an interruption, or if the
    loss is not finite, also the weights. Checkpoints are written after the first event, at
    intervals, at each new best epoch, and by `checkpoint`.
    """

    def __init__(self, state: TrainState, session: Session) -> None:
        self.state, self.session, self.plan = state, session, session.plan
        self.directory = session.directory
        self.history, self.best = list(session.start.history), session.start.best
        self.best_row = None if self.best is None else best_epoch(self.history)
        self.probe = session.start.probe
        self._last_epoch: Weights | None = None
        self._tensorboard: SummaryWriter | None = None
        self._last_checkpoint = -math.inf  # so that the first event writes one

    def __enter__(self) -> Self:
        if self.directory is not None:
            write_start(self.session)
            self._open_tensorboard(self.directory)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tensorboard is not None:
            _try_tensorboard(self._tensorboard.close)
        if self.directory is None:
            return
        if error is None:
            write_status(self.directory, "finished")
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        if self.history and (interrupted or isinstance(error, NonFiniteError)):
            self.keep_weights()
        status = "interrupted" if interrupted else "failed"
        write_status(self.directory, status, f"{type(error).__name__}: {error}")

    def record(self, event: Event) -> None:
        """Record a step or an epoch that has ended, or the result of a probe."""
        if isinstance(event, FeatureStats):
            return
        if isinstance(event, ProbeStats):  # its checkpoint is that of its evaluation, which follows
            self.probe = event
            if self.directory is not None:
                write_probe(self.directory, event)
            return
        ended = isinstance(event, EpochStats)
        names = self._record_epoch(event) if isinstance(event, EpochStats) else []
        due = time.monotonic() - self._last_checkpoint >= self.session.checkpoint.checkpoint_seconds
        # within an epoch, each of several processes has only a part of the state
        if names or (due and (ended or self.plan.world.size == 1)):
            self.checkpoint(*names)

    def checkpoint(self, *names: str) -> None:
        """Write last.pt, also as `names`. A state that is not finite is skipped: the run fails."""
        if self.directory is None or not self.state.totals.all_finite():
            return
        content = {
            "state": state_dict(self.state),
            "history": [asdict(row) for row in self.history],
            "recipe": as_dict(self.plan.recipe),
        }
        save_checkpoint(self.directory / CHECKPOINTS, content, names)
        self._last_checkpoint = time.monotonic()

    def keep_weights(self) -> None:
        """Load the weights of the best epoch, or the averaged ones, into the model; write them.

        If they are not finite, those of the last epoch are taken instead.
        """
        model, weights = self.state.model, self.best or self.state.averaged
        if not _all_finite(weights or model.state_dict()) and self.directory is not None:
            # the forward pass of a failed step changes the statistics of BatchNorm
            newest = newest_checkpoint(self.directory / CHECKPOINTS)
            weights = self._last_epoch or weights_of(newest.content["state"])
        if weights is not None:
            model.load_state_dict(weights)
        if self.directory is not None:
            data = self.plan.data
            classifier = Classifier(
                model,
                data.classes,
                data.image_shape,
                preprocessing=data.preprocessing,
                activation=self.plan.objective.activation,
            )
            save_classifier(self.directory / WEIGHTS, classifier, self.plan.recipe.model)

    def evaluations_since_best(self) -> int:
        """The number of evaluations since the best epoch."""
        rows = [row for row in self.history if row.eval_score is not None]
        return len(rows) - 1 - rows.index(self.best_row) if self.best_row in rows else 0

    def _open_tensorboard(self, directory: Path) -> None:
        purge_step = self.history[-1].step + 1 if self.history else None
        try:
            self._tensorboard = SummaryWriter(directory / TENSORBOARD, purge_step=purge_step)
        except OSError as error:
            write_status(directory, "failed", str(error))
            raise write_error(directory / TENSORBOARD, error) from error

    def _record_epoch(self, row: EpochStats) -> list[str]:
        """Add a row; returns the names of the checkpoints to write."""
        self.history.append(row)
        names = []
        weights = self.state.averaged or self.state.model.state_dict()
        self._last_epoch = {name: tensor.detach().clone() for name, tensor in weights.items()}
        rows = [row] if self.best_row is None else [self.best_row, row]
        if self.plan.data.validation is not None and best_epoch(rows) is row:
            self.best_row, self.best = row, self._last_epoch
            names.append(BEST)
        interval = self.session.checkpoint.checkpoint_epochs
        if interval and self.state.epoch % interval == 0:
            names.append(f"epoch-{self.state.epoch:04}.pt")
        if self.directory is not None:
            append_epoch(self.directory, row)
            _try_tensorboard(lambda: self._plot(row))
        return names

    def _plot(self, row: EpochStats) -> None:
        for name, value in asdict(row).items():
            if (
                self._tensorboard is not None
                and value is not None
                and name not in ("step", "epoch")
            ):
                self._tensorboard.add_scalar(name.replace("_", "/", 1), value, row.step)


def write_start(session: Session) -> None:
    """Write what is known before the first step, in the order of WRITTEN_FIRST."""
    directory = session.directory
    if directory is None:
        return
    make_directory(directory)
    data, start = session.plan.data.origin, session.start
    write_environment(directory, session.environment, data, session.checkpoint)
    write_recipe(directory, session.plan.recipe)
    write_command(directory)
    write_history(directory, start.history)
    if start.range_test is not None:
        write_lr_range_test(directory, start.range_test)
    write_status(directory, "running")
    link_latest(directory)


def best_epoch(history: Sequence[EpochStats]) -> EpochStats | None:
    """The first row with the highest evaluated score."""
    evaluated = [row for row in history if row.eval_score is not None]
    return max(evaluated, key=lambda row: row.eval_score or 0.0, default=None)


def _all_finite(weights: Weights) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


def _try_tensorboard(write: Callable[[], object]) -> None:
    """Call `write`; an error in TensorBoard must not end a run: metrics.jsonl has the numbers."""
    try:
        write()
    except OSError as error:
        note(
            f"seewhy: TensorBoard's files could not be written ({error}); "
            f"{HISTORY} has the same numbers"
        )
