"""Parsing a command's arguments with tyro, so that a mistake is one line like every other."""

import re
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
from tyro.conf import arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from seewhy.errors import SeewhyError
from seewhy.train.recipe import Step

if TYPE_CHECKING:
    from seewhy.data.dataset import Dataset


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
        raise SeewhyError(
            f"{_one_line(heard.getvalue())} (see `seewhy {command} --help`)"
        ) from None


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
    message = " ".join(
        [line for line in sections[0] if line[0] != " "] + [", ".join(_arguments(sections[0]))]
    ).strip()
    if len(sections) > 1 and sections[1][0].startswith("Perhaps you meant"):
        message += f"; did you mean {' or '.join(_arguments(sections[1]))}?"
    return message


def _arguments(section: list[str]) -> list[str]:
    return [line.strip() for line in section if re.match(r" {4}\S", line)]


DataName = Annotated[str, arg(metavar="NAME|PATH")]


@dataclass(frozen=True)
class DataOptions:
    """How to load the data."""

    image_size: int | None = None
    """Side of the square that images are resized and cropped to; by default what most of them have."""
    validation: float = 0.0
    """Share of the training images to hold out, stratified."""
    limit: int | None = None
    """Train on so many images only, of every class alike."""
    split_seed: int = 0
    """Seed of what is drawn: of validation, of a limit, and of test where the data comes without."""
    label: str | None = None
    """Column of the labels, where a data set has several."""
    skip_bad_images: bool = False
    """Leave out images that cannot be read, and count them."""


def load_data(name: str, loading: DataOptions) -> "Dataset":
    """The data set, loaded as the options say."""
    from seewhy.data.sources import load

    values = {key: value for key, value in vars(loading).items() if key != "split_seed"}
    return load(name, seed=loading.split_seed, **values)
