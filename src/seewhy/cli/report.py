"""`seewhy report`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import parse


def report(arguments: list[str]) -> None:
    """One offline HTML file that says where a run fails and why."""

    def options(
        run: Annotated[Positional[Path], arg(metavar="RUN")],
        against: Path | None = None,
        full: bool = False,
        fresh: bool = False,
        paths: bool = False,
        out: Path | None = None,
        device: str = "auto",
        quiet: bool = False,
    ) -> tuple[Path, Path | None, bool, bool, bool, Path | None, str, bool]:
        """Write the report of a run: its mistakes with what the network looks at, confusions, calibration, robustness and more.

        Args:
            run: Run directory, such as runs/latest.
            against: Another run on the same test images, to compare with.
            full: Show every mistake, however large the file becomes.
            fresh: Diagnose the run again, even if that was done before.
            paths: Name images with their directories.
            out: File to write; by default report.html in the run directory.
            device: auto, cpu, cuda, cuda:1, mps.
            quiet: Print nothing but mistakes of yours.
        """
        return run, against, full, fresh, paths, out, device, quiet

    directory, against, full, fresh, paths, out, device, quiet = parse("report", options, arguments)
    from seewhy.reporting.page import report as write_report
    from seewhy.runs.run import open_run
    from seewhy.train.device import find_device

    place = find_device(device)
    other = None if against is None else open_run(against, place)
    path = write_report(
        open_run(directory, place), other, out, full=full, fresh=fresh, paths=paths, quiet=quiet
    )
    if not quiet:
        print(f"open {path}")
