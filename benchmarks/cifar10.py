"""Train a recipe on CIFAR-10 with several seeds; save accuracy and time.

Each seed is a run in runs/. A finished run is not repeated.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from benchmarks.results import Row, keep
from seewhy.data.sources import load
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit
from seewhy.train.recipes import RECIPES


def main(path: str, name: str = "speedrun94", seeds: str = "3") -> None:
    """Measure and save; `path` is the first argument of `seewhy.load`."""
    runs, walls = zip(*(_run(path, name, seed) for seed in range(int(seeds))), strict=True)
    results = [run.result for run in runs if run.result is not None]
    images = runs[0].data_origin.images
    which = "seed 0" if len(runs) == 1 else f"seeds 0 to {len(runs) - 1}"
    how = (
        f"`benchmarks/cifar10.py`, {images['train']:,} training and "
        f"{images['test']:,} test images, {which}"
    )
    rows = [
        _row(f"{name}: test accuracy", [100 * result.accuracy for result in results], "%", how, 2),
        _row(f"{name}: training time", [result.train_seconds for result in results], " s", how),
        _row(f"{name}: wall time, from data in memory to the last prediction", walls, " s", how),
        _row(f"{name}: images/s", [result.images_per_second for result in results], "", how),
    ]
    if RECIPES[name].tta != "none":
        plain = [100 * result.plain_accuracy for result in results]
        rows[0] = replace(rows[0], what=f"{name}: test accuracy with test-time augmentation")
        rows.insert(
            1, _row(f"{name}: test accuracy without test-time augmentation", plain, "%", how, 2)
        )
    note = (
        "The images are a JPEG copy (quality 75) of CIFAR-10; accuracies are higher on the "
        "lossless original."
    )
    keep(f"cifar10-{name}", f"CIFAR-10, {name}", rows, note=note)


def _row(what: str, values: Sequence[float], unit: str, how: str, digits: int = 0) -> Row:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 and digits else ""
    return Row(
        what,
        f"{mean(values):.{digits}f}{unit}{spread}",
        f"{how}: {', '.join(f'{value:.{digits}f}' for value in values)}",
    )


def _run(path: str, name: str, seed: int) -> tuple[Run, float]:
    """A run and its wall time in seconds, loading excluded."""
    directory = Path(f"runs/benchmark-{name}-seed{seed}")
    wall = directory / "wall_seconds.txt"
    if not wall.exists():
        data = load(path)
        began = time.perf_counter()
        fit(replace(RECIPES[name], seed=seed), data, directory)
        wall.write_text(f"{time.perf_counter() - began:.1f}")
    return open_run(directory), float(wall.read_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
