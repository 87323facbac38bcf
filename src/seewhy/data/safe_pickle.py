"""Reading pickles of published datasets without running code from them."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


def read_pickle(content: bytes) -> Any:
    """The value of a pickle of arrays, bytes, lists, dicts, strings and numbers.

    NumPy's classes are replaced by stand-ins, so nothing that the pickle names is imported or
    called. Strings of Python 2 are read as bytes.

    Args:
        content: The pickle.

    Raises:
        pickle.UnpicklingError: If it names anything else, such as a function to call.
        Exception: Of many types, if it is damaged.
    """
    return _with_arrays(_Unpickler(io.BytesIO(content), encoding="bytes").load())


class _Dtype:
    """Stands in for numpy.dtype: a number of one size."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        dtype = np.dtype(text) if isinstance(text, str) else np.dtype(object)
        if dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {dtype} instead of numbers")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order in (">", "<"):  # otherwise bytes, or the order of this machine
            self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<")


class _Array:
    """Stands in for numpy.ndarray, whose pickle is a shape, a dtype, an order and bytes."""

    def __init__(self, *_: object) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        self.value = _to_array(content, dtype, shape, "F" if fortran else "C")


class _NumPyClass:
    """Stands in for numpy.ndarray as an argument of `_reconstruct`."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.value = _to_array(content, dtype, shape, order)
    return array


def _to_array(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("ascii" if encoding == "ascii" else "latin1")


def _empty_bytes() -> bytes:
    return b""


# Bytes and arrays, as Python 2 and 3 and NumPy 1 and 2 write them.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _NumPyClass,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _with_arrays(value: Any) -> Any:
    """`value` with arrays instead of their stand-ins."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _with_arrays(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_arrays(item) for item in value]
    return value
