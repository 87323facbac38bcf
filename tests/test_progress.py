"""Progress by named steps, with and without a terminal."""

import sys
import time
from collections.abc import Callable

import pytest

from seewhy.progress import clock, named_steps, progress, waiting

Capture = pytest.CaptureFixture[str]
SHARES = {"maps": 3, "attacks": 6, "slices": 1}


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still; the function lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_named_steps_without_a_terminal(passing: Callable[[float], None], capsys: Capture) -> None:
    """A line when a step begins, and one more after ten seconds in it; 30% took 30 s, so 70 s."""
    with named_steps("diagnosing", SHARES, quiet=False) as steps:
        steps.begin("maps")
        passing(9)
        steps.advance(0.3)  # not ten seconds yet
        passing(21)
        steps.begin("attacks")
        passing(15)
        steps.advance(0.25)  # 45% took 45 s
        passing(45)
        steps.begin("slices")
        passing(3600)
    assert capsys.readouterr().err.splitlines() == [
        "diagnosing, step 1 of 3: maps",
        "diagnosing, step 2 of 3: attacks, about 1:10 left",
        "diagnosing, step 2 of 3: attacks, about 0:55 left",
        "diagnosing, step 3 of 3: slices, about 0:10 left",
        "diagnosing: done in 1:01:30",
    ]


def test_named_steps_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with named_steps("diagnosing", SHARES, quiet=False) as steps:
        for name in SHARES:
            steps.begin(name)
    assert "step 3 of 3: slices, about 0:00 left" in capsys.readouterr().err


def test_named_steps_print_nothing_if_quiet(capsys: Capture) -> None:
    with named_steps("diagnosing", SHARES, quiet=True) as steps:
        steps.begin("maps")
        steps.advance(1)
    assert capsys.readouterr().err == ""


def test_progress_in_a_log(passing: Callable[[float], None], capsys: Capture) -> None:
    """A line at once, one after ten seconds with the time left, and one at the end."""
    with progress("measuring", 1000, quiet=False) as advance:
        assert capsys.readouterr().err == "measuring: 0 of 1,000\n"
        passing(9)
        advance(100)
        passing(6)
        advance(150)  # a quarter took 15 s
        passing(45)
        advance(750)
    assert capsys.readouterr().err.splitlines() == [
        "measuring: 250 of 1,000, about 0:45 left",
        "measuring: 1,000 in 60.0 s",
    ]


def test_waiting_shows_its_text_in_a_log_and_on_a_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with waiting("loading"):
        assert capsys.readouterr().err == "loading\n"
    with waiting("loading", brief=True):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with waiting("loading", quiet=True):
        pass
    assert capsys.readouterr().err == ""
    with waiting("loading"):
        pass
    assert "loading" in capsys.readouterr().err


def test_clock() -> None:
    assert [clock(0.4), clock(75), clock(3725)] == ["0:00", "1:15", "1:02:05"]
