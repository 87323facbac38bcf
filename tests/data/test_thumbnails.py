import torch

from seewhy.data.dataset import Split
from seewhy.data.thumbnails import make_thumbnails


def split_of(count: int, channels: int, height: int, width: int) -> Split:
    images = torch.randint(
        0, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0)
    ).byte()
    return Split(
        images, torch.zeros(count, dtype=torch.int64), [str(index) for index in range(count)]
    )


def test_make_thumbnails_keeps_small_images() -> None:
    split = split_of(9, 3, 6, 8)
    found = make_thumbnails(split, [7, 2, 7, 0, 2])
    assert found.indices.tolist() == [0, 2, 7]
    assert torch.equal(found.images, split.images[[0, 2, 7]])


def test_make_thumbnails_averages_areas() -> None:
    split = split_of(3, 1, 128, 256)
    found = make_thumbnails(split, [1])
    assert found.images.shape == (1, 1, 64, 128)
    expected = split.images[1].double().reshape(1, 64, 2, 128, 2).mean((2, 4))
    assert (found.images[0] - expected).abs().max() <= 0.5


def test_make_thumbnails_of_many_and_of_none() -> None:
    split = split_of(600, 1, 2, 2)
    indices = list(range(599, -1, -2))
    assert torch.equal(make_thumbnails(split, indices).images, split.images[1::2])
    nothing = make_thumbnails(split, [])
    assert nothing.indices.dtype == torch.int64
    assert nothing.images.shape == (0, 1, 2, 2)
    assert nothing.images.dtype == torch.uint8
