"""`seewhy train`, `seewhy resume` and `seewhy demo`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from seewhy.cli.arguments import (
    AUTO,
    DataOptions,
    Device,
    Flag,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    OwnModel,
    RecipeOptions,
    ReportMinutes,
    check_report_minutes,
    load_data,
)
from seewhy.errors import SeewhyError
from seewhy.escaping import shell_text
from seewhy.experiments.parallel import Parallel
from seewhy.progress import note, say, waiting
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.train.world import is_first_process, is_restart

if TYPE_CHECKING:
    from seewhy.data.dataset import Dataset
    from seewhy.runs.choice import Choice
    from seewhy.runs.run import Run
    from seewhy.train.recipe import Recipe


@dataclass(frozen=True)
class Train(RecipeOptions):
    """Train a model on a dataset; the recipe is optional."""

    default_recipe = AUTO

    recipe: Annotated[Positional[str], arg(metavar="[RECIPE|FILE.toml]")]
    """Built-in recipe (see `seewhy recipes`) or TOML file; if omitted, chosen for the data."""
    folds: OptionalInt = None
    """Cross-validate: predict each image by a run that has not seen it; then train on all."""
    minutes: OptionalFloat = None
    """Train as many of the recipe's epochs as fit into this time (default: all)."""
    checkpoint: OmitArgPrefixes[CheckpointPolicy] = field(default_factory=CheckpointPolicy)
    """How often to write a checkpoint."""
    output: OptionalPath = None
    """Run directory to create (default: runs/DATE-TIME-NAME)."""
    device: Device = "auto"
    no_report: Flag = False
    """Do not write report.html at the end."""
    report_minutes: ReportMinutes = 2.0
    """Time for the report: each analysis gets as many test images as fit; inf for no limit."""
    quiet: Flag = False
    """Print no progress."""

    def base_recipe(self) -> "Recipe":
        """The recipe that `settings` start from: the one that is named, or chosen."""
        return self.choice().recipe if self.recipe == AUTO else super().base_recipe()

    def choice(self) -> "Choice":
        """The recipe for the data, the model and the device."""
        from seewhy.runs.choice import choose_recipe

        model = None if self.settings.model == AUTO else self.settings.model
        return choose_recipe(self.data, model, self.device, **self.loading.of_source())


def train(options: Train) -> int:
    """Train a model and print its result; returns 1 if the report could not be written."""
    with waiting("loading torch", options.quiet, brief=True):
        from seewhy.runs.directory import has_started
        from seewhy.runs.output import check_empty, run_directory
        from seewhy.runs.training import fit
        from seewhy.train.plan import check_recipe

    check_recipe(options.settings)  # before the data is loaded
    check_report_minutes(options.report_minutes)
    if options.output is not None and is_restart() and has_started(options.output):
        return _restart(options, options.output)
    if options.output is not None:
        check_empty(options.output)
    recipe, policy = options.settings, options.checkpoint
    data = load_data(options.data, _loading(options), options.folds, options.quiet)
    if options.minutes is not None:
        from seewhy.runs.pace import fit_into

        runs = data.num_folds + 1
        recipe, line = fit_into(recipe, data, options.minutes / runs, options.device)
        line += f" (a share of {options.minutes:g} for each of {runs} runs)" * (runs > 1)
        note(line, options.quiet or not is_first_process())
    if not is_first_process():
        fit(recipe, data, None, options.device, options.quiet, policy)
        return 0
    say(repr(data))
    with run_directory(recipe.name, options.output) as directory:
        run = fit(recipe, data, directory, options.device, options.quiet, policy)
    code = _finish(run, data, options.no_report, options.quiet, options.report_minutes)
    if Path(options.data).is_dir():
        say(_check_hint(options.data, recipe.model, options.loading.label_pattern))
    return code


def _check_hint(data: str, model: str, label_pattern: str | None = None) -> str:
    """The command that checks the images, with a model whose features find wrong labels."""
    from seewhy.runs.choice import has_published_weights

    command = f"seewhy check {shell_text(data)}"
    if label_pattern is not None:
        command += f" --label-pattern {shell_text(label_pattern)}"
    if not has_published_weights(model):
        return f"copies and odd images: {command}"
    return f"copies, odd images, wrong labels: {command} --model {shell_text(model)}"


def _restart(options: Train, directory: Path) -> int:
    """Resume the run of the processes that torchrun has ended; all of them decide alike."""
    from seewhy.runs.training import resume as resume_run

    first = is_first_process()
    note(f"seewhy: restarted by torchrun: resuming {directory}", options.quiet or not first)
    run = resume_run(
        directory, device=options.device, quiet=options.quiet, checkpoint=options.checkpoint
    )
    return (
        _finish(run, None, options.no_report, options.quiet, options.report_minutes) if first else 0
    )


def _loading(options: Train) -> DataOptions:
    """How to load the data: photographs for published weights as these need them.

    Prints which recipe was chosen, if none was named.
    """
    from seewhy.data.facts import data_facts
    from seewhy.runs.choice import has_published_weights, loading_for

    loading, values = options.loading, {}
    if options.recipe == AUTO:
        choice = options.choice()
        note(choice.reason, options.quiet or not is_first_process())
        note(choice.alternative, options.quiet or not is_first_process())
        values = dict(choice.loading)
    elif has_published_weights(options.settings.model):
        facts = data_facts(options.data, **loading.of_source())
        values = dict(loading_for(options.settings.model, facts))
    if loading.image_size is not None or loading.margin:
        values = {name: value for name, value in values.items() if name == "interpolation"}
    if loading.interpolation is not None:
        values.pop("interpolation", None)
    return replace(loading, **values)


@dataclass(frozen=True)
class Resume:
    """Resume an interrupted run or experiment in its directory."""

    directory: Annotated[Positional[Path], arg(metavar="RUN|EXPERIMENT")]
    """Directory of a run, such as runs/latest, or of an experiment."""
    checkpoint: OmitArgPrefixes[CheckpointPolicy] = field(default_factory=CheckpointPolicy)
    """How often to write a checkpoint (default: as before). Applies only to runs."""
    parallel: OmitArgPrefixes[Parallel] = field(default_factory=Parallel)
    """Where to train. For a run, only --device applies."""
    lr: OptionalFloat = None
    """Peak learning rate from here on (default: that of the recipe). Applies only to runs."""
    own_model: OwnModel = None
    no_report: Flag = False
    """Do not write report.html at the end (default: as before). Applies only to runs."""
    quiet: Flag = False
    """Print no progress."""


def resume(options: Resume) -> int:
    """Resume a run, or the unfinished runs of an experiment."""
    if (options.directory / "experiment.json").is_file():
        return _resume_experiment(options)
    from seewhy.runs.directory import read_command
    from seewhy.runs.training import resume as resume_run

    if options.parallel != Parallel(device=options.parallel.device):
        raise SeewhyError(
            f"--jobs and --backend are for experiments; {options.directory} is not one"
        )
    run = resume_run(
        options.directory,
        device=options.parallel.device,
        quiet=options.quiet,
        checkpoint=None if options.checkpoint == CheckpointPolicy() else options.checkpoint,
        lr=options.lr,
    )
    no_report = options.no_report or "--no-report" in read_command(options.directory)
    return _finish(run, None, no_report, options.quiet) if is_first_process() else 0


def _resume_experiment(options: Resume) -> int:
    from seewhy.cli.compare import finish
    from seewhy.experiments.runner import resume_experiment

    if options.checkpoint != CheckpointPolicy() or options.lr is not None:
        raise SeewhyError(
            f"checkpoint options and --lr are for runs; {options.directory} is an experiment"
        )
    experiment = resume_experiment(
        options.directory, parallel=options.parallel, quiet=options.quiet
    )
    return finish(experiment)


def _finish(
    run: "Run", data: "Dataset | None", no_report: bool, quiet: bool, minutes: float = 2.0
) -> int:
    """Write the report and print the result; the result also if there is no report."""
    from seewhy.cli import tables

    code = 0
    try:
        if not no_report:
            from seewhy.reporting.page import report

            report(run, data, quiet=quiet, minutes=minutes)
    except SeewhyError as error:  # the run has finished and is kept
        note(f"seewhy: no report was written: {error}")
        code = 1
    finally:
        tables.print_run(run)
    return code


@dataclass(frozen=True)
class Demo:
    """Train on embedded handwritten digits in under a minute."""

    output: OptionalPath = None
    """Run directory to create (default: runs/DATE-TIME-demo)."""


def demo(options: Demo) -> int:
    """Train on scikit-learn's 1,797 handwritten digits; nothing is downloaded."""
    from seewhy.train.recipes import RECIPES

    say("Equivalent command: seewhy train demo --data digits\n")
    return train(Train("demo", "digits", settings=RECIPES["demo"], output=options.output))
