import json
import math
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.serialization import load, save


def equal(one: Any, other: Any) -> bool:
    """Whether two values have equal types and contents, down to tensors; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return (
            one.dtype == other.dtype
            and torch.equal(one.isnan(), other.isnan())
            and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
    if is_dataclass(one):
        return all(
            equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other or (one != one and other != other))


@dataclass(frozen=True, eq=False)
class Leaf:
    name: str
    values: Tensor


@dataclass(frozen=True, eq=False)
class Tree:
    number: int
    share: float
    sure: bool
    text: str
    pair: tuple[int, float]
    names: tuple[str, ...]
    nested: tuple[tuple[int, int], ...]
    leaf: Leaf
    leaves: tuple[Leaf, ...]
    perhaps: Leaf | None
    peak: float | None
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Other:
    number: int


def tree() -> Tree:
    return Tree(
        number=-3,
        share=0.1 + 0.2,
        sure=True,
        text='a "quoted" <text> – 猫\n',
        pair=(1, 2.5),
        names=("a", "", "…"),
        nested=((1, 2), (3, 4)),
        leaf=Leaf("x", torch.tensor([[1.5, float("nan"), float("-inf")]])),
        leaves=(
            Leaf("y", torch.arange(6).reshape(2, 3).T),
            Leaf("z", torch.zeros(0, 3, dtype=torch.uint8)),
        ),
        perhaps=None,
        peak=None,
        tensors=(
            torch.tensor(7),
            torch.tensor([True, False]),
            torch.tensor([-128, 127], dtype=torch.int8),
            torch.ones(2).double(),
        ),
    )


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"perhaps": Leaf("there", torch.ones(1)), "peak": 2.0},
        {"names": (), "nested": (), "leaves": (), "tensors": ()},
        {"share": float("nan"), "peak": math.inf},
        {"peak": 0.0, "text": "", "pair": (0, 0.0)},
        {"share": 3},  # a whole number where a float may stand
    ],
)
def test_load_returns_what_was_saved(change: dict[str, Any], tmp_path: Path) -> None:
    value = replace(tree(), **change)
    save(value, tmp_path / "tree.npz")
    found = load(Tree, tmp_path / "tree.npz")
    assert equal(found, value)
    assert [path.name for path in tmp_path.iterdir()] == ["tree.npz"]


def test_equal_sees_differences() -> None:
    for change in (
        {"number": 4},
        {"peak": 1.0},
        {"leaf": Leaf("x", torch.zeros(1, 3))},
        {"names": ("a",)},
        {"sure": 1},
    ):
        assert not equal(replace(tree(), **change), tree())


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], {1}, np.zeros(2), Path("x")])
def test_save_names_an_unsupported_type_and_keeps_the_file(value: object, tmp_path: Path) -> None:
    path = tmp_path / "tree.npz"
    save(tree(), path)
    with pytest.raises(
        TypeError, match=rf"leaf\.name cannot be saved: it is a {type(value).__name__}"
    ):
        save(replace(tree(), leaf=Leaf(value, torch.zeros(1))), path)  # type: ignore[arg-type]
    assert equal(load(Tree, path), tree())


def changed(path: Path, **values: object) -> None:
    """Write the file again with other values in its JSON; None leaves one out."""
    with np.load(path) as arrays:
        content = dict(arrays)
    fields = json.loads(str(content["tree"])) | values
    content["tree"] = np.array(
        json.dumps({name: value for name, value in fields.items() if value != "absent"})
    )
    np.savez_compressed(path, **content)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "values",
    [
        {"number": 1.5},
        {"number": True},
        {"number": None},
        {"share": "0.3"},
        {"sure": 1},
        {"text": 4},
        {"pair": [1]},
        {"pair": [1, 2.5, 3]},
        {"nested": [[1, 2, 3]]},
        {"names": 3},
        {"leaf": None},
        {"leaf": {"name": "x"}},
        {"leaf": {"name": "x", "values": {"array": "nowhere"}}},
        {"leaf": {"name": "x", "values": 3}},
        {"number": "absent"},
        {"added": 1},
    ],
)
def test_load_rejects_a_file_of_another_version(values: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "tree.npz"
    save(tree(), path)
    changed(path, number=-3)  # writing it again does no harm
    load(Tree, path)
    changed(path, **values)
    with pytest.raises(SeewhyError, match=r"tree\.npz is missing or damaged \("):
        load(Tree, path)


def test_load_rejects_a_file_of_another_type(tmp_path: Path) -> None:
    save(Other(1), tmp_path / "other.npz")
    with pytest.raises(SeewhyError, match=r"other\.npz is missing or damaged"):
        load(Tree, tmp_path / "other.npz")


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"not an archive", b"\x93NUMPY\x01\x00v\x00", b"\x80\x04K\x01."]
)
def test_load_rejects_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tree.npz"
    with pytest.raises(SeewhyError, match=r"tree\.npz"):
        load(Tree, path)
    path.write_bytes(content)
    with pytest.raises(SeewhyError, match=r"tree\.npz"):
        load(Tree, path)
    with path.open("wb") as file:
        np.save(file, np.arange(3))  # an array, but no archive of them
    with pytest.raises(SeewhyError, match=r"tree\.npz"):
        load(Tree, path)


@pytest.mark.slow
def test_load_detects_damaged_bytes(tmp_path: Path) -> None:
    path = tmp_path / "tree.npz"
    save(tree(), path)
    whole = path.read_bytes()
    refused = 0
    for index in range(0, len(whole), 11):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x55]) + whole[index + 1 :])
        found = None
        with suppress(SeewhyError):
            found = load(Tree, path)
        refused += found is None
        assert found is None or equal(found, tree())
    assert refused > len(whole) / 11 / 4
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(SeewhyError, match=r"tree\.npz"):
            load(Tree, path)
