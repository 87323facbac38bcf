"""Everything about a model that takes computing to know: asked once, kept with the run, shown by the report."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Dataset
from seewhy.data.thumbnails import Thumbnails, make_thumbnails
from seewhy.diagnosis.duplicates import Pair, near_duplicates
from seewhy.diagnosis.label_issues import find_label_issues
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
)
from seewhy.diagnosis.saliency import Saliency, measure_saliency, random_indices
from seewhy.diagnosis.slices import Slice, extract_features, image_attributes, weak_slices
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.progress import progress

MISTAKES = 2000  # that are explained; a report's budget holds fewer
SUSPECTS = 24  # labels in doubt that are shown
PAIRS = 12  # duplicates that are shown
EXAMPLES = 8  # images of a weak slice
CLOSEST = 30  # correctly classified images that are shown, of all classes together, but at least one of each
ATTACKED, CORRUPTED = 250, 500  # test images that are drawn for these questions


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found out about a model on a test split."""

    names: tuple[str, ...]  # of every test image
    validation: Predictions | None  # of the validation split, where there is one
    mistakes: Tensor  # (M,) int64, those that are shown, the surest first
    looks: Saliency | None
    unexplained: str  # why there are no looks, empty where there are
    attacks: tuple[RobustnessCurve, ...]
    strip: AdversarialExamples
    strip_maps: (
        Tensor | None
    )  # (S, 2, h, w) float32, what is looked at in each clean and attacked image
    corruptions: tuple[RobustnessCurve, ...]
    sample: Tensor  # (C, h, w) uint8, the image that shows the corruptions
    slices: tuple[Slice, ...]
    duplicates: tuple[Pair, ...]  # across the splits
    shown: Thumbnails  # test images that the page may show
    splits: tuple[str, ...]  # the names of the other splits
    twins: tuple[Thumbnails, ...]  # and their images that are duplicates of test images
    seconds: float  # that this took


def diagnose(
    classifier: ClassifierLike,
    data: Dataset,
    predictions: Predictions | None = None,
    *,
    full: bool = False,
    quiet: bool = False,
) -> Diagnosis:
    """Measure everything that a report says of a classifier on the test split of `data`.

    What is measured on a sample of the test images is measured on the same sample each time. If the
    model cannot be explained, the diagnosis says why and holds the rest.

    Args:
        classifier: a run, a Classifier or a module in evaluation mode; passes for robustness and
            features run in its precision. Without class names it has those of `data`.
        data: its test split is diagnosed; all splits are searched for near-duplicates.
        predictions: of the test split, if they exist already; by default they are made.
        full: explain every error rather than at most 2,000 of all kinds.
        quiet: show no progress.

    Raises:
        SeewhyError: if `predictions` are of other images than the test split, or the model is in
            training mode.
    """
    classifier = as_classifier(classifier)
    if not classifier.classes:
        classifier = replace(classifier, classes=data.classes)
    if predictions is not None:
        _check(data, predictions)
    started = time.monotonic()
    test = data.test
    result = predict_split(classifier, test) if predictions is None else predictions
    mistakes = most_confident_errors(result) if full else diverse_errors(result, MISTAKES)
    found: Saliency | None = None
    unexplained = ""
    with progress("diagnosing", 5, quiet) as advance:
        try:
            found = measure_saliency(classifier, test, result, mistakes)
        except SeewhyError as error:
            unexplained = str(error)
        advance(1)
        some = test.take(random_indices(len(test), ATTACKED))
        attacks = attack_curves(classifier, some.images, some.labels)
        strip = adversarial_examples(classifier, some.images, some.labels)
        advance(1)
        some = test.take(random_indices(len(test), CORRUPTED))
        corruptions = corruption_curves(classifier, some.images, some.labels)
        advance(1)
        slices = weak_slices(
            result, extract_features(classifier, test.images), image_attributes(test.images)
        )
        advance(1)
        duplicates = near_duplicates(data.splits)
        advance(1)
    pairs = duplicates[:PAIRS]
    splits = tuple(name for name in data.splits if name != "test")
    held_out = None if data.validation is None else predict_split(classifier, data.validation)
    suspects = [suspect.index for suspect in find_label_issues(result)[:SUSPECTS]]
    wanted = torch.cat(
        [
            mistakes,
            shown_least_confident(result),
            *(slice_examples(group, result) for group in slices),
        ]
    ).tolist()
    return Diagnosis(
        names=tuple(test.names),
        validation=held_out,
        mistakes=mistakes,
        looks=found,
        unexplained=unexplained,
        attacks=attacks,
        strip=strip,
        strip_maps=None if found is None else _strip_maps(classifier.model, strip, found),
        corruptions=corruptions,
        sample=make_thumbnails(test, [int(result.confidence.argmax())]).images[0],
        slices=slices,
        duplicates=duplicates,
        shown=make_thumbnails(test, wanted + suspects + _members(pairs, "test")),
        splits=splits,
        twins=tuple(make_thumbnails(data.splits[name], _members(pairs, name)) for name in splits),
        seconds=time.monotonic() - started,
    )


def slice_examples(group: Slice, result: Predictions) -> Tensor:  # (E,) int64
    """The mistakes in a slice that the model is most sure of."""
    order = most_confident_errors(result)
    return order[torch.isin(order, group.members)][:EXAMPLES]


def shown_least_confident(result: Predictions) -> Tensor:  # (E,) int64
    """The correctly classified images that are shown, by class."""
    return least_confident_correct(result, max(1, CLOSEST // len(result.classes)))


def _check(data: Dataset, result: Predictions) -> None:
    if len(result.labels) != len(data.test) or not torch.equal(result.labels, data.test.labels):
        raise SeewhyError(
            f"these predictions are not of the test split of {data.name}: {len(result.labels):,} images against "
            f"{len(data.test):,}, or other labels; make them with seewhy.diagnosis.predict_split(classifier, data.test)"
        )


def _strip_maps(model: nn.Module, strip: AdversarialExamples, found: Saliency) -> Tensor | None:
    if not len(strip.index):
        return None
    layer, method = found.best.layer, found.best.method
    both = [
        explain(model, images, method, [layer], warn=False).at(layer)
        for images in (strip.clean, strip.attacked)
    ]
    return torch.stack(both, 1).nan_to_num(0, 0, 0)


def _members(pairs: tuple[Pair, ...], split: str) -> list[int]:
    return [index for pair in pairs for name, index in (pair.first, pair.second) if name == split]
