"""The command line: thin functions over the Python API, one a command."""

import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from seewhy import __version__
from seewhy.cli.compare import compare
from seewhy.cli.explain import explain, layers, methods, trust
from seewhy.cli.find_lr import find_lr
from seewhy.cli.info import data, models, recipes, summary
from seewhy.cli.predict import evaluate, predict
from seewhy.cli.report import report
from seewhy.cli.train import demo, train
from seewhy.errors import SeewhyError, lookup


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can mend, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a terminal that lacks a character gets a question mark, no traceback
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"seewhy {__version__}")
        return 0
    try:
        with terminable():
            lookup(COMMANDS, arguments[0], "command")(arguments[1:])
    except SeewhyError as error:
        if debug:
            traceback.print_exc()
        print(f"seewhy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(
            f"seewhy: {str(interruption) or 'interrupted; what was written stays'}", file=sys.stderr
        )
        return 130
    return 0


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, with which clusters end a job, be what Ctrl-C is: an interruption that keeps what there is."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def overview() -> str:
    """What `seewhy --help` prints."""
    rows = [
        f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}"
        for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            "seewhy trains image classifiers fast, then shows why they are right and why they are wrong.",
            "",
            "usage: seewhy COMMAND …",
            "",
            *rows,
            "",
            "`seewhy COMMAND --help` lists what a command takes; --debug shows the traceback of an error.",
        ]
    )


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "train": train,
    "find-lr": find_lr,
    "compare": compare,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "explain": explain,
    "trust": trust,
    "data": data,
    "summary": summary,
    "models": models,
    "recipes": recipes,
    "layers": layers,
    "methods": methods,
}
