"""Training reads images from the cache: its own memory does not grow with their number."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from seewhy.data.sources import load
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe

MIB = 2**20
SIDE = 128  # 48 KiB per image


def private_bytes() -> int:
    """Memory of this process that no file holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def write_images(folder: Path, counts: dict[str, int]) -> None:
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for label in range(2):
            (folder / split / str(label)).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / str(number % 2) / f"{number}.png")


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status")
def test_memory_of_training_does_not_grow_with_the_images(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 2))
    counts, loaded, peaks = ((64, 16), (1000, 300)), [], []
    for train, test in counts:
        write_images(tmp_path / str(train), {"train": train, "test": test})
        loaded.append(load(tmp_path / str(train), image_size=SIDE, quiet=True))
    for data in loaded:
        seen: list[int] = []

        def record(images: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(private_bytes())
            return images

        recipe = Recipe(epochs=1, batch_size=16, lr=0.01, augment=("flip", record))
        fit(recipe, data, quiet=True, model=model)
        peaks.append(max(*seen, private_bytes()))
    assert len(seen) >= 60
    assert peaks[1] - peaks[0] < 20 * MIB  # 1,300 images have 61 MiB
