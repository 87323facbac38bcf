"""`seewhy explain`, `seewhy trust`, `seewhy layers` and `seewhy methods`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import (
    ClassNames,
    Device,
    Flag,
    ImageRange,
    MaxPixels,
    OptionalFloat,
    OptionalInt,
    OptionalNumbers,
    OptionalPath,
    OptionalText,
    OwnModel,
    Quiet,
    RunOrModel,
    RunPath,
    range_of_words,
)
from seewhy.cli.own_model import open_model
from seewhy.errors import SeewhyError
from seewhy.progress import say

if TYPE_CHECKING:
    from seewhy.attribution.target import Target

MethodWords = Annotated[tuple[str, ...], arg(metavar="METHOD …")]
LayerWords = Annotated[tuple[str, ...], arg(metavar="LAYER …")]
TargetWords = Annotated[tuple[str, ...], arg(metavar="TARGET [TARGET]", help_behavior_hint="")]


@dataclass(frozen=True)
class Explain:
    """Draw attribution maps of images, or of a run's errors."""

    model: RunOrModel
    images: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="[IMAGE|DIRECTORY …]", help_behavior_hint="")
    ] = ()
    """Image files or directories (default: the run's most confident errors)."""
    methods: MethodWords = ("grad-cam",)
    """Methods, with settings as in rise:masks=500 (see `seewhy methods`)."""
    layers: LayerWords = ("auto",)
    """Layers by name, or auto: the last layer of each resolution (see `seewhy layers MODEL`)."""
    target: TargetWords = ()
    """predicted (default), true, runner-up, class name or number; two: difference of logits."""
    smooth: str = "none"
    """Average maps over flips (flip), or over flips and three brightness levels (flip-scale)."""
    errors: int = 10
    """Number of errors to explain if no images are given."""
    opacity: float = 0.5
    """Maximum opacity of the overlay, from 0 to 1."""
    image_size: OptionalInt = None
    """Image size for published weights (default: that of the weights)."""
    crop: OptionalFloat = None
    """Fraction of the shorter side to keep, for published weights (default: theirs)."""
    mean: OptionalNumbers = None
    """Mean of each channel, in [0, 1], for weights in a file (default: that of ImageNet)."""
    std: OptionalNumbers = None
    """Standard deviation of each channel, likewise."""
    classes: ClassNames = None
    max_pixels: MaxPixels = None
    range: ImageRange = ()
    output: OptionalPath = None
    """Directory to create (default: explanations/DATE-TIME-METHOD)."""
    own_model: OwnModel = None
    device: Device = "auto"
    quiet: Quiet = False


def explain(options: Explain) -> int:
    """Write overlays and maps; returns 1 if some of the images could not be read."""
    from seewhy.attribution.methods import bind_methods
    from seewhy.cli import tables
    from seewhy.data.folders import image_files
    from seewhy.models.classifier import as_classifier, with_range
    from seewhy.models.weights_file import read_class_names
    from seewhy.runs.explain_files import (
        ExplainOptions,
        ImageFile,
        error_images,
        read_top_predictions,
        write_explanations,
    )
    from seewhy.runs.output import check_empty, run_directory
    from seewhy.runs.run import Run
    from seewhy.train.device import find_device

    if options.errors < 1:
        raise SeewhyError(f"errors must be at least 1, found {options.errors}")
    if not 0 <= options.opacity <= 1:
        raise SeewhyError(f"opacity must be from 0 to 1, found {options.opacity:g}")
    bind_methods(options.methods)
    target = _one_or_pair(options.target)
    requested = ExplainOptions(
        options.methods,
        options.layers,
        target,
        options.smooth,
        options.opacity,
        options.max_pixels,
    )
    if options.output is not None:
        check_empty(options.output)
    files = [file for path in options.images for file in image_files(path)]
    opened = open_model(
        options.model,
        find_device(options.device),
        options.image_size,
        classes=() if options.classes is None else read_class_names(options.classes),
        crop=options.crop,
        mean=options.mean,
        std=options.std,
    )
    if files:
        images = [ImageFile(str(file), file) for file in files]
    elif isinstance(opened, Run):
        images = error_images(opened, options.errors)
    else:
        raise SeewhyError(
            f"explain needs at least one image, as in `seewhy explain {options.model} photo.jpg`"
        )
    classifier = replace(as_classifier(opened), precision="fp32")
    classifier = with_range(classifier, range_of_words(options.range))
    name = options.methods[0].partition(":")[0]
    with run_directory(name, options.output, root="explanations") as directory:
        explanation = write_explanations(classifier, images, requested, directory, options.quiet)
    if not options.quiet:
        if files:
            tables.print_predictions(read_top_predictions(directory))
        tables.print_explanation(explanation, directory)
    return int(len(explanation.logits) < len(images))


@dataclass(frozen=True)
class Trust:
    """Measure the faithfulness of each method and layer."""

    run: RunPath
    """Run directory, such as runs/latest."""
    methods: MethodWords = ("auto",)
    """Methods, with settings as in rise:masks=500 (see `seewhy methods`), or auto: cheap ones."""
    layers: LayerWords = ("auto",)
    """Layers by name, or auto: the last layer of each resolution."""
    target: TargetWords = ()
    """What to explain, as in `seewhy explain`."""
    tune: OptionalText = None
    """Method whose layer and settings to choose, instead of measuring --methods."""
    seconds: float = 300.0
    """Time limit (inf: none); maps of the first layers, or settings, beyond it are left out."""
    images: int = 64
    """Number of test images, a fixed random sample; --tune selects on half of them."""
    json: Flag = False
    """Print JSON."""
    own_model: OwnModel = None
    device: Device = "auto"
    quiet: Flag = False
    """Print no progress."""


def trust(options: Trust) -> None:
    """Print how faithful the maps of each method at each layer are, or tune one method."""
    from seewhy.cli import tables, tuning_tables
    from seewhy.reporting.values import trust_values, tuning_values
    from seewhy.runs.run import open_run
    from seewhy.runs.trust_run import trust_of_run, tune_on_run
    from seewhy.train.device import find_device

    if not options.seconds > 0:
        raise SeewhyError(f"seconds must be above 0, found {options.seconds:g}")
    if options.tune is not None and options.methods != Trust.methods:
        raise SeewhyError("--tune chooses settings of its own method; leave --methods out")
    run = open_run(options.run, find_device(options.device))
    target, quiet = _one_or_pair(options.target), options.quiet or options.json
    if options.tune is not None:
        tuning = tune_on_run(
            run,
            options.tune,
            options.layers,
            target,
            options.images,
            options.seconds,
            quiet,
        )
        if options.json:
            say(json.dumps(tuning_values(tuning), allow_nan=False))
        else:
            tuning_tables.print_tuning(tuning, options.run)
        return
    scores = trust_of_run(
        run,
        options.methods,
        options.layers,
        target,
        options.images,
        quiet,
        options.seconds,
    )
    if options.json:
        say(json.dumps([trust_values(score) for score in scores], allow_nan=False))
    else:
        tables.print_trust(scores)


def _one_or_pair(target: tuple[str, ...]) -> "Target":
    """The target, or the pair of targets, after --target; without it, the predicted class."""
    from seewhy.attribution.target import Relative

    if not target:
        return Relative.PREDICTED
    if len(target) == 1:
        return target[0]
    if len(target) == 2:
        return target[0], target[1]
    raise SeewhyError(
        f"--target takes one class, or two for a difference of logits, found {len(target)}"
    )


@dataclass(frozen=True)
class Layers:
    """List the layers at which a model can be explained."""

    model: Annotated[Positional[str], arg(metavar="RUN|MODEL")]
    """Run directory, or a model such as resnet18 or timm:resnet50 (see `seewhy list models`)."""
    image_size: OptionalInt = None
    """Height and width of the images (default: 32, or the size of the pretrained weights)."""
    channels: int = 3
    """1 for grayscale, 3 for color."""
    num_classes: int = 10
    """Number of classes."""
    own_model: OwnModel = None


def layers(options: Layers) -> None:
    """Print the layers with spatial output, in the order of execution."""
    import torch

    from seewhy.attribution.layers import list_layers
    from seewhy.cli import tables
    from seewhy.models.classifier import pretrained_classifier
    from seewhy.models.pretrained import pretrained_info, split_weights
    from seewhy.models.registry import MODELS, blank_sample, build_model
    from seewhy.notation import parse
    from seewhy.runs.prediction_stream import check_image_shape
    from seewhy.runs.run import open_run

    if split_weights(options.model)[1] is not None:
        classifier = pretrained_classifier(options.model, image_size=options.image_size)
        model, shape = classifier.model, check_image_shape(classifier)
    elif parse(options.model)[0] in MODELS and not Path(options.model).is_dir():
        pretrained = pretrained_info(options.model)
        side = options.image_size or (pretrained.image_size if pretrained else 32)
        shape = (options.channels, side, side)
        model = build_model(options.model, options.num_classes, blank_sample(*shape)).eval()
    else:
        run = open_run(options.model)
        model, shape = run.model, run.image_shape
    gray = torch.full((1, *shape), 0.5)  # zeros give zeros without a gradient in some layers
    tables.print_layers(list_layers(model, gray))


@dataclass(frozen=True)
class Methods:
    """List the attribution methods with papers and costs."""


def methods(options: Methods) -> None:
    """Print the table of attribution methods."""
    from seewhy.attribution.methods import TABLES
    from seewhy.cli import listings

    listings.print_methods(
        {name: function for table in TABLES.values() for name, function in table.items()}
    )
