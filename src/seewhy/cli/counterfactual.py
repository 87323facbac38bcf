"""`seewhy counterfactual`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import (
    ClassNames,
    Device,
    MaxPixels,
    OptionalPath,
    OwnModel,
    Quiet,
    RunOrModel,
)
from seewhy.cli.own_model import open_model
from seewhy.errors import SeewhyError
from seewhy.escaping import json_text, visible
from seewhy.progress import progress

if TYPE_CHECKING:
    from seewhy.attribution.counterfactual import Counterfactuals


@dataclass(frozen=True)
class Counterfactual:
    """Find the small regions that decide a prediction."""

    model: RunOrModel
    images: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="[IMAGE|DIRECTORY …]", help_behavior_hint="")
    ] = ()
    """Image files or directories (default: the run's most confident errors)."""
    to: Annotated[str | None, arg(metavar="CLASS", help_behavior_hint="")] = None
    """Class to change the prediction to: a name, true or runner-up (default: any other class)."""
    grid: int = 8
    """Cells per side of an image."""
    replacement: str = "blur"
    """What the region becomes: black, gray, mean or blur."""
    errors: int = 10
    """Number of errors if no images are given."""
    classes: ClassNames = None
    max_pixels: MaxPixels = None
    output: OptionalPath = None
    """Directory to create (default: counterfactuals/DATE-TIME-regions)."""
    own_model: OwnModel = None
    device: Device = "auto"
    quiet: Quiet = False


def counterfactual(options: Counterfactual) -> int:
    """Write and print the regions; returns 1 if some of the images could not be read."""
    import torch

    from seewhy.attribution.counterfactual import counterfactual_regions
    from seewhy.data.folders import image_files
    from seewhy.figures.counterfactual import counterfactual_figure
    from seewhy.figures.explanations import MAX_ROWS
    from seewhy.figures.style import save_figure
    from seewhy.files import write_text
    from seewhy.models.classifier import as_classifier
    from seewhy.models.weights_file import read_class_names
    from seewhy.runs.explain_files import error_images
    from seewhy.runs.output import check_empty, run_directory
    from seewhy.runs.prediction_stream import read_images
    from seewhy.runs.run import Run
    from seewhy.train.device import find_device

    if options.errors < 1:
        raise SeewhyError(f"errors must be at least 1, found {options.errors}")
    if options.output is not None:
        check_empty(options.output)
    files = [file for path in options.images for file in image_files(path)]
    opened = open_model(
        options.model,
        find_device(options.device),
        classes=() if options.classes is None else read_class_names(options.classes),
    )
    classifier = replace(as_classifier(opened), precision="fp32")
    labels = None
    if files:
        images, names = read_images(classifier, files, options.max_pixels, options.quiet)
    elif isinstance(opened, Run):
        errors = error_images(opened, options.errors)
        images = torch.stack([torch.from_numpy(error.source).permute(2, 0, 1) for error in errors])
        names = [error.name for error in errors]
        labels = torch.tensor([error.label for error in errors])
    else:
        raise SeewhyError(
            f"counterfactual needs at least one image, as in `seewhy counterfactual "
            f"{options.model} photo.jpg`"
        )
    with progress("searching regions", len(images), options.quiet) as advance:
        found = counterfactual_regions(
            classifier,
            images,
            options.to,
            grid=options.grid,
            replacement=options.replacement,
            labels=labels,
            progress=advance,
        )
    rows = _rows(found, names)
    with run_directory("regions", options.output, root="counterfactuals") as directory:
        shown = slice(MAX_ROWS)
        figure = counterfactual_figure(images[shown], found.take(shown))
        save_figure(figure, directory / "counterfactuals")
        write_text(directory / "counterfactuals.json", json_text(rows, indent=1) + "\n")
    if not options.quiet:
        _print_rows(rows, directory)
    return int(0 < len(names) < len(files))


def _rows(found: "Counterfactuals", names: list[str]) -> list[dict[str, object]]:
    """What was found of each image, for JSON."""
    classes = found.classes
    return [
        {
            "image": name,
            "predicted": classes[int(found.predicted[n])],
            "changed": classes[int(found.changed[n])] if found.found[n] else None,
            "area": round(float(found.area[n]), 6) if found.found[n] else None,
            "random_regions": round(float(found.chance[n]), 6) if found.found[n] else None,
        }
        for n, name in enumerate(names)
    ]


def _print_rows(rows: list[dict[str, object]], directory: Path) -> None:
    from seewhy.cli import tables

    out = tables.console()
    listed = tables.table("image", "predicted", "changed to", "area", "random", left=3)
    for row in rows:
        found = row["changed"] is not None
        listed.add_row(
            visible(str(row["image"])),
            visible(str(row["predicted"])),
            visible(str(row["changed"])) if found else "–",
            f"{100 * float(str(row['area'])):.1f}%" if found else "–",
            f"{100 * float(str(row['random_regions'])):.0f}%" if found else "–",
        )
    out.print(listed)
    out.print(
        "\narea: part of the image whose replacement changes the prediction; all of it is needed\n"
        "random: share of random regions of this size that also change the prediction\n"
    )
    tables.print_path("written to", directory)
    out.print("counterfactuals.svg, counterfactuals.png, counterfactuals.json")
