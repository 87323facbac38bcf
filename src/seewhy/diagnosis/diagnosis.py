"""diagnose: all computed results about a classifier, stored with the run."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Dataset, Split
from seewhy.data.duplicates import DuplicatePair
from seewhy.data.thumbnails import Thumbnails, make_thumbnails
from seewhy.diagnosis.budget import Budget, images_within
from seewhy.diagnosis.folds import (
    first_fold,
    leaked_duplicates,
    take_predictions,
    with_maps_of_folds,
)
from seewhy.diagnosis.label_issues import find_label_issues
from seewhy.diagnosis.outliers import UnusualImage, unusual_images
from seewhy.diagnosis.predictions import (
    Predictions,
    diverse_errors,
    least_confident_correct,
    most_confident_errors,
    predict_split,
)
from seewhy.diagnosis.robustness import (
    AdversarialExamples,
    RobustnessCurve,
    adversarial_examples,
    attack_curves,
    corruption_curves,
    no_adversarial_examples,
)
from seewhy.diagnosis.saliency import (
    TRUST_IMAGES,
    Saliency,
    measure_saliency,
    plan_saliency,
    sample_indices,
    sample_order,
)
from seewhy.diagnosis.slices import Slice, image_attributes, weak_slices
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.features import extract_features
from seewhy.models.inspection import NoGradientsError
from seewhy.progress import named_steps, note

MAX_ERRORS = 2000  # explained; a report has room for fewer
MAX_LABEL_ISSUES = 24  # shown
MAX_DUPLICATES = 12  # shown
MAX_UNUSUAL = 8  # shown
MAX_SLICE_EXAMPLES = 8  # shown per weak slice
LEAST_CONFIDENT = 30  # correctly classified images shown, over all classes; at least one per class
STEPS = {  # of `diagnose`, in their order, with their shares of the time
    "heat maps": 40,
    "attacks": 27,
    "adversarial examples": 6,
    "corruptions": 17,
    "weak slices": 8,
    "near-duplicates": 2,
}
MINUTES = 2.0  # that a diagnosis may take
SLICE_FIRST, SLICE_BLOCK = 16, 1024  # images whose features tell the pace; that are held at once
ATTACK_IMAGES, CORRUPTION_IMAGES = 250, 500  # sampled from the test split


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All computed results about a classifier on a test split."""

    names: tuple[str, ...]  # of every test image
    validation: Predictions | None  # of the validation split, if there is one
    errors: Tensor  # (M,) int64, explained test images, the most confident error first
    saliency: Saliency | None  # None if the model cannot be explained
    saliency_error: str  # why the model cannot be explained, else empty
    attacks: tuple[RobustnessCurve, ...]  # empty if the model has no gradients
    adversarial: AdversarialExamples
    adversarial_maps: Tensor | None  # (S, 2, h, w) float32, of each clean and adversarial image
    corruptions: tuple[RobustnessCurve, ...]
    corruption_sample: Tensor  # (C, h, w) uint8, example image for the corruptions
    slices: tuple[Slice, ...]
    slice_images: int  # test images in which they were searched
    unusual: tuple[UnusualImage, ...]  # of these images, the least like the others first
    duplicates: tuple[DuplicatePair, ...]  # across splits
    thumbnails: Thumbnails  # of the test images that a report may show
    other_splits: tuple[str, ...]  # names of the other splits
    duplicate_thumbnails: tuple[Thumbnails, ...]  # of their images that duplicate test images
    seconds: float  # duration of the diagnosis
    minutes: float  # that it was allowed to take; infinite for no limit
    fold_images: int = 0  # of the first fold, whose model is measured; 0 without folds
    attack_error: str = ""  # why the model cannot be attacked, else empty

    @property
    def limited(self) -> bool:
        """Whether a question had fewer images than it would have without a limit of time."""
        wanted = [(curve.images, ATTACK_IMAGES) for curve in self.attacks]
        wanted += [(curve.images, CORRUPTION_IMAGES) for curve in self.corruptions]
        if self.saliency is not None:
            wanted.append((self.saliency.images, TRUST_IMAGES))
        return self.slice_images < len(self.names) or any(
            images < min(limit, self.measured_images) for images, limit in wanted
        )

    @property
    def measured_images(self) -> int:
        """Number of images on which a model can be measured: it was not trained on them."""
        return self.fold_images or len(self.names)


def diagnose(
    classifier: ClassifierLike,
    data: Dataset,
    predictions: Predictions | None = None,
    *,
    full: bool = False,
    quiet: bool = False,
    minutes: float | None = MINUTES,
    folds: Sequence[ClassifierLike] = (),
) -> Diagnosis:
    """Compute all results that a report shows about a classifier on the test split of `data`.

    Measures on a sample of the test images use the same sample each time, or the first part of it
    where the time is limited; the diagnosis records how many images each had. If the model cannot
    be explained, `saliency_error` gives the reason, and the rest is measured.

    Args:
        classifier: A run, a Classifier, or a module in evaluation mode. Robustness and features are
            measured in its precision, maps in fp32. Without class names it has those of `data`.
        data: Its test split is diagnosed; all splits are searched for near-duplicates.
        predictions: Predictions of the test split; predicted if None.
        full: Explain every error. Otherwise at most 2,000, spread over the confusions.
        quiet: Show no progress.
        minutes: Time to take. The pace is measured, and each question gets as many images as fit;
            the smallest numbers may take longer. None and infinity for all images.
        folds: If `data` has folds, the model that was trained without each. Maps of an error are
            those of the model that made it. Attacks, corruptions, and what is measured about maps
            are those of the first one, on the images of its fold.

    Raises:
        SeewhyError: If `predictions` are of other images than the test split, and if the model is
            in training mode, or `minutes` is not above 0.
    """
    if minutes is not None and not minutes > 0:
        raise SeewhyError(f"minutes must be above 0, found {minutes}; None sets no limit")
    classifier = as_classifier(classifier)
    if not classifier.classes:
        classifier = replace(classifier, classes=data.classes)
    if predictions is not None:
        _check_same_split(predictions, data)
    if len(folds) != data.num_folds:
        raise SeewhyError(
            f"{data.name} has {data.num_folds} folds, found {len(folds)} models of folds; pass "
            "those of the cross-validation"
        )
    started, test = time.monotonic(), data.test
    budget = Budget(math.inf if minutes is None else 60 * minutes, STEPS)
    if predictions is None:
        predictions = predict_split(classifier, test)
    validation = None if data.validation is None else predict_split(classifier, data.validation)
    errors = most_confident_errors(predictions) if full else diverse_errors(predictions, MAX_ERRORS)
    note(
        f"accuracy {100 * predictions.accuracy:.2f}% on {len(test):,} test images, "
        f"{int((~predictions.correct).sum()):,} errors",
        quiet,
    )
    models = [replace(as_classifier(each), classes=classifier.classes) for each in folds]
    measured, unseen = (models or [classifier])[0], first_fold(data)
    saliency: Saliency | None = None
    saliency_error = ""
    with named_steps("diagnosing", STEPS, quiet) as steps:
        steps.begin("heat maps")
        seconds = budget.begin("heat maps")
        try:
            plan = plan_saliency(measured, test, len(errors), seconds)
            errors = errors if full else diverse_errors(predictions, plan.errors)
            seen_by = test if not models else test.take(unseen)
            saliency = measure_saliency(
                measured,
                seen_by,
                take_predictions(predictions, unseen),
                errors[:0] if models else errors,
                steps.advance,
                plan,
            )
            if models:
                saliency = with_maps_of_folds(saliency, models, data, predictions, errors)
        except SeewhyError as error:
            saliency_error = str(error)
        sample = test.take(unseen[sample_indices(len(unseen), ATTACK_IMAGES)])
        steps.begin("attacks")
        seconds = budget.begin("attacks")
        attacks: tuple[RobustnessCurve, ...] = ()
        adversarial = no_adversarial_examples(sample.images)
        attack_error = ""
        try:
            attacks = attack_curves(measured, sample.images, sample.labels, seconds=seconds)
            steps.begin("adversarial examples")
            seconds = budget.begin("adversarial examples")
            adversarial = adversarial_examples(
                measured, sample.images, sample.labels, seconds=seconds
            )
        except NoGradientsError as error:
            attack_error = str(error)
        steps.begin("corruptions")
        sample = test.take(unseen[sample_indices(len(unseen), CORRUPTION_IMAGES)])
        corruptions = corruption_curves(
            measured, sample.images, sample.labels, seconds=budget.begin("corruptions")
        )
        steps.begin("weak slices")
        slices, slice_images, unusual = _find_slices(
            classifier, test, predictions, budget.begin("weak slices")
        )
        steps.begin("near-duplicates")
        duplicates = leaked_duplicates(data)
    other_splits = tuple(name for name in data.splits if name != "test" and not models)
    return Diagnosis(
        names=tuple(test.names),
        validation=validation,
        errors=errors,
        saliency=saliency,
        saliency_error=saliency_error,
        attacks=attacks,
        adversarial=adversarial,
        adversarial_maps=None
        if saliency is None
        else _adversarial_maps(measured, adversarial, saliency),
        corruptions=corruptions,
        corruption_sample=make_thumbnails(test, [int(predictions.confidence.argmax())]).images[0],
        slices=slices,
        slice_images=slice_images,
        unusual=unusual,
        duplicates=duplicates,
        thumbnails=make_thumbnails(
            test,
            [
                *errors.tolist(),
                *least_confident_examples(predictions).tolist(),
                *(index for each in slices for index in slice_examples(each, predictions).tolist()),
                *(each.index for each in unusual),
                *(issue.index for issue in find_label_issues(predictions)[:MAX_LABEL_ISSUES]),
                *_shown_duplicates(duplicates, "test"),
            ],
        ),
        other_splits=other_splits,
        duplicate_thumbnails=tuple(
            make_thumbnails(data.splits[name], _shown_duplicates(duplicates, name))
            for name in other_splits
        ),
        seconds=time.monotonic() - started,
        minutes=budget.seconds / 60,
        fold_images=len(unseen) if models else 0,
        attack_error=attack_error,
    )


def _find_slices(
    classifier: Classifier, test: Split, predictions: Predictions, seconds: float
) -> tuple[tuple[Slice, ...], int, tuple[UnusualImage, ...]]:
    """The weak slices, the number of images in which they were searched, and unusual ones."""
    order = sample_order(len(test))
    drawn, features, columns = [], [], []
    # half of the time, because the clusters take some too
    for block in images_within(seconds / 2, len(test), SLICE_BLOCK, first=SLICE_FIRST):
        rows = order[block].sort().values  # sorted, for images on disk
        part = test.images[rows]
        drawn.append(rows)
        features.append(_features(classifier, part, predictions.logits[rows]))
        columns.append(image_attributes(part))
    rows, positions = torch.cat(drawn).sort()
    attributes = {
        name: torch.cat([each[name] for each in columns])[positions] for name in columns[0]
    }
    stacked = torch.cat(features)[positions]
    found = weak_slices(take_predictions(predictions, rows), stacked, attributes)
    slices = tuple(replace(each, members=rows[each.members]) for each in found)
    unusual = unusual_images(stacked, MAX_UNUSUAL) if len(rows) > 1 else ()
    return slices, len(rows), tuple(replace(each, index=int(rows[each.index])) for each in unusual)


def _features(classifier: Classifier, images: Tensor, logits: Tensor) -> Tensor:  # (N, D) float32
    """Features of images; the logits for a model without layers, such as one in an ONNX file."""
    try:
        return extract_features(classifier, images)
    except NoGradientsError:
        return logits.float()


def slice_examples(weak_slice: Slice, predictions: Predictions) -> Tensor:
    """Indices of the most confident errors in a slice, (E,) int64."""
    order = most_confident_errors(predictions)
    return order[torch.isin(order, weak_slice.members)][:MAX_SLICE_EXAMPLES]


def least_confident_examples(predictions: Predictions) -> Tensor:
    """Indices of the least confident correct predictions to show, (E,) int64, by class."""
    per_class = max(1, LEAST_CONFIDENT // len(set(predictions.labels.tolist())))
    return least_confident_correct(predictions, per_class)


def _check_same_split(predictions: Predictions, data: Dataset) -> None:
    count, expected = len(predictions.labels), len(data.test)
    if count != expected or not torch.equal(predictions.labels, data.test.labels):
        difference = (
            f"{count:,} images instead of {expected:,}" if count != expected else "other labels"
        )
        raise SeewhyError(
            f"these predictions are not of the test split of {data.name}: {difference}; make them "
            "with seewhy.diagnosis.predict_split(classifier, data.test)"
        )


def _adversarial_maps(
    classifier: Classifier, examples: AdversarialExamples, saliency: Saliency
) -> Tensor | None:  # (S, 2, h, w) float32
    if not len(examples.index):
        return None
    layer, method = saliency.best.layer, saliency.best.method
    exact = replace(classifier, precision="fp32")
    maps = [
        explain(exact, images, method, [layer], warn=False).at(layer)
        for images in (examples.clean, examples.adversarial)
    ]
    return torch.stack(maps, 1).nan_to_num(0, 0, 0)


def _shown_duplicates(pairs: tuple[DuplicatePair, ...], split: str) -> list[int]:
    """Images of a split in the first pairs."""
    return [
        index
        for pair in pairs[:MAX_DUPLICATES]
        for name, index in (pair.first, pair.second)
        if name == split
    ]
