"""`seewhy train` and `seewhy demo`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy.cli.arguments import DataName, DataOptions, load_data, parse
from seewhy.errors import SeewhyError
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.train.recipe import Recipe
from seewhy.train.world import is_first_process

if TYPE_CHECKING:
    from seewhy.data.dataset import Dataset
    from seewhy.runs.run import Run


@dataclass(frozen=True)
class Train:
    """Train a network on a data set, and write a run directory; `seewhy train --resume RUN` goes on with one."""

    start: Annotated[Positional[str], arg(metavar="RECIPE|FILE.toml")]
    """A built-in recipe, see `seewhy recipes`, or a file."""
    data: DataName
    """Data set: a name, hub:owner/name, or a directory of class folders or Parquet files."""
    loading: OmitArgPrefixes[DataOptions]
    recipe: OmitArgPrefixes[Recipe]
    checkpoint: OmitArgPrefixes[CheckpointPolicy]
    output: Path | None = None
    """Run directory to make; by default runs/DATE-TIME-RECIPE."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    report: bool = True
    """End with report.html: mistakes, confusions, calibration, robustness and more."""
    quiet: bool = False
    """Show nothing while training."""


@dataclass(frozen=True)
class Resume:
    """Go on with a training that was interrupted, from its last checkpoint and in its directory."""

    resume: Path
    """Run directory, such as runs/latest."""
    checkpoint: OmitArgPrefixes[CheckpointPolicy]
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    report: bool = True
    """End with report.html: mistakes, confusions, calibration, robustness and more."""
    quiet: bool = False
    """Show nothing while training."""


def train(arguments: list[str]) -> None:
    """Train a network on a data set, or go on with a training: --resume RUN."""
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        resume(arguments)
        return
    from seewhy.train.recipes import find_recipe

    def parsed(recipe: Recipe) -> Train:
        return parse(
            "train",
            Train,
            arguments,
            Train(tyro.MISSING, tyro.MISSING, DataOptions(), recipe, CheckpointPolicy()),
        )

    first = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    options = parsed(find_recipe(first) if first else Recipe())
    if (
        options.start != first
    ):  # the recipe was not the first word: only now is it known whose fields the options change
        options = parsed(find_recipe(options.start))

    from seewhy.runs.directory import check_empty, run_directory
    from seewhy.runs.training import fit

    if options.output is not None:
        check_empty(options.output)
    data = load_data(options.data, options.loading)
    if not is_first_process():
        fit(options.recipe, data, None, options.device, options.quiet, options.checkpoint)
        return
    print(data)
    with run_directory(options.recipe.name, options.output) as directory:
        run = fit(
            options.recipe, data, directory, options.device, options.quiet, options.checkpoint
        )
    _finish(run, data, options.report, options.quiet)


def resume(arguments: list[str]) -> None:
    """Go on with a training that was interrupted."""
    options = parse("train", Resume, arguments, Resume(tyro.MISSING, CheckpointPolicy()))

    from seewhy.runs.training import resume

    run = resume(
        options.resume, device=options.device, quiet=options.quiet, checkpoint=options.checkpoint
    )
    if is_first_process():
        _finish(run, None, options.report, options.quiet)


def _finish(run: "Run", data: "Dataset | None", with_report: bool, quiet: bool) -> None:
    """Write the report, and say how the training went and where everything is."""
    from seewhy.cli import tables
    from seewhy.reporting.page import report

    if with_report:
        try:
            report(run, data=data, quiet=quiet)
        except SeewhyError as error:  # the training is finished, and kept
            print(f"seewhy: no report was written: {error}", file=sys.stderr)
        except BaseException:  # interrupted, or our fault
            tables.print_run(run)
            raise
    tables.print_run(run)


def demo(arguments: list[str]) -> None:
    """Train on the embedded handwritten digits in under a minute."""

    def options(output: Path | None = None) -> Path | None:
        """Train on the 1,797 handwritten digits that come with scikit-learn; nothing is downloaded.

        Args:
            output: Run directory to make; by default runs/DATE-TIME-demo.
        """
        return output

    output = parse("demo", options, arguments)
    print("Training on the embedded digits: `seewhy train demo --data digits`\n")
    train(["demo", "--data", "digits", *([] if output is None else ["--output", str(output)])])
