"""Where a report is written."""

from pathlib import Path

from seewhy.errors import SeewhyError
from seewhy.escaping import shell_text
from seewhy.files import is_writable, remove_fragments
from seewhy.runs.run import Run

FILE = "report.html"  # in the directory of a run or an experiment
JSON_FILE = "report.json"  # in the directory of a run


def report_directory(run: Run | None) -> Path:
    """The directory of a run, for the report of it on its own data, which has no path."""
    if run is None:
        raise SeewhyError("add the file to write, as in report(model, data, 'report.html')")
    if run.directory is None:
        raise SeewhyError(
            "this run has no directory; pass a path, as in report(run, path='report.html')"
        )
    if not is_writable(run.directory):
        raise SeewhyError(
            f"{run.directory} cannot be written; pass another file with --output, as in "
            f"`seewhy report {shell_text(run.directory)} --output report.html`"
        )
    remove_fragments(run.directory)
    return run.directory
