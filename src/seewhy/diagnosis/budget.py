"""The time that a diagnosis may take, and how many images a question can have in it."""

import math
import time
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from seewhy.models.batching import batch_size


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


def images_within(seconds: float, model: nn.Module, images: Tensor) -> Iterator[slice]:
    """The first batch of images, and then as many more as its pace allows in the seconds.

    Args:
        seconds: Time for all images; infinity for all of them at once.
        model: The model that computes them before the next are asked for.
        images: (N, C, H, W).
    """
    if math.isinf(seconds):
        yield slice(0, len(images))
        return
    first, began = min(len(images), batch_size(model, images)), time.monotonic()
    yield slice(0, first)
    taken = time.monotonic() - began
    more = affordable(seconds - taken, taken / first, len(images) - first)
    if more:
        yield slice(first, first + more)


def affordable(seconds: float, per_image: float, images: int, least: int = 0) -> int:
    """How many of the images fit in the seconds, but at least `least` of them."""
    count = images if per_image * images <= seconds else math.floor(seconds / per_image)
    return min(images, max(least, count))
