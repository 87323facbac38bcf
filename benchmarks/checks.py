"""`seewhy.check` on planted defects, beside cleanvision: `python -m benchmarks.checks PHOTOGRAPHS`.

PHOTOGRAPHS is anything that `seewhy.load` takes. With --peers PYTHON, a Python with cleanvision
judges the same images as PNG files. --model NAME:weights=FILE also measures the time.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d

from benchmarks.results import HERE, Row, keep
from seewhy.checks import check
from seewhy.checks.inputs import CheckInputs
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import load
from seewhy.runs.run import open_classifier

T = TypeVar("T")
Pixels = NDArray[np.uint8]  # (3, H, W)

ORIGINALS = 100
DEFECTIVE = 0.2  # fraction of the images of a dataset that get the defect
MANY = 10_000  # images for which the time is scaled
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
    parser.add_argument("--model", default="", help="NAME:weights=FILE, to measure the time")
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
    if arguments.model:
        rows += _times(arguments.photographs, arguments.model)
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


def _times(photographs: str, model: str) -> list[Row]:
    """Processor time for each part, per image or for as many rows as 10,000 images have."""
    classifier = open_classifier(model)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SEEWHY_CACHE"] = cache
        data, decoding = _timed(lambda: load(photographs, quiet=True))
        inputs = CheckInputs(data, classifier)
        total = sum(map(len, inputs.splits.values()))
        _, measuring = _timed(lambda: inputs.measures)
        features, computing = _timed(lambda: inputs.features)
    # features of as many images, spread around those that were measured, with the same labels
    rng = np.random.default_rng(0)
    rows = rng.integers(0, total, MANY)
    spread = features.std(0) * torch.from_numpy(rng.normal(size=(MANY, features.shape[1])))
    many = (features[rows] + spread).float()
    labels = torch.from_numpy(inputs.labels[rows])
    blank = torch.zeros(MANY, 3, 32, 32, dtype=torch.uint8)
    everything = Split(blank, labels, list(map(str, range(MANY))))
    parts = (torch.arange(MANY * 4 // 5), torch.arange(MANY * 4 // 5, MANY))
    train, test = (everything.take(part) for part in parts)
    larger = CheckInputs(replace(data, train=train, test=test, fingerprint="0"), classifier)
    larger.__dict__["features"] = many
    from seewhy.checks.drift import drift
    from seewhy.checks.features import label_issues, outliers

    def judge() -> None:
        for each in (outliers, label_issues, drift):
            each(larger)

    _, judging = _timed(judge)
    how = f"`benchmarks/checks.py`, {total} photographs, processor time of one thread"
    per_image = {"decoding": decoding, "measures": measuring, "features": computing}
    seconds = {name: each / total * MANY for name, each in per_image.items()}
    result = [
        Row(f"{name}, {MANY:,} images", f"{each:.0f} s", f"{how}, scaled")
        for name, each in seconds.items()
    ]
    whole = sum(seconds.values()) + judging
    return [
        *result,
        Row(
            f"outliers, label issues and drift, {MANY:,} images",
            f"{judging:.0f} s",
            "`benchmarks/checks.py`, features made of those of the photographs and noise",
        ),
        Row(f"all of these, {MANY:,} images", f"{whole:.0f} s", "without near-duplicates"),
    ]


def _timed(compute: Callable[[], T]) -> tuple[T, float]:
    """A result, and its processor time in seconds."""
    start = time.process_time()
    return compute(), time.process_time() - start


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
