"""The notation `name:value,key=value`, with which a string names a function of a table and sets its arguments.

`crop:4,mode=constant`, `sgd:momentum=0.85`, `davidnet:dropout=0.1`, `timm:resnet50`, `hub:owner/name` are all this one form:
it needs no quotes in a shell and reads the same in TOML, on the command line and in Python.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin

from seewhy.errors import SeewhyError, did_you_mean, lookup

Value = bool | int | float | str
PLAIN = {"bool": bool, "int": int, "float": float, "str": str}


def parse(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Split `name:value,key=value` into its name, positional values and keyword values, each as it is written."""
    name, _, rest = text.partition(":")
    positional: list[str] = []
    keywords: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if equals and key in keywords:
            raise SeewhyError(f"{text!r}: {key!r} is given twice")
        if equals:
            keywords[key] = value.strip()
        elif keywords:
            raise SeewhyError(
                f"{text!r}: {part!r} follows a key=value; give it a key, or move it to the front"
            )
        else:
            positional.append(part.strip())
    return name.strip(), positional, keywords


def bind(
    table: Mapping[str, Callable[..., Any]], text: str, kind: str, given: int
) -> Callable[..., Any]:
    """The function that `text` names in `table`, with the arguments that `text` sets filled in.

    `given` counts the leading parameters that the caller supplies later (for a model two: the number of classes and a
    sample); the notation can set only what follows them. Raises SeewhyError for a name that is not in the table, an
    argument that the function lacks, or a value that does not fit the argument's annotation.
    """
    name, positional, keywords = parse(text)
    function = lookup(table, name, kind)
    parameters = _parameters(function)[given:]
    names = [parameter.name for parameter in parameters]
    if len(positional) > len(names):
        raise SeewhyError(
            f"{kind} {text!r}: {name} takes {_listed(names)}, found {len(positional)} values"
        )
    arguments = dict(zip(names, positional, strict=False))
    for key, value in keywords.items():
        if key not in names:
            known = dict.fromkeys(names)
            meant = did_you_mean(key, known)
            raise SeewhyError(
                f"{kind} {text!r}: {name} has no argument {key!r}{meant}; it takes {_listed(names)}"
            )
        if key in arguments:
            raise SeewhyError(f"{kind} {text!r}: {key!r} is given twice")
        arguments[key] = value
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in arguments
    ]
    if missing:
        raise SeewhyError(
            f"{kind} {text!r}: {name} needs {_listed(missing)}, as in {name}:{missing[0]}=…"
        )
    hints = {parameter.name: parameter.annotation for parameter in parameters}
    return partial(
        function,
        **{key: _fit(text, key, written, hints[key]) for key, written in arguments.items()},
    )


def without(
    table: Mapping[str, Callable[..., Any]], text: str, kind: str, given: int, argument: str
) -> str:
    """`text` without the value that it sets for `argument`, with or without a key; the other values stay as written."""
    name, positional, keywords = parse(text)
    names = [parameter.name for parameter in _parameters(lookup(table, name, kind))[given:]]
    if argument not in names or len(positional) > len(names):
        return text
    place = names.index(argument)
    behind = (
        dict(zip(names[place:], positional[place:], strict=False)) | keywords
    )  # these need their keys now
    kept = positional[:place] + [
        f"{key}={value}" for key, value in behind.items() if key != argument
    ]
    return f"{name}:{','.join(kept)}" if kept else name


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of `function`; a hint that does not exist at run time (under TYPE_CHECKING) stays a string."""
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception:  # a hint is an expression, which can fail in every way
        unread = inspect.signature(function).parameters.values()
        return [parameter.replace(annotation=_plain(parameter.annotation)) for parameter in unread]


def _plain(hint: object) -> object:
    return PLAIN.get(hint, hint) if isinstance(hint, str) else hint


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
    if isinstance(value, float) and not math.isfinite(value):
        raise SeewhyError(f"{text!r}: {key} must be a finite number, found {written}")
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
