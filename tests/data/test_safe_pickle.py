"""Pickles as their writers made them, and hostile ones."""

import builtins
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

from seewhy.data.safe_pickle import read_pickle


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(5, dtype=">i4"),
        np.array([True, False]),
        np.empty((0, 3), np.float32),
    ],
    ids=lambda array: str(array.dtype),
)
def test_read_pickle_reads_arrays(protocol: int, array: np.ndarray) -> None:
    value = {b"data": array, "names": [b"a", "b", 3, None], 5: (1.5, True)}
    found = read_pickle(pickle.dumps(value, protocol=protocol))
    np.testing.assert_array_equal(found[b"data"], array)
    assert found[b"data"].dtype == array.dtype
    assert found["names"] == [b"a", "b", 3, None]
    assert found[5] == [1.5, True]


class Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.getattr, np.load, print])
def test_read_pickle_refuses_functions(protocol: int, function: object, tmp_path: Path) -> None:
    content = pickle.dumps([Calls(function, f"{tmp_path}/x")], protocol=protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"it asks for \w+"):
        read_pickle(content)


def test_read_pickle_refuses_arrays_of_objects() -> None:
    with pytest.raises(pickle.UnpicklingError, match="an array of object instead of numbers"):
        read_pickle(pickle.dumps(np.array([{}, []], dtype=object)))


def test_read_pickle_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every global that the pickle names is a stand-in."""
    content = pickle.dumps({b"data": np.zeros(3), b"x": b"\xff"}, protocol=2)
    named = {argument for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    assert {"numpy dtype", "_codecs encode"} <= named
    monkeypatch.setattr(builtins, "__import__", lambda *_: pytest.fail("imported"))
    found = read_pickle(content)
    monkeypatch.undo()
    assert found[b"x"] == b"\xff"
