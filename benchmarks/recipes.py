"""Published recipes and our variants: reported results, and results measured here.

`python -m benchmarks.recipes PATH [NAME ...]` trains the named recipes; by default all on a GPU,
the small ones on a CPU. Then, or without PATH, it makes the table from the finished runs in runs/.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks import cifar10
from benchmarks.results import keep
from seewhy.runs.run import Run, open_run
from seewhy.train.recipes import RECIPES

REPORTED = {  # accuracy on lossless CIFAR-10, or time to an accuracy on one A100
    "davidnet-24": "94.12%",
    "resnet18-adam-onecycle": "92.22%",
    "resnet18-onecycle": "88.28%",
    "resnet18-plateau": "89.41%",
    "resnet18-steplr": "91.75%",
    "resnet18-steplr-cutout": "88.96%",
    "speedrun94": "94% in 2.59 s, 1.98 s and 1.83 s (three records) on one A100",
    "speedrun95": "95% in 10.4 s on one A100",
    "speedrun96": "96% in 27.3 s on one A100",
}
SMALL = ("speedrun94", "speednet-8")  # ten minutes on two cores; a ResNet-18 takes hours
COPIES = {"4ec11f70b10fd621c63a2c431e2eacfd": "JPEG copy"}  # of CIFAR-10, by their fingerprints
SEEDS = {"cpu": "3", "cuda": "10"}


@dataclass(frozen=True)
class Published:
    """A published recipe: its reported result, its result here, and that of our variant."""

    recipe: str
    reported: str
    as_published: str
    ours: str
    epochs: str
    where: str


COLUMNS = (
    "recipe",
    "reported by the original",
    "published recipe, measured here",
    "our variant, measured here",
    "epochs",
    "data and hardware of the measurement",
)


def main(path: str = "", *names: str) -> None:
    """Train missing runs and save."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if path:
        for name in names or (
            [name for name in RECIPES if name != "demo"] if device == "cuda" else SMALL
        ):
            cifar10.main(path, name, SEEDS[device])
    note = (
        "Reported accuracies are on the lossless CIFAR-10. Those measured here are on a JPEG copy "
        "(quality 75), on which the same recipe reaches about four points less. Our variant trains "
        "for the same number of epochs. ResNet-18 was trained on a machine with other load, so its "
        "time is not representative. The missing results need a GPU: run "
        "`python -m benchmarks.recipes PATH` there."
    )
    published = [name for name in REPORTED if f"{name}-plus" in RECIPES]
    rows = [_row(name, name, f"{name}-plus") for name in published]
    rows += [
        _row(name, None, name) for name in RECIPES if not name.startswith((*published, "demo"))
    ]
    keep("recipes", "Published results", rows, device, note, COLUMNS)


def _row(name: str, published: str | None, ours: str) -> Published:
    theirs, mine = ([] if published is None else _runs(published)), _runs(ours)
    return Published(
        recipe=name,
        reported=REPORTED.get(name, "–"),
        as_published="–" if published is None else _measured(theirs),
        ours=_measured(mine),
        epochs=f"{RECIPES[name].epochs:g}",
        where=_where([*theirs, *mine]),
    )


def _runs(name: str) -> list[Run]:
    return [
        open_run(path.parent)
        for path in sorted(Path("runs").glob(f"benchmark-{name}-seed[0-9]*/summary.json"))
    ]


def _measured(runs: list[Run]) -> str:
    results = [run.result for run in runs if run.result is not None]
    if not results:
        return "not measured"
    accuracies = [100 * result.accuracy for result in results]
    spread = f" ± {stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    speed = mean(result.images_per_second for result in results)
    seconds = mean(result.train_seconds for result in results)
    seeds = "1 seed" if len(results) == 1 else f"{len(results)} seeds"
    return f"{mean(accuracies):.2f}%{spread} in {seconds:,.0f} s, {speed:,.0f} images/s, {seeds}"


def _where(runs: list[Run]) -> str:
    if not runs:
        return "–"
    settings = []
    for run in runs:
        data, environment = run.data_origin, run.environment
        copy = COPIES.get(data.fingerprint, f"{data.name} {data.fingerprint[:8]}")
        cores = f"{environment.processor} ({environment.cores} cores)"
        hardware = environment.accelerator or cores
        settings.append(f"{copy}, {hardware}, {environment.precision}")
    return "; ".join(dict.fromkeys(settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
