"""Base recipe of the experiments: a small model on a subset of CIFAR-10; minutes on two cores.

Run an experiment with `python examples/experiments/NAME.py DATA`. DATA is the first argument of
`seewhy.load`; the default is cifar10.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import seewhy

BASE = seewhy.Recipe(
    model="speednet:width=0.25",
    epochs=5,
    batch_size=250,
    lr="find",
    optimizer="nesterov",
    weight_decay=5e-4,
    schedule="linear:warmup=0.2",
    augment=("crop:2", "flip"),
)
IMAGES, SEEDS = 10_000, 5


def with_found_lr(recipe: seewhy.Recipe, data: seewhy.Dataset) -> seewhy.Recipe:
    """The recipe with the learning rate of one range test, so that variants share it."""
    return replace(recipe, lr=seewhy.find_lr(recipe, data).suggestion)


def experiment(
    name: str,
    recipes: Callable[[seewhy.Dataset], dict[str, seewhy.Recipe]],
    metrics: tuple[str, ...],
) -> None:
    """Run or resume an experiment with five seeds, print its results, and write its report."""
    directory = Path("runs") / f"experiment-{name}"
    if directory.exists():
        result = seewhy.experiments.resume_experiment(directory)
    else:
        data = seewhy.load(sys.argv[1] if sys.argv[1:] else "cifar10", limit=IMAGES)
        result = seewhy.run_experiment(recipes(data), data, directory, SEEDS)
    for metric in metrics:
        print(seewhy.experiments.summarize(result, metric))
    print(f"open {seewhy.reporting.report_experiment(result)}")
