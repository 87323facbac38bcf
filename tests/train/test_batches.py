import torch

from seewhy.data.augment import augmentation
from seewhy.data.dataset import Split
from seewhy.train.batches import batches, epoch_order, steps_per_epoch

CPU = torch.device("cpu")


def numbered(count: int) -> Split:
    """Images whose pixels all are their own index, labelled by parity."""
    indices = torch.arange(count)
    images = indices.to(torch.uint8)[:, None, None, None].expand(count, 3, 4, 4).contiguous()
    return Split(images, indices % 2, [str(index) for index in range(count)])


def test_every_image_comes_once_with_its_own_label_and_the_rest_is_left_out() -> None:
    split, order = numbered(23), epoch_order(23, seed=3, epoch=0)
    found = list(batches(split, 2, 5, order, 0, augmentation(()), torch.Generator(), CPU))
    assert len(found) == steps_per_epoch(23, 5) == 4
    seen = torch.cat([images[:, 0, 0, 0] for images, _ in found]).mul(255).round().long()
    labels = torch.cat([labels for _, labels in found])
    assert torch.equal(seen, order[:20])
    assert torch.equal(labels.argmax(1), seen % 2)
    assert torch.equal(labels.sum(1), torch.ones(20))


def test_images_are_floats_in_the_unit_interval_and_channels_last() -> None:
    images, _ = next(batches(numbered(8), 2, 8, torch.arange(8), 0, augmentation(()), torch.Generator(), CPU))
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(8) / 255)


def test_an_epoch_can_be_repeated_and_differs_from_the_next_and_from_other_seeds() -> None:
    first = epoch_order(100, seed=0, epoch=1)
    assert torch.equal(first, epoch_order(100, seed=0, epoch=1))
    assert torch.equal(first.sort().values, torch.arange(100))
    for other in (epoch_order(100, seed=0, epoch=2), epoch_order(100, seed=1, epoch=1)):
        assert not torch.equal(first, other)


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    assert steps_per_epoch(3, 512) == 1
    found = list(batches(numbered(3), 2, 3, torch.arange(3), 0, augmentation(()), torch.Generator(), CPU))
    assert [len(images) for images, _ in found] == [3]
