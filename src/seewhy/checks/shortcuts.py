"""A check for shortcuts: properties of images, such as the file type, that predict the label."""

import numpy as np

from seewhy.checks.inputs import CheckInputs
from seewhy.checks.properties import balanced_accuracy_test, binned_properties, out_of_fold_classes
from seewhy.checks.result import Check, Finding, NotJudged
from seewhy.significance import holm

SHORTCUT = 0.3  # of the way from chance to a perfect balanced accuracy
SIGNIFICANT = 0.05  # p-value, after Holm's correction
MIN_IMAGES = 20  # for training


def shortcuts(inputs: CheckInputs) -> Check:
    """Properties that predict the label, by a classifier that sees nothing else.

    It is cross-validated on the training images. Its balanced accuracy b is compared with chance,
    1 / K for K classes: (b - 1 / K) / (1 - 1 / K) is 0 for chance and 1 for a perfect prediction.
    """
    rows = inputs.rows_of("train") if "train" in inputs.splits else np.arange(len(inputs.labels))
    labels = inputs.labels[rows]
    counts = np.bincount(labels, minlength=len(inputs.data.classes))
    rows, labels = rows[counts[labels] > 1], labels[counts[labels] > 1]
    num_classes = len(np.unique(labels))
    if num_classes < 2 or len(rows) < MIN_IMAGES:
        raise NotJudged(f"needs two classes with several images, and {MIN_IMAGES} in all")
    properties = {name: bins[rows] for name, bins in binned_properties(inputs).items()}
    if not properties:
        raise NotJudged("all images are alike in all properties")
    names, results = list(properties), []
    for bins in properties.values():
        predicted = out_of_fold_classes(bins, labels, len(counts))
        results.append(balanced_accuracy_test(predicted, labels))
    p_values = holm([p_value for _, p_value in results])
    chance = 1 / num_classes
    gains = [(accuracy - chance) / (1 - chance) for accuracy, _ in results]
    order = sorted(range(len(names)), key=lambda number: -gains[number])
    found = [
        number for number in order if gains[number] > SHORTCUT and p_values[number] < SIGNIFICANT
    ]
    findings = tuple(
        Finding(
            gains[number],
            subject=names[number],
            note=f"balanced accuracy {_percent(results[number][0])}, chance {_percent(chance)}",
        )
        for number in found
    )
    best = (found or order)[0]
    detail = f"balanced accuracy {_percent(results[best][0])}, chance {_percent(chance)}"
    sentence = f"No property predicts the label; the best, {names[best]}: {detail}."
    if findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        sentence = f"A model may learn {names[best]}{more} instead of the object: {detail}."
    return Check(
        "balanced accuracy above chance, 0 to 1",
        kind="property",
        judged=len(names),
        value=gains[best],
        threshold=SHORTCUT,
        findings=findings,
        sentence=sentence,
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"
