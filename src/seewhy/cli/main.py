"""The command line: a table of commands, each with its options and the function that runs it."""

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getdoc
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NamedTuple

from seewhy import __version__
from seewhy.cli.arguments import RecipeOptions, name_options, parse
from seewhy.cli.compare import Compare, compare
from seewhy.cli.explain import Explain, Layers, Methods, Trust, explain, layers, methods, trust
from seewhy.cli.export import Export, export
from seewhy.cli.find_lr import FindLr, find_lr
from seewhy.cli.info import (
    Cache,
    Data,
    List,
    Recipes,
    Summary,
    cache,
    data,
    list_,
    recipes,
    summary,
)
from seewhy.cli.own_model import register_own_model, with_own_model
from seewhy.cli.predict import Evaluate, Predict, evaluate, predict
from seewhy.cli.report import Report, report
from seewhy.cli.streams import lasting_streams
from seewhy.cli.train import Demo, Resume, Train, demo, resume, train
from seewhy.errors import SeewhyError, lookup
from seewhy.interruption import INTERRUPTIONS, exit_code, handling_interruptions
from seewhy.progress import note, say


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
    "cache": Command(Cache, cache),
    "summary": Command(Summary, summary),
    "list": Command(List, list_),
    "recipes": Command(Recipes, recipes),
    "layers": Command(Layers, layers),
    "methods": Command(Methods, methods),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: partly done, or a check failed; 2: an error that the user can fix; 128 + number of
    the signal that ended it. Other errors are bugs and keep their traceback. A command continues
    if the reader of its output has ended; if the output cannot be written, the code is 1.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with lasting_streams() as failed_writes, warnings.catch_warnings():
        # about EXIF blocks and the like; what matters is in our own messages
        warnings.filterwarnings("ignore", module=r"PIL\.")
        code = _exit_code(arguments, debug)
    for error in failed_writes:
        reason = error.strerror or error
        note(
            f"seewhy: the output could not be written ({reason}); free some space, or redirect it "
            "elsewhere"
        )
    return code or int(bool(failed_writes))


def _exit_code(arguments: list[str], debug: bool) -> int:
    """Run a command; its errors and interruptions become a line on stderr and an exit code."""
    received: list[int] = []

    def interrupt(number: int) -> None:
        received.append(number)
        raise INTERRUPTIONS[number]

    try:
        with handling_interruptions(interrupt):
            return _run(arguments)
    except SystemExit as end:  # of tyro: 0 after the help
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt as interruption:
        return _interrupted(interruption)
    except Exception as error:
        if received:  # a library may turn the interruption into an error of its own
            return _interrupted(INTERRUPTIONS[received[0]]())
        if _is_out_of_memory(error):
            error = SeewhyError(f"{OUT_OF_MEMORY} ({_first_line(error)})")
        if (
            isinstance(error, OSError) and error.filename is not None
        ):  # of no function in particular
            error = SeewhyError(
                f"{error.filename}: {error.strerror}; pass another path, or check its permissions"
            )
        if not isinstance(error, SeewhyError):
            raise
        if debug:
            traceback.print_exc()
        note(f"seewhy: {_with_options(str(error), arguments)}")
        return 2


def _with_options(message: str, arguments: Sequence[str]) -> str:
    """The message with the options of the command instead of the arguments of functions."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    return message if command is None else name_options(message, command.options)


OUT_OF_MEMORY = (
    "not enough memory: use fewer or smaller images at once, such as a smaller batch_size, or a "
    "smaller model"
)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # it takes a second to import
        return isinstance(error, MemoryError)
    from seewhy.models.memory import is_out_of_memory

    return is_out_of_memory(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _interrupted(interruption: KeyboardInterrupt) -> int:
    message = str(interruption) or "Interrupted. Files written so far are kept."
    note(f"seewhy: {message}")
    return exit_code(interruption)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(overview())
        return 0
    if arguments[0] == "--version":
        say(f"seewhy {__version__}")
        return 0
    name = arguments[0]
    command = lookup(COMMANDS, name, "command")
    options: Any = parse(name, command.options, arguments[1:])
    if isinstance(options, RecipeOptions) and ":" in options.settings.model:
        settings = with_own_model(options.settings, options.base_recipe())
        options = replace(options, settings=settings)
    own_model: str | None = getattr(options, "own_model", None)
    if own_model is not None:
        run = next(
            getattr(options, n) for n in ("run", "model", "directory") if hasattr(options, n)
        )
        register_own_model(own_model, Path(run))
    return command.run(options) or 0


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
