"""`seewhy tcav`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import (
    ClassNames,
    Device,
    Flag,
    MaxPixels,
    OptionalPath,
    OwnModel,
    Quiet,
    RunOrModel,
)
from seewhy.cli.own_model import open_model
from seewhy.errors import SeewhyError
from seewhy.escaping import visible
from seewhy.progress import progress, say

if TYPE_CHECKING:
    from seewhy.runs.concept_tests import ConceptTest


@dataclass(frozen=True)
class Tcav:
    """Test which classes depend on concepts given as images."""

    model: RunOrModel
    concepts: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="DIRECTORY …", help_behavior_hint="(required)"),
    ]
    """A directory of at least 10 images for each concept, as in stripes or stripes=DIRECTORY."""
    random: OptionalPath = None
    """Directory of images without the concepts (default: 200 test images of all classes)."""
    explain: Annotated[tuple[str, ...], arg(metavar="CLASS …", help_behavior_hint="")] = ()
    """Classes to explain (default: all)."""
    layer: str = "auto"
    """Layer by name, or auto: the last one with spatial output (see `seewhy layers MODEL`)."""
    data: Annotated[str | None, arg(metavar="NAME|PATH", help_behavior_hint="")] = None
    """Labeled images of the classes (default: the test images of the run)."""
    classes: ClassNames = None
    max_pixels: MaxPixels = None
    json: Flag = False
    """Print JSON."""
    own_model: OwnModel = None
    device: Device = "auto"
    quiet: Quiet = False


def tcav(options: Tcav) -> int:
    """Print the TCAV scores of each concept and class; returns 1 if some images were skipped."""
    from seewhy.data.folders import image_files
    from seewhy.data.sources import reload_data
    from seewhy.models.classifier import as_classifier
    from seewhy.models.weights_file import read_class_names
    from seewhy.runs.concept_files import class_index
    from seewhy.runs.concept_tests import concept_test_values, run_concept_tests
    from seewhy.runs.prediction import measured_data
    from seewhy.runs.prediction_stream import read_images
    from seewhy.runs.run import Run
    from seewhy.train.device import find_device

    quiet = options.quiet or options.json
    files = {
        name: image_files(directory)
        for name, directory in _named_directories(options.concepts).items()
    }
    random = [] if options.random is None else image_files(options.random)
    opened = open_model(
        options.model,
        find_device(options.device),
        classes=() if options.classes is None else read_class_names(options.classes),
    )
    if isinstance(opened, Run) and options.data is None:
        classifier, test = as_classifier(opened), reload_data(opened.data_origin).test
    elif options.data is None:
        raise SeewhyError(
            f"tcav needs images of the classes of {options.model}, as in --data photos"
        )
    else:
        classifier, data = measured_data(opened, options.data)
        test = data.test
    classifier = replace(classifier, precision="fp32")
    explained = [class_index(classifier.classes, name) for name in options.explain]
    read = {
        name: read_images(classifier, paths, options.max_pixels, quiet)[0]
        for name, paths in files.items()
    }
    others = read_images(classifier, random, options.max_pixels, quiet)[0] if random else None
    steps = len(files) + (len(explained) or len(classifier.classes))
    with progress("testing concepts", steps, quiet) as advance:
        tests = run_concept_tests(
            classifier, test, read, others, options.layer, explained or None, advance
        )
    if options.json:
        say(json.dumps([concept_test_values(each) for each in tests], allow_nan=False))
    elif not options.quiet:
        _print_tests(tests)
    pixels = sum(map(len, read.values())) + (0 if others is None else len(others))
    return int(pixels < sum(map(len, files.values())) + len(random))


def _named_directories(concepts: Sequence[str]) -> dict[str, Path]:
    """The directory of each concept, by the name before "=" or that of the directory."""
    if not concepts:
        raise SeewhyError("tcav needs images of concepts, as in `seewhy tcav runs/latest stripes`")
    directories: dict[str, Path] = {}
    for text in concepts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if name in directories:
            raise SeewhyError(
                f"two concepts are named {name!r}; name them, as in stripes={visible(path)}"
            )
        directories[name] = Path(path)
    return directories


def _print_tests(tests: Sequence["ConceptTest"]) -> None:
    from seewhy.attribution.concept_vectors import MIN_ACCURACY
    from seewhy.cli import tables

    out = tables.console()
    accuracies = {each.concept: each.score.accuracy for each in tests}
    out.print(f"layer {tests[0].score.layer}\n")
    rows = tables.table("concept", "accuracy")
    for name, accuracy in accuracies.items():
        rows.add_row(name, tables.percent(accuracy, 0))
    out.print(rows)
    out.print()
    rows = tables.table("concept", "class", "images", "score", "random", "sensitivity", "p", left=2)
    for each in tests:
        low, high = each.random_interval
        rows.add_row(
            each.concept,
            each.class_name,
            str(each.images),
            f"{each.score.score:.2f}",
            f"{low:.2f}–{high:.2f}",
            f"{each.score.sensitivity:+.1f}",
            f"{each.adjusted_p_value:.3f}",
        )
    out.print(rows)
    out.print(
        "\naccuracy: of telling images with the concept from others; 50% by chance\n"
        "score: fraction of the images whose logit of the class rises with the concept\n"
        "random: 95% of the scores of random images in place of the concept\n"
        "sensitivity: mean derivative of the logit along the concept, relative to random images\n"
        "p: of the sensitivity, corrected for all rows (Holm)"
    )
    for name, accuracy in accuracies.items():
        if accuracy < MIN_ACCURACY:
            out.print(
                f"warning: this layer hardly represents {visible(name)} (accuracy "
                f"{tables.percent(accuracy, 0)}), so its scores mean nothing; try another --layer"
            )
