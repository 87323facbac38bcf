"""The columns of a table in which an image has any number of labels."""

import re
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from seewhy.data.csv_table import CsvTable, find_column
from seewhy.errors import SeewhyError

LABELS_COLUMNS = ("labels", "tags")  # of lists of names
SEPARATORS = "|;"  # of the names in a cell


def list_column(table: CsvTable, chosen: str | None = None) -> int | None:
    """The index of the column of lists of names, the chosen one or the first; None without one."""
    for index, name in enumerate(table.header):
        if name.lower() in LABELS_COLUMNS and chosen in (None, name):
            return index
    return None


def flag_columns(table: CsvTable, others: Collection[int]) -> list[int]:
    """The columns of 0 and 1, except for `others`."""
    return [
        index
        for index in range(len(table.header))
        if index not in others and all(row[index] in ("0", "1") for row in table.rows)
    ]


def listed_labels(
    table: CsvTable, column: int, classes: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], Tensor]:
    """Labels of a column of lists of names, which may be empty.

    Args:
        table: A table of N rows.
        column: The index of the column.
        classes: Names of the K labels; by default all in the column, sorted.

    Returns:
        The names, and the labels (N, K) bool.

    Raises:
        SeewhyError: If a name is not in `classes`.
    """
    listed = [set(split_names(row[column])) for row in table.rows]
    classes = classes or tuple(sorted(set().union(*listed)))
    for names, line in zip(listed, table.lines, strict=True):
        unknown = sorted(names - set(classes))
        if unknown:
            raise SeewhyError(
                f"{table.path}: line {line}: {unknown[0]!r} is no label of the model; possible: "
                f"{', '.join(classes[:20])}"
            )
    return classes, torch.tensor([[name in names for name in classes] for names in listed])


def flagged_labels(table: CsvTable, classes: Sequence[str]) -> Tensor:  # (N, K) bool
    """Labels with a column of 0 and 1 each. Raises SeewhyError for other cells."""
    columns = [find_column(table, (), chosen=name) for name in classes]
    for row, line in zip(table.rows, table.lines, strict=True):
        for index in columns:
            if row[index] not in ("0", "1"):
                raise SeewhyError(
                    f"{table.path}: line {line}, column {table.header[index]!r}: {row[index]!r} is "
                    "neither 0 nor 1; name the labels with classes=, or remove other columns"
                )
    return torch.tensor([[row[index] == "1" for index in columns] for row in table.rows])


def split_names(cell: str) -> list[str]:
    """The names in a cell."""
    return [name.strip() for name in re.split(f"[{SEPARATORS}]", cell) if name.strip()]
