"""The numbers of a report as plain values, for JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from seewhy import __version__
from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.scores import TrustScore
from seewhy.attribution.tuning import MethodTuning, PairedDifference
from seewhy.diagnosis.label_issues import LabelIssue
from seewhy.diagnosis.metrics import class_scores, uneven_scores, worst_confusions
from seewhy.diagnosis.slices import Slice
from seewhy.diagnosis.thresholds import ranking_scores
from seewhy.reporting.context import ReportContext

DECIMALS = 6
CALIBRATION = ("ece", "mce", "brier", "nll")
CURVE = ("name", "images", "levels", "accuracy", "low", "high")
SLICE = ("description", "images", "accuracy", "interval", "rest_accuracy", "p_value")


def report_values(context: ReportContext) -> dict[str, Any]:
    """The numbers that the report shows, and those behind its figures.

    Args:
        context: From `make_context`.

    Returns:
        A value that JSON can represent. Fractions are from 0 to 1, intervals are of 95%; what is
        undefined, such as the precision of a class that is never predicted, is None. Images are
        named as in the report. The keys are described in docs/report.md.
    """
    diagnosis, predictions = context.diagnosis, context.predictions
    uneven, scaling = uneven_scores(predictions), context.scaling
    wrong = (~predictions.correct).nonzero()[:, 0].tolist()
    values = {
        "seewhy": __version__,
        "title": context.title,
        "data": {
            "name": context.data.name,
            "fingerprint": context.data.fingerprint,
            "classes": context.data.classes,
            "image_shape": context.data.image_shape,
            "images": context.data.images,
        },
        "accuracy": {
            "kind": context.accuracy_name,
            "images": len(predictions.labels),
            "value": predictions.accuracy,
            "interval": predictions.interval,
            "balanced": None if uneven is None else uneven.balanced_accuracy,
            "macro_f1": None if uneven is None else uneven.macro_f1,
        },
        "classes": _classes(context),
        "confusions": [
            {
                "true": predictions.classes[pair.true],
                "predicted": predictions.classes[pair.predicted],
                "images": pair.images,
            }
            for pair in worst_confusions(predictions)
        ],
        "errors": [_error(context, index) for index in wrong],
        "calibration": _pick(context.calibration, *CALIBRATION)
        | {
            "temperature": None if scaling is None else scaling.temperature,
            "scaled": None if scaling is None else _pick(scaling.after, *CALIBRATION),
        },
        "attacks": [_pick(curve, *CURVE) for curve in diagnosis.attacks],
        "corruptions": [_pick(curve, *CURVE) for curve in diagnosis.corruptions],
        "slices": {
            "images": diagnosis.slice_images,
            "weak": [slice_values(weak) for weak in diagnosis.slices],
        },
        "subgroups": [slice_values(group) for group in context.subgroups],
        "label_issues": [_label_issue(context, issue) for issue in context.label_issues],
        "unusual": [
            {"image": context.name(each.index), "similarity": each.similarity}
            for each in diagnosis.unusual
            if each.distinct
        ],
        "image_map": _image_map(context),
        "nearest_training_images": _nearest(context),
        "near_duplicates": [
            {"splits": [pair.first[0], pair.second[0]], "indices": [pair.first[1], pair.second[1]]}
            for pair in diagnosis.duplicates
        ],
        "explanations": []
        if diagnosis.saliency is None
        else [trust_values(score) for score in diagnosis.saliency.scores],
        "seconds": diagnosis.seconds,
    }
    plain: dict[str, Any] = plain_values(values)
    return plain


def _classes(context: ReportContext) -> list[dict[str, Any]]:
    """Scores of each class that has images or is predicted."""
    ranking = {row.index: row for row in ranking_scores(context.predictions).classes}
    rows = []
    for index, score in enumerate(class_scores(context.predictions)):
        if score.images or score.predicted:
            row = ranking.get(index)
            names = ("name", "images", "predicted", "accuracy", "interval", "precision", "f1")
            areas = {
                "auroc": None if row is None else row.auroc,
                "average_precision": None if row is None else row.average_precision,
            }
            rows.append(_pick(score, *names) | areas)
    return rows


def _image_map(context: ReportContext) -> dict[str, Any] | None:
    mapped = context.diagnosis.mapped
    if mapped is None:
        return None
    values: dict[str, Any] = {
        "images": len(mapped.map.indices),
        "neighbor_agreement": context.neighbor_agreement,
    }
    shown = context.mapped_splits
    if shown is not None:
        values["shown"] = {
            "test": len(shown.test.map.indices),
            "train": len(shown.train.map.indices),
        }
    return values


def _nearest(context: ReportContext) -> list[dict[str, Any]]:
    """The nearest and the most influential training images of each error that has them."""
    found = context.diagnosis.nearest
    if found is None:
        return []
    neighbors, errors = found.neighbors, context.diagnosis.errors[: len(found.neighbors.nearest)]
    return [
        {
            "image": context.name(index),
            "indices": neighbors.nearest[row],
            "similarity": neighbors.similarity[row],
            "influential": None
            if found.influence is None
            else {
                "indices": found.influence.proponents[row],
                "shares": found.influence.proponent_shares[row],
                "opponents": found.influence.opponents[row],
                "opponent_shares": found.influence.opponent_shares[row],
            },
        }
        for row, index in enumerate(errors.tolist())
    ]


def _error(context: ReportContext, index: int) -> dict[str, Any]:
    predictions = context.predictions
    return {
        "image": context.name(index),
        "true": predictions.classes[int(predictions.labels[index])],
        "predicted": predictions.classes[int(predictions.predicted[index])],
        "confidence": predictions.confidence[index].item(),
    }


def _pick(value: object, *names: str) -> dict[str, Any]:
    """Some fields of a value, by name."""
    return {name: getattr(value, name) for name in names}


def _label_issue(context: ReportContext, issue: LabelIssue) -> dict[str, Any]:
    classes = context.predictions.classes
    return {
        "image": context.name(issue.index),
        "given": classes[issue.given_label],
        "suggested": classes[issue.suggested_label],
        "probability": issue.probability,
        "self_confidence": issue.self_confidence,
    }


def slice_values(group: Slice) -> dict[str, Any]:
    """A slice or subgroup as plain values for JSON, without its images."""
    plain: dict[str, Any] = plain_values(_pick(group, *SLICE))
    return plain


def trust_values(score: TrustScore) -> dict[str, Any]:
    """A trust score as plain values for JSON."""
    mosaic = score.mosaic
    values = {
        "layer": score.layer,
        "method": score.method,
        "trusted": score.trusted,
        "gain": score.gain.mean,
        "interval": score.gain.interval,
        "road": None if score.road is None else score.road.mean,
        "random_weights_similarity": score.sanity.final_similarity,
        "non_empty": score.non_empty,
        "pointing": score.pointing,
        "relevance_mass": score.relevance_mass,
        "mosaics": None
        if mosaic is None
        else {
            "images": mosaic.mosaics,
            "relevance_mass": mosaic.relevance_mass.mean,
            "interval": mosaic.relevance_mass.interval,
            "pointing": mosaic.pointing.mean,
            "auroc": mosaic.auroc.mean,
        },
    }
    plain: dict[str, Any] = plain_values(values)
    return plain


def tuning_values(tuning: MethodTuning) -> dict[str, Any]:
    """A tuning as plain values for JSON: settings are arguments of `explain`."""
    chosen, held_out, proposed = tuning.chosen, tuning.held_out, tuning.proposed
    values = {
        "proposed": None if proposed is None else proposed.arguments,
        "default": tuning.default.arguments,
        "best": tuning.best.setting.arguments,
        "chosen": None if chosen is None else chosen.setting.arguments,
        "held_out": None
        if held_out is None
        else {
            "images": held_out.images,
            "gain": _gain_values(held_out.gain),
            "default_gain": _gain_values(held_out.default_gain),
            "improvement": _difference_values(held_out.improvement),
            "failed_checks": held_out.failed_checks,
        },
        "candidates": [
            {
                **each.setting.arguments,
                "images": each.images,
                "gain": _gain_values(each.gain),
                "difference": _difference_values(each.difference),
                "seconds_per_image": each.seconds,
                "failed_checks": each.failed_checks,
            }
            for each in tuning.candidates
        ],
        "left_out": [each.arguments for each in tuning.left_out],
        "failures": [
            {**each.arguments, "reason": reason} for each, reason in tuning.failures.items()
        ],
        "seconds": tuning.seconds,
    }
    plain: dict[str, Any] = plain_values(values)
    return plain


def _gain_values(gain: BootstrapSummary) -> dict[str, Any]:
    return {"mean": gain.mean, "interval": gain.interval}


def _difference_values(difference: PairedDifference) -> dict[str, Any]:
    return {
        "mean": difference.mean,
        "interval": difference.interval,
        "p_value": difference.p_value,
        "significant": difference.significant,
    }


def plain_values(value: Any) -> Any:
    """Lists, dicts and rounded numbers; None for numbers that JSON does not have."""
    if isinstance(value, Tensor):
        return plain_values(value.tolist())
    if isinstance(value, Mapping):
        return {name: plain_values(each) for name, each in value.items()}
    if isinstance(value, Sequence | Iterable) and not isinstance(value, str):
        return [plain_values(each) for each in value]
    if isinstance(value, float):
        return round(value, DECIMALS) if math.isfinite(value) else None
    return value
