"""Probing and fine-tuning published weights, beside torch's tutorial and fastai.

`python -m benchmarks.finetuning --weights FILE --photos DIR --cifar10 PATH --names photos-probe`
measures the named rows of `ROWS` and saves each as soon as it is measured. FILE has the weights of
EfficientNet-Lite0, DIR has train and test class folders, PATH is what `seewhy.load` takes.
`--minutes` limits each training of a peer; times are seconds of all cores, divided by them, which
is the wall time of an otherwise idle machine.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from benchmarks import finetuning_peers
from benchmarks.results import HERE, keep, processor_text
from seewhy.data.dataset import Dataset, Split, stratified_folds
from seewhy.data.sources import load
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.runs.choice import choose_recipe
from seewhy.runs.environment import current_environment
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe
from seewhy.train.recipes import RECIPES

FOLDS, SIDE, PER_CLASS = 5, 128, 200
NOT_MEASURED = "not measured"
COLUMNS = ("what", "accuracy", "seconds", "how", "machine")
NOTE = (
    "The backbone is EfficientNet-Lite0 with its ImageNet weights. Seconds are processor time "
    "divided by the number of cores. CIFAR-10 is a JPEG copy (quality 75), enlarged to 128 pixels."
)


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    accuracy: str
    seconds: str
    how: str
    machine: str


@dataclass(frozen=True)
class Setting:
    """What the measurements are made on."""

    weights: str
    photos: str = ""
    cifar10: str = ""
    seeds: tuple[int, ...] = (0,)
    minutes: float = 10.0  # limit of a peer

    @property
    def model(self) -> str:
        """The model with its published weights."""
        return f"efficientnet-lite0:weights={self.weights}"

    def recipe(self, name: str) -> Recipe:
        """A built-in recipe for the published weights."""
        return replace(RECIPES[name], model=self.model)

    def photographs(self) -> Dataset:
        """The photographs, as `seewhy train` loads them."""
        return load(self.photos, **choose_recipe(self.photos, self.model).loading, quiet=True)

    def enlarged(self, per_class: int = PER_CLASS) -> Dataset:
        """The first images of each class of CIFAR-10, enlarged."""
        data = load(self.cifar10, quiet=True)
        parts = (_first(data.train, per_class), _first(data.test, PER_CLASS))
        return Dataset("cifar10", data.classes, *parts, None, "")


Measured = tuple[str, str, str]  # accuracy, seconds, how


def measure(
    weights: str,
    photos: str = "",
    cifar10: str = "",
    names: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0,),
    minutes: float = 10.0,
) -> None:
    """Measure rows, and save each one.

    Args:
        weights: File of the weights.
        photos: Directory of train and test class folders.
        cifar10: First argument of `seewhy.load`.
        names: Rows to measure; by default all whose data is given.
        seeds: Seeds of runs, or of folds.
        minutes: Limit of each training of a peer.
    """
    setting = Setting(weights, photos, cifar10, seeds, minutes)
    sources = {"photos": photos, "cifar10": cifar10}
    for name in names or [each for each in ROWS if sources[each.partition("-")[0]]]:
        what, how_measured = ROWS[name]
        save(Row(what, *how_measured(setting), machine()))


def save(row: Row) -> None:
    """Add a row to the table; it replaces that of the same subject and machine."""
    file = HERE / "results" / "finetuning.json"
    saved = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    table = {(each.what, each.machine): each for each in (*(Row(**each) for each in saved), row)}
    rows = [
        each
        for what, _ in ROWS.values()
        for each in [found for found in table.values() if found.what == what and _done(found)]
        or [Row(what, NOT_MEASURED, "–", "–", NOT_MEASURED)]
    ]
    keep("finetuning", "Published weights on other images", rows, note=NOTE, columns=COLUMNS)


def machine() -> str:
    """The processor, and how many of its cores are used."""
    return processor_text(current_environment(torch.device("cpu"), "").processor, cores())


def cores() -> int:
    """Number of threads of a computation."""
    return torch.get_num_threads()


class Clock:
    """Processor time of this process since the start, divided by the cores."""

    def __init__(self) -> None:
        self.start = time.process_time()

    def seconds(self) -> float:
        """Seconds so far."""
        return (time.process_time() - self.start) / cores()


def runs(name: str, per_class: int, setting: Setting) -> Measured:
    """A recipe on enlarged images of CIFAR-10, once for each seed, from an empty cache."""
    data, recipe = setting.enlarged(per_class), setting.recipe(name)
    accuracies, probed, seconds = [], [], []
    for seed in setting.seeds:
        run, taken = _run(replace(recipe, seed=seed), data)
        accuracies.append(_accuracy(run))
        probed.append(100 * (run.history[0].eval_accuracy or 0))
        seconds.append(taken)
    how = f"{per_class * len(data.classes):,} images; {_tested(data)}; seeds {_listed(setting)}"
    if recipe.epochs:
        how += f"; {recipe.epochs:g} epochs, from a probe with {fmean(probed):.2f}%"
    return _percent(accuracies, len(data.test)), f"{fmean(seconds):.0f} s", how


def once(name: str, changes: dict[str, str], setting: Setting) -> Measured:
    """A recipe on the photographs in their folders, from an empty cache of features."""
    data = setting.photographs()
    run, seconds = _run(replace(setting.recipe(name), **changes), data)  # type: ignore[arg-type]
    how = f"{len(data.train)} photographs at {data.image_shape[1]} pixels; {_tested(data)}"
    return _percent([_accuracy(run)], len(data.test)), f"{seconds:.0f} s", how


def folds(recipe: str, changes: dict[str, str], setting: Setting) -> Measured:
    """All photographs, each predicted by the run that did not see it, once for each seed."""
    data, chosen = setting.photographs(), replace(setting.recipe(recipe), **changes)  # type: ignore[arg-type]
    split, clock = joined(data), Clock()
    accuracies = [100 * out_of_fold(chosen, data, split, seed) for seed in setting.seeds]
    seconds = clock.seconds() / len(setting.seeds)
    how = (
        f"{FOLDS} folds of {len(split)} photographs, seeds {_listed(setting)}; seconds of a repeat"
    )
    return _percent(accuracies, len(split)), f"{seconds:.0f} s", how


def again(setting: Setting) -> Measured:
    """A second probe with other labels and other folds of the cross-validation."""
    data, probe = setting.photographs(), setting.recipe("probe")
    with _empty_cache():
        fit(probe, data, quiet=True)
        labels = 1 - data.train.labels
        other = replace(data, train=replace(data.train, labels=labels), fingerprint="")
        clock = Clock()
        fit(replace(probe, probe="logistic:folds=4"), other, quiet=True)
    return "–", f"{clock.seconds():.1f} s", "other labels and other folds, features from the cache"


def peer(name: str, data: str, setting: Setting) -> Measured:
    """A peer on the images in folders: those of the photographs, or enlarged ones of CIFAR-10."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, side = Path(setting.photos), 224
        if data == "cifar10":
            folder, side = Path(scratch), SIDE
            finetuning_peers.write_folders(setting.enlarged(), folder)
        clock = Clock()
        trained = finetuning_peers.PEERS[name](
            setting.model, folder, side, lambda: clock.seconds() > 60 * setting.minutes
        )
        seconds = clock.seconds()
    return _percent([100 * trained.accuracy], trained.images), f"{seconds:.0f} s", trained.how


def joined(data: Dataset) -> Split:
    """All images of a dataset as one split, without the margin."""
    splits = list(data.splits.values())
    return Split(
        torch.cat([split.images for split in splits]),
        torch.cat([split.labels for split in splits]),
        [name for split in splits for name in split.names],
    )


def out_of_fold(recipe: Recipe, data: Dataset, split: Split, seed: int) -> float:
    """Accuracy in [0, 1] of K runs, each on the images of its held-out fold."""
    fold_of = stratified_folds(split.labels.numpy(), FOLDS, seed)
    correct = 0
    for fold in range(FOLDS):
        rest, held_out = (
            torch.from_numpy(np.flatnonzero(each)) for each in (fold_of != fold, fold_of == fold)
        )
        part = replace(
            data, train=split.take(rest), test=split.take(held_out), fingerprint="", margin=0
        )
        run = fit(replace(recipe, seed=seed), part, quiet=True)
        assert run.predictions is not None
        correct += int(run.predictions.correct.sum())
    return correct / len(split)


def _run(recipe: Recipe, data: Dataset) -> tuple[Run, float]:
    """A run from an empty cache, and its seconds."""
    with _empty_cache():
        clock = Clock()
        run = fit(recipe, data, quiet=True)
    return run, clock.seconds()


def _accuracy(run: Run) -> float:
    """In percent, on the test images."""
    assert run.result is not None
    return 100 * run.result.accuracy


class _empty_cache:  # noqa: N801
    """Features are kept in another directory inside the block."""

    def __enter__(self) -> None:
        self.before, self.scratch = os.environ.get("SEEWHY_CACHE"), tempfile.TemporaryDirectory()
        os.environ["SEEWHY_CACHE"] = self.scratch.name

    def __exit__(self, *_: object) -> None:
        self.scratch.cleanup()
        os.environ.pop("SEEWHY_CACHE")
        if self.before is not None:
            os.environ["SEEWHY_CACHE"] = self.before


def _first(split: Split, per_class: int) -> Split:
    """The first images of each class, enlarged."""
    classes = range(int(split.labels.max()) + 1)
    rows = [torch.nonzero(split.labels == label).flatten()[:per_class] for label in classes]
    chosen = split.take(torch.cat(rows).sort().values)
    return replace(chosen, images=_enlarge(chosen.images))


def _enlarge(images: Tensor) -> Tensor:  # (N, C, SIDE, SIDE) uint8
    enlarged = F.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True)
    return enlarged.round().clamp(0, 255).to(torch.uint8)


def _percent(accuracies: list[float], images: int) -> str:
    mean = fmean(accuracies)
    low, high = wilson_interval(round(mean / 100 * images), images)
    listed = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    single = len(accuracies) == 1
    return (
        f"{mean:.2f}% ({'' if single else listed + '; '}95%: {100 * low:.1f} to {100 * high:.1f})"
    )


def _tested(data: Dataset) -> str:
    return f"{len(data.test):,} test images"


def _listed(setting: Setting) -> str:
    return ", ".join(map(str, setting.seeds))


def _done(row: Row) -> bool:
    return row.machine != NOT_MEASURED


FLIPS = {"probe": "logistic:views=flip", "tta": "flip"}
SIZES = (20, 50, PER_CLASS)  # images of each class at which the recipes are compared
PEERS = {
    "torch": "torch's tutorial",
    "torch-frozen": "torch's tutorial, frozen features",
    "fastai": "fastai `fine_tune`",
}
ROWS: dict[str, tuple[str, Callable[[Setting], Measured]]] = {
    "photos-probe": ("photographs: `probe`", partial(once, "probe", {})),
    "photos-flips": ("photographs: `probe`, flips", partial(once, "probe", FLIPS)),
    "photos-again": ("photographs: `probe`, a second time", again),
    **{
        f"photos-{name}": (f"photographs: {what}", partial(peer, name, "photos"))
        for name, what in PEERS.items()
    },
    "photos-folds-probe": ("photographs in folds: `probe`", partial(folds, "probe", {})),
    "photos-folds-flips": ("photographs in folds: `probe`, flips", partial(folds, "probe", FLIPS)),
    "photos-folds-finetune": ("photographs in folds: `finetune`", partial(folds, "finetune", {})),
    **{
        f"cifar10-{count}-{name}": (
            f"CIFAR-10, {count} of each class: `{name}`",
            partial(runs, name, count),
        )
        for count in SIZES
        for name in ("probe", "finetune")
    },
    **{
        f"cifar10-{name}": (
            f"CIFAR-10, {PER_CLASS} of each class: {what}",
            partial(peer, name, "cifar10"),
        )
        for name, what in PEERS.items()
    },
}

if __name__ == "__main__":
    tyro.cli(measure)
