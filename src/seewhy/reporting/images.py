"""The images that the sections of a report may show, by key."""

from collections.abc import Hashable

from torch import Tensor

from seewhy.attribution.maps import resize_maps
from seewhy.data.thumbnails import THUMBNAIL_SIDE, Thumbnails, downscale
from seewhy.diagnosis.corruptions import CORRUPTIONS, corrupt
from seewhy.figures.explanations import overlay
from seewhy.figures.robustness import SAMPLE_STRENGTHS
from seewhy.figures.slices import heat_images, shown_classes
from seewhy.reporting.context import ReportContext

Images = dict[Hashable, Tensor]  # each (C, h, w) uint8


def report_images(context: ReportContext) -> Images:
    """All images that a section may show.

    The keys are `(split, index)` for an image of a split, `("average map", class)`,
    `("corruption", name, strength)`, and for row i of the adversarial examples `("clean", i)`,
    `("clean map", i)`, `("perturbation", i)`, `("adversarial", i)` and `("adversarial map", i)`.
    """
    diagnosis = context.diagnosis
    images: Images = {}
    if context.baseline is not None:
        images |= _thumbnails("test", context.baseline.thumbnails)
    images |= _thumbnails("test", diagnosis.thumbnails)
    for split, thumbnails in zip(
        diagnosis.other_splits, diagnosis.duplicate_thumbnails, strict=True
    ):
        images |= _thumbnails(split, thumbnails)
    return images | _average_maps(context) | _adversarial_examples(context) | _corrupted(context)


def _thumbnails(split: str, thumbnails: Thumbnails) -> Images:
    pairs = zip(thumbnails.indices.tolist(), thumbnails.images, strict=True)
    return {(split, index): image for index, image in pairs}


def _average_maps(context: ReportContext) -> Images:
    diagnosis = context.diagnosis
    if diagnosis.saliency is None:
        return {}
    attribution = diagnosis.saliency.class_attribution
    classes = shown_classes(attribution)
    if not len(classes):  # the maps of all images were empty
        return {}
    maps = resize_maps(attribution.mean_maps[classes], diagnosis.thumbnails.images.shape[2:])
    pairs = zip(classes.tolist(), heat_images(maps), strict=True)
    return {("average map", index): image for index, image in pairs}


def _adversarial_examples(context: ReportContext) -> Images:
    """Clean and adversarial images, their heat maps, and the amplified perturbation."""
    examples, maps = context.diagnosis.adversarial, context.diagnosis.adversarial_maps
    change = examples.adversarial.float() - examples.clean.float()
    amplified = 127.5 + 127.5 * change / change.abs().amax((1, 2, 3), keepdim=True).clamp_min(1)
    stacks = {
        "clean": examples.clean,
        "adversarial": examples.adversarial,
        "perturbation": amplified.round().byte(),
    }
    if maps is not None:
        stacks["clean map"] = _with_heat(examples.clean, maps[:, 0])
        stacks["adversarial map"] = _with_heat(examples.adversarial, maps[:, 1])
    return {
        (name, row): image
        for name, stack in stacks.items()
        for row, image in enumerate(downscale(stack, THUMBNAIL_SIDE))
    }


def _with_heat(images: Tensor, maps: Tensor) -> Tensor:  # (N, 3, H, W) uint8
    return overlay(images, maps).permute(0, 3, 1, 2)


def _corrupted(context: ReportContext) -> Images:
    """The sample image under every corruption."""
    image = context.diagnosis.corruption_sample[None]
    return {
        ("corruption", name, strength): corrupt(image, name, strength)[0]
        for name in CORRUPTIONS
        for strength in SAMPLE_STRENGTHS
    }
