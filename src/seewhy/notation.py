"""The notation `name:value,key=value`, with which a string names a function of a table and sets its arguments.

`crop:4,mode=constant`, `sgd:momentum=0.85`, `davidnet:dropout=0.1`, `timm:resnet50`, `hub:owner/name` are all this one form:
it needs no quotes in a shell and reads the same in TOML, on the command line and in Python.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args, get_origin

from seewhy.errors import SeewhyError, did_you_mean, lookup

Value = bool | int | float | str


def parse(text: str) -> tuple[str, list[Value], dict[str, Value]]:
    """Split `name:value,key=value` into its name, positional values and keyword values."""
    name, positional, keywords = _parts(text)
    return name, [_value(written) for written in positional], {key: _value(written) for key, written in keywords.items()}


def _parts(text: str) -> tuple[str, list[str], dict[str, str]]:
    """The same with every value as it is written."""
    name, _, rest = text.partition(":")
    positional: list[str] = []
    keywords: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if equals:
            keywords[key.strip().replace("-", "_")] = value.strip()
        elif keywords:
            raise SeewhyError(f"{text!r}: {part!r} follows a key=value; give it a key, or move it to the front")
        else:
            positional.append(part.strip())
    return name.strip(), positional, keywords


def write(name: str, positional: Sequence[Value], keywords: Mapping[str, Value]) -> str:
    """The text that `parse` splits into these."""
    values = [str(value).lower() if isinstance(value, bool) else str(value) for value in (*positional, *keywords.values())]
    keys = [""] * len(positional) + [f"{key}=" for key in keywords]
    settings = ",".join(key + value for key, value in zip(keys, values, strict=True))
    return f"{name}:{settings}" if settings else name


def bind(table: Mapping[str, Callable[..., Any]], text: str, kind: str, given: int) -> Callable[..., Any]:
    """The function that `text` names in `table`, with the arguments that `text` sets filled in.

    `given` counts the leading parameters that the caller supplies later (for a model two: the number of classes and a
    sample); the notation can set only what follows them. Raises SeewhyError for a name that is not in the table, an
    argument that the function lacks, or a value that does not fit the argument's annotation.
    """
    name, positional, keywords = _parts(text)
    function = lookup(table, name, kind)
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())[given:]
    names = [parameter.name for parameter in parameters]
    if len(positional) > len(names):
        raise SeewhyError(f"{kind} {text!r}: {name} takes {_listed(names)}, found {len(positional)} values")
    arguments = dict(zip(names, positional, strict=False))
    for key, value in keywords.items():
        if key not in names:
            known = dict.fromkeys(names)
            meant = did_you_mean(key, known)
            raise SeewhyError(f"{kind} {text!r}: {name} has no argument {key!r}{meant}; it takes {_listed(names)}")
        if key in arguments:
            raise SeewhyError(f"{kind} {text!r}: {key!r} is given twice")
        arguments[key] = value
    missing = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in arguments]
    if missing:
        raise SeewhyError(f"{kind} {text!r}: {name} needs {_listed(missing)}, as in {name}:{missing[0]}=…")
    hints = {parameter.name: parameter.annotation for parameter in parameters}
    return partial(function, **{key: _fit(text, key, written, hints[key]) for key, written in arguments.items()})


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _fit(text: str, key: str, written: str, hint: object) -> Value:
    if hint is str:  # as written: a revision 0012 or a name 2023_01 is not a number
        return written
    value = _value(written)
    if get_origin(hint) is Literal and value not in get_args(hint):
        possible = dict.fromkeys(map(str, get_args(hint)))
        raise SeewhyError(
            f"{text!r}: unknown {key} {value!r}{did_you_mean(str(value), possible)}; possible: {', '.join(possible)}"
        )
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and hint is not inspect.Parameter.empty and type(value) is not hint:
        raise SeewhyError(f"{text!r}: {key} must be {hint.__name__}, found {value!r}")
    return value


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "no arguments"
