"""Images with any number of bright bars, which are their labels."""

from pathlib import Path

import torch
from PIL import Image

from seewhy.data.dataset import Dataset, Split
from seewhy.train.recipe import Recipe

CLASSES = ("top", "middle", "right")

RECIPE = Recipe(
    name="bars",
    model="speednet:width=0.375",
    epochs=3,
    batch_size=40,
    lr=0.5,
    augment=("mixup",),
    label_smoothing=0.1,
    class_weights=True,
    precision="fp32",
)


def bars(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.2])
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=generator).byte()
    images[labels[:, 0], :, 0:2] = 200
    images[labels[:, 1], :, 4:6] = 200
    images[labels[:, 2], :, :, 6:8] = 200
    return Split(images, labels, [f"{index}.png" for index in range(count)])


def labeled_bars(train: int = 120) -> Dataset:
    return Dataset("bars", CLASSES, bars(train, 0), bars(40, 1), bars(40, 2), fingerprint="")


def write_images(split: Split, directory: Path) -> None:
    for image, name in zip(split.images, split.names, strict=True):
        Image.fromarray(image[0].numpy()).save(directory / name)
