"""The mosaic game: do maps point at the image of a class among images of other classes?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.attribution.bootstrap import BootstrapSummary, bootstrap_summary
from seewhy.attribution.explanation import View, explain_prepared, names_for
from seewhy.attribution.layers import Layers
from seewhy.attribution.localization import pointing_game, relevance_mass_accuracy
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.methods import BoundMethod, Methods, bind_methods
from seewhy.attribution.sanity import average_ranks
from seewhy.attribution.statuses import Key
from seewhy.attribution.target import PreparedInputs, TargetSpec, prepare, run_forward, run_model
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike
from seewhy.models.inspection import inspecting

MAX_MOSAICS = 32
MIN_MOSAICS = 4  # one for each corner
CHANCE = 0.25  # of relevance mass and of pointing
_ROUNDING = 1e-3  # of the relevance mass of a map that is the same for every mosaic


@dataclass(frozen=True, eq=False)
class Mosaics:
    """Mosaics of two by two images, of which one has the class that is explained.

    Args:
        images: (M, C, H, W) float in [0, 1].
        target: Explained classes (M,) int64.
        masks: (M, H, W) bool, True on the image of that class, a quarter of the mosaic.
    """

    images: Tensor
    target: Tensor
    masks: Tensor


@dataclass(frozen=True)
class MosaicScore:
    """How well the maps of one method at one layer point at the right image of each mosaic.

    Args:
        pointing: Fraction of maps with their maximum on the image; 0.25 by chance.
        relevance_mass: Fraction of the positive attribution that is on the image; 0.25 by chance.
        auroc: Probability that a position on the image has more attribution than one elsewhere; 0.5
            by chance.
        mosaics: Number of mosaics.
    """

    pointing: BootstrapSummary
    relevance_mass: BootstrapSummary
    auroc: BootstrapSummary
    mosaics: int

    @property
    def passed(self) -> bool:
        """Whether the relevance mass on the image is above chance with 95% confidence."""
        return self.relevance_mass.interval[0] > CHANCE + _ROUNDING


def mosaic_game(
    classifier: ClassifierLike,
    images: Tensor,
    methods: Methods = ("grad-cam", "hires-cam", "layer-cam"),
    layers: Layers = "auto",
    *,
    labels: Tensor | None = None,
    count: int = MAX_MOSAICS,
    seed: int = 0,
) -> dict[Key, MosaicScore]:
    """Explain mosaics of four images, of which one has the explained class.

    The grid pointing game (Böhle et al. 2021, arXiv 2104.00032, section 5.2): ground truth without
    masks, for any classifier. The explained image is one that the classifier recognizes, most
    confident first, and each corner has it equally often. Left out are mosaics in which the
    classifier finds a class that is not there more probable than the explained class, and those in
    which that class is no less probable with another image in its place.

    If the model accepts images of twice the side, those in the mosaic keep their size. Otherwise
    they are reduced to half of it.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1]; of at least two classes.
        methods: As in `explain`.
        layers: As in `explain`.
        labels: True classes (N,) int64; the predicted classes by default.
        count: Maximum number of mosaics; at most one per image.
        seed: Seed of the choice of the other images.

    Returns:
        Scores by (layer, method), of the methods that do not fail.

    Raises:
        SeewhyError: As `explain`, and if the images make no mosaic.
    """
    bound = bind_methods(methods)
    inputs = prepare(classifier, images, labels=labels)
    names = names_for(bound, inputs, layers)
    logits = run_forward(inputs).logits
    mosaics = make_mosaics(inputs, logits, count, seed)
    if mosaics is None:
        raise SeewhyError(
            f"the mosaic game needs {MIN_MOSAICS} images that the model recognizes, of at least "
            "two classes, and a model with one class per image; pass more images"
        )
    return score_mosaics(mosaics, inputs, bound, names)


def score_mosaics(
    mosaics: Mosaics,
    inputs: PreparedInputs,
    methods: Sequence[BoundMethod],
    names: Sequence[str],
    views: Sequence[View] = (),
) -> dict[Key, MosaicScore]:
    """`mosaic_game` for mosaics of prepared inputs, at named layers, averaged over views."""
    prepared = replace(inputs, images=mosaics.images, target=TargetSpec(mosaics.target))
    maps = explain_prepared(prepared, methods, names, views).maps
    return {key: _score(each.nan_to_num(0, 0, 0), mosaics.masks) for key, each in maps.items()}


@torch.no_grad()
def make_mosaics(
    inputs: PreparedInputs, logits: Tensor, count: int = MAX_MOSAICS, seed: int = 0
) -> Mosaics | None:
    """Mosaics of prepared images with logits (N, K), see `mosaic_game`.

    None if there are fewer than 4, and for a model that does not choose one of several classes.
    """
    if inputs.classifier.activation != "softmax":
        return None
    predicted = logits.argmax(1).cpu()
    classes = predicted if inputs.target.labels is None else inputs.target.labels.cpu()
    order = logits.softmax(1).amax(1).cpu().argsort(descending=True, stable=True)
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    for index in order[(predicted == classes)[order]][:count].tolist():
        others = ((classes != classes[index]) & (predicted != classes[index])).nonzero().flatten()
        if len(others):
            row = _of_distinct_classes(others, classes, generator)
            row.insert(len(rows) % 4, index)
            rows.append(row)
    if len(rows) < MIN_MOSAICS:
        return None
    tiles, corner = torch.tensor(rows), torch.arange(len(rows)) % 4
    recognized = tiles.gather(1, corner[:, None])[:, 0]
    others = tiles.scatter(1, corner[:, None], tiles.gather(1, (corner[:, None] + 1) % 4))
    images, replaced = _compose(inputs, torch.cat([tiles, others])).chunk(2)
    mosaics = Mosaics(images, classes[recognized], _quarters(corner, *images.shape[2:]))
    kept = _recognized(inputs, mosaics, replaced, classes[tiles])
    if kept.sum() < MIN_MOSAICS:
        return None
    images = images[kept.to(images.device)]
    return Mosaics(images, mosaics.target[kept], mosaics.masks[kept])


def _of_distinct_classes(others: Tensor, classes: Tensor, generator: torch.Generator) -> list[int]:
    """Three of the images at random, of classes as different as they allow."""
    shuffled = others[torch.randperm(len(others), generator=generator)].tolist()
    first_of_class = {int(classes[index]): index for index in reversed(shuffled)}
    ordered = [index for index in shuffled if first_of_class[int(classes[index])] == index]
    ordered += [index for index in shuffled if index not in ordered]
    return [ordered[position % len(ordered)] for position in range(3)]


def _compose(inputs: PreparedInputs, tiles: Tensor) -> Tensor:  # (M, 4) int64
    """Mosaics of four images each, row by row, of twice the side if the model takes it."""
    parts = inputs.images[tiles.to(inputs.images.device)].unbind(1)
    mosaics = torch.cat([torch.cat(parts[:2], 3), torch.cat(parts[2:], 3)], 2)
    try:
        with inspecting(inputs.model):
            run_model(inputs.classifier, mosaics[:1])
    except SeewhyError:
        size = inputs.images.shape[2:]
        mosaics = F.interpolate(mosaics, size, mode="bilinear", antialias=True).clamp(0, 1)
    return mosaics


def _quarters(corners: Tensor, height: int, width: int) -> Tensor:  # (M,) int64
    """Masks (M, H, W) of one corner each, which are counted row by row."""
    bottom, right = corners[:, None, None] // 2 == 1, corners[:, None, None] % 2 == 1
    is_bottom = (torch.arange(height) >= height // 2)[None, :, None]
    is_right = (torch.arange(width) >= width // 2)[None, None, :]
    return (is_bottom == bottom) & (is_right == right)


def _recognized(
    inputs: PreparedInputs, mosaics: Mosaics, replaced: Tensor, classes: Tensor
) -> Tensor:
    """Whether the model sees the image of each mosaic (M,): there is something to explain.

    Its class is more probable than any that is not in the mosaic (the classes of the four images
    are (M, 4) int64), and than in the mosaics with another image in its place.
    """
    column = mosaics.target[:, None]
    logits, without = (
        run_forward(replace(inputs, images=images, target=TargetSpec(mosaics.target))).logits.cpu()
        for images in (mosaics.images, replaced)
    )
    score = logits.gather(1, column)
    absent = logits.scatter(1, classes, -torch.inf).amax(1, keepdim=True)
    drops = logits.log_softmax(1).gather(1, column) > without.log_softmax(1).gather(1, column)
    return ((score > absent) & drops)[:, 0]


def _score(maps: Tensor, masks: Tensor) -> MosaicScore:
    summaries = bootstrap_summary(
        {
            "pointing": pointing_game(maps, masks).float(),
            "relevance_mass": relevance_mass_accuracy(maps, masks),
            "auroc": auroc(maps, masks),
        }
    )
    return MosaicScore(**summaries, mosaics=len(maps))


def auroc(maps: Tensor, masks: Tensor) -> Tensor:
    """Probability that a position inside a mask has more attribution than one outside.

    The area under the ROC curve (Arras et al. 2022, arXiv 2003.07258, use the related rank
    accuracy); equal values count half. Masks are read at the centers of the maps' positions. A
    map with an odd side is resized to twice that side first, so that a mask that covers half of
    the image covers whole positions.

    Args:
        maps: (N, h, w) float, finite.
        masks: (N, H, W) bool.

    Returns:
        (N,) float in [0, 1]; NaN where a mask has no position or all of them.
    """
    height, width = (side * (1 + side % 2) for side in maps.shape[1:])
    ranks = average_ranks(resize_maps(maps, (height, width)).flatten(1))
    inside = F.interpolate(masks[:, None].float(), (height, width), mode="nearest-exact")
    inside = inside.flatten(1).to(ranks)
    n_inside = inside.sum(1)
    n_outside = inside.shape[1] - n_inside
    smaller = (ranks * inside).sum(1) - n_inside * (n_inside + 1) / 2  # pairs, Mann & Whitney 1947
    return (smaller / (n_inside * n_outside)).float()
