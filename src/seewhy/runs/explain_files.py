"""Explain image files or a run's errors, and write an image grid, overlays and the maps."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.attribution.explanation import Explanation, concatenate, explain
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.statuses import PIXELS
from seewhy.attribution.target import Relative, Target
from seewhy.data.decode import Encoded, crop_box, open_image, to_pixels, upright_size
from seewhy.data.sources import reload_data
from seewhy.diagnosis.predictions import class_predictions, most_confident_errors
from seewhy.errors import SeewhyError
from seewhy.escaping import csv_text
from seewhy.figures.explanations import (
    MAX_BLOCKS,
    MAX_COLUMNS,
    MAX_ROWS,
    OPACITY,
    explanation_figure,
    overlay,
)
from seewhy.figures.style import save_figure
from seewhy.files import make_directory, safe_file_name, write_atomically, write_text
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.progress import note, progress
from seewhy.runs.prediction_stream import (
    ClassProbability,
    ImagePrediction,
    check_image_shape,
    read_image,
    top_predictions,
)
from seewhy.runs.run import Run
from seewhy.serialization import write_arrays
from seewhy.wording import counted

BATCH_SIZE = 64  # images decoded and explained together
GRID_ROWS = MAX_ROWS  # images in the grid
SMALLEST_CROP = 1e-3  # fraction of an image that the model must see
PREDICTIONS = "predictions.csv"
OVERLAY_PIXELS = 2**24  # pixels of an overlay, at most
TOP = 5  # classes of each image in it


@dataclass(frozen=True)
class ExplainOptions:
    """How to explain images: arguments of `explain`, and the opacity of overlays."""

    methods: Sequence[str] = ("grad-cam",)
    layers: Sequence[str] = ("auto",)
    target: Target = Relative.PREDICTED
    smooth: str = "none"
    opacity: float = OPACITY  # of the overlay at the maximum of a map, in [0, 1]
    max_pixels: int | None = None  # of an image file, see `predict`


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image to explain, encoded or as pixels."""

    name: str
    source: Encoded
    label: int | None = None  # index of the true class, if it is known


def error_images(run: Run, count: int) -> list[ImageFile]:
    """The run's most confident errors on its test split.

    The predictions are those of the run, with its test-time augmentation, so the model may classify
    an image correctly without it.

    Args:
        run: A finished run with data that can be loaded again.
        count: Maximum number of images.

    Returns:
        The images with their true classes, the most confident error first.

    Raises:
        SeewhyError: If the run has not finished or has no errors, or its data has changed.
    """
    predictions = class_predictions(run.predictions)
    if predictions is None:
        raise SeewhyError(
            f"{run.directory} has not finished, so its errors are unknown; pass image files"
        )
    split = reload_data(run.data_origin).test
    indices = most_confident_errors(predictions, count).tolist()
    if not indices:
        raise SeewhyError(
            f"the model has no errors on the {counted(len(split), 'test image')}; pass image files"
        )
    return [
        ImageFile(
            split.names[index],
            split.images[index].permute(1, 2, 0).numpy(),
            int(predictions.labels[index]),
        )
        for index in indices
    ]


def write_explanations(
    classifier: ClassifierLike,
    images: Sequence[ImageFile],
    options: ExplainOptions,
    directory: Path,
    quiet: bool = False,
) -> Explanation:
    """Explain images of any size and write a grid, overlays, maps and the predictions.

    The grid shows the first 50 images. An overlay has the size of its image, but at most 16 million
    pixels. Images that cannot be
    read are reported and skipped.

    Args:
        classifier: A run, or a Classifier with an image shape.
        images: Images to explain; labels are used if all of them have one.
        options: Methods, layers, target, smoothing and opacity.
        directory: Directory to write to; created if missing.
        quiet: Show no progress and no warnings.

    Returns:
        The explanation of all images that could be explained.

    Raises:
        SeewhyError: If no image can be read, or there are too many maps for a grid. Nothing is
        written in this case.
    """
    classifier = as_classifier(classifier)
    check_image_shape(classifier)
    stems = _unique_stems([Path(image.name).stem for image in images])
    explanations: list[Explanation] = []
    explained: list[ImageFile] = []
    grid: list[Tensor] = []
    failures: list[str] = []
    with progress("explaining", len(images), quiet) as advance:
        for start in range(0, len(images), BATCH_SIZE):
            batch = slice(start, start + BATCH_SIZE)
            loaded = list(
                _load(images[batch], stems[batch], classifier, options.max_pixels, failures)
            )
            advance(len(images[batch]))
            if not loaded:
                continue
            pixels = torch.stack([image.pixels for image in loaded])
            explanation = _explain(classifier, pixels, options, [image.file for image in loaded])
            if not explanations:
                _check_grid(explanation)
                layers = [layer for layer in explanation.layers if layer != PIXELS]
                options = replace(options, layers=layers or options.layers)  # for all batches
                make_directory(directory / "overlays")
            for index, image in enumerate(loaded):
                one = explanation.take(slice(index, index + 1))
                _write_overlays(image, directory / "overlays", one, classifier, options)
            grid.append(pixels[: max(0, GRID_ROWS - len(explained))])
            explanations.append(explanation)
            explained += [image.file for image in loaded]
    if not explanations:
        raise SeewhyError(f"{counted(len(images), 'image')}, none can be read: {failures[0]}")
    combined = concatenate(explanations)
    _write_maps(directory / "maps.npz", combined, [image.name for image in explained])
    _write_top_predictions(directory / PREDICTIONS, combined, [image.name for image in explained])
    top = TOP if combined.labels is None else 1  # of a photograph, what else it may be
    shown = combined.take(slice(GRID_ROWS))
    figure = explanation_figure(torch.cat(grid), shown, options.opacity, top=top)
    save_figure(figure, directory / "grid")
    for failure in failures:
        note(f"skipped: {failure}", quiet=False)
    return combined


@dataclass(frozen=True, eq=False)
class _LoadedImage:
    file: ImageFile
    stem: str  # of the names of its overlays
    pixels: Tensor  # (C, H, W) uint8, input of the classifier


def _load(
    files: Sequence[ImageFile],
    stems: Sequence[str],
    classifier: Classifier,
    max_pixels: int | None,
    failures: list[str],
) -> Iterator[_LoadedImage]:
    """The images that can be explained; adds the errors of the others to `failures`."""
    for file, stem in zip(files, stems, strict=True):
        try:
            pixels = read_image(classifier, file.source, max_pixels)
            _check_shape(file, classifier, max_pixels)
        except SeewhyError as error:
            failures.append(str(error))
        else:
            yield _LoadedImage(file, stem, pixels)


def _check_shape(file: ImageFile, classifier: Classifier, max_pixels: int | None) -> None:
    """Raise SeewhyError if the model sees next to nothing of the image."""
    _, *shape = check_image_shape(classifier)
    height, width = upright_size(open_image(file.source, max_pixels=max_pixels))
    box = crop_box((height, width), (shape[0], shape[1]), classifier.preprocessing)
    left, top, right, bottom = box
    if (right - left) * (bottom - top) < SMALLEST_CROP * height * width:
        raise SeewhyError(
            f"{file.name} has {width}x{height} pixels, of which the model sees only the middle "
            f"{max(1, round(right - left))}x{max(1, round(bottom - top))}; cut a part out of it"
        )


def _explain(
    classifier: Classifier, pixels: Tensor, options: ExplainOptions, files: Sequence[ImageFile]
) -> Explanation:
    labels = [file.label for file in files if file.label is not None]
    return explain(
        classifier,
        pixels,
        options.methods,
        layer_choice(options.layers),
        options.target,
        labels=torch.tensor(labels) if len(labels) == len(files) else None,
        smooth=options.smooth,
        warn=False,  # print_explanation warns once for all images
    )


def layer_choice(layers: Sequence[str]) -> str | list[str]:
    """`layers` in the form that `explain` expects."""
    return "auto" if list(layers) == ["auto"] else list(layers)


def _check_grid(explanation: Explanation) -> None:
    """Raise SeewhyError if there are too many maps for a grid."""
    limit = MAX_COLUMNS * MAX_BLOCKS
    if len(explanation.maps) > limit:
        raise SeewhyError(
            f"a grid has room for {limit} maps of an image, found {len(explanation.maps)}; choose "
            "fewer layers or methods"
        )


def _write_overlays(
    image: _LoadedImage,
    directory: Path,
    explanation: Explanation,
    classifier: Classifier,
    options: ExplainOptions,
) -> None:
    """Write an overlay of the original for each map; outside the model's crop it has no heat."""
    channels, *shape = check_image_shape(classifier)
    whole = replace(classifier.preprocessing, crop=1.0, resize="crop")
    opened = partial(open_image, image.file.source, None, whole, options.max_pixels)
    size = _overlay_size(upright_size(opened()))
    rows = to_pixels(opened(), size, channels, whole)  # opened again: its size may read its pixels
    pixels = torch.from_numpy(rows.transpose(2, 0, 1).copy())
    box = crop_box(size, (shape[0], shape[1]), classifier.preprocessing)
    left, top = (min(round(box[axis]), size[1 - axis] - 1) for axis in (0, 1))
    right, bottom = max(left + 1, round(box[2])), max(top + 1, round(box[3]))
    above, before = max(0, -top), max(0, -left)  # of a letterboxed image
    for (layer, method), maps in explanation.maps.items():
        heat = torch.zeros(1, *size)
        if maps.isfinite().all():  # otherwise the status is "not finite"
            shown = heat[:, max(0, top) : bottom, max(0, left) : right]
            resized = resize_maps(maps, (bottom - top, right - left))
            shown.copy_(resized[:, above:, before:][:, : shown.shape[1], : shown.shape[2]])
        overlaid = Image.fromarray(overlay(pixels[None], heat, options.opacity)[0].numpy())
        path = directory / f"{image.stem}-{safe_file_name(layer)}-{safe_file_name(method)}.png"
        # level 1: photos become 10% larger, but encoding is several times faster
        write_atomically(path, partial(overlaid.save, compress_level=1))


def _overlay_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) of the overlay of an image, which takes 70 bytes per pixel."""
    scale = math.sqrt(OVERLAY_PIXELS / (size[0] * size[1]))
    return size if scale >= 1 else (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))


def _write_maps(path: Path, explanation: Explanation, names: Sequence[str]) -> None:
    """Write the maps as arrays LAYER/METHOD, their statuses, logits, weights and labels."""
    arrays: dict[str, np.ndarray] = {
        f"{layer}/{method}": maps.numpy() for (layer, method), maps in explanation.maps.items()
    }
    for (layer, method), status in explanation.statuses.items():
        arrays[f"status/{layer}/{method}"] = np.array(status.kinds)
        arrays[f"clipped/{layer}/{method}"] = status.clipped.numpy()
    arrays |= {
        "names": np.array(names),
        "classes": np.array(explanation.classes),
        "logits": explanation.logits.numpy(),
        "weights": explanation.weights.numpy(),
    }
    if explanation.labels is not None:
        arrays["labels"] = explanation.labels.numpy()
    write_arrays(path, arrays)


def _write_top_predictions(path: Path, explanation: Explanation, names: Sequence[str]) -> None:
    """Write the five most probable classes of each image, one per row."""
    rows = [
        [prediction.image, rank, row.name, f"{row.probability:.6f}"]
        for prediction in top_predictions(
            explanation.logits,
            explanation.classes,
            names,
            TOP,
            activation=explanation.activation,
        )
        for rank, row in enumerate(prediction.top, 1)
    ]
    text = csv_text(["image", "rank", "class", "probability"], rows)
    write_text(path, text, newline="")


def read_top_predictions(directory: Path) -> list[ImagePrediction]:
    """The five most probable classes of each image, as `write_explanations` wrote them."""
    with (directory / PREDICTIONS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    starts = [index for index, row in enumerate(rows) if row["rank"] == "1"]
    return [
        ImagePrediction(
            rows[start]["image"],
            tuple(
                ClassProbability(row["class"], float(row["probability"]))
                for row in rows[start:stop]
            ),
        )
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True)
    ]


def _unique_stems(names: Sequence[str]) -> list[str]:
    """Short file names made from `names`; a number makes them unique, ignoring case."""
    used: set[str] = set()
    stems = []
    for name in names:
        base = stem = safe_file_name(name)[:100]
        number = 1
        while stem.casefold() in used:
            number += 1
            stem = f"{base}-{number}"
        used.add(stem.casefold())
        stems.append(stem)
    return stems
