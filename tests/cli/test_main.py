"""The table of commands, exit codes, signals and pipes."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seewhy.cli import info, main
from seewhy.cli.arguments import option_names
from seewhy.cli.info import List
from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.batch import Batch
from seewhy.errors import SeewhyError
from seewhy.interruption import HungUp, Terminated
from seewhy.runs.directory import read_status

Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]
SEEWHY = [sys.executable, "-m", "seewhy"]


def seewhy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*SEEWHY, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.sampled(4)
@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(
    arguments: list[str], columns: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(main.COMMANDS) <= {line[2:].partition(" ")[0] for line in lines}
    assert all(len(line) <= columns for line in lines)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_summary_of_a_command_begins_its_help(name: str) -> None:
    command = main.COMMANDS[name]
    options, _ = command.load()
    assert command.summary == (options.__doc__ or "").partition("\n")[0]


def test_the_overview_imports_no_command() -> None:
    code = (
        "import sys; from seewhy.cli.main import main; main(['--help']); "
        "assert 'tyro' not in sys.modules and 'seewhy.cli.train' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_help_of_an_option_is_a_line() -> None:
    """The help keeps the line breaks of a docstring, whatever the width of the terminal."""
    for path in Path(main.__file__).parent.glob("*.py"):
        for definition in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(definition, ast.ClassDef):
                texts = [
                    statement.value.value
                    for statement in definition.body[1:]
                    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                ]
                assert not [text for text in texts if "\n" in text], path


@pytest.mark.sampled(5)
@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_of_a_command_fits_the_terminal(
    name: str, columns: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: seewhy {name}" in text
    assert "None" not in text  # an optional option says in words what its default is
    assert not re.search(r"\(default:[\s\u2502]*\)", text)
    assert not re.search("Raises|SeewhyError|Args:", text)  # parts of a docstring
    lines = text.splitlines()[1:]  # tyro does not wrap the usage line
    assert all(len(line) <= columns for line in lines)


@pytest.mark.parametrize("name", ["train", "compare", "find-lr"])
def test_help_shows_the_values_of_the_named_recipe(name: str, capsys: Capture) -> None:
    assert main.main([name, "davidnet-24", "--help"]) == 0
    text = capsys.readouterr().out
    assert "(default: 0.45)" in text
    assert "RECIPE|FILE.toml" in text


def test_help_names_a_default_without_words(capsys: Capture) -> None:
    for arguments, default in ((["demo"], ""), (["speedrun94"], "whiten")):
        assert main.main(["train", *arguments, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
        assert f"whiten:3 freezes whiten after 3 epochs. (default: {default or 'none'}" in text


def test_version(capsys: Capture) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"seewhy {main.__version__}\n"


def test_debug_shows_the_traceback(workspace: Path, capsys: Capture) -> None:
    assert main.main(["--debug", "train", "nowhere.toml", "--data", "bars"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SeewhyError("no room"), 2, "seewhy: no room\n"),
        (KeyboardInterrupt(), 130, "seewhy: Interrupted.\n"),
        (KeyboardInterrupt("Interrupted after step 3."), 130, "seewhy: Interrupted after step 3."),
        (Terminated(), 143, "seewhy: Interrupted."),
        (HungUp(), 129, "seewhy: Interrupted."),
    ],
)
def test_exit_codes_of_errors(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    def run(options: List) -> None:
        raise error

    monkeypatch.setattr(info, "list_", run)
    assert main.main(["list"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: List) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(info, "list_", run)
    with pytest.raises(ZeroDivisionError):
        main.main(["list"])


@pytest.mark.slow
def test_starts_quickly_in_a_process() -> None:
    began = time.perf_counter()
    done = seewhy("--help")
    assert "usage: seewhy COMMAND" in done.stdout
    # generous, since other tests run beside it: the benchmark measures it alone
    assert time.perf_counter() - began < 5
    assert seewhy("--version").stdout.startswith("seewhy 0.")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_errors_are_the_same_in_any_encoding(encoding: str) -> None:
    done = seewhy("recipes", "demo", "--al", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert done.stderr == "seewhy: unknown option --al (see `seewhy recipes --help`)\n"


@pytest.mark.slow
def test_a_character_that_the_terminal_lacks_is_replaced() -> None:
    done = seewhy("--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "usage: seewhy COMMAND ?" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_pipe_ends_a_command_quietly() -> None:
    command = f'{sys.executable} -u -m seewhy recipes | (read line; echo "$line")'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.strip()
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "train --help"])
def test_output_to_a_full_disk_is_one_line(arguments: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SEEWHY, *arguments.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "seewhy: the output could not be written (No space left on device); "
        "free some space, or redirect it elsewhere\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_help_without_a_reader_is_quiet() -> None:
    for arguments in ("--help", "train --help"):
        command = f"({sys.executable} -m seewhy {arguments}; echo $? >&2) | true"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.stderr == "0\n"


@pytest.mark.train
@pytest.mark.usefixtures("blank_figures")
def test_training_goes_on_when_nobody_reads_its_output(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = ["train", "tiny.toml", "--data", "bars", "--output", "out", "--no-report"]
    with os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main.main(command) == 0
    assert capfd.readouterr().err == ""
    assert read_status(workspace / "out").status == "finished"


@pytest.mark.train
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGHUP")
def test_a_closed_terminal_ends_training_and_keeps_the_weights(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """SIGHUP, at once followed by SIGTERM, as supervisors send it: the step still ends."""

    def hang_up(batch: Batch, generator: object) -> Batch:
        if batch.epoch == 2 and read_status(workspace / "out").status == "running":
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    monkeypatch.setitem(AUGMENTATIONS, "hang-up", hang_up)
    options = ["--data", "bars", "--augment", "hang-up", "--output", "out", "--quiet"]
    assert main.main(["train", "tiny.toml", *options]) == 129
    assert "Resume with: seewhy resume out" in capsys.readouterr().err
    assert read_status(workspace / "out").status == "interrupted"
    assert (workspace / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", [ValueError, SeewhyError])
def test_an_interruption_that_a_library_turns_into_an_error_stays_one(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def run(options: List) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise kind("could not determine the shape of object type") from None

    monkeypatch.setattr(info, "list_", run)
    assert main.main(["list"]) == 130
    assert capsys.readouterr().err == "seewhy: Interrupted.\n"


@pytest.mark.parametrize(
    ("arguments", "writes"),
    [
        ("demo", True),
        ("data bars", True),
        ("trust run", False),
        ("evaluate run --json", False),
        ("predict run a.png", False),
        ("predict run a.png --output=a.csv", True),
        ("check bars", False),
        ("check bars --junit a.xml", True),
    ],
)
def test_an_interruption_speaks_of_files_only_where_some_may_be_written(
    arguments: str, writes: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_run", interrupted)
    assert main.main(arguments.split()) == 130
    kept = " Files written so far are kept." if writes else ""
    assert capsys.readouterr().err == f"seewhy: Interrupted.{kept}\n"


def test_the_options_that_write_files_exist() -> None:
    for command in main.COMMANDS.values():
        assert set(command.file_options or ()) <= set(option_names(command.load()[0]))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGHUP")
def test_nohup_stays_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "list_", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main.main(["list"]) == 0
    finally:
        signal.signal(signal.SIGHUP, previous)


def start(command: list[str], directory: Path) -> "subprocess.Popen[str]":
    """Start a command that handles SIGINT, also if this process ignores it, as under nohup."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, handler)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 120
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_training_and_keeps_the_weights(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    options = ["--epochs", "100000", "--limit", "100", "--model", "speednet:width=0.05"]
    options += ["--checkpoint-seconds", "0", "--output", "out"]
    process = start([*SEEWHY, "train", "demo", "--data", "digits", *options], tmp_path)
    try:
        metrics = tmp_path / "out" / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code
    assert "Resume with: seewhy resume out" in errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate\nmore"
        ),
    ],
)
def test_want_of_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("seewhy.cli.main._run", run)
    assert main.main(["train"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seewhy: not enough memory: use fewer or smaller images at once")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("trust run --images 4 --methods grad-cam", "measuring: 0 of "),
        ("concepts run level --count 1", "finding concepts: 0 of "),
        ("counterfactual run --errors 2 --grid 2", "searching regions: 0 of "),
        ("explain run --errors 2", "explaining: 0 of "),
        ("check bars --only dark", "checking images: 0 of 1"),
        ("find-lr tiny.toml --data bars --updates 20", "training with rising learning rates"),
    ],
)
def test_long_commands_name_what_they_do_in_a_log(
    command: str, line: str, trained: Path, capsys: Capture
) -> None:
    assert main.main(command.split()) == 0
    assert line in capsys.readouterr().err
