"""Planted copies in generated photographs: equal, re-encoded, brightened, mirrored, shifted."""

import io

import numpy as np
import pytest
import torch
from generated_photographs import photographs
from PIL import Image

from seewhy.data import duplicates
from seewhy.data.dataset import Split
from seewhy.data.duplicates import DuplicatePair, near_duplicates
from seewhy.errors import SeewhyError


def split_of(images: np.ndarray, labels: np.ndarray | None = None) -> Split:
    given = np.zeros(len(images), dtype=np.int64) if labels is None else labels
    return Split(torch.from_numpy(images), torch.from_numpy(given), [""] * len(images))


def encoded(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(1.1 * image.astype(float) + 8, 0, 255).astype(np.uint8)


def places(pairs: tuple[DuplicatePair, ...]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    return sorted((pair.first, pair.second) for pair in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "count"), [(32, 600), pytest.param(140, 60, marks=pytest.mark.slow)]
)
def test_near_duplicates_finds_only_planted_copies(side: int, count: int) -> None:
    train, test = photographs(count, 0, side), photographs(70, 1, side)
    first = count - 6
    test[10] = train[first]
    test[20] = encoded(train[first + 1], 60)
    test[30] = brighter(train[first + 2])
    test[40] = train[first + 3, :, :, ::-1]
    test[50] = np.roll(train[first + 4], (1, -1), (1, 2))
    test[60] = encoded(brighter(np.roll(train[first + 5, :, :, ::-1], 1, 2)), 80)
    found = near_duplicates({"train": split_of(train), "test": split_of(test)})
    assert places(found) == [(("train", first + i), ("test", 10 + 10 * i)) for i in range(6)]
    by_test = {pair.second[1]: pair for pair in found}
    assert [by_test[10 + 10 * i].mirrored for i in range(6)] == [
        False,
        False,
        False,
        True,
        False,
        True,
    ]
    assert [found[i].difference for i in range(2)] == pytest.approx([0, 0], abs=1e-4)  # copies
    assert {found[0].second[1], found[1].second[1]} == {10, 40}
    changes = torch.from_numpy(test[20] / 255 - train[first + 1] / 255)
    expected = torch.nn.functional.adaptive_avg_pool2d(changes, 32).abs().mean().item()
    assert by_test[20].difference == pytest.approx(expected, abs=1e-4)
    assert [pair.difference for pair in found] == sorted(pair.difference for pair in found)


def cropped(image: np.ndarray, fraction: float, top: float, left: float) -> np.ndarray:
    """A part of the image at (top, left), fractions of what remains, at the image's size."""
    side = image.shape[1]
    part, rest = round(fraction * side), side - round(fraction * side)
    box = (left * rest, top * rest, left * rest + part, top * rest + part)
    picture = Image.fromarray(image.transpose(1, 2, 0))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box)).transpose(
        2, 0, 1
    )


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image behind a frame that moves; its border is repeated."""
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="edge")
    side = image.shape[1]
    return padded[:, 4 - down : 4 - down + side, 4 - right : 4 - right + side]


EDITS = {
    "a 92% crop": lambda image, rng: cropped(image, 0.92, *rng.uniform(size=2)),
    "an 85% crop": lambda image, rng: cropped(image, 0.85, 0.5, 0.5),
    "a shift by 3 pixels": lambda image, rng: shifted(image, *rng.choice([-3, 3], 2)),
    "JPEG of quality 20": lambda image, rng: encoded(image, 20),
    "noise": lambda image, rng: np.clip(image + rng.normal(0, 15, image.shape), 0, 255),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_near_duplicates_finds_edited_copies(edit: str) -> None:
    rng, train = np.random.default_rng(20), photographs(300, 21)
    test = np.stack([EDITS[edit](image, rng) for image in train[:40]]).astype(np.uint8)
    found = near_duplicates({"train": split_of(train), "test": split_of(test)})
    assert all(pair.first[1] == pair.second[1] for pair in found)
    assert len(found) >= 33


def test_difference_is_over_the_overlap() -> None:
    train = photographs(5, 2)
    moved = np.roll(train[3], 1, 1)
    moved[:, 5, 5] ^= 64
    [pair] = near_duplicates({"train": split_of(train), "test": split_of(moved[None])})
    expected = np.abs(moved[:, 1:].astype(float) - train[3, :, :-1]).mean() / 255
    assert pair.difference == pytest.approx(expected, rel=1e-4)


def test_near_duplicates_of_gray_images_and_three_splits() -> None:
    train, valid, test = (photographs(50, seed, channels=1) for seed in (3, 4, 5))
    test[7], valid[9], valid[11] = train[1], train[2], test[0]
    labels = np.zeros(50, dtype=np.int64)
    labels[7] = 1
    splits = {
        "train": split_of(train),
        "test": split_of(test, labels),
        "validation": split_of(valid),
    }
    found = near_duplicates(splits)
    expected = [
        (("test", 0), ("validation", 11)),
        (("train", 1), ("test", 7)),
        (("train", 2), ("validation", 9)),
    ]
    assert places(found) == expected
    assert [pair.second for pair in found if not pair.same_label] == [("test", 7)]


def test_near_duplicates_within_the_test_split() -> None:
    images = photographs(60, 6)
    images[50], images[8] = images[3, :, :, ::-1], images[3]
    splits = {"train": split_of(photographs(20, 7)), "test": split_of(images)}
    assert near_duplicates(splits) == ()
    found = near_duplicates(splits, within=["test"])
    assert places(found) == [
        (("test", 3), ("test", 8)),
        (("test", 3), ("test", 50)),
        (("test", 8), ("test", 50)),
    ]
    assert [pair.mirrored for pair in found] == [False, True, True]
    assert len(near_duplicates({"train": splits["test"]}, within=["train"])) == 3


def test_near_duplicates_of_flat_images_are_exact() -> None:
    rng = np.random.default_rng(8)
    train = np.full((4, 3, 32, 32), 100, dtype=np.uint8) + rng.integers(
        0, 2, (4, 3, 32, 32), dtype=np.uint8
    )
    test = train.copy()
    test[0, 0, 0, 0] ^= 1
    test[1:] = test[[2, 2, 2]]
    splits = {"train": split_of(train), "test": split_of(test)}
    assert places(near_duplicates(splits)) == [(("train", 2), ("test", i)) for i in (1, 2, 3)]
    inside = [(("test", 1), ("test", 2)), (("test", 1), ("test", 3)), (("test", 2), ("test", 3))]
    assert places(near_duplicates({"test": split_of(test)}, within=["test"])) == inside


def test_near_duplicates_of_small_images_are_exact() -> None:
    train, test = photographs(30, 9, side=8), photographs(30, 10, side=8)
    test[4], test[5] = train[6], brighter(train[7])
    found = near_duplicates({"train": split_of(train), "test": split_of(test)})
    assert places(found) == [(("train", 6), ("test", 4))]


def test_near_duplicates_limits_pairs_per_image() -> None:
    train = photographs(40, 11)
    train[:30] = train[0]
    found = near_duplicates({"train": split_of(train), "test": split_of(train[:1])})
    assert len(found) == duplicates.MAX_PAIRS
    assert all(pair.difference == 0 and pair.first[1] < 30 for pair in found)


def test_near_duplicates_ignores_other_colors() -> None:
    train = photographs(3, 12)
    found = near_duplicates({"train": split_of(train), "test": split_of(255 - train)})
    assert found == ()


@pytest.mark.slow
def test_near_duplicates_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = photographs(90, 13), photographs(70, 14)
    test[::7] = train[:10]
    test[5] = test[60]
    splits = {"train": split_of(train), "test": split_of(test)}
    whole = near_duplicates(splits, within=["test"])
    assert len(whole) == 11
    for name, value in (("_ROWS", 9), ("_COLUMNS", 13), ("_BLOCK_VALUES", 3 * 32 * 32 * 8)):
        monkeypatch.setattr(duplicates, name, value)
    assert near_duplicates(splits, within=["test"]) == whole


def test_near_duplicates_of_memory_mapped_images(tmp_path: object) -> None:
    images = photographs(20, 15)
    np.save(f"{tmp_path}/images.npy", images)
    mapped = split_of(np.load(f"{tmp_path}/images.npy", mmap_mode="r+"))
    assert len(near_duplicates({"train": mapped, "test": split_of(images[5:8])})) == 3


def test_near_duplicates_threshold() -> None:
    train = photographs(30, 16)
    rng = np.random.default_rng(17)
    noisy = np.clip(train + rng.normal(0, 6, train.shape), 0, 255).astype(np.uint8)
    splits = {"train": split_of(train), "test": split_of(noisy)}
    assert len(near_duplicates(splits, threshold=0.999)) == 0
    assert len(near_duplicates(splits, threshold=0.5)) == 30
    for wrong in (0.0, 1.5):
        with pytest.raises(SeewhyError, match="threshold must be a similarity above 0 and up to 1"):
            near_duplicates(splits, threshold=wrong)


def test_near_duplicates_of_other_shapes_and_empty_splits() -> None:
    one, other = photographs(3, 18), photographs(3, 18, side=40)
    with pytest.raises(
        SeewhyError, match="found train 3x32x32, test 3x40x40; load both with one size"
    ):
        near_duplicates({"train": split_of(one), "test": split_of(other)})
    assert near_duplicates({"train": split_of(one), "test": split_of(one[:0])}) == ()
    assert near_duplicates({}) == ()
