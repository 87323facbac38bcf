"""Experiments with given results, without training."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from seewhy.data.dataset import DataOrigin
from seewhy.experiments.experiment import Experiment, Trial
from seewhy.runs.result import RunResult
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe

RESULT = RunResult(
    accuracy=0.9,
    plain_accuracy=0.9,
    interval=(0.88, 0.92),
    test_images=1000,
    test_nll=0.3,
    calibration_error=0.05,
    selected_on="last epoch",
    selected_epoch=2.0,
    epochs=2.0,
    steps=24,
    train_seconds=3.0,
    images_per_second=1000.0,
    parameters=500,
    optimizer_bytes=4000,
)
ROWS = tuple(
    EpochStats(epoch, 12 * int(epoch), 0.1, 0.9, 1.5 * epoch, 1000.0, 0.4, 0.8, 0.3, 0.9)
    for epoch in (1.0, 2.0)
)

ORIGIN = DataOrigin(
    name="bars",
    fingerprint="0" * 32,
    load_args={},
    classes=("upright", "level"),
    image_shape=(3, 8, 8),
    images={"train": 240, "test": 60},
)

Make = Callable[..., Experiment]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """From values by recipe and seed to an experiment with this metric; None has failed."""

    def made(
        values: Mapping[str, Mapping[int, float | None]],
        metric: str = "test_nll",
        images: int = 1000,
    ) -> Experiment:
        def trial(name: str, seed: int, value: float | None) -> Trial:
            directory = tmp_path / name / f"seed-{seed}"
            if value is None:
                return Trial(name, seed, directory, unfinished_reason="the loss is not finite")
            history, result = ROWS, replace(RESULT, test_images=images)
            if metric == "train_loss":
                history = (ROWS[0], replace(ROWS[1], train_loss=value))
            else:
                field = {"seconds": "train_seconds"}.get(metric, metric)
                result = replace(result, **{field: value})  # type: ignore[arg-type]
            return Trial(name, seed, directory, history, result, unfinished_reason="")

        trials = [
            trial(name, seed, value)
            for name, by_seed in values.items()
            for seed, value in by_seed.items()
        ]
        seeds = tuple(sorted({seed for by_seed in values.values() for seed in by_seed}))
        recipes = {name: Recipe(lr=0.1 * number, epochs=2) for number, name in enumerate(values, 1)}
        return Experiment(tmp_path, ORIGIN, recipes, seeds, None, tuple(trials), {})

    return made
