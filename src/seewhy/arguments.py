"""Parsing a command's arguments with tyro, so that a mistake is one line like every other."""

import re
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from itertools import groupby
from textwrap import dedent
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from seewhy.errors import SeewhyError
from seewhy.train.recipe import Step

T = TypeVar("T")


def parse(command: str, what: Callable[..., T], arguments: list[str], default: Any = None) -> T:
    """Parse the arguments of a command with tyro; a mistake becomes one line of SeewhyError."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_augmentation_from_text)
    heard = StringIO()
    try:
        with redirect_stderr(heard), registry:
            given = {} if default is None else {"default": default}
            return tyro.cli(what, prog=f"seewhy {command}", args=arguments, **given)  # type: ignore[no-any-return]
    except SystemExit as stopped:
        if stopped.code in (0, None):
            raise
        raise SeewhyError(f"{_one_line(heard.getvalue())} (see `seewhy {command} --help`)") from None


def _augmentation_from_text(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """On the command line an augmentation is text, though from Python it may be a callable."""
    if info.type != Step:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str) or callable(value),
        str_from_instance=lambda value: [str(value)],
    )


def _one_line(box: str) -> str:
    """What a box that tyro drew says: its first section, and the names it suggests in the next.

    Under the title, rules part the sections; in a section a sentence is not indented, the arguments it is about are
    indented once, their help twice. Where the terminal is not UTF-8 the box is drawn with spaces and hyphens.
    """
    lines = (line.strip("│╭╮╰╯").rstrip() for line in box.splitlines()[1:])
    groups = groupby(lines, key=lambda line: bool(line.strip("─- ")))
    sections = [dedent("\n".join(group)).splitlines() for is_text, group in groups if is_text]
    if not sections:
        return "these arguments do not fit"
    message = " ".join([line for line in sections[0] if line[0] != " "] + [", ".join(_arguments(sections[0]))]).strip()
    if len(sections) > 1 and sections[1][0].startswith("Perhaps you meant"):
        message += f"; did you mean {' or '.join(_arguments(sections[1]))}?"
    return message


def _arguments(section: list[str]) -> list[str]:
    return [line.strip() for line in section if re.match(r" {4}\S", line)]
