"""CSV and TSV files of image paths and labels, with a header."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewhy.data.csv_table import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    CsvTable,
    find_column,
    read_table,
)
from seewhy.data.decode import Encoded
from seewhy.data.label_columns import (
    SEPARATORS,
    flag_columns,
    flagged_labels,
    list_column,
    listed_labels,
)
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
from seewhy.wording import be, counted, have

_SPLITS = ("split", "subset")


@dataclass(frozen=True)
class _Row:
    line: int  # in the file, from 1
    path: str  # as it is written
    label: str  # "" of an image without labels, where any number is possible
    split: str  # "" without such a column
    group: str | None


@dataclass(frozen=True, eq=False)
class _Rows:
    rows: tuple[_Row, ...]
    classes: tuple[str, ...] = ()  # the K labels, if an image has any number of them
    labels: np.ndarray | None = None  # (N, K) bool, likewise
    remark: str = ""  # what is taken as a label, if that is not obvious


def table_source(table: Path, options: LoadOptions, root: Path | None = None) -> Source:
    """The images that a CSV or TSV file lists, one per row, with their labels.

    Images have any number of labels if there is a column of lists of names, or no column of labels,
    but at least two columns of 0 and 1. Paths are relative to `root`, or to the directory of the
    table. Raises SeewhyError for a table that cannot be read, or whose rows are incomplete,
    repeated, or name missing files.
    """
    folder = (table.parent if root is None else root).resolve()
    content = _read_rows(table, options)
    rows, of_row = content.rows, {row: number for number, row in enumerate(content.rows)}
    _check_rows(table, rows, ("path", "label") if content.labels is None else ("path",))
    files = {row: _find_file(folder, row.path) for row in rows}
    outside = [row for row, file in files.items() if not file.path.is_relative_to(folder)]
    if outside:
        raise SeewhyError(
            f"{table}: {len(outside):,} of {len(rows):,} images {be(len(outside))} outside "
            f"{folder} and not read, the first is {outside[0].path!r} in line {outside[0].line}; "
            "move them there, or pass a directory that holds all images as root"
        )
    missing = [row for row, file in files.items() if file.size < 0]
    if missing and not options.skip_bad_images:
        raise SeewhyError(
            f"{table}: {len(missing):,} of {counted(len(rows), 'image')} are not in {folder}, "
            f"the first is {missing[0].path!r} in line {missing[0].line}; correct the paths, pass "
            "the directory of the images as root, or skip them with skip_bad_images=True"
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
        if content.labels is not None:
            classes = content.classes
            labels = {
                role: content.labels[[of_row[row] for row in members]]
                for role, members in by_role.items()
            }
        splits = {
            role: _raw_split(members, [files[row].path for row in members], labels[role])
            for role, members in by_role.items()
        }
        return RawDataset(classes, splits)

    unused = [repr(split) for split in by_split if split not in roles.values()]
    places = {role: f"rows of split {split!r}" for role, split in roles.items()}
    description = describe_splits(places if "test" in roles else {"train": table.name}, unused)
    description += content.remark
    listed = {role: [files[row] for row in members] for role, members in by_role.items()}
    cells = [[row.path, row.label, row.split, row.group] for row in rows]
    key = [cells, signature(folder, listed), *([content.classes] if content.classes else [])]
    return Source(table.stem, key, open_, description)


def _raw_split(rows: Sequence[_Row], paths: Sequence[Path], labels: np.ndarray) -> RawSplit:
    def read(indices: Sequence[int]) -> list[tuple[str, Encoded]]:
        return [(printable(rows[i].path), paths[i]) for i in indices]

    groups = [row.group for row in rows]
    in_column = None if None in groups else np.array(groups)
    return RawSplit(read, labels, groups=in_column)


def _find_file(folder: Path, written: str) -> ListedFile:
    """The file that a row names; its size is -1 if it is missing.

    Its path begins with `folder` unless it leads out of it. The author of the table chose it, but
    it is read with the rights of the user; links in `folder` are followed, as in class folders.
    """
    path = Path(os.path.normpath(folder / written))
    try:
        if not path.is_relative_to(folder) and path.resolve().is_relative_to(folder):
            path = path.resolve()  # an absolute path may lead here by a link
        return listed_file(path)
    except (OSError, ValueError):  # a null byte
        return ListedFile(path, -1, 0)


def _read_rows(table: Path, options: LoadOptions) -> _Rows:
    content = read_table(table)
    header = content.header
    path = find_column(content, PATH_COLUMNS, options.path_column, "path_column")
    split = next((i for i, name in enumerate(header) if name.lower() in _SPLITS), None)
    group = header.index(options.group_by) if options.group_by in header else None
    classes, labels, remark = _several_labels(content, options, {path, split, group})
    if labels is None:
        column = find_column(content, LABEL_COLUMNS, options.label, "label")
        texts = [row[column] for row in content.rows]
        remark = _lists_remark(header[column], texts)
    else:
        texts = ["|".join(np.array(classes)[own]) for own in labels]
    rows = tuple(
        _Row(
            line,
            row[path],
            text,
            "" if split is None else row[split],
            None if group is None else row[group] or f"line {line}",
        )
        for line, row, text in zip(content.lines, content.rows, texts, strict=True)
    )
    return _Rows(rows, classes, labels, remark)


def _several_labels(
    table: CsvTable, options: LoadOptions, others: set[int | None]
) -> tuple[tuple[str, ...], np.ndarray | None, str]:
    """Names of the labels, labels (N, K) bool, and a remark; no labels if images have a class."""
    lists = list_column(table, options.label)
    single = any(name.lower() in LABEL_COLUMNS for name in table.header)
    if lists is not None and (options.label is not None or not single):
        classes, labels = listed_labels(table, lists)
        return classes, labels.numpy(), ""
    if options.label is not None or single:
        return (), None, ""
    flags = flag_columns(table, {each for each in others if each is not None})
    if len(flags) < 2:
        return (), None, ""
    classes = tuple(table.header[index] for index in flags)
    unused = [name for i, name in enumerate(table.header) if i not in flags and i not in others]
    remark = f"; labels are {', '.join(classes)}"
    if unused:
        remark += f", and not {', '.join(unused)}, which are not 0 and 1"
    return classes, flagged_labels(table, classes).numpy(), remark


def _lists_remark(column: str, labels: Sequence[str]) -> str:
    """Says that a cell such as `cat|dog` is the name of one class, if there is one."""
    joined = next((label for label in labels if any(each in label for each in SEPARATORS)), None)
    if joined is None:
        return ""
    return (
        f"; {joined!r} in the column {column!r} is the name of one class: for any number of labels "
        "per image, name the column labels"
    )


def _check_rows(table: Path, rows: Sequence[_Row], parts: Sequence[str]) -> None:
    """Raise SeewhyError for empty cells of these parts, and for repeated images."""
    for part in parts:
        empty = [row.line for row in rows if not getattr(row, part)]
        if empty:
            raise SeewhyError(
                f"{table}: {len(empty):,} of {len(rows):,} rows {have(len(empty))} no {part}, the "
                f"first in line {empty[0]}; fill it in, or remove these rows"
            )
    unknown = [row for row in rows if row.split and split_role(row.split) is None]
    if unknown and any(split_role(row.split) for row in rows):
        raise SeewhyError(
            f"{table}: the split {unknown[0].split!r} in line {unknown[0].line} is neither train, "
            "test nor validation; correct it, or remove the column"
        )
    first: dict[str, _Row] = {}
    for row in rows:
        other = first.setdefault(os.path.normpath(row.path), row)
        if other is not row:
            counts = Counter(os.path.normpath(each.path) for each in rows)
            repeated = sum(count > 1 for count in counts.values())
            labels = "" if other.label == row.label else f" as {other.label!r} and {row.label!r}"
            raise SeewhyError(
                f"{table}: images listed more than once: {repeated:,}, the first is "
                f"{row.path!r} in lines {other.line} and {row.line}{labels}; keep one row of each"
            )
