"""What the experiments share: a small net on a part of CIFAR-10, so that two cores answer within minutes.

Each runs as `python examples/experiments/NAME.py DATA`, where DATA is what `seewhy.load` takes, by default cifar10.
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


def found(recipe: seewhy.Recipe, data: seewhy.Dataset) -> seewhy.Recipe:
    """The recipe with a learning rate found once, for experiments in which nothing but another field is to differ."""
    return replace(recipe, lr=seewhy.find_lr(recipe, data).suggestion)


def experiment(
    name: str,
    recipes: Callable[[seewhy.Dataset], dict[str, seewhy.Recipe]],
    metrics: tuple[str, ...],
) -> None:
    """Train the recipes with five seeds each, go on where that was interrupted, and say what came of it."""
    directory = Path("runs") / f"experiment-{name}"
    if directory.exists():
        made = seewhy.experiments.resume_experiment(directory)
    else:
        data = seewhy.load(sys.argv[1] if sys.argv[1:] else "cifar10", limit=IMAGES)
        made = seewhy.run_experiment(recipes(data), data, directory, SEEDS)
    for metric in metrics:
        print(seewhy.experiments.summarize(made, metric))
    print(f"open {seewhy.reporting.report_experiment(made)}")
