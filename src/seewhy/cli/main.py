"""The command line: a table of commands, each with its options and the function that runs it."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import getdoc
from io import TextIOWrapper
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NamedTuple

from seewhy import __version__
from seewhy.cli.arguments import parse
from seewhy.cli.compare import Compare, compare
from seewhy.cli.explain import Explain, Layers, Methods, Trust, explain, layers, methods, trust
from seewhy.cli.export import Export, export
from seewhy.cli.find_lr import FindLr, find_lr
from seewhy.cli.info import Data, Models, Recipes, Summary, data, models, recipes, summary
from seewhy.cli.predict import Evaluate, Predict, evaluate, predict
from seewhy.cli.report import Report, report
from seewhy.cli.train import Demo, Resume, Train, demo, resume, train
from seewhy.errors import SeewhyError, Terminated, lookup


class Command(NamedTuple):
    """A dataclass of options, whose docstring is the help, and the function that takes them.

    The function returns its exit code, or None for 0.
    """

    options: type
    run: Callable[[Any], int | None]


COMMANDS = {
    "demo": Command(Demo, demo),
    "train": Command(Train, train),
    "resume": Command(Resume, resume),
    "find-lr": Command(FindLr, find_lr),
    "compare": Command(Compare, compare),
    "evaluate": Command(Evaluate, evaluate),
    "predict": Command(Predict, predict),
    "export": Command(Export, export),
    "report": Command(Report, report),
    "explain": Command(Explain, explain),
    "trust": Command(Trust, trust),
    "data": Command(Data, data),
    "summary": Command(Summary, summary),
    "models": Command(Models, models),
    "recipes": Command(Recipes, recipes),
    "layers": Command(Layers, layers),
    "methods": Command(Methods, methods),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: partly done, or a check failed; 2: an error that the user can fix; 128 + number of
    the signal that ended it. Other errors are bugs and stay tracebacks.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack a character
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with sigterm_interrupts():
            return _run(arguments)
    except SeewhyError as error:
        if debug:
            traceback.print_exc()
        print(f"seewhy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        message = str(interruption) or "Interrupted. Files written so far are kept."
        print(f"seewhy: {message}", file=sys.stderr)
        number = signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT
        return 128 + number
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 128 + 13  # SIGPIPE, which Windows does not have


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"seewhy {__version__}")
        return 0
    name = arguments[0]
    command = lookup(COMMANDS, name, "command")
    code = command.run(parse(name, command.options, arguments[1:])) or 0
    sys.stdout.flush()
    return code


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM, with which clusters end a job, as Ctrl-C: files written so far are kept."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def overview() -> str:
    """The text of `seewhy --help`."""
    width = min(get_terminal_size().columns, 100)
    summaries = {name: getdoc(command.options) or "" for name, command in COMMANDS.items()}
    rows = [
        fill(summary, width, initial_indent=f"  {name:<10} ", subsequent_indent=13 * " ")
        for name, summary in summaries.items()
    ]
    paragraphs = [
        "seewhy trains image classifiers fast, then shows why they are right and wrong.",
        "usage: seewhy COMMAND …",
        "`seewhy COMMAND --help` lists the options of a command.",
        "`--debug` shows the traceback of an error.",
    ]
    title, usage, *hints = (fill(text, width) for text in paragraphs)
    return "\n".join([title, "", usage, "", *rows, "", *hints])
