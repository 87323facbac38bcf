"""Save frozen dataclasses in .npz files: tensors as arrays, everything else as JSON."""

import json
import types
import typing
import zipfile
import zlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.files import write_atomically

T = TypeVar("T")

_ARRAY = "array"  # in the JSON a tensor is {"array": its name in the file}
# Exceptions from damaged bytes in the archive, its members, an array's header, or the JSON.
_ARCHIVE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
_DAMAGED = (*_ARCHIVE, ValueError, KeyError, TypeError, AttributeError)


def save(value: object, path: Path) -> None:
    """Write a frozen dataclass of tensors, numbers, strings, tuples and dataclasses, atomically.

    Raises SeewhyError if the file cannot be written, TypeError for a field of another type.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps(_plain(value, "", arrays))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, tree=np.array(tree), **arrays)

    write_atomically(path, write)


def load(kind: type[T], path: Path) -> T:
    """Read a value of type `kind` written by `save`.

    Raises SeewhyError if the file is missing, damaged, or of another version of seewhy.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            value: T = _typed(kind, json.loads(str(arrays["tree"])), arrays)
            return value
    except _DAMAGED as error:
        raise SeewhyError(
            f"{path} is missing, damaged, or of another version of seewhy "
            f"({type(error).__name__}: {error}); restore the file, or remove it"
        ) from error


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
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        [kind] = [each for each in arguments if each is not type(None)]
        return None if tree is None else _typed(kind, tree, arrays)
    if origin is tuple:
        kinds = [arguments[0]] * len(tree) if arguments[1:] == (...,) else arguments
        return tuple(_typed(each, value, arrays) for each, value in zip(kinds, tree, strict=True))
    if kind is Tensor:
        return torch.from_numpy(arrays[tree[_ARRAY]])
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if set(tree) != {field.name for field in fields(kind)}:
            raise ValueError(
                f"found the fields {', '.join(tree)}, expected those of {kind.__name__}"
            )
        return kind(**{name: _typed(hints[name], value, arrays) for name, value in tree.items()})
    if not isinstance(tree, (int, float) if kind is float else kind) or (
        isinstance(tree, bool) and kind is not bool
    ):
        raise TypeError(f"expected {kind.__name__}, found {tree!r}")
    return tree
