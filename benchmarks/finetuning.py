"""Photographs with published weights: `python -m benchmarks.finetuning PHOTOS WEIGHTS`.

PHOTOS is a directory of train and test class folders, WEIGHTS the file of EfficientNet-Lite0. The
folds are drawn from all images; each image is predicted by the run that did not see it.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from statistics import fmean

import numpy as np
import torch

from benchmarks.results import Row, keep
from seewhy.data.dataset import Dataset, Split, stratified_folds
from seewhy.data.sources import load
from seewhy.diagnosis.statistics import wilson_interval
from seewhy.runs.choice import choose_recipe
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe

FOLDS, SEEDS = 5, (0, 1, 2)
NOT_MEASURED = "not measured"


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


def folds_row(what: str, recipe: Recipe, data: Dataset, seeds: tuple[int, ...]) -> Row:
    """The mean accuracy over repeats of all folds."""
    split = joined(data)
    accuracies = [100 * out_of_fold(recipe, data, split, seed) for seed in seeds]
    listed = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    low, high = wilson_interval(round(fmean(accuracies) / 100 * len(split)), len(split))
    how = f"{FOLDS} folds of {len(split)} photographs, fold seeds {', '.join(map(str, seeds))}"
    return Row(
        what,
        f"{fmean(accuracies):.2f}% ({listed}; 95% interval {100 * low:.1f}–{100 * high:.1f})",
        how,
    )


def seconds_of(recipe: Recipe, data: Dataset) -> float:
    """CPU seconds of one run, over all threads."""
    start = time.process_time()
    fit(recipe, data, quiet=True)
    return time.process_time() - start


def main(photos: str, weights: str, finetune: bool) -> None:
    """Measure and save."""
    model = f"efficientnet-lite0:weights={weights}"
    choice = choose_recipe(photos, model, "cpu")
    data = load(photos, **choice.loading, quiet=True)
    probe = choice.recipe
    flips = replace(probe, probe="logistic:views=flip", tta="flip")
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SEEWHY_CACHE"] = cache
        first = seconds_of(probe, data)
        again = replace(
            data, train=replace(data.train, labels=1 - data.train.labels), fingerprint=""
        )
        second = seconds_of(replace(probe, probe="logistic:folds=4"), again)
        rows += [
            Row(
                "`probe`, first time: features, cross-validation, evaluation",
                f"{first:.1f} s of processor time",
                f"{len(data.train)} + {len(data.test)} photographs at 224",
            ),
            Row(
                "`probe`, a second time, other labels and other folds of the cross-validation",
                f"{second:.1f} s of processor time",
                "features from the cache",
            ),
        ]
        rows.append(folds_row("`probe`", probe, data, SEEDS))
        rows.append(folds_row("`probe` with flips in training and testing", flips, data, SEEDS))
        recipe = choose_recipe(photos, model, "cpu").recipe
        from seewhy.train.recipes import RECIPES

        tuned = replace(RECIPES["finetune"], model=recipe.model)
        what = "`finetune`"
        if finetune:
            rows.append(folds_row(what, tuned, data, SEEDS[:1]))
        else:
            rows.append(Row(what, NOT_MEASURED, f"{FOLDS} folds, one repeat"))
    rows += [
        Row("`finetune`, 2,000 images of CIFAR-10 at 128 pixels", NOT_MEASURED, "three seeds"),
        Row("torch's transfer-learning tutorial, fastai `fine_tune`", NOT_MEASURED, "same data"),
    ]
    keep("finetuning", "Photographs with published weights", rows)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--finetune" in sys.argv[3:])
