"""Every command on odd files, and random command lines: no traceback, no hang, no stray file."""

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hostile_files import table_contents, write_images

from seewhy.cli import main
from seewhy.cli.arguments import option_names
from seewhy.data.dataset import Dataset
from seewhy.data.sources import SOURCES, load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.train,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGALRM and POSIX file names"),
    pytest.mark.usefixtures("blank_figures"),
]
SECONDS = 20  # for one command


@contextmanager
def no_hang(command: Sequence[str]) -> Iterator[None]:
    def fail(*_: object) -> None:
        pytest.fail(f"{command} takes more than {SECONDS} s of processor time")

    previous = signal.signal(signal.SIGVTALRM, fail)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    wall = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10 * SECONDS)  # what waits takes no processor time
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.alarm(0)
        signal.signal(signal.SIGVTALRM, previous)
        signal.signal(signal.SIGALRM, wall)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., int]:
    """Runs a command and returns its exit code; an error is one line after the notes."""

    def call(*command: str) -> int:
        capsys.readouterr()
        with no_hang(command):
            code = main.main(command)
        printed = capsys.readouterr()
        assert code in (0, 1, 2), (command, printed.err)
        assert "Traceback" not in printed.out + printed.err, (command, printed)
        assert "\x1b" not in printed.out.replace("\x1b[?25", "") + printed.err, command
        if code == 2:
            assert printed.err.endswith("\n"), (command, printed.err)
            last = printed.err.splitlines()[-1]
            assert last.startswith("seewhy: "), (command, printed.err)
            assert len(last) < 1500, command
        return code

    return call


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files below a directory but those in `out`."""
    return {
        os.fsdecode(os.fsencode(path)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if path.parts[len(root.parts)] != "out" and not path.is_dir()
    }


def test_every_command_survives_hostile_images(
    trained: Path, workspace: Path, run: Callable[..., int]
) -> None:
    images = write_images(workspace / "images")
    assert len(images) > 90
    for name in ("a", "b"):
        write_images(workspace / "classes" / name)
        for kind in ("pipe", "socket", "up", "device"):  # what only a mistake puts there
            (workspace / "classes" / name / f"{kind}.png").unlink(missing_ok=True)
        (workspace / "classes" / name / "up").unlink()
    before = snapshot(workspace)
    layers = ["--layers", "group3"]
    assert run("predict", "run", "images") == 1
    assert run("predict", "run", "images", "--format", "jsonl") == 1
    assert run("explain", "run", "images", *layers, "--output", "out/explain") == 1
    concepts = ["--layer", "group3", "--count", "2", "--output", "out/concepts"]
    assert run("concepts", "run", "level", "images", *concepts) == 1
    cells = ["--grid", "2", "--output", "out/regions"]
    assert run("counterfactual", "run", "images", *cells) == 1
    assert run("label", "run", "images", "--number", "3", "--output", "out/label.csv") == 1
    assert run("data", "images", "--output", "out") == 2
    assert run("data", "classes", "--output", "out") == 2
    loading = ["--skip-bad-images", "--image-size", "8", "--channels", "3"]
    assert run("data", "classes", *loading, "--output", "out") == 0
    training = ["tiny.toml", "--data", "classes", *loading, "--epochs", "1", "--quiet"]
    assert run("train", *training, "--no-report", "--output", "out/run") == 0
    assert run("find-lr", *training[:-1], "--output", "out/find-lr") in (0, 2)
    checking = ["check", "classes", *loading, "--model", "out/run", "--fail-on", "all"]
    assert run(*checking, "--output", "out/check", "--junit", "out/check.xml") == 1
    assert run("check", "images", "--output", "out/none") == 2
    assert run("check", "classes", "--output", "out/none") == 2
    assert run("report", "out/run", "--report-minutes", "0.01") == 0
    assert run("export", "out/run", "--data", "classes", "--output", "out/x.onnx") == 2
    assert run("evaluate", "out/run") == 0
    assert run("evaluate", "run", "--data", "classes") == 2  # other images are unreadable
    assert run("explain", "out/run", "--errors", "2", *layers, "--output", "out/errors") == 0
    for path in images[::3]:
        run("predict", "run", f"images/{path.name}")
    assert snapshot(workspace) == before


def test_every_command_survives_hostile_tables(
    trained: Path, workspace: Path, run: Callable[..., int]
) -> None:
    for name, content in table_contents().items():
        (workspace / name).write_bytes(content)
        folder = workspace / f"in-{name.replace('.', '-')}"
        folder.mkdir()
        (folder / name.removeprefix("empty-").removeprefix("text-")).write_bytes(content)
    before = snapshot(workspace)
    out = ["--output", "out/x"]
    for path in [*table_contents(), *(path.name for path in workspace.glob("in-*")), "run"]:
        assert run("data", path, *out) == 2
        assert run("check", path, *out) == 2
        assert run("evaluate", "run", "--data", path) == 2
        if path.endswith(("z", "t")):
            assert run("train", "tiny.toml", "--data", path, *out) == 2
        if path != "run":
            assert run("predict", path, "x.png") == 2
            assert run("report", path, *out) == 2
            assert run("resume", path) == 2
            assert run("export", path, "--output", "out/x.onnx") == 2
    assert snapshot(workspace) == before


# values of every kind; none makes a command do much
VALUES = [
    "", " ", "0", "-1", "1", "2", "0.5", "-0.0", "nan", "inf", "-inf", "1e400", "1e-400",
    "0x10", "1_0",
    "½", "٣", "x", "true", "False", "None", "[1,2]", "[", "a:b=c,d=e", ":", "=", ",", "-",
    "..", ".",
    "/dev/null", "/", "run", "bars", "tiny.toml", "demo", "cpu", "cuda", "cuda:99",
    "\x1b[31m", "\n",
    "\udcff", "é", "e\u0301", "\u202e", "a" * 300, "%s", "{x}", "[red]", "~", "*",
    "group3", "grad-cam",
    "sgd", "crop:1", "crop:-1", "speednet:width=0.125", "speednet:width=1e9", "timm", "hub:", "--",
    "99999999999999999999", "missing.png", "model.onnx", "missing/deep", "test", "all",
]  # fmt: skip
HARMLESS = {"jobs": ["0", "-1", "x"], "backend": ["x", ""], "output": ["out/x", ""]}
POSITIONAL = [
    "run",
    "tiny.toml",
    "demo",
    "bars",
    "resnet18",
    "missing",
    "",
    "optimizers",
    "\x1b[2J",
]


def command_line(choose: random.Random) -> list[str]:
    """A command with random arguments: valid and invalid values, repeated and unknown options."""
    name = choose.choice([*main.COMMANDS, "explain", "train", "predict", "", "trian"])
    if name == "demo":  # it has no options that would make it small
        return ["demo", choose.choice(["--output", "--nope", "x", "--json"])]
    options = option_names(main.COMMANDS[name].load()[0]) if name in main.COMMANDS else ["--x"]
    options = [option for option in options if option != "--compile"]  # takes a minute
    line = [choose.choice(POSITIONAL) for _ in range(choose.choice([0, 1, 1, 1, 2]))]
    if name in ("train", "find-lr", "compare") and choose.random() < 0.7:
        line = ["tiny.toml", "--data", "bars", "--epochs", "1"]
    for _ in range(choose.choice([0, 1, 1, 2, 3, 4])):
        option = choose.choice([*options, "--unknown", "--he"])
        values = HARMLESS.get(option[2:], VALUES)
        count = choose.choice([0, 1, 1, 1, 1, 2])
        arguments = [choose.choice(values) for _ in range(count)]
        if arguments and choose.random() < 0.2:
            line.append(f"{option}={arguments[0]}")
        else:
            line += [option, *arguments]
    return [name, *line]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of packages that are imported
def test_random_command_lines(
    trained: Path,
    workspace: Path,
    data: Dataset,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = torch.arange(24)
    small = replace(
        data, train=data.train.take(few), test=data.test.take(few), fingerprint="1" * 32
    )
    monkeypatch.setitem(SOURCES, "bars", lambda: small)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    choose = random.Random(0)
    assert {run(*command_line(choose)) for _ in range(300)} >= {0, 2}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "binary": lambda path: path.write_bytes(b"\xff\x00\x1b[2J" * 50),
    "json": lambda path: path.write_bytes(b'{"\x1b[2J": [NaN, -1, {"a": null}]}'),
    "list": lambda path: path.write_bytes(b"[1, 2]"),
    "missing": lambda path: path.unlink(),
    "directory": lambda path: (path.unlink(), path.mkdir()),
    "loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


READERS = [
    ["evaluate", "damaged"],
    ["export", "damaged", "--output", "out/x.onnx", "--data", "missing"],  # importing ONNX is slow
    ["trust", "damaged", "--methods", "hires-cam", "--layers", "group3", "--images", "2"],
    ["layers", "damaged"],
    ["explain", "damaged", "--errors", "1", "--layers", "group3", "--output", "out/explain"],
    ["concepts", "damaged", "level", "--count", "2", "--output", "out/concepts"],
    ["counterfactual", "damaged", "--grid", "2", "--output", "out/regions"],
    ["predict", "damaged", "x.png"],
    ["label", "damaged", "x.png", "--output", "out/label.csv"],
    ["resume", "damaged", "--quiet"],
    ["evaluate", "damaged", "--data", "damaged"],
    ["report", "damaged", "--report-minutes", "0.01", "--output", "out/report.html"],
    ["check", "bars", "--model", "damaged", "--only", "outliers,label-issues"],
]


def test_every_command_survives_damaged_runs(
    trained: Path, workspace: Path, run: Callable[..., int]
) -> None:
    """Files of a run are damaged in different ways, and read by one command after another."""
    (workspace / "x.png").write_bytes(b"")
    names = sorted(path.name for path in trained.iterdir() if path.is_file())
    assert {"recipe.toml", "env.json", "model.safetensors"} <= set(names)
    cases = [(name, kind) for name in names for kind in DAMAGE][::7]
    before = snapshot(trained)
    for index, (name, kind) in enumerate(cases):
        shutil.copytree(trained, workspace / "damaged")
        DAMAGE[kind](workspace / "damaged" / name)
        run(*READERS[index % len(READERS)])
        shutil.rmtree(workspace / "damaged")
        shutil.rmtree(workspace / "out", ignore_errors=True)
    assert snapshot(trained) == before


def test_every_command_survives_hostile_experiments(
    workspace: Path, run: Callable[..., int]
) -> None:
    images = write_images(workspace / "classes" / "a")
    (workspace / "classes" / "b").mkdir()
    for path in images:
        if path.stem in ("pipe", "socket", "up", "device"):
            path.unlink()
        elif path.stem.startswith("turned"):
            shutil.copy(path, workspace / "classes" / "b")
    for name, content in table_contents().items():
        (workspace / name).write_bytes(content)
    before = snapshot(workspace)
    one = ["--vary", "lr", "0.1", "--seeds", "1", "--jobs", "1", "--device", "cpu", "--quiet"]
    for path in [*sorted(table_contents())[::3], "classes", "/dev/null", "missing", "\x1b[2J"]:
        assert run("compare", "tiny.toml", "--data", path, *one, "--output", "out/x") == 2
        assert run("find-lr", "tiny.toml", "--data", path, "--output", "out/x") == 2
    assert not (workspace / "out").exists()
    loading = ["--skip-bad-images", "--image-size", "8", "--channels", "3", "--epochs", "1"]
    comparison = ["compare", "tiny.toml", "--data", "classes", *loading, *one]
    assert run(*comparison, "--output", "out/compare") == 0
    assert run(*comparison, "--output", "out/compare") == 2  # is there already
    assert snapshot(workspace) == before


def test_summary_and_cache_survive_hostile_input(
    workspace: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = workspace / "cache" / "datasets"
    monkeypatch.setenv("SEEWHY_CACHE", str(workspace / "cache"))
    load("digits")
    [whole] = [path for path in cache.iterdir() if path.is_dir()]
    for file in sorted(path.name for path in whole.iterdir()):
        for kind, damage in DAMAGE.items():
            copied = shutil.copytree(whole, cache / f"{file}-{kind}")
            damage(copied / file)
    write_images(cache / "images")
    (cache / "\x1b[2J[red]").mkdir()
    (cache / "loop").symlink_to("loop")
    (cache / "\udcff").mkdir()
    before = snapshot(workspace)
    assert run("cache") == 0
    assert run("cache", "--verify") == 1
    for root in ("tiny.toml", "missing", "/dev/null", "\x1b[2J"):
        monkeypatch.setenv("SEEWHY_CACHE", root)
        assert run("cache", "--verify") in (0, 2)
    for model in (*VALUES[::5], "resnet18:", "vgg16:depth=nan", "speednet:width=-1", "timm:x"):
        run("summary", model)
        run("layers", model)
    for size in ("0", "-1", "1", "99999999", "nan"):
        assert run("summary", "speednet:width=0.125", "--image-size", size) == 2
        assert run("summary", "speednet:width=0.125", "--channels", size) in (0, 2)
    for figure in ("", ".", "tiny.toml", "/dev/null", "x.exe", "tiny.toml/x.svg"):
        assert run("summary", "speednet:width=0.125", "--figure", figure) == 2
    assert snapshot(workspace) == before
