"""`seewhy explain`, `seewhy layers` and `seewhy methods`."""

import json as json_format
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seewhy.cli.arguments import parse
from seewhy.errors import SeewhyError


def explain(arguments: list[str]) -> None:
    """Maps of what a network looks at in images, or in a run's worst mistakes."""

    def options(
        model: Annotated[Positional[str], arg(metavar="RUN|timm:NAME|torchvision:NAME")],
        images: Annotated[Positional[tuple[Path, ...]], arg(metavar="[IMAGE|DIRECTORY …]")] = (),
        method: tuple[str, ...] = ("grad-cam",),
        layers: tuple[str, ...] = ("auto",),
        target: tuple[str, ...] = ("predicted",),
        smooth: str = "none",
        mistakes: int = 10,
        opacity: float = 0.5,
        image_size: int | None = None,
        out: Path | None = None,
        device: str = "auto",
        quiet: bool = False,
    ) -> tuple[
        str,
        tuple[Path, ...],
        tuple[str, ...],
        tuple[str, ...],
        tuple[str, ...],
        str,
        int,
        float,
        int | None,
        Path | None,
        str,
        bool,
    ]:
        """Draw what a network looks at: a grid of overlays, an overlay of each image at its own size, and the raw maps.

        Args:
            model: Run directory such as runs/latest, or a network of timm or torchvision with its published weights.
            images: Image files or directories of them; none for the mistakes that a run is most sure of.
            method: Methods, with settings as in rise:masks=500; `seewhy methods` lists them.
            layers: Layers by name; auto takes the last of each resolution; `seewhy layers MODEL` lists them.
            target: Explained class: predicted, true, runner-up, a class name or number; two of them for a difference of logits.
            smooth: none; flip for the mean over mirror images; flip-scale also over three brightnesses.
            mistakes: How many mistakes, where no images are given.
            opacity: How much of the hottest place the color covers, from 0 to 1.
            image_size: Side of the images for published weights; by default what they were made for.
            out: Directory to write to; by default a new one below explanations/.
            device: auto, cpu, cuda, cuda:1, mps.
            quiet: Print nothing but mistakes of yours.
        """
        return (
            model,
            images,
            method,
            layers,
            target,
            smooth,
            mistakes,
            opacity,
            image_size,
            out,
            device,
            quiet,
        )

    name, paths, methods, layers, target, smooth, mistakes, opacity, size, out, device, quiet = (
        parse("explain", options, arguments)
    )
    from seewhy.attribution.methods import bind_methods
    from seewhy.cli import tables
    from seewhy.data.folders import image_files
    from seewhy.runs.directory import check_empty, new_directory
    from seewhy.runs.explain_files import (
        ExplainOptions,
        ImageFile,
        error_images,
        open_explained_model,
        write_explanations,
    )
    from seewhy.train.device import find_device

    if mistakes < 1 or not 0 <= opacity <= 1:
        raise SeewhyError(
            f"explain needs at least 1 mistake and an opacity from 0 to 1, found {mistakes} and {opacity:g}"
        )
    bind_methods(methods)
    explained = one_or_pair(target)
    if out is not None:
        check_empty(out)
    files = [file for path in paths for file in image_files(path)]
    subject = open_explained_model(name, find_device(device), size)
    if files:
        pictures = [ImageFile(str(file), file) for file in files]
    elif subject.run is None:
        raise SeewhyError(f"name at least one image, as in `seewhy explain {name} photo.jpg`")
    else:
        pictures = error_images(subject.run, mistakes)
    directory = out or new_directory(methods[0].partition(":")[0], "explanations")
    try:
        explanation = write_explanations(
            subject,
            pictures,
            ExplainOptions(methods, layers, explained, smooth),
            directory,
            opacity,
            quiet,
        )
    finally:
        if out is None:  # where nothing came of it; one with something in it stays
            for made in (directory, directory.parent):
                with suppress(OSError):
                    made.rmdir()
    if not quiet:
        tables.print_explanation(explanation, directory)


def trust(arguments: list[str]) -> None:
    """Which method and layer explain a run best, measured."""

    def options(
        run: Annotated[Positional[Path], arg(metavar="RUN")],
        method: tuple[str, ...] = (
            "grad-cam",
            "grad-cam++",
            "hires-cam",
            "xgrad-cam",
            "layer-cam",
            "integrated-gradients",
        ),
        layers: tuple[str, ...] = ("auto",),
        target: tuple[str, ...] = ("predicted",),
        images: int = 64,
        json: bool = False,
        device: str = "auto",
        quiet: bool = False,
    ) -> tuple[Path, tuple[str, ...], tuple[str, ...], tuple[str, ...], int, bool, str, bool]:
        """Measure how faithful the maps of every method at every layer are to the network, on test images.

        Args:
            run: Run directory, such as runs/latest.
            method: Methods, with settings as in rise:masks=500; `seewhy methods` lists them.
            layers: Layers by name; auto takes the last of each resolution.
            target: What to explain, as in `seewhy explain`.
            images: How many test images, chosen at random and the same every time.
            json: Print JSON.
            device: auto, cpu, cuda, cuda:1, mps.
            quiet: Show no progress.
        """
        return run, method, layers, target, images, json, device, quiet

    directory, methods, layers, target, count, as_json, device, quiet = parse(
        "trust", options, arguments
    )
    from seewhy.cli import tables
    from seewhy.runs.explain_files import trust_of_run
    from seewhy.runs.run import open_run
    from seewhy.train.device import find_device

    verdicts = trust_of_run(
        open_run(directory, find_device(device)),
        methods,
        layers,
        one_or_pair(target),
        count,
        quiet or as_json,
    )
    if as_json:
        print(
            json_format.dumps([tables.as_values(verdict) for verdict in verdicts], allow_nan=False)
        )
    else:
        tables.print_trust(verdicts)


def one_or_pair(target: tuple[str, ...]) -> str | tuple[str, str]:
    """The target that the words after --target name."""
    if len(target) == 1:
        return target[0]
    if len(target) == 2:
        return target[0], target[1]
    raise SeewhyError(
        f"--target takes one class, or two for a difference of logits, found {len(target)}"
    )


def layers(arguments: list[str]) -> None:
    """The layers of a network that can be explained."""

    def options(
        model: Annotated[Positional[str], arg(metavar="RUN|MODEL")],
        image_size: int | None = None,
        channels: int = 3,
        num_classes: int = 10,
    ) -> tuple[str, int | None, int, int]:
        """The layers whose output has places, in the order in which they finish; a star marks those that auto takes.

        Args:
            model: Run directory, or a network such as resnet18 or timm:resnet50; see `seewhy models`.
            image_size: Height and width of the images; by default 32, or what timm's and torchvision's weights were made for.
            channels: 1 for grayscale, 3 for color.
            num_classes: How many classes.
        """
        return model, image_size, channels, num_classes

    name, size, channels, classes = parse("layers", options, arguments)
    import torch

    from seewhy.attribution.layers import list_layers
    from seewhy.cli import tables
    from seewhy.models.external import pretrained_info
    from seewhy.models.registry import MODELS, blank_sample, build_model
    from seewhy.notation import parse as parse_notation
    from seewhy.runs.run import open_run

    if parse_notation(name)[0] in MODELS and not Path(name).is_dir():
        made_for = pretrained_info(name)
        side = size or (made_for.image_size if made_for else 32)
        model, shape = (
            build_model(name, classes, blank_sample(channels, side, side)).eval(),
            (channels, side, side),
        )
    else:
        run = open_run(name)
        model, shape = run.model, run.image_shape
    gray = torch.full((1, *shape), 0.5)  # of zeros some layers make zeros, and no gradient
    tables.print_layers(list_layers(model, gray))


def methods(arguments: list[str]) -> None:
    """The methods of explaining, with their papers and what they cost."""
    parse("methods", _nothing, arguments)
    from seewhy.attribution.cams import CAMS
    from seewhy.attribution.gradients import ATTRIBUTIONS
    from seewhy.cli import tables

    tables.print_methods({**CAMS, **ATTRIBUTIONS})


def _nothing() -> None:
    """Takes no arguments."""
