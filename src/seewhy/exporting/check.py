"""Comparing an exported file with the model that it was made from."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.progress import progress

TOLERANCE = 1e-3  # largest difference of probabilities that passes
BATCH = 500  # images per forward pass
TIE = 1e-5  # classes whose probabilities differ by less are tied: rounding decides


@dataclass(frozen=True)
class ExportCheck:
    """An exported file compared with its model in fp32, without test-time augmentation.

    Both ran on the CPU with the same number of threads.
    """

    path: Path
    images: int
    source: str  # of the images: "test images of cifar10", or "random images"
    same_class: int  # images whose predicted class, or labels, are the same
    largest_difference: float  # of two probabilities, in [0, 1]
    model_speed: float  # images/s
    file_speed: float  # images/s


def check_file(
    path: Path,
    exported: Classifier,
    original: Classifier,
    images: Tensor,
    source: str,
    quiet: bool = False,
) -> ExportCheck:
    """Run the exported and the original classifier on `images` (N, C, H, W) uint8.

    Raises SeewhyError if a predicted class differs, or a probability by more than TOLERANCE.
    """
    with progress("comparing", 2 * len(images), quiet) as advance:
        expected, model_speed = _timed_probabilities(original, images, advance)
        found, file_speed = _timed_probabilities(exported, images, advance)
    same_class = _count_same(expected, found, original)
    difference = (expected - found).abs().amax().item()
    if same_class < len(images) or not difference <= TOLERANCE:  # also true for NaN
        raise SeewhyError(
            f"the exported file does not compute what the model does: {len(images) - same_class:,} "
            f"of {len(images):,} {source} get another class, and probabilities differ by up to "
            f"{difference:.2g}; {path} was not written; try the other format"
        )
    return ExportCheck(path, len(images), source, same_class, difference, model_speed, file_speed)


def _count_same(expected: Tensor, found: Tensor, classifier: Classifier) -> int:
    """The number of images with the same predicted class or labels, by probabilities (N, K)."""
    if classifier.activation == "sigmoid":
        thresholds = torch.tensor(classifier.thresholds or 0.5)
        same = (expected >= thresholds) == (found >= thresholds)
        return int((same | ((expected - thresholds).abs() < TIE)).all(1).sum())
    of_same_class = expected.gather(1, found.argmax(1, keepdim=True)).squeeze(1)
    return int((expected.amax(1) - of_same_class < TIE).sum())


def _timed_probabilities(
    classifier: Classifier, images: Tensor, advance: Callable[[int], None]
) -> tuple[Tensor, float]:
    """Probabilities (N, K), and images/s."""
    compute = partial(compute_logits, classifier, check_finite=False)
    compute(images[:BATCH])  # the first batch allocates memory
    began = time.perf_counter()
    batches = []
    for batch in torch.split(images, BATCH):
        batches.append(compute(batch))
        advance(len(batch))
    speed = len(images) / (time.perf_counter() - began)
    return classifier.probabilities(torch.cat(batches)), speed


def random_images(image_shape: tuple[int, int, int], count: int = 64) -> Tensor:
    """Images (N, C, H, W) uint8 of independent random pixels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *image_shape), generator=generator, dtype=torch.uint8)
