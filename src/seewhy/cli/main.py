"""The command line: a table of commands, each with its options and the function that runs it."""

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NamedTuple

from seewhy import __version__
from seewhy.cli.streams import lasting_streams
from seewhy.errors import SeewhyError, first_line, lookup
from seewhy.interruption import INTERRUPTIONS, exit_code, handling_interruptions
from seewhy.progress import note, say


class Command(NamedTuple):
    """Where a command is, and what it does; its module is imported when it runs."""

    module: str  # of this package
    options: str  # a dataclass in it, whose docstring is the summary
    function: str  # takes the options; returns the exit code, or None for 0
    summary: str
    file_options: tuple[str, ...] | None = None  # with which it writes files; None: it always does

    def load(self) -> tuple[type, Callable[[Any], int | None]]:
        """The dataclass and the function."""
        module = import_module(f"seewhy.cli.{self.module}")
        return getattr(module, self.options), getattr(module, self.function)


COMMANDS = {
    "demo": Command(
        "train", "Demo", "demo", "Train on embedded handwritten digits in under a minute."
    ),
    "train": Command(
        "train", "Train", "train", "Train a model on a dataset; the recipe is optional."
    ),
    "resume": Command(
        "train", "Resume", "resume", "Resume an interrupted run or experiment in its directory."
    ),
    "find-lr": Command(
        "find_lr",
        "FindLr",
        "find_lr",
        "Suggest learning rates for a recipe with a range test.",
        ("--output",),
    ),
    "compare": Command(
        "compare", "Compare", "compare", "Compare variants of a recipe over several seeds."
    ),
    "evaluate": Command(
        "predict",
        "Evaluate",
        "evaluate",
        "Measure accuracy on a dataset, overall and per class.",
        (),
    ),
    "predict": Command(
        "predict", "Predict", "predict", "Predict the classes of image files.", ("--output",)
    ),
    "export": Command(
        "export", "Export", "export", "Write a model as ONNX or a torch.export program."
    ),
    "report": Command(
        "report", "Report", "report", "Write an offline HTML report of where a model fails and why."
    ),
    "explain": Command(
        "explain", "Explain", "explain", "Draw attribution maps of images, or of a run's errors."
    ),
    "trust": Command(
        "explain", "Trust", "trust", "Measure the faithfulness of each method and layer.", ()
    ),
    "concepts": Command(
        "concepts",
        "Concepts",
        "concepts",
        "Decompose what a model sees in a class into a few concepts.",
    ),
    "tcav": Command(
        "tcav", "Tcav", "tcav", "Test which classes depend on concepts given as images.", ()
    ),
    "counterfactual": Command(
        "counterfactual",
        "Counterfactual",
        "counterfactual",
        "Find the small regions that decide a prediction.",
    ),
    "label": Command("label", "Label", "label", "Select the unlabeled images to label next."),
    "data": Command(
        "info", "Data", "data", "Describe a dataset: statistics, class counts, duplicates."
    ),
    "check": Command(
        "check",
        "Check",
        "check",
        "Check labeled images: defects, copies, wrong labels, drift.",
        ("--output", "--json", "--junit"),
    ),
    "cache": Command(
        "info", "Cache", "cache", "List cached datasets, or verify their checksums.", ()
    ),
    "summary": Command(
        "info",
        "Summary",
        "summary",
        "Print the layers of a model and their costs, and draw it.",
        ("--figure",),
    ),
    "list": Command(
        "info", "List", "list_", "List the names of models, optimizers and other entries.", ()
    ),
    "recipes": Command(
        "info", "Recipes", "recipes", "List the built-in recipes, or print one as TOML.", ()
    ),
    "layers": Command(
        "explain", "Layers", "layers", "List the layers at which a model can be explained.", ()
    ),
    "methods": Command(
        "explain", "Methods", "methods", "List the attribution methods with papers and costs.", ()
    ),
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
        return _interrupted(interruption, arguments)
    except Exception as error:
        if received:  # a library may turn the interruption into an error of its own
            return _interrupted(INTERRUPTIONS[received[0]](), arguments)
        if _is_out_of_memory(error):
            error = SeewhyError(f"{OUT_OF_MEMORY} ({first_line(error)})")
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
    if command is None:
        return message
    from seewhy.cli.arguments import name_options

    return name_options(message, command.load()[0])


OUT_OF_MEMORY = (
    "not enough memory: use fewer or smaller images at once, such as a smaller batch_size, or a "
    "smaller model"
)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # it takes a second to import
        return isinstance(error, MemoryError)
    from seewhy.models.memory import is_out_of_memory

    return is_out_of_memory(error)


def _interrupted(interruption: KeyboardInterrupt, arguments: Sequence[str]) -> int:
    kept = " Files written so far are kept." if _writes_files(arguments) else ""
    note(f"seewhy: {str(interruption) or f'Interrupted.{kept}'}")
    return exit_code(interruption)


def _writes_files(arguments: Sequence[str]) -> bool:
    """Whether the command may have written files when it was interrupted."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None or command.file_options is None:
        return command is not None
    return any(argument.partition("=")[0] in command.file_options for argument in arguments)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(overview())
        return 0
    if arguments[0] == "--version":
        say(f"seewhy {__version__}")
        return 0
    name = arguments[0]
    command = lookup(COMMANDS, name, "command")
    from seewhy.cli.arguments import RecipeOptions, parse
    from seewhy.cli.own_model import register_own_model, with_own_model

    kind, run_command = command.load()
    options: Any = parse(name, kind, arguments[1:])
    if isinstance(options, RecipeOptions) and ":" in options.settings.model:
        settings = with_own_model(options.settings, options.base_recipe())
        options = replace(options, settings=settings)
    own_model: str | None = getattr(options, "own_model", None)
    if own_model is not None:
        run = next(
            getattr(options, n) for n in ("run", "model", "directory") if hasattr(options, n)
        )
        register_own_model(own_model, Path(run))
    return run_command(options) or 0


def overview() -> str:
    """The text of `seewhy --help`."""
    width = min(get_terminal_size().columns, 100)
    indent = max(map(len, COMMANDS)) + 3
    rows = [
        fill(
            command.summary,
            width,
            initial_indent=f"  {name}".ljust(indent),
            subsequent_indent=indent * " ",
        )
        for name, command in COMMANDS.items()
    ]
    paragraphs = [
        "seewhy trains image classifiers fast, then shows why they are right and wrong.",
        "usage: seewhy COMMAND …",
        "`seewhy COMMAND --help` lists the options of a command.",
        "`--debug` shows the traceback of an error.",
    ]
    title, usage, *hints = (fill(text, width) for text in paragraphs)
    return "\n".join([title, "", usage, "", *rows, "", *hints])
