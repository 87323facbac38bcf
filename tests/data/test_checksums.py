"""Damage in the cache: every flipped bit is noticed, and nothing is read too early."""

import copy
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seewhy.cli import main
from seewhy.data.cache import array_file, cache_entries, verify_entry
from seewhy.data.checksums import checked_tensor, read_checksums, rows_per_block
from seewhy.data.sources import load
from seewhy.errors import SeewhyError

NAME = "shapes:train=30,test=10"  # of 3x32x32 and masks; 21 images are a block


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def read_all(data: Any) -> list[object]:
    return [
        (
            int(split.images.sum()),
            int(split.masks.sum()),
            split.labels.tolist(),
            list(split.names),
            split.originals.tobytes(),
        )
        for split in (data.train, data.test)
    ]


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], tuple[Tensor, Tensor, list[int]]]:
    """A tensor of 40 rows of 10,000 bytes, the same checked, and the rows found damaged."""
    values = np.random.default_rng(0).integers(0, 256, (40, 100, 100), dtype=np.uint8)

    def made() -> tuple[Tensor, Tensor, list[int]]:
        path = tmp_path / "array"
        with array_file(path, 10_000) as file:
            for start in range(0, 40, 7):  # in other pieces than the blocks
                file.write(values[start : start + 7])
        assert path.read_bytes() == values.tobytes()
        checksums = read_checksums(tmp_path / "array.crc", 40, 10_000)
        damaged: list[int] = []

        def on_damage(row: int) -> Exception:
            damaged.append(row)
            return SeewhyError("damaged")

        plain = torch.from_numpy(values.copy())
        return plain, checked_tensor(plain, checksums, on_damage), damaged

    return made


INDICES: list[Any] = [
    3,
    -1,
    slice(None),
    slice(5, 9),
    slice(-3, None),
    slice(0, 40, 11),
    torch.tensor([1, 39, -2]),
    torch.arange(40) % 5 == 0,
    [2, 3],
    (slice(None), 0),
    (torch.tensor([4]), slice(1, 3)),
    (..., 5),
    None,
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_checked_tensor_reads_as_a_plain_one(index: Any, rows: Any) -> None:
    plain, checked, _ = rows()
    assert torch.equal(checked[index], plain[index])
    assert checked[index].shape == plain[index].shape


def test_operations_on_a_checked_tensor(rows: Any) -> None:
    plain, checked, _ = rows()
    assert (checked.shape, checked.dtype, len(checked)) == (plain.shape, plain.dtype, 40)
    assert torch.equal(torch.cat([checked[:3], checked[5:6]]), torch.cat([plain[:3], plain[5:6]]))
    assert torch.equal(checked[2:9][1:3], plain[3:5])
    for same in (pickle.loads(pickle.dumps(checked)), copy.deepcopy(checked), checked.clone()):
        assert type(same) is Tensor
        assert torch.equal(same, plain)
    assert np.array_equal(np.asarray(checked), plain.numpy())
    with pytest.raises(IndexError):
        checked[40]
    with pytest.raises(IndexError):
        checked[torch.tensor([3, 40])]


def test_a_block_is_verified_when_it_is_first_read(rows: Any) -> None:
    """6 rows are a block; what is not read is not verified, and a tensor's shape is no reading."""
    plain, checked, damaged = rows()
    assert rows_per_block(10_000) == 6
    plain[20, 3, 3] ^= 16
    assert len(checked[18:24]) == len(checked[12:30][2:]) - 10 == 6
    assert checked.float is not None
    checked[torch.tensor([0, 17, 24, 39])]
    checked[:18].sum()
    checked[24:].float()
    assert not damaged
    reads: list[Callable[[], Any]] = [
        lambda: checked[18],
        lambda: checked[-21],
        lambda: checked[18:24].sum(),
        lambda: checked[12:30][8:10].clone(),
        lambda: checked[torch.tensor([0, 23])],
        lambda: checked[torch.arange(40) == 20],
        lambda: checked[::20],
        lambda: checked.float(),
        lambda: checked.numpy(),
        lambda: torch.stack([checked[:1], checked[20:21]]),
        lambda: list(checked),
        lambda: checked + 1,
    ]
    for read in reads:
        with pytest.raises(SeewhyError):
            read()
    assert damaged == [18] * len(reads)


@pytest.mark.slow
def test_every_flipped_bit_in_the_cache_is_noticed_and_mended(own_cache: Path) -> None:
    expected = read_all(load(NAME, quiet=True))
    choose = random.Random(0)
    files = sorted(path.name for path in cache_entries()[0].iterdir())
    for name in files:
        [entry] = cache_entries()
        flip(entry / name, choose.randrange((entry / name).stat().st_size), choose.randrange(8))
        if name.endswith((".images", ".masks")):
            data = load(NAME, quiet=True)  # nothing is read yet
            with pytest.raises(SeewhyError, match=r"is damaged \(.*from image.*; try again"):
                read_all(data)
        assert read_all(load(NAME, quiet=True)) == expected
    assert {name.split(".", 1)[1] for name in files} == {
        "json",
        "labels",
        "names",
        "images",
        "images.crc",
        "masks",
        "masks.crc",
        "originals",
    }


@pytest.mark.slow
def test_cache_command_lists_and_verifies(
    own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["cache"]) == 0
    assert "no datasets" in capsys.readouterr().out
    load(NAME, quiet=True)
    load("digits", quiet=True)
    assert main.main(["cache", "--verify"]) == 0
    out = capsys.readouterr().out
    assert out.count(" ok") == 2
    [shapes] = [path for path in cache_entries() if path.name.startswith("shapes")]
    flip(shapes / "test.images", 5)
    assert verify_entry(shapes)
    assert main.main(["cache"]) == 0
    assert main.main(["cache", "--verify"]) == 1
    out = capsys.readouterr().out
    assert "damaged" in out
    assert "test.images" in out
    load(NAME, quiet=True)
    assert main.main(["cache", "--verify"]) == 0
