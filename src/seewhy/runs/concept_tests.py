"""Test which classes of a model depend on concepts that are given as folders of images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seewhy.attribution.concept_vectors import TcavScore, tcav_table
from seewhy.data.dataset import Split
from seewhy.diagnosis.feature_space import balanced_order
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.significance import holm

MAX_IMAGES = 64  # of a class
RANDOM_IMAGES = 200  # of all classes
_REPEATS = 200  # at least; for many tests more, so that a corrected p-value can be below 0.05


@dataclass(frozen=True, eq=False)
class ConceptTest:
    """Whether a class depends on a concept."""

    concept: str
    class_name: str
    images: int  # of the class
    score: TcavScore
    adjusted_p_value: float  # corrected for all concepts and classes (Holm 1979)

    @property
    def random_interval(self) -> tuple[float, float]:
        """95% of the scores of random images are in it."""
        low, high = self.score.random_scores.quantile(torch.tensor([0.025, 0.975])).tolist()
        return low, high


def run_concept_tests(
    classifier: Classifier,
    test: Split,
    concepts: Mapping[str, Tensor],
    others: Tensor | None = None,
    layer: str = "auto",
    classes: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> tuple[ConceptTest, ...]:
    """TCAV of each concept for each class, with p-values corrected for the number of tests.

    Args:
        classifier: A Classifier with class names.
        test: Labeled images; at most 64 of each class are explained.
        concepts: By name, images (L, C, H, W) that show the concept, at least 10.
        others: Images (M, C, H, W) without the concepts; by default 200 of the test images.
        layer: Name of a layer, or "auto", as for `tcav`.
        classes: The classes to explain; by default all that have test images.
        progress: Called with the number of classes and concepts that are done.

    Raises:
        SeewhyError: As `tcav`, and if a class has no test image.
    """
    rows = {
        label: _of_class(test.labels, label)[:MAX_IMAGES]
        for label in (range(len(classifier.classes)) if classes is None else classes)
    }
    missing = [classifier.classes[label] for label, chosen in rows.items() if not len(chosen)]
    if missing and classes is not None:
        raise SeewhyError(f"there are no test images of {', '.join(missing)} to explain")
    rows = {label: chosen for label, chosen in rows.items() if len(chosen)}
    if others is None:
        labels = test.labels if test.labels.ndim == 1 else test.labels.byte().argmax(1)
        others = test.images[balanced_order(labels)[:RANDOM_IMAGES].sort().values]
    scores = tcav_table(
        classifier,
        {label: test.images[chosen] for label, chosen in rows.items()},
        concepts,
        others,
        layer,
        repeats=max(_REPEATS, 40 * len(rows) * len(concepts)),
        progress=progress,
    )
    pairs = [(concept, label) for concept in concepts for label in rows]
    adjusted = holm([scores[pair].p_value for pair in pairs])
    return tuple(
        ConceptTest(
            concept, classifier.classes[label], len(rows[label]), scores[concept, label], p_value
        )
        for (concept, label), p_value in zip(pairs, adjusted, strict=True)
    )


def concept_test_values(test: ConceptTest) -> dict[str, Any]:
    """A test as plain values for JSON."""
    return {
        "concept": test.concept,
        "class": test.class_name,
        "images": test.images,
        "layer": test.score.layer,
        "score": test.score.score,
        "random_interval": test.random_interval,
        "sensitivity": test.score.sensitivity,
        "p_value": test.score.p_value,
        "adjusted_p_value": test.adjusted_p_value,
        "accuracy": test.score.accuracy,
    }


def _of_class(labels: Tensor, label: int) -> Tensor:
    """Rows of the images with a label, of labels (N,) int64 or (N, K) bool."""
    has = labels == label if labels.ndim == 1 else labels[:, label]
    return has.nonzero()[:, 0]
