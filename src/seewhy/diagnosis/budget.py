"""The time that a diagnosis may take, and how many images a question can have in it."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from seewhy.models.batching import batch_size
from seewhy.models.inference import compute_logits
from seewhy.progress import Steps

_GROWTH = 8  # images at most for each one before them
_TIMED = 32  # images at most whose time tells that of the others


class Budget:
    """Time for several steps; what a step leaves over, the later ones get.

    Args:
        seconds: For all steps; infinity for no limit.
        shares: Of each step, in their order.
    """

    def __init__(self, seconds: float, shares: Mapping[str, float]) -> None:
        self.shares = dict(shares)
        self.seconds, self.began = seconds, time.monotonic()

    def begin(self, step: str) -> float:
        """Seconds for a step that begins now."""
        remaining = max(0.0, self.seconds - (time.monotonic() - self.began))
        total = sum(self.shares.values())
        return remaining * self.shares.pop(step) / total


class TimedSteps(NamedTuple):
    """The steps of a diagnosis, shown and with a share of its time each."""

    shown: Steps
    budget: Budget

    def begin(self, name: str) -> float:
        """The next step begins; its seconds."""
        self.shown.begin(name)
        return self.budget.begin(name)


def images_within(
    seconds: float, count: int, most: int | None = None, first: int = 1
) -> Iterator[slice]:
    """The first of `count` images, and then as many more as the pace so far allows in the seconds.

    An attack stops early at some images, and others take many times as long: so the numbers grow
    step by step.

    Args:
        seconds: Time for all images; infinity for no limit.
        count: Number of images, which are computed before the next are asked for.
        most: Images at once; None for no limit.
        first: Images in any case.
    """
    most = count if most is None else most
    began, start = time.monotonic(), 0
    size = min(count, most if math.isinf(seconds) else first)
    while True:
        yield slice(start, start + size)
        start += size
        if start >= count:
            return
        spent = time.monotonic() - began
        limit = min(most, _GROWTH * start, count - start)
        size = affordable(seconds - spent, spent / start, limit)
        if not size:
            return


def surely_within(seconds: float, model: nn.Module, images: Tensor, passes: int) -> int:
    """How many images fit in half of the seconds, but at least one, by the time of a batch.

    Args:
        seconds: Time for all images; infinity for no limit.
        model: A model in evaluation mode.
        images: (N, C, H, W) uint8.
        passes: Forward passes that an image takes at most; a backward pass takes as long as two.
    """
    if math.isinf(seconds) or not len(images):
        return len(images)
    began, size = time.monotonic(), min(len(images), batch_size(model, images), _TIMED)
    compute_logits(model, images[:size])
    return affordable(seconds / 2, passes * (time.monotonic() - began) / size, len(images), least=1)


def affordable(seconds: float, per_image: float, images: int, least: int = 0) -> int:
    """How many of the images fit in the seconds, but at least `least` of them."""
    count = images if per_image * images <= max(seconds, 0) else math.floor(seconds / per_image)
    return min(images, max(least, count))
