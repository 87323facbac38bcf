"""Counterfactual regions: the part of an image without which the prediction is another one."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from seewhy.attribution.imputation import BASELINES
from seewhy.attribution.target import (
    ForwardPass,
    Relative,
    Target,
    predict_logits,
    prepare,
    run_forward,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike
from seewhy.notation import bind
from seewhy.wording import counted

RANDOM_REGIONS = 32
_STEPS = 8  # regions tried in one forward pass while cells are added


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """For each image, the region whose replacement changes the predicted class.

    Args:
        regions: (N, H, W) bool, True where the image is replaced; all False if no region was found.
        images: The images with their regions replaced (N, C, H, W) float in [0, 1].
        predicted: Predicted class of the image itself (N,) int64.
        changed: Predicted class with the region replaced (N,) int64; `predicted` if none was found.
        area: Fraction of the image in the region (N,) float32; nan if none was found.
        chance: Fraction of random regions of the same number of cells that change the prediction,
            too (N,) float32; nan if none was found.
        classes: Names of the classes.
    """

    regions: Tensor
    images: Tensor
    predicted: Tensor
    changed: Tensor
    area: Tensor
    chance: Tensor
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        images = counted(len(self.found), "image")
        return f"Counterfactuals(regions in {int(self.found.sum())} of {images})"

    @property
    def found(self) -> Tensor:
        """Whether a region was found (N,) bool."""
        return self.regions.flatten(1).any(1)

    def take(self, rows: slice) -> "Counterfactuals":
        """The regions of some images."""
        tensors = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name != "classes"
        }
        return Counterfactuals(**tensors, classes=self.classes)


def counterfactual_regions(
    classifier: ClassifierLike,
    images: Tensor,
    to: Target | None = None,
    *,
    grid: int = 8,
    replacement: str = "blur",
    labels: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> Counterfactuals:
    """Find a small region of each image whose replacement changes the prediction.

    The image is cut into cells. Those whose replacement alone costs the predicted class most, over
    the best other class or over `to`, are replaced until the prediction changes; then every cell
    that is not needed is restored (SEDC of Vermeire et al. 2022, Pattern Analysis and Applications
    25, for cells). No cell of the region can be left out, but another region may be smaller.

    Whether it is the content of the region that counts, and not the replacement itself, is shown by
    random regions of as many cells: the fraction of them that changes the prediction, too.

    Args:
        classifier: A Classifier, a Run, or a module in evaluation mode.
        images: (N, C, H, W) uint8, or float in [0, 1].
        to: The class that must become the predicted one: "runner-up", "true", a name, an index, or
            indices (N,) int64; by default any other class.
        grid: Cells per side.
        replacement: black, gray, mean or blur, with settings as in "blur:width=0.2".
        labels: True classes (N,) int64, for `to="true"`.
        seed: Seed of the random regions.
        progress: Called with 1 after each image.

    Raises:
        SeewhyError: For images, a class or settings that do not fit.
    """
    replace = bind(BASELINES, replacement, "replacement", n_supplied=1)
    inputs = prepare(classifier, images, Relative.PREDICTED if to is None else to, labels)
    size = (inputs.images.shape[2], inputs.images.shape[3])
    if not isinstance(grid, int) or not 2 <= grid <= min(size):
        raise SeewhyError(
            f"grid must be an integer from 2 to {min(size)} cells per side for images of "
            f"{size[0]}x{size[1]}, found {grid}"
        )
    forward = run_forward(inputs)
    if (isinstance(to, str) and to == Relative.PREDICTED) or forward.logits.shape[1] < 2:
        raise SeewhyError(
            "the prediction can only change to another class: pass `to` as a class, 'true' or "
            f"'runner-up', and a model of at least two; found {to!r} and "
            f"{forward.logits.shape[1]} in the logits"
        )
    if not (forward.weights.sum(1) == 1).all() or (forward.weights.count_nonzero(1) != 1).any():
        raise SeewhyError(f"`to` must be one class for each image, found {to!r}")
    generator = torch.Generator().manual_seed(seed)
    cells = _cells(grid, size)
    regions, chances = [], []
    for n in range(len(inputs.images)):
        one = forward.take(slice(n, n + 1))
        margins = partial(_margins, one, replace(one.images), cells, to is not None)
        region = _find_region(margins, len(cells))
        regions.append(_pixels(region[None], cells))
        chances.append(_chance(margins, region, generator))
        progress(1)
    hidden = torch.cat(regions)  # (N, H, W)
    replaced = torch.where(
        hidden[:, None].to(inputs.images.device), replace(inputs.images), inputs.images
    )
    found = hidden.flatten(1).any(1)
    return Counterfactuals(
        hidden,
        replaced,
        forward.logits.argmax(1).cpu(),
        predict_logits(forward, replaced).argmax(1).cpu(),
        hidden.flatten(1).float().mean(1).where(found, torch.nan),
        torch.tensor(chances),
        forward.classifier.classes,
    )


def _cells(grid: int, size: tuple[int, int]) -> Tensor:  # (cells, H, W) bool
    """The pixels of each cell."""
    rows, columns = (torch.arange(length) * grid // length for length in size)
    number = rows[:, None] * grid + columns
    return number == torch.arange(grid * grid)[:, None, None]


def _pixels(masks: Tensor, cells: Tensor) -> Tensor:  # (M, H, W) bool, of masks (M, cells) bool
    return torch.einsum("mc,chw->mhw", masks.float(), cells.float()).bool()


def _margins(
    forward: ForwardPass, other: Tensor, cells: Tensor, targeted: bool, masks: Tensor
) -> Tensor:  # (M,)
    """By how much the prediction resists the replacement of cells (M, cells) of one image.

    The logit of the predicted class minus that of the best other class; targeted, that of the best
    other class minus that of the target. Below 0, the prediction has changed.
    """
    hidden = _pixels(masks, cells)[:, None].to(other.device)
    logits = predict_logits(forward, torch.where(hidden, other, forward.images)).cpu()
    index = (forward.target if targeted else forward.logits.argmax(1)).cpu().expand(len(logits), 1)
    own = logits.gather(1, index)[:, 0]
    best = logits.scatter(1, index, -torch.inf).amax(1)
    return best - own if targeted else own - best


def _find_region(margins: Callable[[Tensor], Tensor], count: int) -> Tensor:  # (cells,) bool
    """Cells that change the prediction, none of which can be left out; or none."""
    none = torch.zeros(1, count, dtype=torch.bool)
    if margins(none) < 0:  # is the target already
        return none[0]
    order = margins(torch.eye(count, dtype=torch.bool)).argsort(stable=True)
    first = none.repeat(count, 1)
    first[:, order] = torch.ones(count, count).tril().bool()  # row k has the first k + 1 cells
    for masks in torch.split(first, _STEPS):
        changed = (margins(masks) < 0).nonzero()
        if len(changed):
            region = masks[changed[0, 0]].clone()
            break
    else:
        return none[0]
    for cell in order.flip(0).tolist():
        if region[cell]:
            region[cell] = False
            region[cell] = not margins(region[None]) < 0
    return region


def _chance(
    margins: Callable[[Tensor], Tensor], region: Tensor, generator: torch.Generator
) -> float:
    """Fraction of random regions with as many cells that change the prediction."""
    if not region.any():
        return float("nan")
    shuffled = torch.rand(RANDOM_REGIONS, len(region), generator=generator).argsort(1)
    return float((margins(shuffled < region.sum()) < 0).float().mean())
