"""Stopping a run after a signal, once its current step has ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seewhy.interruption import INTERRUPTIONS, handling_interruptions
from seewhy.train.world import World


@contextmanager
def stoppable(world: World) -> Iterator[Callable[[], type[KeyboardInterrupt] | None]]:
    """Yield a function that returns the exception to raise after a signal, else None.

    After the first signal the current step finishes; the same one again interrupts at once, but not
    another one, since supervisors send two. With several processes the first one interrupts at
    once, because no process can wait for the others.
    """
    received: list[int] = []

    def handle(number: int) -> None:
        if number in received:
            raise INTERRUPTIONS[received[0]]
        received.append(number)

    if world.size > 1:
        yield lambda: None
        return
    with handling_interruptions(handle):
        yield lambda: INTERRUPTIONS[received[0]] if received else None
