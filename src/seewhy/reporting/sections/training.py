"""Training: curves, the model, recipe, data and environment."""

from seewhy.figures.curves import accuracy_figure, loss_figure, lr_schedule_figure
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.formatting import duration, percent
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sections.model import model_drawing
from seewhy.reporting.sprites import Sprites
from seewhy.runs.console import probe_text
from seewhy.runs.result import RunResult, describe_test_use
from seewhy.runs.run import Run
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import to_toml
from seewhy.wording import counted


def training_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """Loss, accuracy and learning rate by epoch, the model, the recipe, and the environment.

    None without a run.
    """
    run, result = context.run, context.result
    if run is None or result is None:
        return None
    split = "test" if result.selected_on == "last epoch" else "validation"
    trained = count_epochs(result.epochs) if result.epochs else "A linear probe"
    finding = (
        f"{trained} took {duration(result.train_seconds)} "
        f"on {run.environment.hardware} ({result.images_per_second:,.0f} images/s); "
        f"final training loss {run.history[-1].train_loss:.3f}."
    )
    if result.folds:
        finding += (
            f" This is the last training, on all images; those of the {result.folds} folds are in "
            "folds/."
        )
    if result.test_used_by:
        finding += f" {describe_test_use(result.test_used_by)}"
    figures = {
        "loss": loss_figure(run.history, split),
        "accuracy": accuracy_figure(run.history, split),
        "lr_schedule": lr_schedule_figure(run.history),
    }
    panels = [
        (
            figure_html(figures["loss"], "loss", "Loss by epoch"),
            "The criterion of the training on both splits: cross entropy, with label smoothing and "
            "class weights if set. Training images are augmented. NLL: plain negative "
            "log-likelihood.",
        ),
        (
            figure_html(figures["accuracy"], "accuracy", "Accuracy by epoch"),
            "Without test-time augmentation.",
        ),
        (
            figure_html(
                figures["lr_schedule"], "lr_schedule", "Learning rate and momentum by epoch"
            ),
            "At the end of each epoch.",
        ),
    ]
    if run.range_test is not None:
        figures["range_test"] = lr_finder_figure(run.range_test)
        panels.append(
            (
                figure_html(figures["range_test"], "range_test", "Loss by learning rate"),
                "A short run before the training, with a growing learning rate.",
            )
        )
    if result.epochs == 0:  # a curve of one point shows nothing
        figures, panels = {}, []
    html = render(
        "sections/training.html",
        panels=panels,
        headers=[
            "epoch",
            "#seconds",
            "#training loss",
            "#training accuracy",
            f"#{split} loss",
            f"#{split} NLL",
            f"#{split} accuracy",
            "#learning rate",
            "#momentum",
        ],
        rows=[_row(stats) for stats in run.history],
        facts=_facts(run, result),
        drawing=model_drawing(run.classifier, run.recipe.model),
        recipe=to_toml(run.recipe),
    )
    return Section("Training", finding, html, figures=figures)


def count_epochs(epochs: float) -> str:
    """`1 epoch`, `1.5 epochs`."""
    return f"{epochs:g} epoch{'s' * (epochs != 1)}"


def _row(stats: EpochStats) -> tuple[str, ...]:
    evaluated = stats.eval_loss is not None and stats.eval_accuracy is not None
    return (
        f"{stats.epoch:g}",
        f"{stats.seconds:,.1f}",
        f"{stats.train_loss:.4f}",
        percent(stats.train_accuracy, 2),
        f"{stats.eval_loss:.4f}" if evaluated else "–",
        "–" if stats.eval_nll is None else f"{stats.eval_nll:.4f}",
        percent(stats.eval_accuracy or 0, 2) if evaluated else "–",
        f"{stats.lr:.4g}",
        f"{stats.momentum:.4g}",
    )


def _facts(run: Run, result: RunResult) -> list[tuple[str, str]]:
    """Names and values of the environment table."""
    images = [counted(number, f"{split} image") for split, number in run.data_origin.images.items()]
    packages, weights = run.environment.packages, run.environment.weights
    return [
        ("model", f"{run.recipe.model}, {counted(result.parameters, 'parameter')}"),
        ("data", f"{run.data_origin.name}: {', '.join(images)}"),
        ("data fingerprint", run.data_origin.fingerprint),
        *([("initial weights", f"{weights.path}, SHA-256 {weights.sha256}")] if weights else []),
        *([("probe", probe_text(run.probe).removeprefix("probe: "))] if run.probe else []),
        ("hardware", run.environment.hardware),
        ("precision", run.classifier.precision),
        ("versions", ", ".join(f"{name} {version}" for name, version in packages.items())),
        ("checkpoint", result.selected_on),
        *([("test set used by", result.test_used_by)] if result.test_used_by else []),
    ]
