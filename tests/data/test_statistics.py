"""Pixel statistics against NumPy in float64; exact duplicates against planted ones."""

import numpy as np
import pytest
import torch

from seewhy.data.dataset import Split
from seewhy.data.statistics import channel_statistics, exact_duplicates
from seewhy.errors import SeewhyError


def split_of(images: np.ndarray) -> Split:
    return Split(
        torch.from_numpy(images),
        torch.zeros(len(images), dtype=torch.int64),
        [str(i) for i in range(len(images))],
    )


def noise(count: int, seed: int, shape: tuple[int, int, int] = (3, 6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 200, (count, *shape), dtype=np.uint8)


def test_channel_statistics_equal_numpy() -> None:
    images = noise(5000, seed=0)
    images[:, 1] //= 3
    found = channel_statistics(split_of(images))
    scaled = images.astype(np.float64) / 255
    for name in ("min", "max", "mean", "std", "var"):
        expected = getattr(scaled, name)(axis=(0, 2, 3))
        np.testing.assert_allclose(
            getattr(found, name).numpy(), expected, rtol=1e-12, atol=1e-15, err_msg=name
        )


def test_channel_statistics_of_many_pixels_are_exact() -> None:
    images = np.full(
        (2, 1, 4200, 4200), 7, dtype=np.uint8
    )  # more than float32 can count one by one
    images[0, 0, 0, 0] = 8
    found = channel_statistics(split_of(images))
    assert found.mean.item() == pytest.approx((7 + 1 / images.size) / 255, rel=1e-14)


def test_channel_statistics_of_some_images() -> None:
    images = np.zeros((10, 1, 2, 2), dtype=np.uint8)
    images[:, 0, 0, 0] = range(10)
    found = channel_statistics(split_of(images), max_images=4)  # 0, 3, 6, 9
    assert found.max.item() * 255 == pytest.approx(9)
    assert found.mean.item() * 255 == pytest.approx((0 + 3 + 6 + 9) / 16)
    with pytest.raises(SeewhyError, match="max_images must be at least 1, found 0"):
        channel_statistics(split_of(images), max_images=0)


def test_exact_duplicates_inside_and_across_splits() -> None:
    train, test = noise(3000, seed=1), noise(1500, seed=2)
    train[2999] = train[5]
    test[1200] = train[5]
    test[3] = test[1100]
    near = train[7].copy()
    near[2, 5, 4] ^= 1
    test[9] = near  # one bit apart is not a duplicate
    found = exact_duplicates({"train": split_of(train), "test": split_of(test)})
    assert found.groups == (
        (("train", 5), ("train", 2999), ("test", 1200)),
        (("test", 3), ("test", 1100)),
    )
    assert found.across == ((("train", 5), ("train", 2999), ("test", 1200)),)


def test_exact_duplicates_have_equal_shapes() -> None:
    flat = np.zeros((1, 1, 2, 8), dtype=np.uint8)
    assert (
        exact_duplicates({"a": split_of(flat), "b": split_of(flat.reshape(1, 1, 4, 4))}).groups
        == ()
    )


def test_exact_duplicates_of_any_memory_format() -> None:
    images = torch.from_numpy(noise(4, seed=3, shape=(3, 4, 4)))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    names = [str(i) for i in range(4)]
    splits = {
        "a": Split(images, torch.zeros(4), names),
        "b": Split(channels_last, torch.zeros(4), names),
    }
    assert len(exact_duplicates(splits).across) == 4
