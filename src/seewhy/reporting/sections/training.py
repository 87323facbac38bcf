"""How the network was trained."""

from seewhy.figures.curves import accuracy_figure, loss_figure, lr_schedule_figure
from seewhy.figures.lr_finder import lr_finder_figure
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, count, panel, percent, render
from seewhy.reporting.sprites import Sprites
from seewhy.train.recipe import to_toml


def training(study: ReportContext, album: Sprites) -> Section:
    """Loss, accuracy and learning rate by epoch and second, the recipe, and where it ran."""
    run, result = study.run, study.result
    data, history = run.data, run.history
    held_out = "test" if result.selected_on == "last epoch" else "valid"
    device = run.environment.hardware
    last = history[-1]
    finding = (
        f"{result.epochs:g} epochs took {result.train_seconds:,.0f} s of training on {device}, {result.images_per_second:,.0f} images "
        f"a second, and ended at a training loss of {last.train_loss:.3f}."
    )
    figures = {
        "loss": loss_figure(history, held_out),
        "accuracy": accuracy_figure(history, held_out),
        "rate": lr_schedule_figure(history),
    }
    panels = [
        (
            panel(figures["loss"], "loss", "Loss by epoch"),
            "Training is measured on augmented images.",
        ),
        (
            panel(figures["accuracy"], "accuracy", "Accuracy by epoch"),
            "Without test-time augmentation.",
        ),
        (
            panel(figures["rate"], "rate", "Learning rate and momentum by epoch"),
            "At the end of each epoch.",
        ),
    ]
    if run.range_test is not None:
        figures["range_test"] = lr_finder_figure(run.range_test)
        panels.append(
            (
                panel(figures["range_test"], "range_test", "Loss by learning rate"),
                "The range test that found the learning rate.",
            )
        )
    rows = [
        (
            f"{row.epoch:g}",
            f"{row.seconds:,.1f}",
            f"{row.train_loss:.4f}",
            percent(row.train_accuracy, 2),
        )
        + (
            ("–", "–")
            if row.eval_loss is None
            else (f"{row.eval_loss:.4f}", percent(row.eval_accuracy or 0, 2))
        )
        + (f"{row.lr:.4g}", f"{row.momentum:.4g}")
        for row in history
    ]
    setting = [
        ("network", f"{run.recipe.model}, {count(result.parameters, 'parameter')}"),
        (
            "data",
            f"{data.name}: "
            + ", ".join(
                f"{count(number, f'{split} image')}" for split, number in data.images.items()
            ),
        ),
        ("fingerprint of the data", data.fingerprint),
        ("device and precision", f"{device}, {run.environment.precision}"),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in run.environment.packages.items()),
        ),
        ("result chosen on", result.selected_on),
    ]
    html = render(
        "sections/training.html",
        panels=panels,
        rows=rows,
        held_out=held_out,
        setting=setting,
        recipe=to_toml(run.recipe),
    )
    return Section("Training", finding, html, figures=figures)
