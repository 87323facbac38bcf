"""`seewhy label`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import Device, OwnModel, Quiet, RunOrModel
from seewhy.cli.own_model import open_model
from seewhy.errors import SeewhyError
from seewhy.escaping import shell_text
from seewhy.progress import note

if TYPE_CHECKING:
    from seewhy.runs.labeling import ImageToLabel

MOST_ROWS = 10  # that are printed


@dataclass(frozen=True)
class Label:
    """Select the unlabeled images to label next."""

    model: RunOrModel
    images: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="IMAGE|DIRECTORY|PATTERN …", help_behavior_hint="(required)"),
    ]
    """Unlabeled image files, directories, or patterns such as "new/**/*.jpg"."""
    number: int = 50
    """Number of images to select."""
    data: Annotated[str | None, arg(metavar="NAME|PATH", help_behavior_hint="")] = None
    """Labeled images (default: those that the run was trained on)."""
    output: Path = Path("to_label.csv")
    """CSV file to write; fill in its column of labels, and train with --data."""
    own_model: OwnModel = None
    device: Device = "auto"
    quiet: Quiet = False


def label(options: Label) -> int:
    """Write the selected images as a table; returns 1 if some images could not be read."""
    from seewhy.cli import tables
    from seewhy.data.folders import image_files
    from seewhy.models.classifier import as_classifier
    from seewhy.runs.labeling import select_to_label, write_to_label
    from seewhy.train.device import find_device

    if not options.images:
        raise SeewhyError("label needs unlabeled images, as in `seewhy label runs/latest new`")
    if options.number < 1:
        raise SeewhyError(f"--number must be at least 1, found {options.number}")
    if options.output.exists():
        raise SeewhyError(f"{options.output} exists; name another file with --output")
    files = [file for path in options.images for file in image_files(path)]
    classifier = open_model(options.model, find_device(options.device))
    failures: list[str] = []
    selected = select_to_label(
        classifier, files, options.number, options.data, failures=failures, quiet=options.quiet
    )
    several = as_classifier(classifier).activation == "sigmoid"
    write_to_label(selected, options.output, several=several)
    for failure in failures:
        note(f"skipped: {failure}")
    if not options.quiet:
        rows = tables.table("image", "predicted", "confidence", "uncertainty", "novelty", left=2)
        for row in selected[:MOST_ROWS]:
            numbers = (f"{value:.2f}" for value in (row.confidence, row.uncertainty, row.novelty))
            rows.add_row(Path(row.image).name, "|".join(row.predicted), *numbers)
        tables.console().print(rows)
        if len(selected) > MOST_ROWS:
            tables.console().print(f"and {len(selected) - MOST_ROWS:,} more")
        tables.print_path("label these", options.output)
        tables.print_command("then", f"seewhy train --data {_loading(selected, options.output)}")
    return int(bool(failures))


def _loading(selected: Sequence["ImageToLabel"], table: Path) -> str:
    """The arguments with which the table is loaded, as a shell takes them."""
    folder = table.parent.resolve()
    folders = {str(Path(row.image).resolve().parent) for row in selected}
    if all(Path(each).is_relative_to(folder) for each in folders):
        return shell_text(table)
    return f"{shell_text(table)} --root {shell_text(os.path.commonpath(folders))}"
