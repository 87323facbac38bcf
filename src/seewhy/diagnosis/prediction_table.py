"""Predictions of any program, in a CSV file: path and label of each image, a column per class."""

import math
from pathlib import Path

import torch

from seewhy.data.csv_table import LABEL_COLUMNS, PATH_COLUMNS, find_column, read_table
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load
from seewhy.diagnosis.predictions import Predictions
from seewhy.errors import SeewhyError
from seewhy.models.outputs import LEAST_PROBABILITY

OTHER_COLUMNS = ("split", "subset", "group", "index", "id")  # of numbers that are no scores
TOLERANCE = 0.01  # of the sum of probabilities, which may have been rounded


def read_prediction_table(
    path: str | Path, images: str | Path | None = None, *, quiet: bool = False
) -> tuple[Predictions, Dataset]:
    """Read predictions that any program has written, with their images.

    Args:
        path: A CSV or TSV file with a header: a column of image paths (`path`, `file`, …), one of
            true labels (`label`, `class`, …), and for each class a column with its name, of
            probabilities, or of logits if they are not in [0, 1].
        images: Directory that the paths are relative to; by default that of the file.
        quiet: Print nothing on stderr.

    Returns:
        The predictions of N images, and the images as the test split of a dataset.

    Raises:
        SeewhyError: If a column is missing, a score is not a number, a label has no column,
            probabilities do not sum to 1, or an image cannot be read.
    """
    path = Path(path)
    table = read_table(path, example="path,label,ant,bee")
    header, rows = table.header, table.rows
    paths, labels = (find_column(table, names) for names in (PATH_COLUMNS, LABEL_COLUMNS))
    scores = [
        index
        for index, name in enumerate(header)
        if index not in (paths, labels) and name.lower() not in OTHER_COLUMNS
    ]
    classes = tuple(header[index] for index in scores)
    missing = sorted({row[labels] for row in rows} - set(classes))
    if missing:
        raise SeewhyError(
            f"{path}: no column has the scores of {', '.join(map(repr, missing[:5]))}; every label "
            f"needs a column of that name, found {', '.join(classes[:20]) or 'none'}"
        )
    logits = _logits(path, classes, [[row[index] for index in scores] for row in rows])
    data = load(
        path,
        root=images,
        path_column=header[paths],
        label=header[labels],
        split="test",  # nothing is trained
        quiet=quiet,
    )
    return _in_order(data, classes, [row[paths] for row in rows], logits)


def _logits(path: Path, classes: tuple[str, ...], cells: list[list[str]]) -> torch.Tensor:
    """Scores (N, K) as logits; those in [0, 1] must be probabilities."""
    for number, row in enumerate(cells, 2):
        for name, cell in zip(classes, row, strict=True):
            if not _is_finite(cell):
                raise SeewhyError(
                    f"{path}: line {number}, column {name!r}: {cell!r} is no number; remove "
                    "columns that are no class"
                )
    scores = torch.tensor([[float(cell) for cell in row] for row in cells], dtype=torch.float64)
    if not ((scores >= 0) & (scores <= 1)).all():
        return scores.float()
    wrong = ((scores.sum(1) - 1).abs() > TOLERANCE).nonzero()[:, 0]
    if len(wrong):
        first = int(wrong[0])
        raise SeewhyError(
            f"{path}: line {first + 2}: the probabilities sum to {scores[first].sum():.3g}, not "
            f"1; pass the columns of all classes and no others, found {', '.join(classes[:20])}"
        )
    return scores.clamp_min(LEAST_PROBABILITY).log().float()


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _in_order(
    data: Dataset, classes: tuple[str, ...], paths: list[str], logits: torch.Tensor
) -> tuple[Predictions, Dataset]:
    """Predictions and images in the order of the loaded images, in one test split."""
    parts = list(data.splits.values())
    names = [name for part in parts for name in part.names]
    row_of = {path: row for row, path in enumerate(paths)}
    rows = [row_of[name] for name in names]
    label_of = torch.tensor([classes.index(name) for name in data.classes])
    test = Split(
        torch.cat([part.images for part in parts]),
        label_of[torch.cat([part.labels for part in parts])],
        names,
    )
    empty = Split(test.images[:0], test.labels[:0], [])
    measured = Dataset(data.name, classes, empty, test, None, data.fingerprint, data.skipped)
    return Predictions(logits[rows], test.labels, classes), measured
