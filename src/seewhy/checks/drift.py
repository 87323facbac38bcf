"""Checks for drift: whether a classifier can tell the images of one split from those of train."""

import math
from collections.abc import Callable

import numpy as np
import torch

from seewhy.attribution.sanity import average_ranks
from seewhy.checks.classes import drifting_splits
from seewhy.checks.inputs import CheckInputs
from seewhy.checks.properties import binned_properties
from seewhy.checks.result import Check, Finding, NotJudged
from seewhy.train.logistic import out_of_fold_logits

DRIFT = 0.6  # AUROC; 0.5 is chance
MIN_IMAGES = 20  # of each split
_MOST_IMAGES = 2500  # of each split, evenly spaced
_Z = 1.959963984540054  # 97.5% point of the standard normal distribution


def drift(inputs: CheckInputs) -> Check:
    """Splits that a classifier tells from train by the features, or by layout and colors."""
    rows = inputs.descriptors if inputs.classifier is None else inputs.features
    seen = "layout and colors" if inputs.classifier is None else "the features"
    return _drift(inputs, rows.numpy(), seen, lambda name: "")


def property_drift(inputs: CheckInputs) -> Check:
    """Splits that a classifier tells from train by simple properties of images and files."""
    drifting_splits(inputs)  # its reason comes first
    properties = binned_properties(inputs)
    if not properties:
        raise NotJudged("all images are alike in all properties")
    one_hot = np.concatenate(
        [np.eye(column.max() + 1)[column] for bins in properties.values() for column in bins.T], 1
    )

    def most_different(name: str) -> str:
        """The property whose bins differ most between a split and train."""
        train, other = inputs.rows_of("train"), inputs.rows_of(name)
        distances = {
            each: max(_distance(column[train], column[other]) for column in bins.T)
            for each, bins in properties.items()
        }
        return f"most different: {max(distances, key=lambda each: distances[each])}"

    return _drift(inputs, one_hot, "brightness, color, size and the like", most_different)


def auroc_interval(
    scores: np.ndarray, positive: np.ndarray, fold_of: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Mean AUROC of the folds of a cross-validation and its 95% interval.

    Scores of different folds come from different models, so they are not compared (LeDell et al.
    2015, "Computationally efficient confidence intervals for cross-validated area under the ROC
    curve estimates"). The variance in a fold is that of DeLong et al. 1988.

    Args:
        scores: (N,) float, higher for the positive ones.
        positive: (N,) bool; in each fold at least two are true and two are false.
        fold_of: (N,) int64.

    Returns:
        The AUROC, and the limits, all in [0, 1].
    """
    areas, variances = [], []
    for fold in np.unique(fold_of):
        own, others = (scores[(fold_of == fold) & each] for each in (positive, ~positive))
        ranks = average_ranks(torch.from_numpy(np.concatenate([own, others]))).numpy()
        among_own, among_others = (
            average_ranks(torch.from_numpy(each)).numpy() for each in (own, others)
        )
        exceeds = (ranks[: len(own)] - among_own) / len(others)  # fraction of the others
        exceeded = 1 - (ranks[len(own) :] - among_others) / len(own)
        areas.append(exceeds.mean())
        variances.append(exceeds.var(ddof=1) / len(own) + exceeded.var(ddof=1) / len(others))
    auroc = float(np.mean(areas))
    half = _Z * math.sqrt(np.sum(variances)) / len(areas)
    return auroc, (max(0.0, auroc - half), min(1.0, auroc + half))


def _drift(inputs: CheckInputs, values: np.ndarray, seen: str, note: Callable[[str], str]) -> Check:
    """The check for rows of values (N, D) of the images."""
    others = drifting_splits(inputs)
    sizes = {name: len(inputs.splits[name]) for name in ("train", *others)}
    small = [name for name, size in sizes.items() if size < MIN_IMAGES]
    if "train" in small or len(small) == len(others):
        raise NotJudged(f"{small[0]} has fewer than {MIN_IMAGES} images")
    results = {}
    for name in others:
        if name in small:
            continue
        train, other = (_spread(inputs.rows_of(each)) for each in ("train", name))
        is_other = np.repeat([0, 1], [len(train), len(other)])
        weights = len(is_other) / (2 * np.bincount(is_other))
        rows = values[np.concatenate([train, other])]
        found = out_of_fold_logits(rows, is_other, 2, class_weights=weights)
        scores = found.logits[:, 1] - found.logits[:, 0]
        results[name] = auroc_interval(scores, is_other == 1, found.fold_of)
    by_area = sorted(results, key=lambda name: -results[name][0])
    findings = tuple(
        Finding(results[name][0], subject=name, note=note(name))
        for name in by_area
        if results[name][0] > DRIFT and results[name][1][0] > 0.5
    )
    # a small split may differ more, but not significantly
    worst = findings[0].subject if findings else by_area[0]
    auroc, interval = results[worst]
    limits = f"AUROC {auroc:.2f}, 95% interval {interval[0]:.2f}–{interval[1]:.2f}"
    if findings:
        sentence = f"Images in {worst} differ from those in train in {seen}: {limits}."
    elif auroc > DRIFT:
        sentence = f"Images in {worst} may differ from those in train in {seen}, but not "
        sentence += f"significantly: {limits}."
    else:
        sentence = f"Images in {worst} look like those in train, by {seen}: {limits}."
    return Check(
        "AUROC, 0.5 is chance",
        kind="split",
        judged=len(results),
        value=auroc,
        threshold=DRIFT,
        findings=findings,
        sentence=sentence,
        interval=interval,
    )


def _spread(rows: np.ndarray) -> np.ndarray:
    """At most 2,500 rows, evenly spaced."""
    if len(rows) <= _MOST_IMAGES:
        return rows
    chosen: np.ndarray = rows[np.linspace(0, len(rows) - 1, _MOST_IMAGES).astype(np.int64)]
    return chosen


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation distance of two samples of bins."""
    size = int(max(one.max(), other.max())) + 1
    shares = [np.bincount(each, minlength=size) / len(each) for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
