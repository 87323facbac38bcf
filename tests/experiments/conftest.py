"""Experiments made by hand: what their trials came to is given, and nothing is trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from seewhy.experiments.experiment import Experiment, Trial
from seewhy.runs.result import RunResult
from seewhy.train.loop import EpochStats
from seewhy.train.recipe import Recipe

RESULT = RunResult(
    accuracy=0.9,
    plain_accuracy=0.9,
    interval=(0.88, 0.92),
    test_images=1000,
    test_loss=0.3,
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

Make = Callable[..., Experiment]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function from recipe -> seed -> value to an experiment whose trials have these values of a metric; None has failed."""

    def made(
        values: Mapping[str, Mapping[int, float | None]],
        metric: str = "test_loss",
        images: int = 1000,
    ) -> Experiment:
        def trial(name: str, seed: int, value: float | None) -> Trial:
            home = tmp_path / name / f"seed-{seed}"
            if value is None:
                return Trial(name, seed, home, why_not="the loss is not finite")
            if metric == "train_loss":
                history = (ROWS[0], replace(ROWS[1], train_loss=value))
                return Trial(
                    name, seed, home, history, replace(RESULT, test_images=images), 0.05, ""
                )
            if metric == "calibration_error":
                return Trial(name, seed, home, ROWS, replace(RESULT, test_images=images), value, "")
            field = "train_seconds" if metric == "seconds" else metric
            return Trial(
                name,
                seed,
                home,
                ROWS,
                replace(RESULT, test_images=images, **{field: value}),
                0.05,
                "",
            )  # type: ignore[arg-type]

        trials = [
            trial(name, seed, value)
            for name, each in values.items()
            for seed, value in each.items()
        ]
        seeds = tuple(sorted({seed for each in values.values() for seed in each}))
        recipes = {name: Recipe(lr=0.1 * place, epochs=2) for place, name in enumerate(values, 1)}
        data = {"name": "bars", "fingerprint": "0" * 32, "load_args": {}}
        return Experiment(tmp_path, data, recipes, seeds, None, tuple(trials), {})

    return made
