"""Predicting any number of image files in constant memory: decoding in threads beside the model."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from seewhy.data.decode import Encoded, decode_image
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier, check_one_class
from seewhy.models.features import predict_with_features
from seewhy.models.inference import compute_logits
from seewhy.models.outputs import ACTIVATIONS
from seewhy.progress import note, progress

BLOCK = 64  # images decoded ahead of the model, and predicted together

ImageSource = str | Path | Image.Image


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability."""

    name: str
    probability: float  # in [0, 1]


@dataclass(frozen=True)
class ImagePrediction:
    """The most probable classes of one image, best first."""

    image: str  # path, or "image 0" for the first image in memory
    top: tuple[ClassProbability, ...]
    abstained: bool | None = None  # whether the confidence is below a threshold; None without one
    labels: tuple[str, ...] | None = None  # that are predicted, of a model with any number of them,
    # in the order of its classes; None for one class per image


@dataclass(frozen=True, eq=False)
class PredictedBlock:
    """The logits, and on request the features, of up to 64 consecutive images."""

    names: tuple[str, ...]  # paths, or "image 0" for the first image in memory
    logits: Tensor  # (n, K) float32
    features: Tensor | None  # (n, D) float32

    def top(
        self, classifier: Classifier, count: int, abstain_below: float | None = None
    ) -> list[ImagePrediction]:
        """The most probable classes of each image."""
        classes = classifier.class_names(self.logits.shape[1])
        rows = top_predictions(
            self.logits, classes, self.names, count, abstain_below, classifier.activation
        )
        if classifier.activation != "sigmoid":
            return rows
        predicted = classifier.predicted_labels(self.logits).tolist()
        return [
            replace(row, labels=tuple(compress(classes, chosen)))
            for row, chosen in zip(rows, predicted, strict=True)
        ]


def predict_stream(
    classifier: ClassifierLike,
    images: Iterable[ImageSource],
    *,
    max_pixels: int | None = None,
    failures: list[str] | None = None,
    features: bool = False,
) -> Iterator[PredictedBlock]:
    """Predict image files or Pillow images as they are decoded, in their order.

    Args:
        classifier: A run, or a Classifier with an image shape.
        images: Paths and Pillow images of any size and mode; read as they are needed.
        max_pixels: Largest number of pixels of an image that is decoded; None for 150 million.
        failures: A list for the errors of images that cannot be read, which are then left out; by
            default the first one is raised.
        features: Also compute what enters the head of the model.

    Yields:
        Blocks of at most 64 images; none is empty.

    Raises:
        SeewhyError: If the classifier has no image shape, and if an image cannot be read.
    """
    classifier = as_classifier(classifier)
    if classifier.activation != "sigmoid":
        check_one_class(classifier)
    check_image_shape(classifier)
    blocks = _decoded_blocks(classifier, images, max_pixels)
    for decoded in blocks:
        names, pixels = [], []
        for name, result in decoded:
            if isinstance(result, Tensor):
                names.append(name)
                pixels.append(result)
            elif failures is None:
                raise result
            else:
                failures.append(str(result))
        if names:
            batch = torch.stack(pixels)
            rows = None
            if features:
                logits, rows = predict_with_features(classifier, batch)
            else:
                logits = compute_logits(classifier, batch)
            yield PredictedBlock(tuple(names), logits, rows)


def top_predictions(
    logits: Tensor,  # (N, K)
    classes: Sequence[str],
    images: Sequence[str],
    top: int,
    abstain_below: float | None = None,
    activation: str = "softmax",
) -> list[ImagePrediction]:
    """The most probable classes of the images with these names, best first.

    Of an image without finite logits there are none.
    """
    finite = logits.isfinite().all(1).tolist()
    best = ACTIVATIONS[activation](logits).topk(min(top, len(classes)))
    # not the opposite, so that an image without finite logits is abstained from
    abstained: list[bool | None] = [None] * len(logits)
    if abstain_below is not None:
        abstained = (~(best.values[:, 0] >= abstain_below)).tolist()
    return [
        ImagePrediction(
            image,
            tuple(
                ClassProbability(classes[index], value)
                for value, index in zip(values, indices, strict=True)
                if known
            ),
            abstains,
        )
        for image, values, indices, known, abstains in zip(
            images, best.values.tolist(), best.indices.tolist(), finite, abstained, strict=True
        )
    ]


_Decoded = Tensor | SeewhyError


def _decoded_blocks(
    classifier: Classifier, images: Iterable[ImageSource], max_pixels: int | None
) -> Iterator[list[tuple[str, _Decoded]]]:
    """Blocks of names with pixels (C, H, W) uint8 or an error; the next one is being decoded."""

    def decode(source: ImageSource) -> _Decoded:
        try:
            return read_image(classifier, source, max_pixels)
        except SeewhyError as error:
            return error

    threads = ThreadPoolExecutor(os.cpu_count(), "seewhy-decode")

    def begin(source: ImageSource) -> Future[_Decoded]:
        if isinstance(source, Image.Image):  # may be listed twice, and its decoder has a state
            done: Future[_Decoded] = Future()
            done.set_result(decode(source))
            return done
        return threads.submit(decode, source)

    numbered = enumerate(images)
    waiting: deque[list[tuple[str, Future[_Decoded]]]] = deque()
    try:
        while True:
            block = [
                (f"image {number}" if isinstance(each, Image.Image) else str(each), begin(each))
                for number, each in islice(numbered, BLOCK)
            ]
            if block:
                waiting.append(block)
            if len(waiting) == 2 or (waiting and not block):
                yield [(name, future.result()) for name, future in waiting.popleft()]
            elif not block:
                return
    finally:
        threads.shutdown(cancel_futures=True)


def read_image(
    classifier: Classifier, source: Encoded, max_pixels: int | None = None
) -> Tensor:  # (C, H, W) uint8
    """Decode, resize and crop an image with the classifier's preprocessing."""
    channels, height, width = check_image_shape(classifier)
    return decode_image(source, (height, width), channels, classifier.preprocessing, max_pixels)


def read_images(
    classifier: Classifier, files: Sequence[Path], max_pixels: int | None, quiet: bool
) -> tuple[Tensor, list[str]]:
    """Decode image files for a classifier: (N, C, H, W) uint8, and the names of the N files.

    Files that cannot be read are reported and skipped. Raises SeewhyError if all are.
    """
    pixels, names, failures = list[Tensor](), list[str](), list[str]()
    with progress("reading", len(files), quiet) as advance:
        for file in files:
            try:
                pixels.append(read_image(classifier, str(file), max_pixels))
                names.append(str(file))
            except SeewhyError as error:
                failures.append(str(error))
            advance(1)
    if not pixels:
        raise SeewhyError(f"no image can be read: {failures[0]}")
    for failure in failures:
        note(f"skipped: {failure}", quiet=False)
    return torch.stack(pixels), names


def check_image_shape(classifier: Classifier) -> tuple[int, int, int]:
    """The image shape (C, H, W) of the classifier. Raises SeewhyError if it has none."""
    if classifier.image_shape is None:
        raise SeewhyError(
            "the classifier has no image shape to resize image files to; pass Classifier(model, "
            "classes, image_shape=(3, 224, 224))"
        )
    return classifier.image_shape
