"""Checks by the features of a pretrained model: off-topic images, and wrong labels."""

import numpy as np
import torch
from torch import Tensor

from seewhy.checks.inputs import NEIGHBORS, CheckInputs
from seewhy.checks.result import Check, Finding, NotJudged
from seewhy.diagnosis.label_issues import LabelIssue, find_label_issues
from seewhy.diagnosis.predictions import Predictions
from seewhy.train.logistic import fit_logistic, out_of_fold_logits
from seewhy.wording import be, counted

ACCURATE = 0.85  # accuracy of a probe from which each label that it contradicts is worth a look
LIMITS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # on the probability of a label
SIGNIFICANT = 0.05  # p-value
MIN_IMAGES = 20  # of all splits, below which no image is unlike all others


def outliers(inputs: CheckInputs) -> Check:
    """Images unlike all others in the features of the model."""
    features = inputs.features
    if len(features) < MIN_IMAGES:
        raise NotJudged(
            f"of {counted(len(features), 'image')}, each may be the only one of its kind"
        )
    ordered = inputs.by_similarity
    findings = tuple(
        Finding(
            each.deviations, (inputs.image(each.index),), note=f"similarity {each.similarity:.2f}"
        )
        for each in ordered
        if each.distinct
    )
    sentence = "No image is unlike all others."
    if findings:
        verb = be(len(findings))
        total = counted(len(features), "image")
        sentence = f"{len(findings):,} of {total} {verb} unlike all others, perhaps off topic."
    return Check(
        f"deviations of the distance to {NEIGHBORS} neighbors",
        judged=len(features),
        value=ordered[0].deviations,
        threshold=ordered[0].limit,
        findings=findings,
        sentence=sentence,
    )


def label_issues(inputs: CheckInputs) -> Check:
    """Labels that a probe on the features contradicts, by confident learning, and of outliers.

    The probe predicts each training image without its fold; it was not fitted on images of other
    splits.
    """
    features, labels = inputs.features.numpy(), inputs.labels
    classes = inputs.data.classes
    train = inputs.rows_of("train") if "train" in inputs.splits else np.arange(len(labels))
    if len(np.unique(labels[train])) < 2:
        raise NotJudged("there is only one class, so no other label is possible")
    if np.bincount(labels[train]).max() < 2:
        raise NotJudged("no class has two images to compare")
    probe = out_of_fold_logits(features[train], labels[train], len(classes))
    known = probe.fold_of >= 0
    judged, parts = train[known], [probe.logits[known]]
    others = np.setdiff1d(np.arange(len(labels)), train)
    if len(others):
        fit = fit_logistic(features[None, train], labels[train], len(classes), c=probe.c)
        judged = np.concatenate([judged, others])
        parts.append(features[others] @ fit.weight.T + fit.bias)
    predictions = Predictions(
        torch.from_numpy(np.concatenate(parts)).float(), torch.from_numpy(labels[judged]), classes
    )
    own = predictions.probabilities.gather(1, predictions.labels[:, None])[:, 0]
    confidence = dict(zip(judged.tolist(), own.tolist(), strict=True))
    contradicted = find_label_issues(predictions)
    limit = 1.0
    if predictions.accuracy < ACCURATE:
        limit = credible_limit(predictions.probabilities, own)
    # an image that is unlike all others is of none of the classes, whatever the probe says
    off_topic = [row for row in _off_topic_rows(inputs) if row in confidence]
    findings = [
        Finding(confidence[row], (inputs.image(row),), note="suggested: none of the classes")
        for row in off_topic
    ]
    for issue in contradicted:
        row = int(judged[issue.index])
        if row not in off_topic and issue.self_confidence < limit:
            findings.append(_label_finding(inputs, issue, row))
    total = counted(len(judged), "label")
    sentence = f"{len(findings):,} of {total} {be(len(findings))} suspicious; "
    if not findings:
        sentence = "No label is suspicious; "
    accuracy = f"{100 * predictions.accuracy:.1f}%"
    sentence += f"a probe on the features agrees with {accuracy} of the labels."
    if limit < 1:
        sentence += (
            f" It contradicts {counted(len(contradicted), 'label')}, most of them by its own "
            "errors; a model with better features sees more."
        )
    return Check(
        "probability of the label, 0 to 1",
        judged=len(judged),
        value=min((each.value for each in findings), default=None),
        below=True,
        findings=tuple(findings),
        sentence=sentence,
    )


def credible_limit(probabilities: Tensor, own: Tensor) -> float:
    """Probability of a label below which at least half of the labels are wrong, by an estimate.

    A calibrated probe gives the labels of n images probabilities below t for as many as the sum of
    all probabilities below t, where no label is wrong. The limit is the largest t at which at least
    twice as many are found, and significantly more (Poisson, p < 0.05); 0 if there is none.

    Args:
        probabilities: (N, K) of all classes, in [0, 1].
        own: (N,) of the labels.
    """
    from scipy.special import pdtrc  # scipy.stats takes seconds to import

    for limit in LIMITS:
        found = int((own < limit).sum())
        expected = float((probabilities * (probabilities < limit)).sum())
        if found and expected <= found / 2 and pdtrc(found - 1, expected) < SIGNIFICANT:
            return limit
    return 0.0


def _off_topic_rows(inputs: CheckInputs) -> list[int]:
    try:
        found = outliers(inputs)
    except NotJudged:
        return []
    return [inputs.row(finding.images[0]) for finding in found.findings]


def _label_finding(inputs: CheckInputs, issue: LabelIssue, row: int) -> Finding:
    suggested = inputs.data.classes[issue.suggested_label]
    note = f"suggested: {suggested}, {issue.probability:.2f}"
    return Finding(issue.self_confidence, (inputs.image(row),), note=note)
