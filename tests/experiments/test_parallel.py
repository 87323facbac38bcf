"""Signals while runs of an experiment are under way."""

import os
import signal
import sys

import pytest

from seewhy.experiments.parallel import _stoppable
from seewhy.interruption import Terminated


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_signal_asks_to_stop_and_decides_what_is_raised() -> None:
    def interrupted_by(number: signal.Signals) -> None:
        with _stoppable() as stopping:
            os.kill(os.getpid(), number)
            assert stopping.is_set()
            raise KeyboardInterrupt

    for number, expected in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
        with pytest.raises(KeyboardInterrupt) as raised:
            interrupted_by(number)
        assert type(raised.value) is expected
