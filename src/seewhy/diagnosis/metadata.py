"""Subgroups: the accuracy of the images that share a value in a table of metadata."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from seewhy.data.csv_table import PATH_COLUMNS, CsvTable, find_column, read_table
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.slices import MIN_IMAGES, Group, Slice, compare_groups, excess_errors
from seewhy.errors import SeewhyError
from seewhy.wording import counted

Metadata = Mapping[str, Sequence[str]]  # by column the value of each image, "" if unknown

MAX_VALUES = 50  # of a column; identifiers have more, and are no groups
_BINS = 4  # of a column of numbers, with equally many images
_FEW = 10  # numbers that are values of their own, such as years


def read_metadata(path: str | Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read the columns of a table for images by their names.

    Args:
        path: A CSV or TSV file with a header and a column of image paths (`path`, `file`, …).
        names: Names of N images, such as `split.names`. A path matches if it is the name, or if
            one ends with the other: `photos/ants/1.jpg`, `ants/1.jpg` and `1.jpg`, as long as
            that is unique.

    Returns:
        The values of the other columns, one per image; "" for images that are not in the table.

    Raises:
        SeewhyError: If the file cannot be read, has no column of paths or no other one, lists an
            image twice, or has none of the images.
    """
    table = read_table(Path(path), example="path,camera,age")
    paths = find_column(table, PATH_COLUMNS)
    columns = [index for index in range(len(table.header)) if index != paths]
    if not columns:
        raise SeewhyError(
            f"{path} has only the column {table.header[paths]}; add columns of values"
        )
    rows = _rows_of(table, paths, names)
    if not any(row is not None for row in rows):
        raise SeewhyError(
            f"{path}: none of its {counted(len(table.rows), 'path')} is one of the "
            f"{counted(len(names), 'image')}, such as {table.rows[0][paths]!r} and {names[0]!r}; "
            "write the paths as in the data"
        )
    return {
        table.header[index]: tuple("" if row is None else table.rows[row][index] for row in rows)
        for index in columns
    }


def _rows_of(table: CsvTable, paths: int, names: Sequence[str]) -> list[int | None]:
    """The row of each image; None for images that are not in the table."""
    row_of: dict[str, int | None] = {}  # by each end of a path; None if it is that of several
    whole: dict[str, int] = {}
    for row, cells in enumerate(table.rows):
        first = whole.setdefault(cells[paths], row)
        if first != row:
            raise SeewhyError(
                f"{table.path}: {cells[paths]!r} is in lines {table.lines[first]} and "
                f"{table.lines[row]}; keep one"
            )
        for end in _ends(cells[paths]):
            row_of[end] = None if end in row_of else row
    row_of.update(whole)
    ends_of_names = Counter(end for name in names for end in _ends(name))
    return [
        next(
            (row_of[end] for end in _ends(name) if end in row_of and ends_of_names[end] == 1), None
        )
        for name in names
    ]


def _ends(path: str) -> list[str]:
    """The path, and what is left of it without its first folders, the longest first."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def subgroups(predictions: Predictions, metadata: Metadata) -> tuple[Slice, ...]:
    """The accuracy of the images with each value of metadata, and with two values at once.

    Columns of more than 10 different numbers are divided into four groups of equally many images.
    Columns with one value, or more than 50, are no groups. Each group is compared with all other
    images by a one-sided Fisher test (Fisher 1935), and the p-values are corrected for the number
    of groups, pairs included (Holm 1979).

    Args:
        predictions: Predictions of N images.
        metadata: Values by column, one per image; "" if unknown, which is no group.

    Returns:
        All groups of one value, those with the most excess errors first. Of the pairs of values
        with at least 20 images, those that are significantly weak, and weaker than both values.

    Raises:
        SeewhyError: If a column does not have a value for each image.
    """
    correct = predictions.correct.cpu()
    for name, values in metadata.items():
        if len(values) != len(correct):
            raise SeewhyError(
                f"metadata {name!r} must have a value for each of the "
                f"{counted(len(correct), 'image')}, found {len(values):,}"
            )
    by_column = {name: _groups_of(name, values) for name, values in metadata.items()}
    pairs: dict[tuple[int, int], Group] = {}
    singles = [group for groups in by_column.values() for group in groups]
    position = {id(group): index for index, group in enumerate(singles)}
    for one, other in combinations(by_column.values(), 2):
        for first in one:
            for second in other:
                shared = first.members[torch.isin(first.members, second.members)]
                smaller = min(len(first.members), len(second.members))
                if MIN_IMAGES <= len(shared) < smaller:
                    text = f"{first.description}, {second.description}"
                    key = position[id(first)], position[id(second)]
                    pairs[key] = Group(text, "metadata", shared)
    compared = compare_groups([*singles, *pairs.values()], correct)
    found = compared[: len(singles)]
    weak = [
        pair
        for (first, second), pair in zip(pairs, compared[len(singles) :], strict=True)
        if pair.p_value <= 0.05
        and pair.accuracy < min(found[first].accuracy, found[second].accuracy)
    ]
    return tuple(sorted([*found, *weak], key=lambda each: (excess_errors(each), each.images)))


def _groups_of(name: str, values: Sequence[str]) -> list[Group]:
    """The images with each value of a column; none if it has one value, or too many."""
    labels = binned(values)
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        if label:
            members.setdefault(label, []).append(index)
    if not 2 <= len(members) <= MAX_VALUES and not (len(members) == 1 and "" in labels):
        return []
    return [
        Group(f"{name}: {label}", "metadata", torch.tensor(indices))
        for label, indices in members.items()
    ]


def binned(values: Sequence[str]) -> list[str]:
    """The values, or four ranges of them if they are more than ten different numbers.

    Ranges hold equally many images. A range starts with its lowest number, and "" stays "".
    """
    numbers = {value: finite_number(value) for value in values if value}
    if len(numbers) <= _FEW or any(number is None for number in numbers.values()):
        return list(values)
    known = np.array([numbers[value] for value in values if value], dtype=float)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)))
    bins = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(edges) - 2)
    texts = [
        f"{low:.6g} to {'below ' if index < len(edges) - 2 else ''}{high:.6g}"
        for index, (low, high) in enumerate(pairwise(edges.tolist()))
    ]
    ranges = iter(texts[index] for index in bins)
    return [next(ranges) if value else "" for value in values]


def finite_number(value: str) -> float | None:
    """The finite number that a text is; None for other texts."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def unmatched(metadata: Metadata) -> int:
    """Number of images without any value."""
    return sum(not any(row) for row in zip(*metadata.values(), strict=True))
