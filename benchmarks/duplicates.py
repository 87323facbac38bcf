"""Near-duplicates beside imagededup and cleanvision: `python -m benchmarks.duplicates [IMAGES]`.

IMAGES is anything that `seewhy.load` takes; without it, images with the spectrum of photographs are
generated. With --peers PYTHON, a Python with imagededup or cleanvision runs them on the same files.
"""

import argparse
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.results import HERE, Row, keep
from seewhy.data.dataset import Split
from seewhy.data.duplicates import near_duplicates
from seewhy.data.sources import load

Images = NDArray[np.uint8]  # (N, 3, H, W)
Pairs = set[tuple[int, int]]  # original and copy, by index

SIDE = 64  # pixels of an image
ORIGINALS = 400  # at most; each edit is made of each of them
TENTH = 10
MANY = 10_000  # images of which the time is measured, a fifth of them in the test split
PEERS = ("imagededup", "cleanvision")
SHIFT = 3  # pixels


def cropped(image: Images, rng: np.random.Generator) -> Images:
    """A random part of 92% of each side, resized to the whole side."""
    side = image.shape[1]
    part = round(0.92 * side)
    top, left = rng.uniform(0, side - part, 2)
    box = (left, top, left + part, top + part)
    picture = _picture(image).resize((side, side), Image.Resampling.BICUBIC, box)
    return _array(picture)


def shifted(image: Images, rng: np.random.Generator) -> Images:
    """Moved diagonally; the border is repeated."""
    down, right = rng.choice([-SHIFT, SHIFT], 2)
    side = image.shape[1]
    padded = np.pad(image, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
    top, left = SHIFT - down, SHIFT - right
    return padded[:, top : top + side, left : left + side]


def encoded(image: Images, _: np.random.Generator) -> Images:
    """JPEG of quality 20."""
    buffer = io.BytesIO()
    _picture(image).save(buffer, "JPEG", quality=20)
    return _array(Image.open(buffer))


def noisy(image: Images, rng: np.random.Generator) -> Images:
    """Gaussian noise of standard deviation 15 of 255."""
    return np.clip(image + rng.normal(0, 15, image.shape), 0, 255).astype(np.uint8)


def brighter(image: Images, _: np.random.Generator) -> Images:
    """By a fifth and 10 of 255."""
    return np.clip(1.2 * image.astype(float) + 10, 0, 255).astype(np.uint8)


EDITS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "92% crop": cropped,
    "shift by 3 pixels": shifted,
    "JPEG of quality 20": encoded,
    "noise of 15/255": noisy,
    "1.2 times brighter": brighter,
}


def photographs(count: int, seed: int) -> Images:
    """Random images with the spectrum of natural ones and correlated channels."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    frequency[0, 0] = 1
    blocks = []
    for start in range(0, count, 500):
        size = min(500, count - start)
        noise = rng.normal(size=(size, 1, SIDE, SIDE)) + 0.5 * rng.normal(
            size=(size, 3, SIDE, SIDE)
        )
        block = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
        block /= block.std((1, 2, 3), keepdims=True)
        blocks.append(np.clip(128 + 50 * block, 0, 255).astype(np.uint8))
    return np.concatenate(blocks)


def main(argv: Sequence[str] = ()) -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="?")
    parser.add_argument("--peers", default="", help="a Python with imagededup or cleanvision")
    arguments = parser.parse_args(argv)
    originals = _originals(arguments.images)[:ORIGINALS]
    source = "photographs" if arguments.images else "generated images"
    how = f"`benchmarks/duplicates.py`, {len(originals)} {source} of {SIDE}x{SIDE}"
    rng = np.random.default_rng(0)
    rows = []
    for name, edit in EDITS.items():
        copies = np.stack([edit(image, rng) for image in originals])
        found = {
            "seewhy": _pairs(originals, copies),
            **_peers(arguments.peers, originals, copies),
        }
        rows += [
            Row(f"{name}: {finder}", _score(pairs, len(originals)), how)
            for finder, (pairs, _) in found.items()
        ]
        print(rows[-len(found) :], flush=True)
    half = len(originals) // 2
    distinct = (originals[:half], originals[half : 2 * half])
    found = {"seewhy": _pairs(*distinct), **_peers(arguments.peers, *distinct)}
    rows += [
        Row(f"different images, pairs found: {finder}", _count(pairs), f"{how}, {half} by {half}")
        for finder, (pairs, _) in found.items()
    ]
    many = photographs(MANY, 1)
    parts = (many[: MANY * 4 // 5], many[MANY * 4 // 5 :])
    few = (part[::TENTH] for part in parts)  # the others' time is nearly all in the files
    found = {"seewhy": _pairs(*parts), **_peers(arguments.peers, *few)}
    rows += [
        Row(
            f"processor time for {MANY:,} images: {finder}",
            _time(pairs, seconds if finder == "seewhy" else TENTH * seconds),
            f"`benchmarks/duplicates.py`, generated images of {SIDE}x{SIDE}, one thread, "
            + ("in memory" if finder == "seewhy" else f"PNG files; {MANY // TENTH:,}, times ten"),
        )
        for finder, (pairs, seconds) in found.items()
    ]
    note = (
        "Recall of edited copies, and pairs of images that are not copies of each other. "
        "imagededup: PHash with its default threshold of 10 bits; cleanvision: its near and exact "
        "duplicates, by equal hashes."
    )
    keep("duplicates", "Near-duplicates", rows, note=note)


def _originals(path: str | None) -> Images:
    if path is None:
        return photographs(ORIGINALS, 0)
    data = load(path, image_size=SIDE, channels=3)
    return np.concatenate([split.images.cpu().numpy() for split in data.splits.values()])


def _pairs(originals: Images, copies: Images) -> tuple[Pairs | None, float]:
    """Pairs that `near_duplicates` finds, and its processor time in seconds."""
    splits = {"train": _split(originals), "test": _split(copies)}
    before = _processor_time()
    found = near_duplicates(splits)
    return {(pair.first[1], pair.second[1]) for pair in found}, _processor_time() - before


def _peers(python: str, originals: Images, copies: Images) -> dict[str, tuple[Pairs | None, float]]:
    """The pairs that other packages find in the same images as PNG files; None if not there."""
    if not python:
        return dict.fromkeys(PEERS, (None, 0.0))
    with tempfile.TemporaryDirectory() as folder:
        for prefix, images in (("a", originals), ("b", copies)):
            for index, image in enumerate(images):
                _picture(image).save(Path(folder) / f"{prefix}{index:05}.png", compress_level=1)
        results = {}
        for peer in PEERS:
            command = [python, str(HERE / "duplicates_peer.py"), peer, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            answer = json.loads(done.stdout.splitlines()[-1])
            results[peer] = (_across(answer["groups"]), answer["seconds"])
    return results


def _across(groups: Iterable[Sequence[str]] | None) -> Pairs | None:
    """The pairs of an original and a copy in groups of file names."""
    if groups is None:
        return None
    return {
        (int(one[1:6]), int(other[1:6]))
        for group in groups
        for one in group
        for other in group
        if one[0] == "a" and other[0] == "b"
    }


def _score(pairs: Pairs | None, count: int) -> str:
    if pairs is None:
        return "not measured"
    right = len({pair for pair in pairs if pair[0] == pair[1]})
    return f"{right / count:.1%} found, {len(pairs) - right} wrong pairs"


def _count(pairs: Pairs | None) -> str:
    return "not measured" if pairs is None else str(len(pairs))


def _time(pairs: Pairs | None, seconds: float) -> str:
    return "not measured" if pairs is None else f"{seconds:.1f} s"


def _split(images: Images) -> Split:
    count = len(images)
    return Split(torch.from_numpy(images), torch.zeros(count, dtype=torch.int64), [""] * count)


def _picture(image: Images) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def _array(picture: Image.Image) -> Images:
    return np.asarray(picture).transpose(2, 0, 1)


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
