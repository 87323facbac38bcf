"""`seewhy report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from seewhy.cli.arguments import (
    Flag,
    MetadataFile,
    OptionalInt,
    OptionalPath,
    OwnModel,
    Quiet,
    ReportMinutes,
    RunOrFile,
    check_report_minutes,
)
from seewhy.cli.own_model import open_model
from seewhy.errors import SeewhyError

if TYPE_CHECKING:
    from seewhy.diagnosis.predictions import Predictions


@dataclass(frozen=True)
class Report:
    """Write an offline HTML report of where a model fails and why."""

    model: RunOrFile
    """Run directory, ONNX file, published weights, MODULE:FUNCTION, or CSV file of predictions."""
    data: Annotated[str | None, arg(metavar="NAME|PATH", help_behavior_hint="")] = None
    """Labeled images: a dataset or a folder (default: the run's own; required for others)."""
    images: OptionalPath = None
    """Directory of the images of a CSV file of predictions (default: that of the file)."""
    split: Annotated[str | None, arg(metavar="SPLIT", help_behavior_hint="")] = None
    """train, test, validation, or all (default: test, or all images of a folder without splits)."""
    against: Annotated[
        str | None, arg(metavar="RUN|FILE.onnx|MODEL", help_behavior_hint="(default: none)")
    ] = None
    """Compare with another run or model on the same test images."""
    classes: OptionalPath = None
    """Text file with a class name per line, for published weights and MODULE:FUNCTION."""
    image_size: OptionalInt = None
    """Image size for published weights and MODULE:FUNCTION (default: that of the weights)."""
    full: Flag = False
    """Show all errors, regardless of the file size."""
    fresh: Flag = False
    """Diagnose the run again; do not use the saved diagnosis."""
    paths: Flag = False
    """Show image paths instead of file names only."""
    metadata: MetadataFile = None
    """CSV file of image paths and other columns: accuracy of the images with each value."""
    map_train: Flag = False
    """Show training images on the map of images too."""
    report_minutes: ReportMinutes = 2.0
    """Time for a new diagnosis: as many test images as fit are analyzed; inf for no limit."""
    output: OptionalPath = None
    """File to write (default: report.html in the run directory, or here without a run)."""
    json: OptionalPath = None
    """File for the numbers of the report (default: report.json in the run directory)."""
    markdown: OptionalPath = None
    """File for the main results in Markdown (default: report.md in the run directory)."""
    own_model: OwnModel = None
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; an ONNX file is run on the CPU."""
    quiet: Quiet = False


def report(options: Report) -> None:
    """Write the report of a run, or of another model on labeled images."""
    from seewhy.cli.tables import print_path
    from seewhy.data.csv_table import is_table
    from seewhy.diagnosis.prediction_table import read_prediction_table
    from seewhy.models.classifier import Classifier
    from seewhy.models.weights_file import read_class_names
    from seewhy.reporting.context import is_own_data
    from seewhy.reporting.multi_label_page import report_multi_label
    from seewhy.reporting.page import report as write_report
    from seewhy.runs.run import Run
    from seewhy.train.device import find_device

    check_report_minutes(options.report_minutes)
    device = find_device(options.device)
    if options.images is not None and not is_table(options.model):
        raise SeewhyError(
            f"--images is for a CSV file of predictions; use --data with {options.model}"
        )
    classes = () if options.classes is None else read_class_names(options.classes)
    model: Run | Classifier | Predictions
    data: object = options.data
    if is_table(options.model):
        model, data = read_prediction_table(options.model, options.images, quiet=options.quiet)
    else:
        model = open_model(options.model, device, options.image_size, classes=classes)
    if data is None and not isinstance(model, Run):
        raise SeewhyError(
            f"{options.model} does not say which data it was trained on; add labeled images, as in "
            "--data photos"
        )
    if isinstance(model, Classifier) and model.activation == "sigmoid":
        given = (options.split, options.against, options.metadata, options.markdown)
        if any(given) or options.map_train:
            raise SeewhyError(
                "--split, --against, --metadata, --markdown and --map-train are for models that "
                f"choose one class for each image; leave them out with {options.model}"
            )
        path = report_multi_label(
            model, data, _new_file(options.output), json=options.json, quiet=options.quiet
        )
        if not options.quiet:
            print_path("open", path)
        return
    own = isinstance(model, Run) and is_own_data(model, options.data, options.split)
    output = options.output if own else _new_file(options.output)
    path = write_report(
        model,
        data,
        output,
        against=None if options.against is None else open_model(options.against, device),
        split=options.split,
        json=options.json,
        markdown=options.markdown,
        full=options.full,
        fresh=options.fresh,
        paths=options.paths,
        metadata=options.metadata,
        map_train=options.map_train,
        quiet=options.quiet,
        minutes=options.report_minutes,
    )
    if not options.quiet:
        print_path("open", path)


def _new_file(path: Path | None) -> Path:
    """The file to write: by default report.html here, which must not exist."""
    from seewhy.reporting.report_files import FILE

    if path is None and Path(FILE).exists():
        raise SeewhyError(f"{FILE} exists; name another file with --output")
    return Path(FILE) if path is None else path
