"""Errors that a user can fix: one line with the value, the possible values, and the remedy."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class SeewhyError(Exception):
    """An error in the input, not in the code; the command line prints it and exits with 2."""


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`. Raises SeewhyError with a suggestion and all names if it is missing."""
    if name in table:
        return table[name]
    raise SeewhyError(
        f"unknown {kind} {name!r}{did_you_mean(name, table)}; possible: {', '.join(sorted(table))}"
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` (did you mean …?)` with the closest of `names`, ignoring case; empty if none is close."""
    folded = {candidate.casefold(): candidate for candidate in names}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""


def check_type(value: object, expected: type | tuple[type, ...], remedy: str) -> None:
    """Raise SeewhyError unless `value` is of a type; `remedy` says how to get one."""
    if not isinstance(value, expected):
        types = expected if isinstance(expected, tuple) else (expected,)
        names = " or ".join(each.__name__ for each in types)
        raise SeewhyError(f"expected a {names}, found {type(value).__name__}; {remedy}")


def first_line(error: BaseException) -> str:
    """The first line of an error of another library; the name of its type if it has no text."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def describe_value(value: object) -> str:
    """Shape and dtype of a tensor or array, as in `(3, 4) float32`; else the type of the value."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if not isinstance(shape, tuple) or dtype is None:
        return type(value).__name__
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"
