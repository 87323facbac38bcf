"""Learning-rate schedules: progress through the run, in [0, 1], to a factor of the peak learning rate."""

import math
from collections.abc import Callable
from typing import Literal

from seewhy.errors import SeewhyError
from seewhy.notation import bind

Schedule = Callable[[float], float]


def bind_schedule(text: str) -> Schedule:
    """The schedule that `text` names, such as `one-cycle:pct_start=0.3`; tried, so that bad settings show here."""
    schedule: Schedule = bind(SCHEDULES, text, "schedule", given=1)
    for step in range(101):
        factor = schedule(step / 100)
        if not 0 <= factor < math.inf:
            raise SeewhyError(f"schedule {text!r} gives a factor of {factor:g} after {step} % of the run; it must be 0 or more")
    return schedule


def constant(progress: float) -> float:
    """The peak throughout."""
    return 1.0


def one_cycle(
    progress: float,
    pct_start: float = 0.25,
    div: float = 25.0,
    final_div: float = 1e4,
    anneal: Literal["linear", "cosine"] = "linear",
) -> float:
    """Up from 1/div to 1 over the share `pct_start` of the run, then down to 1/(div * final_div) (Smith & Topin 2018).

    `anneal` is `linear` or `cosine`. The arguments mean what they mean in torch's OneCycleLR.
    """
    if not 0 < pct_start < 1 or div < 1 or final_div < 1:
        raise SeewhyError(
            f"one-cycle needs 0 < pct_start < 1, div >= 1 and final_div >= 1; found {pct_start}, {div}, {final_div}"
        )
    first, last = 1 / div, 1 / (div * final_div)
    start, end, share = (
        (first, 1.0, progress / pct_start) if progress < pct_start else (1.0, last, (progress - pct_start) / (1 - pct_start))
    )
    if anneal == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


def linear(progress: float, warmup: float = 0.0, start: float = 0.0, end: float = 0.0) -> float:
    """Up from `start` over the share `warmup` of the run, then straight down to `end`."""
    return _warmed_up("linear", progress, warmup, start, lambda share: 1 + (end - 1) * share)


def cosine(progress: float, warmup: float = 0.0, start: float = 0.0, end: float = 0.0) -> float:
    """Up from `start` over the share `warmup` of the run, then down half a cosine to `end` (Loshchilov & Hutter 2017)."""
    return _warmed_up("cosine", progress, warmup, start, lambda share: end + (1 - end) * (1 + math.cos(math.pi * share)) / 2)


def step(progress: float, stages: int = 3, factor: float = 0.1) -> float:
    """`stages` equal stretches, each at `factor` times the learning rate of the one before."""
    if stages < 1 or not 0 < factor <= 1:
        raise SeewhyError(f"step needs stages >= 1 and 0 < factor <= 1; found {stages}, {factor}")
    return float(factor ** min(int(progress * stages), stages - 1))


def _warmed_up(name: str, progress: float, warmup: float, start: float, after: Schedule) -> float:
    if not 0 <= warmup < 1 or start < 0:
        raise SeewhyError(f"{name} needs 0 <= warmup < 1 and start >= 0; found {warmup}, {start}")
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return after((progress - warmup) / (1 - warmup))


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "one-cycle": one_cycle,
    "step": step,
}
