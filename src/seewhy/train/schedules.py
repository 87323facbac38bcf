"""Schedules of the learning rate, the momentum, or the image size, as factors.

A schedule is a function of the progress through the run, in [0, 1], and of the watched loss of
every epoch so far. It keeps no state, so a run can resume anywhere. Every schedule also takes
`per_epoch=true`: its factor then changes only between epochs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from seewhy.errors import SeewhyError
from seewhy.notation import bind, take_argument

Factor = Callable[..., float]  # (progress, losses) -> factor
Anneal = Literal["linear", "cosine"]
Watched = Literal["auto", "validation", "train", "test"]


@dataclass(frozen=True)
class Schedule:
    """A schedule with its settings; a function of progress and watched losses."""

    factor: Factor
    per_epoch: bool = False  # the factor changes only between epochs
    on: str = "auto"  # split of the watched loss: "validation", "train" or "test"

    def __call__(self, progress: float, losses: Sequence[float]) -> float:
        """The factor at `progress`."""
        return float(self.factor(progress, losses))


def bind_schedule(text: str) -> Schedule:
    """Bind a schedule with settings, such as `one-cycle:pct_start=0.3,per_epoch=true`.

    Raises:
        SeewhyError: For an unknown schedule or setting, and if a factor is negative or infinite.
    """
    settings, per_epoch = take_argument(text, "per_epoch")
    if per_epoch not in (None, "true", "false"):
        raise SeewhyError(f"{text!r}: per_epoch must be true or false, found {per_epoch!r}")
    factor_at = bind(SCHEDULES, settings, "schedule", n_supplied=2)
    on = getattr(factor_at, "keywords", {}).get("on", "auto")
    schedule = Schedule(factor_at, per_epoch == "true", on)
    for percent in range(101):
        factor = schedule(percent / 100, ())
        if not 0 <= factor < math.inf:
            raise SeewhyError(
                f"schedule {text!r} gives a factor of {factor:g} after {percent}% of the run; "
                "it must be 0 or more"
            )
    return schedule


def constant(progress: float, losses: Sequence[float]) -> float:
    """A factor of 1 throughout."""
    return 1.0


def one_cycle(
    progress: float,
    losses: Sequence[float],
    pct_start: float = 0.25,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal: Anneal = "linear",
    three_phase: bool = False,
) -> float:
    """One cycle (Smith & Topin 2018): up to the peak, then down almost to zero.

    The arguments are those of torch's OneCycleLR. Its phases end up to one step earlier. With
    `three_phase` the cycle first returns to its start, in a second phase of `pct_start`.
    """
    if not 0 < pct_start < (0.5 if three_phase else 1) or div_factor < 1 or final_div_factor < 1:
        raise SeewhyError(
            "one-cycle needs 0 < pct_start < 1 (0.5 with three phases), div_factor >= 1 and "
            f"final_div_factor >= 1; found {pct_start}, {div_factor}, {final_div_factor}"
        )
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    second = [(2 * pct_start, first)] if three_phase else []
    return _interpolate([(0.0, first), (pct_start, 1.0), *second, (1.0, last)], progress, anneal)


def dip(
    progress: float,
    losses: Sequence[float],
    pct_start: float = 0.25,
    low: float = 0.85 / 0.95,
    anneal: Anneal = "linear",
) -> float:
    """Down to `low` at `pct_start`, then up again: momentum for one-cycle (Smith 2018)."""
    if not 0 < pct_start < 1:
        raise SeewhyError(f"dip needs 0 < pct_start < 1, found {pct_start}")
    return _interpolate([(0.0, 1.0), (pct_start, low), (1.0, 1.0)], progress, anneal)


def linear(
    progress: float,
    losses: Sequence[float],
    warmup: float = 0.0,
    start: float = 0.0,
    end: float = 0.0,
) -> float:
    """Linear warm-up from `start`, then linearly down to `end`."""
    return _warmed_up("linear", progress, warmup, start, end, "linear")


def cosine(
    progress: float,
    losses: Sequence[float],
    warmup: float = 0.0,
    start: float = 0.0,
    end: float = 0.0,
) -> float:
    """Linear warm-up from `start`, then a half cosine to `end` (Loshchilov & Hutter 2017)."""
    return _warmed_up("cosine", progress, warmup, start, end, "cosine")


def exponential(
    progress: float, losses: Sequence[float], start: float = 1e-6, end: float = 1.0
) -> float:
    """Exponentially from `start` to `end`: learning rate range test (Smith 2017)."""
    if not 0 < start < math.inf or not 0 < end < math.inf:
        raise SeewhyError(f"exponential needs start and end above 0, found {start:g} and {end:g}")
    return float(start * (end / start) ** progress)


def step(progress: float, losses: Sequence[float], stages: int = 3, factor: float = 0.1) -> float:
    """`stages` stages of equal length, each multiplied by another `factor`."""
    if stages < 1 or not 0 < factor <= 1:
        raise SeewhyError(f"step needs stages >= 1 and 0 < factor <= 1; found {stages}, {factor}")
    return float(factor ** min(int(progress * stages), stages - 1))


def multi_step(
    progress: float,
    losses: Sequence[float],
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> float:
    """Multiply by `factor` at each of the `milestones`, increasing fractions of the run."""
    if (
        not milestones
        or not all(0 < milestone < 1 for milestone in milestones)
        or list(milestones) != sorted(milestones)
        or not 0 < factor <= 1
    ):
        raise SeewhyError(
            "multi-step needs increasing milestones in (0, 1), as in [0.5,0.75], and 0 < factor "
            f"<= 1; found [{','.join(map(str, milestones))}], {factor}"
        )
    return float(factor ** sum(progress >= milestone for milestone in milestones))


def plateau(
    progress: float,
    losses: Sequence[float],
    factor: float = 0.1,
    patience: int = 4,
    threshold: float = 1e-4,
    on: Watched = "auto",
) -> float:
    """Multiply by `factor` after more than `patience` epochs without a lower watched loss.

    The arguments are those of torch's ReduceLROnPlateau. `on` is the split of the watched loss:
    "validation", "train" or "test"; "auto" is validation, or train without a validation split. On
    "validation" and "test", only evaluated epochs count.
    """
    if not 0 < factor < 1 or patience < 0 or not 0 <= threshold < 1:
        raise SeewhyError(
            "plateau needs 0 < factor < 1, patience >= 0 and 0 <= threshold < 1; "
            f"found {factor}, {patience}, {threshold}"
        )
    best, bad_epochs, result = math.inf, 0, 1.0
    for loss in losses:
        best, bad_epochs = (loss, 0) if loss < best * (1 - threshold) else (best, bad_epochs + 1)
        if bad_epochs > patience:
            bad_epochs, result = 0, result * factor
    return result


def _warmed_up(
    name: str, progress: float, warmup: float, start: float, end: float, anneal: Anneal
) -> float:
    if not 0 <= warmup < 1 or start < 0:
        raise SeewhyError(f"{name} needs 0 <= warmup < 1 and start >= 0; found {warmup}, {start}")
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return _interpolate([(warmup, 1.0), (1.0, end)], progress, anneal)


def _interpolate(points: Sequence[tuple[float, float]], progress: float, anneal: Anneal) -> float:
    """Interpolate between points (progress, value), linearly or by half cosines."""
    for (before, start), (after, end) in pairwise(points):
        if progress <= after:
            share = (progress - before) / (after - before)
            if anneal == "cosine":
                share = (1 - math.cos(math.pi * share)) / 2
            return start + (end - start) * share
    return points[-1][1]


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "dip": dip,
    "exponential": exponential,
    "linear": linear,
    "multi-step": multi_step,
    "one-cycle": one_cycle,
    "plateau": plateau,
    "step": step,
}
