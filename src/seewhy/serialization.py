"""Save frozen dataclasses in .npz files: tensors as arrays, everything else as JSON."""

import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.files import is_stream, problem_of_file, write_atomically

T = TypeVar("T")

_ANSI = re.compile("\x1b\\[[0-9;]*m")  # colors in messages of torch
_ARRAY = "array"  # in the JSON a tensor is {"array": its name in the file}


class DamagedFileError(SeewhyError):
    """A file that cannot be read; `finding` says so without the remedy."""

    def __init__(self, finding: str, remedy: str) -> None:
        super().__init__(f"{finding}; {remedy}")
        self.finding = finding


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn any error inside the block into a DamagedFileError of one line.

    Any, because damaged or crafted bytes make archives, pickles, JSON and decoders raise any type.
    """
    try:
        if is_stream(path):  # reading it might never end
            raise SeewhyError(problem_of_file(path))
        yield
    except Exception as error:
        text = " ".join(_ANSI.sub("", str(error)).split())
        reason = f"{type(error).__name__}: {text[:200]}"
        if isinstance(error, SeewhyError):
            reason = text
        raise DamagedFileError(f"{path} is missing or damaged ({reason})", remedy) from error


def from_plain(kind: type[T], values: object) -> T:
    """A dataclass from its `dataclasses.asdict`, as JSON or a checkpoint holds it.

    Fields with a default may be missing, as in the files of older versions.

    Raises:
        ValueError: For a missing or unknown field, and a value of another type.
    """
    value: T = _typed(kind, values, None)
    return value


def save(value: object, path: Path) -> None:
    """Write a frozen dataclass of tensors, numbers, strings, tuples and dataclasses, atomically.

    Raises SeewhyError if the file cannot be written, TypeError for a field of another type.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps(_plain(value, "", arrays))
    write_arrays(path, {"tree": np.array(tree), **arrays})


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file of named arrays, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a file, because savez would append .npz to a path
            np.savez_compressed(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def load(kind: type[T], path: Path) -> T:
    """Read a value of type `kind` written by `save`.

    Raises SeewhyError if the file is missing, damaged, or of another version of seewhy.
    """
    remedy = "restore the file, or remove it; it may be of another version of seewhy"
    with (
        reading(path, remedy),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        value: T = _typed(kind, json.loads(str(arrays["tree"])), arrays)
    return value


def _plain(value: object, name: str, arrays: dict[str, np.ndarray]) -> object:
    if isinstance(value, Tensor):
        arrays[name] = value.cpu().numpy()
        return {_ARRAY: name}
    if is_dataclass(value):
        return {
            field.name: _plain(
                getattr(value, field.name), f"{name}.{field.name}".strip("."), arrays
            )
            for field in fields(value)
        }
    if isinstance(value, tuple):
        return [_plain(item, f"{name}.{index}", arrays) for index, item in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{name} cannot be saved: it is a {type(value).__name__}")


def _typed(kind: Any, tree: Any, arrays: Any) -> Any:
    """`tree` as a value of type `kind`; without `arrays`, defaults fill in for missing fields."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return tree
    if origin in (types.UnionType, typing.Union):
        return _any_of(arguments, tree, arrays)
    if origin is typing.Literal:
        if tree not in arguments:
            raise ValueError(f"expected {' or '.join(map(repr, arguments))}, found {tree!r:.40}")
        return tree
    if origin is Mapping:
        if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
            raise ValueError(f"expected values by name, found {tree!r:.40}")
        return {name: _typed(arguments[1], value, arrays) for name, value in tree.items()}
    if origin is tuple:
        if not isinstance(tree, list | tuple):
            raise ValueError(f"expected a list, found {tree!r:.40}")
        kinds = [arguments[0]] * len(tree) if arguments[1:] == (...,) else arguments
        return tuple(_typed(each, value, arrays) for each, value in zip(kinds, tree, strict=True))
    if kind is Tensor:
        return torch.from_numpy(arrays[tree[_ARRAY]])
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(tree, dict):
            raise ValueError(f"expected the fields of {kind.__name__}, found {tree!r:.40}")
        missing = [
            field.name
            for field in fields(kind)
            if field.name not in tree and (arrays is not None or _is_required(field))
        ]
        unknown = [str(name) for name in tree if name not in hints]
        if missing or unknown:
            problems = [f"no {', '.join(missing)}"] * bool(missing)
            problems += [f"an unknown {', '.join(unknown)}"] * bool(unknown)
            raise ValueError(f"{kind.__name__} has {' and '.join(problems)}")
        return kind(**{name: _typed(hints[name], value, arrays) for name, value in tree.items()})
    if not isinstance(tree, (int, float) if kind is float else kind) or (
        isinstance(tree, bool) and kind is not bool
    ):
        raise ValueError(f"expected {kind.__name__}, found {tree!r:.40}")
    return tree


def _any_of(kinds: Sequence[Any], tree: Any, arrays: Any) -> Any:
    """`tree` as a value of the first of several types that fits."""
    if tree is None and type(None) in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not type(None)]
    for kind in others:
        with suppress(ValueError):
            return _typed(kind, tree, arrays)
    return _typed(last, tree, arrays)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
