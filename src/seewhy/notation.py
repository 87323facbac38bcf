"""The notation `name:value,key=value`: the name of a function in a table, and its arguments.

`crop:4,mode=constant`, `sgd:momentum=0.85`, `multi-step:milestones=[0.5,0.75]`, `timm:resnet50` and
`hub:owner/name` are all of this form. It needs no quotes in most shells (except brackets in some),
and is the same in TOML, on the command line and in Python.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args, get_origin

from seewhy.errors import SeewhyError, did_you_mean, lookup
from seewhy.wording import counted

Scalar = bool | int | float | str
Value = Scalar | tuple[Any, ...]

_BUILT_IN_HINTS = {"bool": bool, "int": int, "float": float, "str": str}


def parse(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Split `name:value,key=value` into the name, the positional values and the keyword values.

    Values remain text. A comma inside brackets separates list items, not values. Raises SeewhyError
    for a repeated key, a positional value after a keyword, and an open bracket.
    """
    if not isinstance(text, str):
        raise SeewhyError(f"expected a name such as 'crop:4', found {text!r:.60}")
    name, _, rest = text.partition(":")
    positional: list[str] = []
    keywords: dict[str, str] = {}
    for part in _split(text, rest):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or "[" in key:
            if keywords:
                raise SeewhyError(
                    f"{text!r}: {part!r} follows a key=value; "
                    "give it a key, or move it to the front"
                )
            positional.append(part.strip())
        elif key in keywords:
            raise SeewhyError(f"{text!r}: {key!r} is set twice; remove one of the two")
        else:
            keywords[key] = value.strip()
    return name.strip(), positional, keywords


def bind(
    table: Mapping[str, Callable[..., Any]], text: str, kind: str, n_supplied: int
) -> Callable[..., Any]:
    """Bind the arguments in `text` to the function of `table` named in `text`.

    Args:
        table: Functions by name.
        text: `name:value,key=value`.
        kind: Kind of entry for error messages, such as "model".
        n_supplied: Number of leading parameters that the caller supplies later (two for a model:
            the number of classes and a sample). The notation sets only the parameters after them.

    Returns:
        A partial function of the first `n_supplied` parameters.

    Raises:
        SeewhyError: The name is not in the table, an argument is unknown or missing, or a value
        does not fit the type hint of its parameter.
    """
    name, positional, keywords = parse(text)
    function = lookup(table, name, kind)
    parameters = _parameters(function)[n_supplied:]
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    takes_any = len(names) < len(parameters)
    if len(positional) > len(names):
        raise SeewhyError(
            f"{kind} {text!r}: {name} takes {_join(names)}, found "
            f"{counted(len(positional), 'value')}"
        )
    arguments = dict(zip(names, positional, strict=False))
    for key, value in keywords.items():
        if key not in names and not takes_any:
            suggestion = did_you_mean(key, names)
            raise SeewhyError(
                f"{kind} {text!r}: {name} has no argument {key!r}{suggestion}; "
                f"it takes {_join(names)}"
            )
        if key in arguments:
            raise SeewhyError(f"{kind} {text!r}: {key!r} is set twice; remove one of the two")
        arguments[key] = value
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in arguments
    ]
    if missing:
        raise SeewhyError(
            f"{kind} {text!r}: {name} needs {_join(missing)}, as in {name}:{missing[0]}=…"
        )
    hints = {parameter.name: parameter.annotation for parameter in parameters}
    values = {
        key: _convert(text, key, value, hints.get(key, inspect.Parameter.empty))
        for key, value in arguments.items()
    }
    return partial(function, **values)


def remove_argument(
    table: Mapping[str, Callable[..., Any]], text: str, kind: str, n_supplied: int, argument: str
) -> str:
    """`text` without its value for `argument`; the other values are unchanged."""
    name, positional, keywords = parse(text)
    names = [parameter.name for parameter in _parameters(lookup(table, name, kind))[n_supplied:]]
    if argument not in names or len(positional) > len(names):
        return text
    index = names.index(argument)
    # later positional values now need keys
    later = dict(zip(names[index:], positional[index:], strict=False)) | keywords
    remaining = positional[:index] + [
        f"{key}={value}" for key, value in later.items() if key != argument
    ]
    return f"{name}:{','.join(remaining)}" if remaining else name


def take_argument(text: str, key: str) -> tuple[str, str | None]:
    """`text` without its keyword argument `key`, and the value as text; None if it is not set."""
    name, positional, keywords = parse(text)
    if key not in keywords:
        return text, None
    value = keywords.pop(key)
    remaining = positional + [f"{other}={setting}" for other, setting in keywords.items()]
    return (f"{name}:{','.join(remaining)}" if remaining else name), value


def _split(text: str, values: str) -> Iterator[str]:
    """The parts of `values` between commas outside brackets, without empty parts."""
    start = depth = 0
    for index, character in enumerate(f"{values},"):
        depth += (character == "[") - (character == "]")
        if depth < 0 or (depth > 0 and index == len(values)):
            raise SeewhyError(
                f"{text!r}: unbalanced brackets; a list is written [VALUE,VALUE], as in [0.5,0.75]"
            )
        if character == "," and depth == 0:
            if values[start:index]:
                yield values[start:index]
            start = index + 1


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of `function`; hints that exist only for type checkers remain strings."""
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception:  # evaluating a hint can raise anything
        unread = inspect.signature(function).parameters.values()
        return [
            parameter.replace(annotation=_built_in(parameter.annotation)) for parameter in unread
        ]


def _built_in(hint: object) -> object:
    return _BUILT_IN_HINTS.get(hint, hint) if isinstance(hint, str) else hint


def _literal(text: str) -> Value:
    """The value of `text` as a list, a bool, or a number, otherwise as text."""
    if text.startswith("[") and text.endswith("]"):
        return tuple(map(_literal, _items(text)))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _items(written: str) -> list[str]:
    """The items of a list in brackets, as written."""
    return [item.strip() for item in _split(written, written[1:-1])]


def _convert(text: str, key: str, written: str, hint: object) -> Value:
    """The value of an argument, converted to the type in `hint`."""
    if hint is str:  # as written: a revision 0012 or a name 2023_01 is not a number
        return written
    if _is_sequence(hint):
        return _convert_list(text, key, written, hint)
    value = _literal(written)
    if isinstance(value, float) and not math.isfinite(value):
        raise SeewhyError(f"{text!r}: {key} must be a finite number, found {written}")
    if get_origin(hint) is Literal and value not in get_args(hint):
        possible = dict.fromkeys(map(str, get_args(hint)))
        raise SeewhyError(
            f"{text!r}: unknown {key} {value!r}{did_you_mean(str(value), possible)}; "
            f"possible: {', '.join(possible)}"
        )
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and hint is not inspect.Parameter.empty and type(value) is not hint:
        raise SeewhyError(f"{text!r}: {key} must be {hint.__name__}, found {value!r}")
    return value


def _convert_list(text: str, key: str, written: str, hint: object) -> tuple[Value, ...]:
    """The items of a list in brackets, each of the type in `hint`."""
    arguments = get_args(hint) or (inspect.Parameter.empty,)
    fixed = get_origin(hint) is tuple and arguments[-1:] != (...,)
    count = len(arguments) if fixed else 2
    form = f"[{','.join(['VALUE'] * count)}]"
    if not (written.startswith("[") and written.endswith("]")):
        raise SeewhyError(f"{text!r}: {key} must be a list {form}, found {written!r}")
    items = _items(written)
    if fixed and len(items) != count:
        raise SeewhyError(
            f"{text!r}: {key} must be a list of {counted(count, 'value')}, {form}, found "
            f"{written!r}"
        )
    hints = arguments if fixed else arguments[:1] * len(items)
    return tuple(
        _convert(text, f"{key}[{index}]", item, item_hint)
        for index, (item, item_hint) in enumerate(zip(items, hints, strict=True))
    )


def _is_sequence(hint: object) -> bool:
    return hint in (tuple, list) or get_origin(hint) in (tuple, list, Sequence)


def _join(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "no arguments"
