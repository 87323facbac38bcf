"""Schedules: a factor of the peak learning rate, of the momentum or of the images' side, over the run.

Each is a function of the progress through the run, in [0, 1], and of the watched loss of every epoch so far: the validation
loss of those that were evaluated, or the training loss where there is no validation split. Nothing is kept in between, so a run
can go on anywhere.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from seewhy.errors import SeewhyError
from seewhy.notation import bind

Schedule = Callable[[float, Sequence[float]], float]
Anneal = Literal["linear", "cosine"]


def bind_schedule(text: str) -> Schedule:
    """The schedule that `text` names, such as `one-cycle:pct_start=0.3`; tried, so that bad settings show here."""
    schedule: Schedule = bind(SCHEDULES, text, "schedule", n_supplied=2)
    for step in range(101):
        factor = schedule(step / 100, ())
        if not 0 <= factor < math.inf:
            raise SeewhyError(
                f"schedule {text!r} gives a factor of {factor:g} after {step}% of the run; it must be 0 or more"
            )
    return schedule


def constant(progress: float, losses: Sequence[float]) -> float:
    """The peak throughout."""
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
    """Up from 1/div_factor to 1 over the share `pct_start`, then down to 1/(div_factor * final_div_factor) (Smith & Topin 2018).

    With `three_phase` it takes `pct_start` again to come back to 1/div_factor, and the rest for the last descent. `anneal` is
    `linear` or `cosine`. The arguments mean what they mean in torch's OneCycleLR, whose corners lie up to a step earlier:
    here progress goes from 0 at the first step to 1 at the last.
    """
    if not 0 < pct_start < (0.5 if three_phase else 1) or div_factor < 1 or final_div_factor < 1:
        raise SeewhyError(
            f"one-cycle needs 0 < pct_start < 1 (0.5 with three phases), div_factor >= 1 and final_div_factor >= 1; "
            f"found {pct_start}, {div_factor}, {final_div_factor}"
        )
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    back = [(2 * pct_start, first)] if three_phase else []
    return _through([(0.0, first), (pct_start, 1.0), *back, (1.0, last)], progress, anneal)


def dip(
    progress: float,
    losses: Sequence[float],
    pct_start: float = 0.25,
    low: float = 0.85 / 0.95,
    anneal: Anneal = "linear",
) -> float:
    """Down from 1 to `low` over the share `pct_start` of the run, then up again: the momentum of a one-cycle (Smith 2018)."""
    if not 0 < pct_start < 1:
        raise SeewhyError(f"dip needs 0 < pct_start < 1, found {pct_start}")
    return _through([(0.0, 1.0), (pct_start, low), (1.0, 1.0)], progress, anneal)


def linear(
    progress: float,
    losses: Sequence[float],
    warmup: float = 0.0,
    start: float = 0.0,
    end: float = 0.0,
) -> float:
    """Up from `start` over the share `warmup` of the run, then straight down to `end`."""
    return _warmed_up("linear", progress, warmup, start, end, "linear")


def cosine(
    progress: float,
    losses: Sequence[float],
    warmup: float = 0.0,
    start: float = 0.0,
    end: float = 0.0,
) -> float:
    """Up from `start` over the share `warmup` of the run, then down half a cosine to `end` (Loshchilov & Hutter 2017)."""
    return _warmed_up("cosine", progress, warmup, start, end, "cosine")


def exponential(
    progress: float, losses: Sequence[float], start: float = 1e-6, end: float = 1.0
) -> float:
    """From `start` to `end` times the peak, by the same factor in each step: a learning-rate range test (Smith 2017)."""
    if not 0 < start < math.inf or not 0 < end < math.inf:
        raise SeewhyError(f"exponential needs start and end above 0, found {start:g} and {end:g}")
    return float(start * (end / start) ** progress)


def step(progress: float, losses: Sequence[float], stages: int = 3, factor: float = 0.1) -> float:
    """`stages` equal stretches, each at `factor` times the learning rate of the one before."""
    if stages < 1 or not 0 < factor <= 1:
        raise SeewhyError(f"step needs stages >= 1 and 0 < factor <= 1; found {stages}, {factor}")
    return float(factor ** min(int(progress * stages), stages - 1))


def multi_step(
    progress: float,
    losses: Sequence[float],
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> float:
    """Multiplied by `factor` at each of the `milestones`, as fractions of the run in rising order."""
    if (
        not milestones
        or not all(0 < milestone < 1 for milestone in milestones)
        or list(milestones) != sorted(milestones)
        or not 0 < factor <= 1
    ):
        raise SeewhyError(
            f"multi-step needs rising milestones in (0, 1), as in [0.5,0.75], and 0 < factor <= 1; "
            f"found [{','.join(map(str, milestones))}], {factor}"
        )
    return float(factor ** sum(progress >= milestone for milestone in milestones))


def plateau(
    progress: float,
    losses: Sequence[float],
    factor: float = 0.1,
    patience: int = 4,
    threshold: float = 1e-4,
) -> float:
    """Times `factor` whenever the watched loss has not fallen by the share `threshold` for more than `patience` epochs.

    With a validation split, epochs that were not evaluated do not count. The arguments mean what they mean in torch's
    ReduceLROnPlateau.
    """
    if not 0 < factor < 1 or patience < 0 or not 0 <= threshold < 1:
        raise SeewhyError(
            f"plateau needs 0 < factor < 1, patience >= 0 and 0 <= threshold < 1; found {factor}, {patience}, {threshold}"
        )
    best, waited, scale = math.inf, 0, 1.0
    for loss in losses:
        best, waited = (loss, 0) if loss < best * (1 - threshold) else (best, waited + 1)
        if waited > patience:
            waited, scale = 0, scale * factor
    return scale


def _warmed_up(
    name: str, progress: float, warmup: float, start: float, end: float, anneal: Anneal
) -> float:
    if not 0 <= warmup < 1 or start < 0:
        raise SeewhyError(f"{name} needs 0 <= warmup < 1 and start >= 0; found {warmup}, {start}")
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return _through([(warmup, 1.0), (1.0, end)], progress, anneal)


def _through(points: Sequence[tuple[float, float]], progress: float, anneal: Anneal) -> float:
    """The value at `progress` of the curve through `points` (progress, value), straight or in half cosines between them."""
    for (before, start), (after, end) in pairwise(points):
        if progress <= after:
            share = (progress - before) / (after - before)
            return start + (end - start) * (
                share if anneal == "linear" else (1 - math.cos(math.pi * share)) / 2
            )
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
