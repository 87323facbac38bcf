"""Checks of the classes: whether some are rare, and whether the splits have the same shares."""

import numpy as np

from seewhy.checks.inputs import CheckInputs
from seewhy.checks.result import Check, Finding, NotJudged
from seewhy.wording import counted, have

IMBALANCE = 10.0  # images of the largest class for one of another
FEW_IMAGES = 10  # of a class, for training
LABEL_DRIFT = 0.1  # total variation distance
SIGNIFICANT = 0.05  # p-value, corrected for the number of splits


def class_imbalance(inputs: CheckInputs) -> Check:
    """Classes with less than a tenth of the training images of the largest one."""
    counts = _training_counts(inputs)
    present = np.flatnonzero(counts)
    if len(inputs.data.classes) < 2:
        raise NotJudged("there is only one class")
    largest = int(counts.argmax())
    ratios = counts.max() / counts[present]
    findings = tuple(
        Finding(float(ratio), subject=inputs.data.classes[index], note=_images(counts[index]))
        for ratio, index in sorted(
            zip(ratios.tolist(), present.tolist(), strict=True), reverse=True
        )
        if ratio > IMBALANCE
    )
    name = inputs.data.classes[largest]
    sentence = f"The largest class has {ratios.max():.1f} times the images of the smallest."
    if findings:
        verb = have(len(findings))
        of_all = counted(len(counts), "class")
        sentence = (
            f"{len(findings):,} of {of_all} {verb} less than a tenth of the images of {name} "
            f"({counts.max():,})."
        )
    return Check(
        "images of the largest class / of the class",
        kind="class",
        judged=len(counts),
        value=float(ratios.max()),
        threshold=IMBALANCE,
        findings=findings,
        sentence=sentence,
    )


def small_classes(inputs: CheckInputs) -> Check:
    """Classes with fewer than 10 training images."""
    counts = _training_counts(inputs)
    findings = tuple(
        Finding(float(counts[index]), subject=inputs.data.classes[index])
        for index in np.argsort(counts, kind="stable").tolist()
        if counts[index] < FEW_IMAGES
    )
    smallest = inputs.data.classes[int(counts.argmin())]
    sentence = f"The smallest class, {smallest}, has {_images(counts.min())}."
    if findings:
        verb = have(len(findings))
        of_all = counted(len(counts), "class")
        sentence = f"{len(findings):,} of {of_all} {verb} fewer than {FEW_IMAGES} training images."
    return Check(
        "training images of the class",
        kind="class",
        judged=len(counts),
        value=float(counts.min()),
        threshold=FEW_IMAGES,
        below=True,
        findings=findings,
        sentence=sentence,
    )


def label_drift(inputs: CheckInputs) -> Check:
    """Splits whose classes have other shares than in training, by Pearson's chi-squared test.

    The distance is the total variation: the fraction of images that would need another label.
    """
    from scipy.special import chdtrc  # scipy.stats takes seconds to import

    others = drifting_splits(inputs)
    train = np.bincount(inputs.labels[inputs.rows_of("train")], minlength=len(inputs.data.classes))
    distances, p_values, findings = {}, {}, []
    for name in others:
        counts = np.bincount(inputs.labels[inputs.rows_of(name)], minlength=len(train))
        distance = float(np.abs(train / train.sum() - counts / counts.sum()).sum() / 2)
        present = (train + counts) > 0
        table = np.stack([train[present], counts[present]]).astype(float)
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        statistic = ((table - expected) ** 2 / expected).sum()
        p_value = float(chdtrc(max(1, present.sum() - 1), statistic)) * len(others)
        distances[name], p_values[name] = distance, p_value
        if distance > LABEL_DRIFT and p_value < SIGNIFICANT:
            change = counts / counts.sum() - train / train.sum()
            most = int(np.abs(change).argmax())
            note = f"{inputs.data.classes[most]}: {100 * change[most]:+.1f} points, {_p(p_value)}"
            findings.append(Finding(distance, subject=name, note=note))
    findings.sort(key=lambda finding: -finding.value)
    worst = max(distances, key=lambda name: distances[name])
    if findings:  # a small split may differ more, but not significantly
        worst = findings[0].subject
    sentence = f"The shares of the classes in {worst} differ by {100 * distances[worst]:.1f}%"
    sentence += " from those in train"
    sentence += "." if p_values[worst] < SIGNIFICANT else ", not significantly."
    if distances[worst] == 0:
        sentence = "The splits have equal shares of the classes."
    return Check(
        "total variation distance, 0 to 1",
        kind="split",
        judged=len(others),
        value=distances[worst],
        threshold=LABEL_DRIFT,
        findings=tuple(findings),
        sentence=sentence,
    )


def drifting_splits(inputs: CheckInputs) -> list[str]:
    """The splits to compare with train. Raises NotJudged if there are none, or they were drawn."""
    if "train" not in inputs.splits:
        raise NotJudged("there are no training images")
    others = [name for name in inputs.splits if name != "train"]
    provided = [name for name in others if name not in inputs.data.held_out]
    if not others:
        raise NotJudged("there is one split only")
    if not provided:
        raise NotJudged("the splits were drawn at random from one source")
    return provided


def _training_counts(inputs: CheckInputs) -> np.ndarray:  # (K,) int64
    """Images by class in train, or in all splits if there is no training split."""
    rows = inputs.rows_of("train") if "train" in inputs.splits else np.arange(len(inputs.labels))
    counts: np.ndarray = np.bincount(inputs.labels[rows], minlength=len(inputs.data.classes))
    return counts


def _images(number: int) -> str:
    return counted(int(number), "image")


def _p(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {min(1.0, p_value):.2g}"
