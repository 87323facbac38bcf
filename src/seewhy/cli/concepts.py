"""`seewhy concepts`."""

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
from seewhy.escaping import visible
from seewhy.progress import progress
from seewhy.wording import counted

if TYPE_CHECKING:
    from seewhy.attribution import concepts as attribution


@dataclass(frozen=True)
class Concepts:
    """Decompose what a model sees in a class into a few concepts."""

    model: RunOrModel
    class_name: Annotated[Positional[str], arg(metavar="CLASS")]
    """Class to explain."""
    images: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="[IMAGE|DIRECTORY …]", help_behavior_hint="")
    ] = ()
    """Images of the class (default: the run's 64 test images most confidently predicted as it)."""
    layer: str = "auto"
    """Layer by name, or auto: the last one with spatial output (see `seewhy layers MODEL`)."""
    count: int = 5
    """Number of concepts."""
    classes: ClassNames = None
    max_pixels: MaxPixels = None
    output: OptionalPath = None
    """Directory to create (default: concepts/DATE-TIME-CLASS)."""
    own_model: OwnModel = None
    device: Device = "auto"
    quiet: Quiet = False


def concepts(options: Concepts) -> int:
    """Write the concepts of a class; returns 1 if some of the images could not be read."""
    from seewhy.attribution.concepts import find_concepts
    from seewhy.data.folders import image_files
    from seewhy.files import safe_file_name
    from seewhy.models.classifier import as_classifier
    from seewhy.models.weights_file import read_class_names
    from seewhy.runs.concept_files import (
        class_index,
        images_of_class,
        write_concepts,
    )
    from seewhy.runs.output import check_empty, run_directory
    from seewhy.runs.prediction_stream import read_images
    from seewhy.runs.run import Run
    from seewhy.train.device import find_device

    if options.output is not None:
        check_empty(options.output)
    files = [file for path in options.images for file in image_files(path)]
    opened = open_model(
        options.model,
        find_device(options.device),
        classes=() if options.classes is None else read_class_names(options.classes),
    )
    classifier = replace(as_classifier(opened), precision="fp32")
    index = class_index(classifier.classes, options.class_name)
    if files:
        images, names = read_images(classifier, files, options.max_pixels, options.quiet)
    elif isinstance(opened, Run):
        images, names = images_of_class(opened, index)
    else:
        raise SeewhyError(
            f"concepts needs images of the class, as in `seewhy concepts {options.model} "
            f"{options.class_name} photos/`"
        )
    with progress("finding concepts", len(images), options.quiet) as advance:
        found = find_concepts(
            classifier, images, options.layer, options.count, index, progress=advance
        )
    with run_directory(
        safe_file_name(options.class_name), options.output, root="concepts"
    ) as directory:
        write_concepts(found, images, names, options.class_name, directory)
    if not options.quiet:
        _print_concepts(found, options.class_name, directory)
    return int(0 < len(names) < len(files))


def _print_concepts(concepts: "attribution.Concepts", class_name: str, directory: Path) -> None:
    from seewhy.cli import tables

    out = tables.console()
    images = counted(len(concepts.maps), "image")
    out.print(f"class {visible(class_name)}, layer {concepts.layer}, {images}\n")
    rows = tables.table("concept", "importance", "95% interval", "stability")
    for number, (drop, stability) in enumerate(
        zip(concepts.importance, concepts.stability.tolist(), strict=True), 1
    ):
        low, high = drop.interval
        rows.add_row(str(number), f"{drop.mean:.2f}", f"{low:.2f}–{high:.2f}", f"{stability:.2f}")
    out.print(rows)
    out.print(
        "\nimportance: drop of the logit without the concept\n"
        "stability: cosine similarity with the concepts of each half of the images\n"
        f"The concepts reproduce {100 * concepts.explained:.0f}% of the activation.\n"
    )
    tables.print_path("written to", directory)
    out.print("concepts.svg, concepts.png, concepts.json, concepts.npz")
