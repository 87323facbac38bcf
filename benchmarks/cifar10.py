"""Train a recipe on CIFAR-10 to the end, for some seeds, and keep accuracy and time."""

import sys
from dataclasses import replace
from statistics import mean, stdev

from benchmarks.results import Row, keep
from seewhy.data import load
from seewhy.fitting import fit
from seewhy.train.recipes import RECIPES


def main(path: str, name: str = "speednet-8", seeds: int = 3) -> None:
    """Measure and keep; `path` is what `seewhy.load` takes."""
    data = load(path)
    runs = [fit(replace(RECIPES[name], seed=seed), data) for seed in range(seeds)]
    accuracies = [100 * run.summary["accuracy"] for run in runs]
    spread = f" ± {stdev(accuracies):.2f}" if seeds > 1 else ""
    how = f"`benchmarks/cifar10.py`, {len(data.train):,} training and {len(data.test):,} test images, {seeds} seeds"
    rows = [
        Row(f"{name}: test accuracy", f"{mean(accuracies):.2f} %{spread}", f"{how}; {', '.join(f'{a:.2f}' for a in accuracies)}"),
        Row(f"{name}: training time", f"{mean(run.summary['seconds'] for run in runs):.0f} s", how),
        Row(f"{name}: images/s", f"{mean(run.summary['images_per_second'] for run in runs):.0f}", how),
    ]
    note = "The images are a JPEG copy (quality 75) of CIFAR-10; on the lossless original accuracies are higher."
    keep(f"cifar10-{name}", f"CIFAR-10, {name}", rows, note=note)


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[2:3])
