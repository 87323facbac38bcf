"""Memory of training on many photographs: the process's own, with the data in the cache on disk.

`python -m benchmarks.memory` needs Linux, 5 GB of disk space for a temporary directory, and a few
minutes, of which most are for writing and decoding the images.
"""

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from benchmarks.results import Row, keep
from seewhy.data.sources import load
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe

COUNTS = (2_000, 20_000)
SIDE, MARGIN, DISTINCT = 224, 32, 500  # the images repeat under other names
MIB = 2**20
RECIPE = Recipe(
    epochs=1,
    batch_size=32,
    lr=0.01,
    schedule="constant",
    augment=("flip",),
    precision="fp32",
)


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files with few spatial frequencies, of two classes."""
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((360, 270), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=50)
        encoded.append(buffer.getvalue())
    for split, share in (("train", count), ("test", 100)):
        for number in range(share):
            path = folder / split / f"class-{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded[number % DISTINCT])


def private_bytes() -> int:
    """Memory of this process that no file holds."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


@contextmanager
def peak() -> Iterator[list[int]]:
    """The largest `private_bytes` inside the block, as the only entry of a list."""
    highest, ended = [private_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            highest[0] = max(highest[0], private_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def network() -> nn.Module:
    """A network that takes hardly any time."""
    layers = nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 2))


def show_peaks(folder: str) -> None:
    """Print the peaks of decoding and of training an epoch on a folder; in a new process."""
    before = private_bytes()
    with peak() as decoding:
        data = load(folder, image_size=SIDE, margin=MARGIN, quiet=True)
    with peak() as training:
        fit(RECIPE, data, quiet=True, model=network)
    print(before, decoding[0], training[0])


def measured(count: int) -> list[int]:
    """Private bytes with all modules imported, while decoding, and while training."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory, "photos")
        write_images(folder, count)
        environment = os.environ | {"SEEWHY_CACHE": str(Path(directory, "cache"))}
        command = [sys.executable, "-m", "benchmarks.memory", str(folder)]
        began = time.monotonic()
        printed = subprocess.check_output(command, env=environment, text=True)
        print(f"{count} images: {printed.strip()} bytes, {time.monotonic() - began:.0f} s")
        return list(map(int, printed.split()))


def main() -> None:
    """Measure and save."""
    peaks = {count: measured(count) for count in COUNTS}
    rows = [
        Row(
            f"{count:,} photographs: {what}",
            f"{peaks[count][column] / MIB:.0f} MiB",
            f"`benchmarks/memory.py`, {SIDE}x{SIDE}, margin {MARGIN}, "
            f"{count * 3 * (SIDE + MARGIN) ** 2 / 1e9:.1f} GB of pixels",
        )
        for count in COUNTS
        for column, what in enumerate(("before", "peak while decoding", "peak while training"))
    ]
    keep(
        "memory",
        "Memory of training on photographs",
        rows,
        note="RssAnon of the process: what it needs besides the cache of the operating system. One "
        "epoch of a tiny network in batches of 32, with flips.",
    )


if __name__ == "__main__":
    show_peaks(sys.argv[1]) if sys.argv[1:] else main()
