"""Simple properties of images and their files, in bins, and a classifier that sees only one."""

import math

import numpy as np

from seewhy.checks.inputs import CheckInputs
from seewhy.checks.measures import quantile_bins
from seewhy.checks.result import NotJudged
from seewhy.data.dataset import stratified_folds

SINGLE = ("brightness", "contrast", "sharpness", "saturation")
COLORS = {
    "color": ("red", "green", "blue"),
    "border color": ("border red", "border green", "border blue"),
}
FOLDS = 5


def binned_properties(inputs: CheckInputs) -> dict[str, np.ndarray]:
    """Each property as bins (N, d) int64 from 0, by row; those that all images share are left out.

    Sizes, file types and compression are those of the files, where they are known.
    """
    measures = inputs.measures
    groups = {name: [measures[name]] for name in SINGLE if name in measures}
    if "gray" in measures:
        groups["border brightness"] = [measures["border gray"]]
    else:
        groups |= {name: [measures[each] for each in parts] for name, parts in COLORS.items()}
    groups |= _file_properties(inputs)
    binned = {
        name: np.stack([quantile_bins(values) for values in columns], 1)
        for name, columns in groups.items()
    }
    return {name: bins for name, bins in binned.items() if (bins != bins[0]).any()}


def _file_properties(inputs: CheckInputs) -> dict[str, list[np.ndarray]]:
    try:
        originals = inputs.originals
    except NotJudged:
        return {}
    height, width, stored = (originals[name].astype(float) for name in ("height", "width", "bytes"))
    kinds = np.unique(originals["format"], return_inverse=True)[1].astype(float)
    properties = {"image size": [height, width], "aspect ratio": [width / height]}
    properties["file type"] = list(np.eye(int(kinds.max()) + 1)[kinds.astype(int)].T)
    if stored.all():  # bytes of data in memory are 0
        properties["bytes per pixel"] = [stored / (height * width)]
    return properties


def out_of_fold_classes(bins: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The class (N,) int64 that the bins of an image make most probable, counted without its fold.

    Naive Bayes with equal shares of the classes, and a pseudocount in each bin. -1 for the only
    image of a class, which is in no fold.

    Args:
        bins: (N, d) int64 from 0.
        labels: (N,) int64 in [0, K).
        num_classes: K.
    """
    fold_of = stratified_folds(labels, FOLDS, seed=0)
    predicted = np.full(len(labels), -1)
    for fold in range(FOLDS):
        test = fold_of == fold
        scores = np.zeros((int(test.sum()), num_classes))
        for column in bins.T:
            size = int(column.max()) + 1
            cells = labels[~test] * size + column[~test]
            counts = np.bincount(cells, minlength=num_classes * size).reshape(num_classes, size) + 1
            scores += np.log(counts / counts.sum(1, keepdims=True)).T[column[test]]
        seen = np.bincount(labels[~test], minlength=num_classes) > 0
        scores[:, ~seen] = -np.inf
        predicted[test] = scores.argmax(1)
    return predicted


def balanced_accuracy_test(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of predictions, and its one-sided p-value against labels in random order.

    Mean and variance over all orders of the labels are exact (Hoeffding 1951, "A Combinatorial
    Central Limit Theorem", theorem 2); the distribution is approximated as normal.

    Args:
        predicted: (N,) int64.
        labels: (N,) int64; the classes are those that occur, and of them are all predictions.

    Returns:
        Balanced accuracy in [0, 1], and the p-value.
    """
    classes, own = np.unique(labels, return_inverse=True)
    total, num_classes = len(labels), len(classes)
    images = np.bincount(own)
    hits = np.bincount(own, weights=predicted == labels)
    accuracy = float((hits / images).mean())
    chosen = np.array([(predicted == each).sum() for each in classes])
    variance = float((chosen * (1 - chosen / total) / images).sum())
    variance /= num_classes**2 * max(1, total - 1)
    if variance <= 0:  # all predictions are equal
        return accuracy, 1.0
    deviations = (accuracy - 1 / num_classes) / math.sqrt(variance)
    return accuracy, 0.5 * math.erfc(deviations / math.sqrt(2))
