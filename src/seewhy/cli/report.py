"""`seewhy report`."""

from dataclasses import dataclass

from seewhy.cli.arguments import Flag, OptionalPath, OwnModel, ReportMinutes, RunPath


@dataclass(frozen=True)
class Report:
    """Write an offline HTML report of where a run fails and why."""

    run: RunPath
    """Run directory, such as runs/latest."""
    against: OptionalPath = None
    """Compare with another run on the same test images."""
    full: Flag = False
    """Show all errors, regardless of the file size."""
    fresh: Flag = False
    """Diagnose the run again instead of using the saved diagnosis."""
    paths: Flag = False
    """Show image paths instead of file names only."""
    report_minutes: ReportMinutes = 2.0
    """Time for a new diagnosis: as many test images as fit are analyzed; inf for no limit."""
    output: OptionalPath = None
    """File to write (default: report.html in the run directory)."""
    own_model: OwnModel = None
    """Function that builds the run's model, if it is your own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    quiet: Flag = False
    """Print only errors."""


def report(options: Report) -> None:
    """Write the report of a run."""
    from seewhy.cli.tables import print_path
    from seewhy.reporting.page import report as write_report
    from seewhy.runs.run import open_run
    from seewhy.train.device import find_device

    device = find_device(options.device)
    against = None if options.against is None else open_run(options.against, device)
    path = write_report(
        open_run(options.run, device),
        against,
        options.output,
        full=options.full,
        fresh=options.fresh,
        paths=options.paths,
        quiet=options.quiet,
        minutes=options.report_minutes,
    )
    if not options.quiet:
        print_path("open", path)
