"""What `seewhy trust --tune` prints: the table, the proposal with its command, and its evidence."""

import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.settings import Setting
from seewhy.attribution.tuning import Candidate, HeldOutScore, MethodTuning, PairedDifference
from seewhy.cli.tuning_tables import print_tuning

Capture = pytest.CaptureFixture[str]

DEFAULT = Setting("grad-cam", "layer4.2.conv3")
EIGEN = Setting("grad-cam:eigen=true", "layer4.2.conv3", "flip")
EARLY = Setting("grad-cam", "layer2.2.conv3")
SLOW = Setting("grad-cam:eigen=true", "layer2.2.conv3")


def gain(mean: float) -> BootstrapSummary:
    return BootstrapSummary(mean, (mean - 0.1, mean + 0.1))


def difference(mean: float, p_value: float) -> PairedDifference:
    return PairedDifference(mean, (mean - 0.05, mean + 0.05), p_value)


BEST = Candidate(EIGEN, 16, gain(0.4), difference(0, math.nan), 0.02)
TUNING = MethodTuning(
    candidates=(
        BEST,
        Candidate(DEFAULT, 16, gain(0.38), difference(-0.02, 0.8), 0.01),
        Candidate(EARLY, 16, gain(0.2), difference(-0.2, 0.001), 0.01),
        Candidate(SLOW, 4, gain(0.05), difference(-0.3, math.nan), 0.03, ("gain",)),
    ),
    default=DEFAULT,
    best=BEST,
    chosen=BEST,
    held_out=HeldOutScore(12, gain(0.37), gain(0.33), difference(0.04, 0.3), ()),
    left_out=(Setting("grad-cam", "stem"),),
    failures={},
    seconds=61,
)


def printed(tuning: MethodTuning, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    print_tuning(tuning, Path("runs/my run"))
    return capsys.readouterr().out


def test_the_table_fits_and_the_command_can_be_copied(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(TUNING, capsys, monkeypatch).splitlines()
    (command,) = [line for line in lines if line.startswith("use it: ")]
    assert shlex.split(command.removeprefix("use it: ")) == [
        *("seewhy", "explain", "runs/my run", "--methods", "grad-cam:eigen=true"),
        *("--layers", "layer4.2.conv3", "--smooth", "flip"),
    ]
    assert all(len(line) <= 80 for line in lines if line != command)
    remarks = [line.split()[-1] for line in lines[2:6]]
    assert remarks == ["proposed", "similar", "worse", "gain"]


def test_the_sentences_say_what_was_found(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(printed(TUNING, capsys, monkeypatch).split())
    assert "proposed: grad-cam:eigen=true at layer4.2.conv3 (smooth=flip)" in text
    assert "On 12 held-out images, its gain is +0.37 (95% interval +0.27 to +0.47)" in text
    assert "that of the default, grad-cam at layer4.2.conv3, +0.33" in text
    assert "difference is +0.04 (-0.01 to +0.09), not significantly different from 0" in text
    assert "Bonferroni's correction for 2 tests): grad-cam at layer4.2.conv3." in text
    assert "Significantly worse: 1. Failing a check: 1 of 4 settings." in text
    assert "3 settings on 16 images, 1 setting on 4 images" in text
    assert "Not measured for lack of time: 1 setting; give more --seconds" in text


def test_the_default_may_be_proposed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(replace(TUNING, chosen=TUNING.candidates[1]), capsys, monkeypatch)
    assert "It is the default." in " ".join(text.split())
    assert "difference is" not in text


def test_nothing_is_proposed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tuple(replace(each, failed_checks=("random",)) for each in TUNING.candidates)
    none = replace(TUNING, candidates=failing, best=failing[0], chosen=None, held_out=None)
    text = printed(none, capsys, monkeypatch)
    assert "none passes the checks on 16 images (fails: random 3)\n" in text
    assert "use it" not in text
    assert "proposed\n" not in text
    too_few = tuple(replace(each, failed_checks=("gain",)) for each in failing)
    text = printed(replace(none, candidates=too_few, best=too_few[0]), capsys, monkeypatch)
    assert "(fails: gain 3); more --images and --seconds narrow" in " ".join(text.split())
    assert TUNING.held_out is not None
    elsewhere = replace(TUNING.held_out, failed_checks=("gain", "mosaic"))
    text = printed(replace(TUNING, held_out=elsewhere), capsys, monkeypatch)
    assert "was chosen, but fails on 12 held-out images: gain and mosaic" in " ".join(text.split())
    assert "use it" not in text
