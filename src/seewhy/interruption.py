"""Signals that interrupt a command: Ctrl-C, SIGTERM, with which clusters end a job, and SIGHUP."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; handled like Ctrl-C."""


class HungUp(Terminated):
    """SIGHUP was received, because the terminal was closed; handled like Ctrl-C."""


INTERRUPTIONS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}
if hasattr(signal, "SIGHUP"):  # Windows has none
    INTERRUPTIONS[signal.SIGHUP] = HungUp


def exit_code(interruption: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as shells report it."""
    kinds = {kind: number for number, kind in INTERRUPTIONS.items()}
    return 128 + kinds[type(interruption)]


@contextmanager
def handling_interruptions(handle: Callable[[int], None]) -> Iterator[None]:
    """Call `handle` with the number of each signal of INTERRUPTIONS inside the block.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Outside the main thread,
    which alone may set handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {
        number: signal.signal(number, lambda received, _: handle(received))
        for number in INTERRUPTIONS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
