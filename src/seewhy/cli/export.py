"""`seewhy export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import Flag, OptionalPath, OwnModel, Quiet
from seewhy.errors import SeewhyError, lookup
from seewhy.escaping import visible

if TYPE_CHECKING:
    from seewhy.exporting.check import ExportCheck


@dataclass(frozen=True)
class Export:
    """Write a model as ONNX or a torch.export program."""

    model: Annotated[Positional[str], arg(metavar="RUN|timm:NAME|torchvision:NAME")]
    """Run directory, such as runs/latest, or a pretrained model of timm or torchvision."""
    format: str = "onnx"
    """onnx, or torch for a torch.export program."""
    output: OptionalPath = None
    """File to write (default: model.onnx or model.pt2 in the run directory)."""
    data: Annotated[str | None, arg(metavar="NAME|PATH", help_behavior_hint="")] = None
    """Dataset to check the file with (default: the one the run was trained on)."""
    uint8: Flag = False
    """Take pixels from 0 to 255 as uint8 instead of 0 to 1 as float32."""
    probabilities: Flag = False
    """Return probabilities instead of logits."""
    calibrated: Flag = False
    """Divide the logits by the temperature of the run, fitted on validation or test images."""
    own_model: OwnModel = None
    quiet: Quiet = False


def export(options: Export) -> None:
    """Export a model, and print how its file differs from it."""
    from seewhy.exporting.exporter import export as export_model
    from seewhy.exporting.formats import FORMATS
    from seewhy.runs.run import Run, open_classifier

    format_ = lookup(FORMATS, options.format, "format")
    output = options.output
    if output is not None and output.suffix != format_.suffix:
        raise SeewhyError(
            f"a file of format {options.format} ends in {format_.suffix}, found {output}"
        )
    classifier = open_classifier(options.model)
    if output is None:
        directory = Path(options.model) if isinstance(classifier, Run) else Path()
        output = directory / f"model{format_.suffix}"
    check = export_model(
        classifier,
        output,
        data=options.data,
        uint8=options.uint8,
        probabilities=options.probabilities,
        calibrated=options.calibrated,
        quiet=options.quiet,
    )
    if not options.quiet:
        _print_check(check, format_.runtime)


def _print_check(check: "ExportCheck", runtime: str) -> None:
    """How the file compares with its model, and where it is."""
    from seewhy.cli import tables

    out = tables.console()
    out.print(f"{check.images:,} {visible(check.source)}, fp32 on the CPU\n")
    rows = tables.table("", "")
    rows.show_header = False
    rows.add_row("same predicted class", f"{check.same_class:,} of {check.images:,}")
    rows.add_row("largest difference of probabilities", f"{check.largest_difference:.1e}")
    rows.add_row(f"speed of {runtime}", f"{check.file_speed:,.0f} images/s")
    rows.add_row("speed of torch", f"{check.model_speed:,.0f} images/s")
    out.print(rows)
    out.print()
    tables.print_path("written to", check.path)
