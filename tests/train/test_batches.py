import math

import pytest
import torch

from seewhy.data.augment import bind_augmentations
from seewhy.data.dataset import Split
from seewhy.train.batches import batches, epoch_order, equal_batches, full_batches

CPU = torch.device("cpu")


def numbered(count: int) -> Split:
    """Images whose pixels all are their own index, labeled by parity."""
    indices = torch.arange(count)
    images = indices.to(torch.uint8)[:, None, None, None].expand(count, 3, 4, 4).contiguous()
    return Split(images, indices % 2, [str(index) for index in range(count)])


def test_batches_yield_every_image_once() -> None:
    split, order = numbered(23), epoch_order(23, seed=3, epoch=0)
    steps, size = equal_batches(23, 5)
    assert (steps, size) == (5, 4)
    whole = order[: steps * size]
    result = list(batches(split, 2, size, whole, 0, bind_augmentations(()), torch.Generator(), CPU))
    assert [len(images) for images, _ in result] == [4] * 5
    seen = torch.cat([images[:, 0, 0, 0] for images, _ in result]).mul(255).round().long()
    labels = torch.cat([labels for _, labels in result])
    assert torch.equal(seen, order[:20])
    assert torch.equal(labels.argmax(1), seen % 2)
    assert torch.equal(labels.sum(1), torch.ones(20))


@pytest.mark.parametrize("images", [2, 3, 5, 11, 97, 100, 1000, 1023, 50_000])
@pytest.mark.parametrize("most", [2, 3, 5, 128, 512, 100_000])
def test_equal_batches_hold_nearly_all_images(images: int, most: int) -> None:
    steps, size = equal_batches(images, most)
    assert 2 <= size <= max(most, 3)
    assert images - steps * size < min(size, math.ceil(images / size))
    assert len(range(0, steps * size, size)) == steps


def test_equal_batches_of_published_recipes() -> None:
    assert equal_batches(50_000, 512) == (98, 510)
    assert equal_batches(50_000, 500) == (100, 500)


def test_full_batches_end_with_a_smaller_one() -> None:
    assert full_batches(50_000, 32) == (1563, 32)
    assert full_batches(50_000, 512) == (98, 512)
    assert full_batches(100, 50) == (2, 50)
    assert full_batches(3, 512) == (1, 3)
    split, order = numbered(23), epoch_order(23, seed=3, epoch=0)
    result = list(batches(split, 2, 5, order, 0, bind_augmentations(()), torch.Generator(), CPU))
    assert [len(images) for images, _ in result] == [5, 5, 5, 5, 3]
    seen = torch.cat([images[:, 0, 0, 0] for images, _ in result]).mul(255).round().long()
    assert torch.equal(seen, order)


def test_batches_are_floats_and_channels_last() -> None:
    images, _ = next(
        batches(
            numbered(8), 2, 8, torch.arange(8), 0, bind_augmentations(()), torch.Generator(), CPU
        )
    )
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(8) / 255)


def test_epoch_order_depends_on_seed_and_epoch() -> None:
    first = epoch_order(100, seed=0, epoch=1)
    assert torch.equal(first, epoch_order(100, seed=0, epoch=1))
    assert torch.equal(first.sort().values, torch.arange(100))
    for other in (epoch_order(100, seed=0, epoch=2), epoch_order(100, seed=1, epoch=1)):
        assert not torch.equal(first, other)


def test_batches_of_fewer_images_than_a_batch() -> None:
    assert equal_batches(3, 512) == (1, 3)
    result = list(
        batches(
            numbered(3), 2, 3, torch.arange(3), 0, bind_augmentations(()), torch.Generator(), CPU
        )
    )
    assert [len(images) for images, _ in result] == [3]
