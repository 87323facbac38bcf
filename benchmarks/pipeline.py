"""Images per second: our batches against a DataLoader over `datasets` with Albumentations."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import albumentations as A
import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.results import Row, keep
from seewhy.data.augment import bind_augmentations
from seewhy.data.sources import load
from seewhy.train.batches import batches, epoch_order

NOTE = (
    "CIFAR-10 as a JPEG copy in Parquet files; no model is trained. seewhy reads its cache of "
    "decoded images; the DataLoader decodes each image again, as it does in every epoch."
)
BATCH, WORKERS, RUNS, PEER_BATCHES = 512, 2, 5, 16


def ours(path: str) -> Iterator[Any]:
    """One epoch of crop, flip and cutout from the memory-mapped cache."""
    train = load(path, quiet=True).train
    augment = bind_augmentations(("crop:4", "flip", "cutout:16"))
    order = epoch_order(len(train), 0, 0)
    return batches(
        train, 10, BATCH, order, 0, augment, torch.Generator().manual_seed(0), torch.device("cpu")
    )


def peer(path: str) -> Iterator[Any]:
    """Batches with the same augmentations, decoded and augmented per image in worker processes."""
    table = datasets.load_dataset("parquet", data_files=f"{path}/train-*.parquet", split="train")
    steps = A.Compose(
        [
            A.PadIfNeeded(40, 40),
            A.RandomCrop(32, 32),
            A.HorizontalFlip(p=0.5),
            A.CoarseDropout(
                num_holes_range=(1, 1), hole_height_range=(16, 16), hole_width_range=(16, 16), p=1.0
            ),
        ]
    )
    chosen = table.select(range(BATCH * PEER_BATCHES)).with_transform(partial(_transformed, steps))
    return iter(DataLoader(chosen, BATCH, shuffle=True, num_workers=WORKERS))  # type: ignore[arg-type]


def _transformed(steps: A.Compose, rows: dict[str, Any]) -> dict[str, Any]:
    images = [steps(image=np.asarray(image.convert("RGB")))["image"] for image in rows["image"]]
    return {
        "image": [torch.from_numpy(image).permute(2, 0, 1).float().div(255) for image in images],
        "label": rows["label"],
    }


def images_per_second(make: Callable[[], Iterator[Any]], images: Callable[[Any], int]) -> float:
    """Speed of one pass, without the time until its first batch."""
    stream = make()
    next(stream)
    began = time.perf_counter()
    count = sum(images(batch) for batch in stream)
    return count / (time.perf_counter() - began)


def main(path: str) -> None:
    """Measure in turn and save; `path` is a directory of Parquet files."""
    mine, theirs = [], []
    for _ in range(RUNS):
        mine.append(images_per_second(lambda: ours(path), lambda batch: len(batch[0])))
        theirs.append(images_per_second(lambda: peer(path), lambda batch: len(batch["label"])))
    how = f"`benchmarks/pipeline.py`, batch {BATCH}, median of {RUNS} interleaved repeats"
    rows = [
        Row("seewhy: crop, flip, cutout", f"{median(mine):,.0f} images/s", how),
        Row(
            f"datasets {datasets.__version__} + Albumentations {A.__version__} in a DataLoader, "
            f"{WORKERS} workers",
            f"{median(theirs):,.0f} images/s",
            how,
        ),
        Row("ratio", f"{median(a / b for a, b in zip(mine, theirs, strict=True)):.0f}x", how),
    ]
    keep("pipeline", "From disk to the model", rows, note=NOTE)


if __name__ == "__main__":
    main(sys.argv[1])
