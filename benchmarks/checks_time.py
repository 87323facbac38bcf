"""The time of `seewhy check` on 10,000 photographs: `python -m benchmarks.checks_time PHOTOGRAPHS`.

PHOTOGRAPHS is a directory with a directory per split, and in each a directory per class. Its JPEG
files are varied to 10,000: cropped, flipped, brighter or darker. --model names the model whose
features are used, such as efficientnet-lite0:weights=FILE.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.results import Row, keep

MANY = 10_000


def main(argv: Sequence[str] = ()) -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--model", required=True, help="NAME:weights=FILE")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        _write_variations(arguments.photographs, data)
        command = [sys.executable, "-m", "seewhy", "check", str(data)]
        command += ["--model", arguments.model, "--output", str(Path(folder, "checks"))]
        environment = {**os.environ, "SEEWHY_CACHE": str(Path(folder, "cache"))}
        start, busy = time.perf_counter(), _processor_seconds()
        subprocess.run(command, env=environment, check=True)
        seconds, busy = time.perf_counter() - start, _processor_seconds() - busy
    name = arguments.model.split(":")[0]
    row = Row(
        f"`seewhy check` of {MANY:,} photographs with {name}, all checks, page and tables",
        f"{seconds:.0f} s ({busy:.0f} s of processor time)",
        "`benchmarks/checks_time.py`, JPEG files that are crops and edits; empty cache",
    )
    keep("checks_time", "The time of checks", [row])


def _write_variations(photographs: Path, folder: Path) -> None:
    """Write 10,000 JPEG files: random crops of photographs, flipped, with other colors."""
    files = sorted(photographs.glob("*/*/*.jp*g"))
    rng = np.random.default_rng(0)
    for number in range(MANY):
        file = files[number % len(files)]
        with Image.open(file) as image:
            photograph = image.convert("RGB")
        width, height = (int(rng.uniform(0.5, 0.95) * side) for side in photograph.size)
        left = int(rng.integers(photograph.width - width + 1))
        top = int(rng.integers(photograph.height - height + 1))
        edited = photograph.crop((left, top, left + width, top + height))
        if rng.random() < 0.5:
            edited = ImageOps.mirror(edited)
        edited = ImageEnhance.Brightness(edited).enhance(rng.uniform(0.7, 1.3))
        edited = ImageEnhance.Contrast(edited).enhance(rng.uniform(0.7, 1.3))
        target = folder / file.parent.parent.name / file.parent.name / f"{number:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        edited.save(target, quality=90)


def _processor_seconds() -> float:
    """Of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[1:])
