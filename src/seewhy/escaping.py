r"""Text that comes from data, such as the names of classes and files, in what people read.

Each sink has one function: `visible` for a terminal, `shell_text` for a command in it, `csv_text`,
`markdown_text`, `html_text` and `json_text`. Characters that act instead of being shown, such as
terminal escapes and changes of the writing direction, are written out as in Python, `\x1b`.
"""

import csv
import io
import json
import re
import shlex
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup, escape

# control characters, invisible direction marks, line separators, bidirectional controls, surrogates
_ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#&$!])")
_FORMULA = ("=", "+", "-", "@")


def visible(text: str, keep: str = "") -> str:
    """`text` for a terminal, in one line; `keep` are characters that stay, such as line breaks."""

    def written_out(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in keep else character.encode("unicode_escape").decode()

    return _ACTING.sub(written_out, text)


def shell_text(argument: object) -> str:
    """An argument of a command that people copy, such as a path with spaces."""
    return shlex.quote(visible(str(argument)))


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV text; text that a spreadsheet would read as a formula gets an apostrophe."""
    text = io.StringIO()
    csv.writer(text).writerows([[csv_cell(cell) for cell in row] for row in (header, *rows)])
    return text.getvalue()


def csv_cell(cell: object) -> object:
    """A cell of a table: one line, and no formula."""
    if not isinstance(cell, str):
        return cell
    cell = visible(cell)
    # compatibility characters, such as a wide equals sign, begin formulas too
    if not unicodedata.normalize("NFKC", cell[:1]).startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def markdown_text(text: str) -> str:
    """`text` in Markdown, also in a table: neither markup, HTML, nor links."""
    return _MARKDOWN.sub(r"\\\1", visible(text)).replace("://", r"\://")


def markdown_code(text: str) -> str:
    """`text` as code in Markdown, also in a table."""
    return f"`{visible(text).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def html_text(value: object) -> object:
    """A value for HTML: text becomes escaped markup, everything else stays."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return escape(visible(value, keep="\n\t"))


def json_text(
    value: object, indent: int | None = None, separators: tuple[str, str] | None = None
) -> str:
    """JSON with readable letters; what acts is escaped, so that it can be printed.

    Raises ValueError for numbers that JSON does not have: nan and infinity.
    """
    text = json.dumps(
        value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False
    )
    return _ACTING.sub(
        lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text
    )
