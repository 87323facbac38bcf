"""Compare training at each suggested learning rate with training at every rate of a grid.

`python -m benchmarks.lr_finder PATH` with the path of CIFAR-10. Four datasets, three optimizers,
three seeds, a small model; and Adam on a short range, with small batches and narrow models.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import product
from statistics import fmean, variance
from typing import Any

import joblib
import torch
from torch import nn

from benchmarks.results import Row, keep
from seewhy.data.dataset import Dataset, Split
from seewhy.data.sources import check_dataset, load
from seewhy.models.normalization import normalize_for
from seewhy.models.registry import MODELS
from seewhy.models.resnet import ResNet, _stage
from seewhy.runs.lr_search import find_lr
from seewhy.runs.training import fit
from seewhy.train.lr_finder import LR_SUGGESTIONS
from seewhy.train.recipe import Recipe
from seewhy.train.recipes import RECIPES

Accuracies = dict[tuple[str, str], dict[str, list[float]]]  # by data and optimizer; by lr or rule

SEEDS = (0, 1, 2)
BASE = Recipe(
    model="speednet:width=0.25,scale=0.3",
    epochs=5,
    batch_size=100,
    schedule="linear:warmup=0.2",
    augment=(),
    eval_every=0,
)
# 90 updates from 1e-6 to 1 on batches of 32 images: few and noisy losses per decade
SHORT = replace(
    RECIPES["resnet18-adam-onecycle"],
    model="narrow-resnet18",
    epochs=3,
    augment=(),
    eval_every=0,
)
SHORT_MODELS = {"short range, ResNet-18": SHORT.model, "short range, SpeedNet": BASE.model}
EPOCHS = {"digits": 10.0}  # of 1,438 small images
GRIDS = {
    "momentum": range(-6, 2),
    "adam": range(-8, 0),
    "muon:fallback=adamw": range(-6, 2),
    SHORT.optimizer: range(-8, 0),
}  # half decades
CELLS = [
    *product(("digits", "shapes", "cifar10", "rotations"), list(GRIDS)[:3]),
    *product(SHORT_MODELS, [SHORT.optimizer]),
]
CLOSE = 0.02  # to the best accuracy: the runs whose spread over seeds measures the noise


def main(path: str) -> None:
    """Train and save."""
    tasks = [
        (path, *cell, exponent, seed)
        for cell in CELLS
        for exponent in (*GRIDS[cell[1]], None)
        for seed in SEEDS
    ]
    results = joblib.Parallel(n_jobs=joblib.cpu_count(), batch_size=1)(
        joblib.delayed(_accuracies)(*task) for task in tasks
    )
    accuracies_of: Accuracies = defaultdict(lambda: defaultdict(list))
    for (_, *cell, _, _), accuracies in zip(tasks, results, strict=True):
        for name, accuracy in accuracies.items():
            accuracies_of[cell[0], cell[1]][name].append(accuracy)
    rows = [_row(rule, accuracies_of) for rule in LR_SUGGESTIONS]
    rows += [_cell_row(cell, accuracies) for cell, accuracies in accuracies_of.items()]
    note = (
        f"Each accuracy is the mean of {len(SEEDS)} seeds on the test split; each seed has its own "
        "range test. Within noise means: below the best of the grid by at most twice the standard "
        "error of a difference. `speednet:width=0.25,scale=0.3` trains on 3,000 images (digits: "
        "1,438) for 5 epochs (digits: 10) in batches of 100. The task of `rotations` is to predict "
        "the rotation of a CIFAR-10 image by 0, 90, 180 or 270 degrees. Short ranges have 90 "
        "updates from 1e-6 to 1 on batches of 32 images; the training is the one-cycle of "
        "`resnet18-adam-onecycle` in three epochs, without augmentation. The default rule was "
        "chosen on runs with another logit scale, other seeds, optimizers and batch sizes."
    )
    keep("lr_finder", "Learning-rate finder: training at its suggestions", rows, note=note)


def _accuracies(
    path: str, data: str, optimizer: str, exponent: int | None, seed: int
) -> dict[str, float]:
    """The accuracy at one learning rate of the grid, or at every suggestion."""
    torch.set_num_threads(1)
    dataset = _load(path, data)
    MODELS[SHORT.model] = NarrowResNet18
    span: dict[str, Any] = {}
    recipe = replace(BASE, optimizer=optimizer, seed=seed, epochs=EPOCHS.get(data, BASE.epochs))
    if data in SHORT_MODELS:
        recipe = replace(SHORT, model=SHORT_MODELS[data], seed=seed)
        span = {"start": 1e-6, "end": 1.0, "updates": 90}
    if exponent is not None:
        return {f"grid {exponent}": _trained(replace(recipe, lr=10 ** (exponent / 2)), dataset)}
    suggested = find_lr(recipe, dataset, **span).suggestions
    return {rule: _trained(replace(recipe, lr=lr), dataset) for rule, lr in suggested.items()}


class NarrowResNet18(ResNet):
    """ResNet-18 with an eighth of the channels."""

    def __init__(self, num_classes: int, sample: Split) -> None:
        nn.Module.__init__(self)
        self.normalize = normalize_for(sample)
        self.conv1 = nn.Conv2d(sample.images.shape[1], 8, kernel_size=3, padding=1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.maxpool = None
        self.layer1 = _stage(8, 8, 2, stride=1)
        self.layer2 = _stage(8, 16, 2, stride=2)
        self.layer3 = _stage(16, 32, 2, stride=2)
        self.layer4 = _stage(32, 64, 2, stride=2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(64, num_classes)


def _trained(recipe: Recipe, data: Dataset) -> float:
    result = fit(recipe, data, quiet=True).result
    assert result is not None
    return result.accuracy


@cache
def _load(path: str, name: str) -> Dataset:
    if name == "digits":
        return load("digits", seed=1, quiet=True)
    if name == "shapes":
        return load("shapes:seed=1,train=3000,test=2000", quiet=True)
    if name == "cifar10" or name in SHORT_MODELS:
        whole = load(path, limit=3000, seed=1, quiet=True)
        return Dataset(
            "cifar10", whole.classes, whole.train, whole.test.take(torch.arange(2000)), None, ""
        )
    whole = load(path, limit=3000, seed=2, quiet=True)
    quarters = ("0", "90", "180", "270")
    return check_dataset(
        Dataset(
            name,
            quarters,
            _turned(whole.train),
            _turned(whole.test.take(torch.arange(2000, 4000))),
            None,
            "",
        )
    )


def _turned(split: Split) -> Split:
    labels = torch.arange(len(split)) % 4
    images = [
        torch.rot90(image, int(turns), (1, 2))
        for image, turns in zip(split.images, labels, strict=True)
    ]
    return Split(torch.stack(images), labels, split.names)


def _best(accuracies: dict[str, list[float]]) -> tuple[str, float]:
    means = {name: fmean(values) for name, values in accuracies.items() if name.startswith("grid")}
    best = max(means, key=means.__getitem__)
    return best, means[best]


def _noise(accuracies: dict[str, list[float]]) -> float:
    """Twice the standard error of the difference of two means."""
    best = _best(accuracies)[1]
    near = [variance(values) for values in accuracies.values() if fmean(values) > best - CLOSE]
    return 2 * (2 * fmean(near) / len(SEEDS)) ** 0.5


def _row(rule: str, accuracies_of: Accuracies) -> Row:
    short = {
        cell: _best(accuracies)[1] - fmean(accuracies[rule])
        for cell, accuracies in accuracies_of.items()
    }
    good = sum(shortfall <= _noise(accuracies_of[cell]) for cell, shortfall in short.items())
    worst = max(short, key=short.__getitem__)
    value = f"within noise of the best in {good} of {len(short)}"
    mean = (
        f"on average {100 * fmean(short.values()):.1f} points below the best, "
        f"at worst {100 * short[worst]:.1f}"
    )
    return Row(
        f"suggestion `{rule}`", value, f"{mean} ({worst[0]}, {worst[1]}); `benchmarks/lr_finder.py`"
    )


def _cell_row(cell: tuple[str, str], accuracies: dict[str, list[float]]) -> Row:
    name, best = _best(accuracies)
    suggestions = ", ".join(
        f"{rule} {100 * fmean(accuracies[rule]):.1f}" for rule in LR_SUGGESTIONS
    )
    lr = 10 ** (int(name.split()[1]) / 2)
    value = (
        f"best of the grid {100 * best:.1f}% at {lr:.2g}, "
        f"noise {100 * _noise(accuracies):.1f} points"
    )
    return Row(f"{cell[0]}, {cell[1]}", value, suggestions)


if __name__ == "__main__":
    from benchmarks import lr_finder  # under its own name, by which worker processes find it

    lr_finder.main(sys.argv[1])
