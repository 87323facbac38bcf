"""diagnose: all computed results about a classifier, stored with the run."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Dataset
from seewhy.data.duplicates import DuplicatePair
from seewhy.data.thumbnails import Thumbnails, make_thumbnails
from seewhy.diagnosis.budget import Budget, TimedSteps
from seewhy.diagnosis.feature_space import (
    ErrorNeighbors,
    MappedImages,
    error_neighbors,
    find_slices,
    find_unusual,
    map_images,
    sample_features,
)
from seewhy.diagnosis.folds import (
    first_fold,
    leaked_duplicates,
    take_predictions,
    with_maps_of_folds,
)
from seewhy.diagnosis.label_issues import find_label_issues
from seewhy.diagnosis.outliers import UnusualImage
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
)
from seewhy.diagnosis.slices import Slice
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier, check_one_class
from seewhy.models.inspection import check_eval_mode
from seewhy.progress import named_steps, note, waiting
from seewhy.wording import counted

MAX_ERRORS = 2000  # explained; a report has room for fewer
MAX_LABEL_ISSUES = 24  # shown
MAX_DUPLICATES = 12  # shown
MAX_SLICE_EXAMPLES = 8  # shown per weak slice
LEAST_CONFIDENT = 30  # correctly classified images shown, over all classes; at least one per class
STEPS = {  # of `diagnose`, in their order, with their shares of the time
    "heat maps": 44,
    "attacks": 18,
    "adversarial examples": 5,
    "corruptions": 14,
    "weak slices": 7,
    "nearest training images": 4,
    "map of images": 6,
    "near-duplicates": 2,
}
OF_PREDICTIONS = ("weak slices", "near-duplicates")  # the steps that need no model
NO_MODEL = "there is no model, only its predictions"
MINUTES = 2.0  # that a diagnosis may take
ATTACK_IMAGES, CORRUPTION_IMAGES = 250, 500  # sampled from the test split


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """All computed results about a classifier on a test split."""

    names: tuple[str, ...]  # of every test image
    validation: Predictions | None  # of the validation split, if there is one
    errors: Tensor  # (M,) int64, explained test images, the most confident error first
    saliency: Saliency | None  # None if the model cannot be explained
    saliency_error: str  # why the model cannot be explained, else empty
    attacks: tuple[RobustnessCurve, ...]  # empty if the model cannot be attacked
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
    nearest: ErrorNeighbors | None = None  # of the first errors; None without training images
    mapped: MappedImages | None = None  # None for a model without features

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
    classifier: ClassifierLike | None,
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
            None for predictions alone: then nothing is explained, attacked or corrupted.
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
    if predictions is not None:
        _check_same_split(predictions, data)
    if classifier is not None:
        classifier = as_classifier(classifier)
        check_one_class(classifier)
        check_eval_mode(classifier.model)  # before minutes of work
        classifier = replace(classifier, classes=classifier.classes or data.classes)
    if len(folds) != data.num_folds:
        raise SeewhyError(
            f"{data.name} has {data.num_folds} folds, found {len(folds)} models of folds; pass "
            "those of the cross-validation"
        )
    started, test = time.monotonic(), data.test
    shares = STEPS if classifier is not None else {name: STEPS[name] for name in OF_PREDICTIONS}
    budget = Budget(math.inf if minutes is None else 60 * minutes, shares)
    if predictions is None:
        if classifier is None:
            raise SeewhyError("pass predictions to diagnose without a model")
        with waiting(f"predicting {counted(len(test), 'test image')}", quiet):
            predictions = predict_split(classifier, test)
    validation: Predictions | None = None
    if data.validation is not None and classifier is not None:
        validation = predict_split(classifier, data.validation)
    errors = most_confident_errors(predictions) if full else diverse_errors(predictions, MAX_ERRORS)
    note(
        f"accuracy {100 * predictions.accuracy:.2f}% on {counted(len(test), 'test image')}, "
        f"{counted(int((~predictions.correct).sum()), 'error')}",
        quiet,
    )
    models = [replace(as_classifier(each), classes=predictions.classes) for each in folds]
    measured = models[0] if models else classifier
    found = _OfModel(errors, adversarial=no_adversarial_examples(test.images))
    with named_steps("diagnosing", shares, quiet) as shown:
        steps = TimedSteps(shown, budget)
        if measured is not None:
            found = _measure_model(measured, models, data, predictions, errors, full, steps)
        by_features = _compare_images(classifier, data, predictions, found.errors, steps)
        steps.begin("near-duplicates")
        duplicates = leaked_duplicates(data)
    maps: Tensor | None = None
    if measured is not None and found.saliency is not None:
        maps = _adversarial_maps(measured, found.adversarial, found.saliency)
    other_splits = tuple(name for name in data.splits if name != "test" and not models)
    return Diagnosis(
        names=tuple(test.names),
        validation=validation,
        errors=found.errors,
        saliency=found.saliency,
        saliency_error=found.saliency_error,
        attacks=found.attacks,
        adversarial=found.adversarial,
        adversarial_maps=maps,
        corruptions=found.corruptions,
        corruption_sample=make_thumbnails(test, [int(predictions.confidence.argmax())]).images[0],
        slices=by_features.slices,
        slice_images=by_features.slice_images,
        unusual=by_features.unusual,
        duplicates=duplicates,
        thumbnails=make_thumbnails(
            test, _shown_images(predictions, found.errors, by_features, duplicates)
        ),
        other_splits=other_splits,
        duplicate_thumbnails=tuple(
            make_thumbnails(data.splits[name], _shown_duplicates(duplicates, name))
            for name in other_splits
        ),
        seconds=time.monotonic() - started,
        minutes=budget.seconds / 60,
        fold_images=len(first_fold(data)) if models else 0,
        attack_error=found.attack_error,
        nearest=by_features.nearest,
        mapped=by_features.mapped,
    )


@dataclass(frozen=True, eq=False)
class _OfModel:
    """The results for which a model is needed, of the same names in `Diagnosis`."""

    errors: Tensor
    adversarial: AdversarialExamples
    saliency: Saliency | None = None
    saliency_error: str = NO_MODEL
    attacks: tuple[RobustnessCurve, ...] = ()
    attack_error: str = NO_MODEL
    corruptions: tuple[RobustnessCurve, ...] = ()


def _measure_model(
    measured: Classifier,
    models: Sequence[Classifier],
    data: Dataset,
    predictions: Predictions,
    errors: Tensor,
    full: bool,
    steps: TimedSteps,
) -> _OfModel:
    """Heat maps of the errors, attacks and corruptions; `models` are those of the folds."""
    test, unseen = data.test, first_fold(data)
    saliency: Saliency | None = None
    saliency_error = attack_error = ""
    seconds = steps.begin("heat maps")
    try:
        plan = plan_saliency(measured, test, len(errors), seconds)
        errors = errors if full else diverse_errors(predictions, plan.errors)
        saliency = measure_saliency(
            measured,
            test if not models else test.take(unseen),
            take_predictions(predictions, unseen),
            errors[:0] if models else errors,
            steps.shown.advance,
            plan,
        )
        if not models:
            errors = errors[: len(saliency.maps.values[0])]  # that fit into the time
        else:
            saliency = with_maps_of_folds(saliency, models, data, predictions, errors)
    except SeewhyError as error:
        saliency_error = str(error)
    sample = test.take(unseen[sample_indices(len(unseen), ATTACK_IMAGES)])
    images, labels = sample.images, sample.labels
    attacks: tuple[RobustnessCurve, ...] = ()
    adversarial = no_adversarial_examples(images)
    try:
        seconds = steps.begin("attacks")
        attacks = attack_curves(measured, images, labels, seconds=seconds)
        seconds = steps.begin("adversarial examples")
        adversarial = adversarial_examples(measured, images, labels, seconds=seconds)
    except SeewhyError as error:
        attack_error = str(error)
    seconds = steps.begin("corruptions")
    sample = test.take(unseen[sample_indices(len(unseen), CORRUPTION_IMAGES)])
    corruptions = corruption_curves(measured, sample.images, sample.labels, seconds=seconds)
    return _OfModel(
        errors, adversarial, saliency, saliency_error, attacks, attack_error, corruptions
    )


@dataclass(frozen=True, eq=False)
class _OfFeatures:
    """The results of images compared with each other, of the same names in `Diagnosis`."""

    slices: tuple[Slice, ...]
    slice_images: int
    unusual: tuple[UnusualImage, ...]
    nearest: ErrorNeighbors | None
    mapped: MappedImages | None


def _compare_images(
    classifier: Classifier | None,
    data: Dataset,
    predictions: Predictions,
    errors: Tensor,
    steps: TimedSteps,
) -> _OfFeatures:
    """Weak slices, unusual images, nearest training images and the map of images, by features."""
    # half of the time, because the clusters take some too
    sample = sample_features(classifier, data.test, steps.begin("weak slices") / 2)
    slices, unusual = find_slices(sample, predictions), find_unusual(sample)
    nearest, mapped = None, None
    if classifier is not None:
        seconds = steps.begin("nearest training images")
        nearest = error_neighbors(classifier, data, predictions, errors, seconds)
        mapped = map_images(sample, data.test, steps.begin("map of images"))
    return _OfFeatures(slices, len(sample.rows), unusual, nearest, mapped)


def _shown_images(
    predictions: Predictions,
    errors: Tensor,
    by_features: _OfFeatures,
    duplicates: tuple[DuplicatePair, ...],
) -> list[int]:
    """Indices of the test images that a report may show."""
    return [
        *errors.tolist(),
        *least_confident_examples(predictions).tolist(),
        *(
            index
            for each in by_features.slices
            for index in slice_examples(each, predictions).tolist()
        ),
        *(each.index for each in by_features.unusual),
        *(issue.index for issue in find_label_issues(predictions)[:MAX_LABEL_ISSUES]),
        *_shown_duplicates(duplicates, "test"),
    ]


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
            f"{counted(count, 'image')} instead of {expected:,}"
            if count != expected
            else "other labels"
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
