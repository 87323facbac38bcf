"""What a user can mend: one line with the value found, what is possible and the remedy."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class SeewhyError(Exception):
    """A problem of the input, not of the code: the command line prints it as one line and exits with 2."""


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`, or a SeewhyError that suggests the nearest name and lists the rest."""
    if name in table:
        return table[name]
    raise SeewhyError(
        f"unknown {kind} {name!r}{did_you_mean(name, table)}; possible: {', '.join(sorted(table))}"
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` (did you mean …?)` for the nearest of `names`, whatever its case, or nothing where none is near."""
    folded = {possible.casefold(): possible for possible in names}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""
