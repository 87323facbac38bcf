"""The most confident errors of a run."""

from typing import Protocol

import matplotlib as mpl
from matplotlib.figure import Figure

from seewhy.data.dataset import DataOrigin, Dataset
from seewhy.data.sources import reload_data
from seewhy.data.thumbnails import downscale, to_rgb
from seewhy.diagnosis.predictions import AnyPredictions, class_predictions, most_confident_errors
from seewhy.errors import SeewhyError
from seewhy.figures.image_grid import MARGIN, PIXEL, Cell, ImageGrid, Label, draw_grids
from seewhy.figures.style import STYLE
from seewhy.figures.text import truncate
from seewhy.wording import counted

COLUMNS = 5
SIDE = 224  # pixels of the longer side of an image
MAX_ERRORS = 100


class FinishedRun(Protocol):
    """A run, seen from a package below it."""

    @property
    def predictions(self) -> AnyPredictions | None: ...
    @property
    def data_origin(self) -> DataOrigin: ...


def errors_figure(run: FinishedRun, count: int = 10, data: Dataset | None = None) -> Figure:
    """Show the misclassified test images with the highest confidence, with both classes.

    Args:
        run: A finished run.
        count: Images to show, from 1 to 100.
        data: The dataset of the run; by default it is loaded again.

    Raises:
        SeewhyError: If the run has not finished, has no errors, or its data is not available or
            has changed, and for a `count` out of range.
    """
    if not 1 <= count <= MAX_ERRORS:
        raise SeewhyError(f"count must be from 1 to {MAX_ERRORS}, found {count}")
    predictions = class_predictions(run.predictions)
    if predictions is None:
        raise SeewhyError("the run has not finished, so it has no predictions; resume it first")
    errors = most_confident_errors(predictions, count)
    if not len(errors):
        raise SeewhyError("the run has no errors on the test split, so there is nothing to show")
    images = to_rgb(downscale(reload_data(run.data_origin, data).test.images[errors], SIDE))
    factor = max(1, round(SIDE / max(images.shape[2:])))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    with mpl.rc_context(STYLE):
        width = images.shape[3] * PIXEL
        cells: list[Cell | None] = []
        for image, index in zip(images, errors.tolist(), strict=True):
            true, predicted = (
                predictions.classes[int(labels[index])]
                for labels in (predictions.labels, predictions.predicted)
            )
            probability = f"probability {predictions.confidence[index]:.2f}"
            lines = (f"true: {true}", f"predicted: {predicted}", probability)
            cells.append(Cell(image, caption="\n".join(truncate(line, width) for line in lines)))
        columns = min(COLUMNS, len(cells))
        cells += [None] * (-len(cells) % columns)
        rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
        grid = ImageGrid([""] * columns, [Label(("",))] * len(rows), rows)
        figure = draw_grids([grid])
        figure.text(
            MARGIN / figure.get_figwidth(),
            1 - MARGIN / figure.get_figheight(),
            f"{len(errors)} of {counted(int((~predictions.correct).sum()), 'error')}, most "
            "confident first",
            va="top",
            weight="bold",
        )
        return figure
