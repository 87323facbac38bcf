"""`seewhy.check` on planted defects, beside cleanvision: `python -m benchmarks.checks PHOTOGRAPHS`.

PHOTOGRAPHS is anything that `seewhy.load` takes. With --peers PYTHON, a Python with cleanvision
judges the same images as PNG files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d

from benchmarks.results import HERE, Row, keep
from seewhy.checks import check
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load

Pixels = NDArray[np.uint8]  # (3, H, W)

ORIGINALS = 100
DEFECTIVE = 0.2  # fraction of the images of a dataset that get the defect
CHECKS = ("dark", "light", "blurry", "low-information")


def _blur(sigma: float) -> Callable[[Pixels], Pixels]:
    return lambda image: np.stack([gaussian_filter(channel, sigma) for channel in image])


DEFECTS: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "Gaussian blur, 2 pixels": ("blurry", _blur(2)),
    "Gaussian blur, 4 pixels": ("blurry", _blur(4)),
    "Gaussian blur, 8 pixels": ("blurry", _blur(8)),
    "motion blur, 15 pixels": ("blurry", lambda image: uniform_filter1d(image, 15, axis=2)),
    "brightness / 6": ("dark", lambda image: image // 6),
    "overexposed": ("light", lambda image: 255 - (255 - image) // 25),
}


def main(argv: Sequence[str] = ()) -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs")
    parser.add_argument("--peers", default="", help="a Python with cleanvision")
    arguments = parser.parse_args(argv)
    data = load(arguments.photographs, quiet=True)
    images = torch.cat([split.images for split in data.splits.values()]).numpy()
    side = images.shape[2]
    how = f"`benchmarks/checks.py`, {len(images)} photographs of {side}x{side}"
    rows = []
    clean = {"seewhy": _found(images), "cleanvision": _peer(arguments.peers, images)}
    for finder, found in clean.items():
        text = "not measured"
        if found is not None:
            text = ", ".join(f"{name} {len(found[name])}" for name in CHECKS)
        rows.append(Row(f"photographs as they are, found: {finder}", text, how))
    count = min(ORIGINALS, int(DEFECTIVE * len(images)))
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    for defect, (name, plant) in DEFECTS.items():
        planted = images.copy()
        for index in chosen:
            planted[index] = plant(images[index])
        results = {"seewhy": _found(planted), "cleanvision": _peer(arguments.peers, planted)}
        for finder, found in results.items():
            text = "not measured"
            if found is not None:
                share = len(found[name] & set(chosen.tolist())) / count
                text = f"{share:.1%} of {count} found"
            rows.append(Row(f"{defect}: {finder}", text, how))
            print(rows[-1], flush=True)
    note = (
        "Defects planted in a fifth of real photographs, with the default thresholds of both. "
        "cleanvision finds dark, light, blurry and low-information images by its own measures."
    )
    keep("checks", "Labeled images judged", rows, note=note)


def _found(images: np.ndarray) -> dict[str, set[int]]:
    """The images that each check finds, by index."""
    results = check(_dataset(images), only=CHECKS)
    return {
        name: {finding.images[0].index for finding in results[name].findings} for name in CHECKS
    }


def _dataset(images: np.ndarray) -> Dataset:
    split = Split(
        torch.from_numpy(images),
        torch.arange(len(images)) % 2,
        [f"{index:05}.png" for index in range(len(images))],
    )
    return Dataset("photographs", ("a", "b"), split, split.take(torch.arange(0)), None, "0")


def _peer(python: str, images: np.ndarray) -> dict[str, set[int]] | None:
    """The images that cleanvision finds; None if it is not there."""
    if not python:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            path = Path(folder) / f"{index:05}.png"
            Image.fromarray(image.transpose(1, 2, 0)).save(path, compress_level=1)
        command = [python, str(HERE / "checks_peer.py"), folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return {name: {int(file[:5]) for file in answer[name.replace("-", "_")]} for name in CHECKS}


if __name__ == "__main__":
    main(sys.argv[1:])
