"""Train a recipe on CIFAR-10 to the end, for some seeds, and keep accuracy and time.

Each seed is a run of its own below runs/, and one that has finished is not repeated.
"""

import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from benchmarks.results import Row, keep
from seewhy.data import load
from seewhy.fitting import fit
from seewhy.run import Run, open_run
from seewhy.train.recipes import RECIPES


def main(path: str, name: str = "speednet-8", seeds: str = "3") -> None:
    """Measure and keep; `path` is what `seewhy.load` takes."""
    runs = [_run(path, name, seed) for seed in range(int(seeds))]
    results = [run.result for run in runs if run.result is not None]
    accuracies = [100 * result.accuracy for result in results]
    spread = f" ± {stdev(accuracies):.2f}" if len(results) > 1 else ""
    images = runs[0].setting["data"]["images"]
    how = (
        f"`benchmarks/cifar10.py`, {images['train']:,} training and {images['test']:,} test images, seeds 0 to {len(results) - 1}"
    )
    seconds = [result.seconds for result in results]
    speeds = [result.images_per_second for result in results]
    rows = [
        Row(f"{name}: test accuracy", f"{mean(accuracies):.2f} %{spread}", f"{how}: {', '.join(f'{a:.2f}' for a in accuracies)}"),
        Row(f"{name}: training time", f"{mean(seconds):.0f} s", f"{how}: {', '.join(f'{s:.0f}' for s in seconds)}"),
        Row(f"{name}: images/s", f"{mean(speeds):.0f}", f"{how}: {', '.join(f'{s:.0f}' for s in speeds)}"),
    ]
    note = "The images are a JPEG copy (quality 75) of CIFAR-10; on the lossless original accuracies are higher."
    keep(f"cifar10-{name}", f"CIFAR-10, {name}", rows, note=note)


def _run(path: str, name: str, seed: int) -> Run:
    directory = Path(f"runs/benchmark-{name}-seed{seed}")
    if (directory / "summary.json").exists():
        return open_run(directory)
    return fit(replace(RECIPES[name], seed=seed), load(path), directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
