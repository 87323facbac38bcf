"""CSV and TSV files of image paths and labels, with a header."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewhy.data.csv_table import LABEL_COLUMNS, PATH_COLUMNS, find_column, read_table
from seewhy.data.decode import Encoded
from seewhy.data.listing import ListedFile, listed_file, printable, signature
from seewhy.data.options import LoadOptions
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    RawSplit,
    Source,
    assign_roles,
    describe_splits,
    index_labels,
    split_role,
)
from seewhy.errors import SeewhyError

_SPLITS = ("split", "subset")


@dataclass(frozen=True)
class _Row:
    line: int  # in the file, from 1
    path: str  # as it is written
    label: str
    split: str  # "" without such a column
    group: str | None


def table_source(table: Path, options: LoadOptions, root: Path | None = None) -> Source:
    """The images that a CSV or TSV file lists, one per row, with their labels.

    Paths are relative to `root`, or to the directory of the table. Raises SeewhyError for a table
    that cannot be read, or whose rows are incomplete, repeated, or name missing files.
    """
    folder = (table.parent if root is None else root).resolve()
    rows = _read_rows(table, options)
    _check_rows(table, rows)
    files = {row: _find_file(folder / row.path) for row in rows}
    missing = [row for row, file in files.items() if file.size < 0]
    if missing and not options.skip_bad_images:
        raise SeewhyError(
            f"{table}: {len(missing):,} of {len(rows):,} images are not in {folder}, the first is "
            f"{missing[0].path!r} in line {missing[0].line}; correct the paths, pass the directory "
            "of the images as root, or skip them with skip_bad_images=True"
        )
    by_split: dict[str, list[_Row]] = {}
    for row in rows:
        by_split.setdefault(row.split, []).append(row)
    roles = {"train": ""} if set(by_split) == {""} else assign_roles(by_split, str(table))
    if not roles:
        raise SeewhyError(
            f"{table}: no row is of a split; found {', '.join(map(repr, by_split))}; name them "
            "train, test and validation"
        )
    by_role = {role: by_split[split] for role, split in roles.items()}

    def open_(request: LoadRequest) -> RawDataset:
        stored = {
            role: np.array([row.label for row in members], dtype=object)
            for role, members in by_role.items()
        }
        classes, labels = index_labels(stored)
        splits = {
            role: _raw_split(members, [files[row].path for row in members], labels[role])
            for role, members in by_role.items()
        }
        return RawDataset(classes, splits)

    unused = [repr(split) for split in by_split if split not in roles.values()]
    places = {role: f"rows of split {split!r}" for role, split in roles.items()}
    description = describe_splits(places if "test" in roles else {"train": table.name}, unused)
    listed = {role: [files[row] for row in members] for role, members in by_role.items()}
    content = [[row.path, row.label, row.split, row.group] for row in rows]
    return Source(table.stem, [content, signature(folder, listed)], open_, description)


def _raw_split(rows: Sequence[_Row], paths: Sequence[Path], labels: np.ndarray) -> RawSplit:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [(printable(rows[i].path), paths[i]) for i in indices]

    groups = [row.group for row in rows]
    in_column = None if None in groups else np.array(groups)
    return RawSplit(read, labels, groups=in_column)


def _find_file(path: Path) -> ListedFile:
    """The file at `path`; its size is -1 if it is missing."""
    try:
        return listed_file(path)
    except (OSError, ValueError):  # a null byte
        return ListedFile(path, -1, 0)


def _read_rows(table: Path, options: LoadOptions) -> list[_Row]:
    content = read_table(table)
    header = content.header
    path = find_column(content, PATH_COLUMNS, options.path_column, "path_column")
    label = find_column(content, LABEL_COLUMNS, options.label, "label")
    split = next((i for i, name in enumerate(header) if name.lower() in _SPLITS), None)
    group = header.index(options.group_by) if options.group_by in header else None
    return [
        _Row(
            line,
            row[path],
            row[label],
            "" if split is None else row[split],
            None if group is None else row[group] or f"line {line}",
        )
        for line, row in zip(content.lines, content.rows, strict=True)
    ]


def _check_rows(table: Path, rows: Sequence[_Row]) -> None:
    """Raise SeewhyError for empty cells and repeated images."""
    for part in ("path", "label"):
        empty = [row.line for row in rows if not getattr(row, part)]
        if empty:
            raise SeewhyError(
                f"{table}: {len(empty):,} of {len(rows):,} rows have no {part}, the first in line "
                f"{empty[0]}; fill it in, or remove these rows"
            )
    unknown = [row for row in rows if row.split and split_role(row.split) is None]
    if unknown and any(split_role(row.split) for row in rows):
        raise SeewhyError(
            f"{table}: the split {unknown[0].split!r} in line {unknown[0].line} is neither train, "
            "test nor validation; correct it, or remove the column"
        )
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(row.path, row)
        if other is not row:
            counts = Counter(each.path for each in rows)
            repeated = sum(count > 1 for count in counts.values())
            labels = "" if other.label == row.label else f" as {other.label!r} and {row.label!r}"
            raise SeewhyError(
                f"{table}: {repeated:,} images are listed more than once, the first is "
                f"{row.path!r} in lines {other.line} and {row.line}{labels}; keep one row of each"
            )
