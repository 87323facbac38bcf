"""CSV and TSV files with a header, and their columns."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seewhy.data.file_trees import read_file
from seewhy.errors import SeewhyError, did_you_mean
from seewhy.wording import counted

SUFFIXES = (".csv", ".tsv")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name")


@dataclass(frozen=True)
class CsvTable:
    """The cells of a file, without spaces around them; every row is as long as the header."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]  # line of each row in the file, from 1


def is_table(name: object) -> bool:
    """Whether the name is that of a CSV or TSV file."""
    return str(name).lower().endswith(SUFFIXES)


def read_table(path: Path, example: str = "path,label") -> CsvTable:
    """Read a file; commas, semicolons and tabs separate cells, as the first line has it.

    Raises SeewhyError if it cannot be read, has no rows, or has rows of other lengths.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max("\t;,", key=first.count) if any(map(first.count, "\t;,")) else ","
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        cells = [(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SeewhyError(
            f"{path} cannot be read as a table ({error}); save it as CSV in UTF-8"
        ) from error
    if len(cells) < 2:
        raise SeewhyError(f"{path} has no rows; expected a header, such as {example}, and rows")
    (_, header), *rows = cells
    for line, row in rows:
        if len(row) != len(header):
            raise SeewhyError(
                f"{path}: line {line} has {counted(len(row), 'cell')}, but the header has "
                f"{len(header)}; put cells that contain the delimiter in quotes"
            )
    return CsvTable(path, header, tuple(row for _, row in rows), tuple(line for line, _ in rows))


def find_column(
    table: CsvTable, names: Sequence[str], chosen: str | None = None, option: str = ""
) -> int:
    """The index of a column: the chosen one, or the only one with one of these names.

    Raises SeewhyError if there is none, or several; `option` is that which chooses one.
    """
    if chosen is not None:
        if table.header.count(chosen) == 1:
            return table.header.index(chosen)
        raise SeewhyError(
            f"{table.path}: no column {chosen!r}{did_you_mean(chosen, table.header)}; "
            f"found {', '.join(table.header)}"
        )
    found = [index for index, name in enumerate(table.header) if name.lower() in names]
    if len(found) == 1:
        return found[0]
    choose = f"choose with {option}=…" if option else "rename the others"
    if found:
        listed = ", ".join(table.header[index] for index in found)
        raise SeewhyError(f"{table.path}: {listed} could be the {names[0]}; {choose}")
    choose = f"choose a column with {option}=…, or add a header" if option else "add a header"
    raise SeewhyError(
        f"{table.path}: no column named {names[0]} or {names[1]}; the first line is "
        f"{', '.join(table.header)[:80]!r}; {choose}"
    )
