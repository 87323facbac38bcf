"""Explaining image files or a run's mistakes, and writing what comes of it: a grid of overlays, the raw maps, single overlays."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.attribution.explanation import PIXELS, Explanation, concatenate, explain
from seewhy.attribution.layers import resolve_layers
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.methods import bind_methods
from seewhy.attribution.scores import TrustScore, trust
from seewhy.attribution.target import Target
from seewhy.data.dataset import Split
from seewhy.data.decode import (
    DEFAULT_PREPROCESSING,
    Encoded,
    Preprocessing,
    crop_box,
    decode_image,
    open_image,
    to_pixels,
    upright_size,
)
from seewhy.data.sources import reload_data
from seewhy.diagnosis.predictions import most_confident_errors
from seewhy.errors import SeewhyError
from seewhy.figures.explanations import MAX_BLOCKS, MAX_COLUMNS, explanation_figure, overlay
from seewhy.figures.style import save_figure
from seewhy.files import make_directory, write_atomically
from seewhy.models.classifier import Classifier, pretrained_classifier
from seewhy.models.registry import MODELS
from seewhy.notation import parse
from seewhy.progress import note, progress
from seewhy.runs.run import Run, open_run

AT_ONCE = 64  # images that are decoded and explained together
ON_GRID = 50  # images that the grid shows


@dataclass(frozen=True, eq=False)
class ExplainedModel:
    """A network to be explained, from a run or with published weights."""

    model: nn.Module  # in evaluation mode
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # (C, H, W)
    run: Run | None
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING


@dataclass(frozen=True)
class ExplainOptions:
    """How images are to be explained: the arguments of `explain`."""

    methods: Sequence[str] = ("grad-cam",)
    layers: Sequence[str] = ("auto",)
    target: Target = "predicted"
    smooth: str = "none"


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image to be explained: where it comes from, and its class where that is known."""

    name: str
    source: Encoded
    label: int | None = None


def open_explained_model(
    name: str, device: torch.device | str = "cpu", image_size: int | None = None
) -> ExplainedModel:
    """The network of a run directory, or `timm:NAME` or `torchvision:NAME` with its published weights.

    `image_size` is the side of the images for published weights, by default the one that they were made for. Raises
    SeewhyError for what is neither, and for a network without weights.
    """
    if parse(name)[0] in MODELS and not Path(name).is_dir():
        classifier = pretrained_classifier(name, device, image_size)
        shape = classifier.image_shape
        assert shape is not None
        return ExplainedModel(
            classifier.model, classifier.classes, shape, None, classifier.preprocessing
        )
    if image_size is not None:
        raise SeewhyError(
            f"image_size is for published weights; {name} takes what it was trained on"
        )
    run = open_run(name, device)
    return ExplainedModel(run.model, run.classes, run.image_shape, run)


def error_images(run: Run, count: int) -> list[ImageFile]:
    """The `count` test images that the run's network is most surely wrong about, the most confident mistake first.

    With the recipe's test-time augmentation, so that the image alone may once in a while be classified correctly.
    """
    if run.predictions is None:
        raise SeewhyError(
            f"{run.directory} did not come to its end, so its mistakes are not known; give image files"
        )
    split = _test_split(run)
    chosen = most_confident_errors(run.predictions, count)
    if not len(chosen):
        raise SeewhyError(
            f"the network makes no mistake on the {len(split)} test images; give image files to explain"
        )
    return [
        ImageFile(
            split.names[index],
            split.images[index].permute(1, 2, 0).numpy(),
            int(run.predictions.labels[index]),
        )
        for index in chosen.tolist()
    ]


def write_explanations(
    subject: ExplainedModel,
    pictures: Sequence[ImageFile],
    asked: ExplainOptions,
    directory: Path,
    opacity: float = 0.5,
    quiet: bool = False,
) -> Explanation:
    """Explain pictures of any size and write `grid.svg` and `.png`, `maps.npz` and `overlays/` into `directory`.

    A grid shows at most 50 pictures; the overlays are of the size of their originals. Pictures that cannot be read are left out,
    and said. Raises SeewhyError where none can, before anything is written.
    """
    names = _unique([Path(picture.name).stem for picture in pictures])
    parts: list[Explanation] = []
    done: list[ImageFile] = []
    shown: list[Tensor] = []
    bad: list[str] = []
    with progress("explaining", len(pictures), quiet) as advance:
        for start in range(0, len(pictures), AT_ONCE):
            some = pictures[start : start + AT_ONCE]
            read = list(_read(some, names[start : start + AT_ONCE], subject, bad))
            if not read:
                continue
            pixels = torch.stack([image for *_, image in read])
            part = _explained(subject, pixels, asked, _labels([picture for picture, *_ in read]))
            if not parts:
                _check_grid(part)
                asked = replace(
                    asked,
                    layers=[layer for layer in part.layers if layer != PIXELS] or asked.layers,
                )  # for all
                make_directory(directory / "overlays")
            for place, (picture, name, _) in enumerate(read):
                _write_overlays(
                    picture,
                    directory / "overlays" / name,
                    part.take(slice(place, place + 1)),
                    subject,
                    opacity,
                )
            advance(len(some))
            shown.append(pixels[: max(0, ON_GRID - len(done))])
            parts.append(part)
            done += [picture for picture, *_ in read]
    if not parts:
        raise SeewhyError(f"none of the {len(pictures)} images can be read: {bad[0]}")
    whole = concatenate(parts)
    _write_maps(directory / "maps.npz", whole, [picture.name for picture in done])
    save_figure(
        explanation_figure(torch.cat(shown), whole.take(slice(ON_GRID)), opacity),
        directory / "grid",
    )
    for problem in bad:
        note(f"left out: {problem}", quiet)
    return whole


def trust_of_run(
    run: Run,
    methods: Sequence[str],
    layers: Sequence[str],
    target: Target,
    count: int,
    quiet: bool = False,
) -> tuple[TrustScore, ...]:
    """`trust` on `count` images of a run's test split, drawn at random but always the same; with its masks, if it has any."""
    if count < 2:
        raise SeewhyError(
            f"trust compares means over images, so it needs at least 2, found {count}"
        )
    bound = bind_methods(methods)
    test = _test_split(run)
    index = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:count]
    some = test.take(index.sort().values)
    of_layer = any(method.of_layer for method in bound)
    names = resolve_layers(run.model, some.images, chosen_layers(layers)) if of_layer else []
    maps = sum(len(names) if method.of_layer else 1 for method in bound)
    with progress("measuring", maps, quiet) as advance:
        return trust(
            Classifier(run.model, run.classes),
            some.images,
            methods,
            names or "auto",
            target,
            labels=some.labels,
            masks=some.masks,
            progress=advance,
        )


def _test_split(run: Run) -> Split:
    """The images that a run was tested on. Raises SeewhyError where the data is no longer what it was."""
    return reload_data(run.data).test


def _check_grid(explanation: Explanation) -> None:
    """Raise SeewhyError for more maps than a grid holds, before there is anything to lose."""
    most = MAX_COLUMNS * MAX_BLOCKS
    if len(explanation.maps) > most:
        raise SeewhyError(
            f"a grid holds {most} maps of an image, found {len(explanation.maps)}; name fewer layers or methods"
        )


def chosen_layers(layers: Sequence[str]) -> str | list[str]:
    """What the command line says of layers, as `explain` takes it."""
    return "auto" if list(layers) == ["auto"] else list(layers)


def _read(
    pictures: Sequence[ImageFile], names: Sequence[str], subject: ExplainedModel, bad: list[str]
) -> Iterator[tuple[ImageFile, str, Tensor]]:
    """Images that can be read, as the model takes them; errors of the others are added to `bad`."""
    channels, height, width = subject.image_shape
    for picture, name in zip(pictures, names, strict=True):
        try:
            pixels = decode_image(picture.source, (height, width), channels, subject.preprocessing)
        except SeewhyError as error:
            bad.append(str(error))
        else:
            yield picture, name, pixels


def _labels(pictures: Sequence[ImageFile]) -> Tensor | None:
    labels = [picture.label for picture in pictures if picture.label is not None]
    return torch.tensor(labels) if len(labels) == len(pictures) else None


def _explained(
    subject: ExplainedModel, pixels: Tensor, asked: ExplainOptions, labels: Tensor | None
) -> Explanation:
    return explain(
        Classifier(subject.model, subject.classes),
        pixels,
        asked.methods,
        chosen_layers(asked.layers),
        asked.target,
        labels=labels,
        smooth=asked.smooth,
        warn=False,  # what is of concern is said once of all of them
    )


def _write_overlays(
    picture: ImageFile,
    stem: Path,
    explanation: Explanation,
    subject: ExplainedModel,
    opacity: float,
) -> None:
    """An overlay of the original for each map; where the network saw a crop of it, the rest has no heat."""
    original = open_image(picture.source)
    size = upright_size(original)
    pixels = torch.from_numpy(
        to_pixels(original, size, subject.image_shape[0]).transpose(2, 0, 1).copy()
    )
    box = crop_box(size, subject.image_shape[1:], subject.preprocessing)
    left, top, right, bottom = map(round, box)
    for (layer, method), maps in explanation.maps.items():
        heat = torch.zeros(1, *size)
        if maps.isfinite().all():  # otherwise its status says so
            heat[:, top:bottom, left:right] = resize_maps(maps, (bottom - top, right - left))
        painted = Image.fromarray(overlay(pixels[None], heat, opacity)[0].numpy())
        path = stem.with_name(f"{stem.name}-{_file_name(layer)}-{_file_name(method)}.png")
        write_atomically(
            path, partial(painted.save, compress_level=1)
        )  # photographs: a tenth larger, several times as fast


def _write_maps(path: Path, explanation: Explanation, names: Sequence[str]) -> None:
    """Maps as arrays called layer/method, their statuses, and what was explained."""
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
    }
    arrays["weights"] = explanation.weights.numpy()
    if explanation.labels is not None:
        arrays["labels"] = explanation.labels.numpy()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def _unique(names: Sequence[str]) -> list[str]:
    """File names made of `names`, short, and with a number behind them where others, whatever their case, have them already."""
    taken: set[str] = set()
    made = []
    for name in names:
        stem = free = _file_name(name)[:100]
        number = 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.casefold())
        made.append(free)
    return made


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", text).strip("-") or "image"
