"""Groups of images on which a model is worse than on the rest, found by what they look like."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.pixels import LUMA_WEIGHTS
from seewhy.diagnosis.label_issues import short_name
from seewhy.diagnosis.predictions import Predictions, wilson_interval
from seewhy.diagnosis.statistics import holm
from seewhy.errors import SeewhyError
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.inference import compute_logits
from seewhy.models.inspection import evaluating, inspecting, unwrap_model

MIN_IMAGES = 20  # images of a slice
TAIL = 0.1  # share of the images at either end of an attribute
COMPONENTS = 32  # principal components of the features in which images are grouped

_BLOCK_VALUES = 2**24  # held as floats at once
_IMAGES_PER_CLUSTER, _FEWEST_CLUSTERS, _MOST_CLUSTERS = 150, 8, 60

# of an attribute: a group with less and with more of it than most, and the images with least and with most
_WORDS = {
    "brightness": ("darker", "brighter", "darkest", "brightest"),
    "contrast": (
        "flatter in contrast",
        "richer in contrast",
        "flattest in contrast",
        "richest in contrast",
    ),
    "saturation": ("paler", "more colorful", "palest", "most colorful"),
    "warmth": ("cooler in color", "warmer in color", "coolest in color", "warmest in color"),
    "sharpness": ("smoother", "sharper", "smoothest", "sharpest"),
}


def extract_features(
    classifier: ClassifierLike, images: Tensor, batch_size: int = 500
) -> Tensor:  # (N, D) float32
    """What the last linear or convolutional layer to run is given, on average over places, for images (N, C, H, W) uint8.

    Where there is no such layer, the average over places of the last output with any; or else the logits. Modes are left as they
    were. Raises SeewhyError as `compute_logits` does.
    """
    classifier = as_classifier(classifier)
    network = unwrap_model(classifier.model)
    seen: dict[str, Tensor] = {}
    batches: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if (
            isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            and inputs
            and isinstance(inputs[0], Tensor)
        ):
            last = isinstance(module, nn.Linear)  # channels come last
            seen["input"] = inputs[0].movedim(-1, 1) if last else inputs[0]
        elif isinstance(output, Tensor) and output.ndim == 4:
            seen["output"] = output

    def keep(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
        found = (seen[name] for name in ("input", "output") if name in seen)
        best = next((each for each in found if each.ndim >= 2 and len(each) == len(output)), output)
        batches.append(
            best.float().flatten(2).mean(2).cpu() if best.ndim > 2 else best.float().cpu()
        )
        seen.clear()

    handles = [part.register_forward_hook(watch) for part in network.modules()]
    handles.append(network.register_forward_hook(keep))
    try:
        with evaluating(network), inspecting(network):
            plain = replace(classifier, model=network, tta="none")
            compute_logits(plain, images, batch_size=batch_size)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(batches)


def image_attributes(images: Tensor) -> dict[str, Tensor]:
    """Simple statistics (N,) float32 of each of the images (N, C, H, W) uint8, of pixels in [0, 1].

    Brightness and contrast are mean and standard deviation of the luma, sharpness is the mean magnitude of its Laplacian; of
    color images also saturation, the mean range over the channels, and warmth, mean red minus mean blue.
    """
    found: dict[str, list[Tensor]] = {}
    for block in torch.split(images, max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))):
        pixels = block.cpu().float() / 255
        color = pixels.shape[1] == 3
        luma = (
            (pixels * torch.tensor(LUMA_WEIGHTS)[:, None, None]).sum(1) if color else pixels.mean(1)
        )
        row = {
            "brightness": luma.mean((1, 2)),
            "contrast": luma.flatten(1).std(1, correction=0),
            "sharpness": _laplacian(luma).abs().mean((1, 2)),
        }
        if color:
            row["saturation"] = (pixels.amax(1) - pixels.amin(1)).mean((1, 2))
            row["warmth"] = (pixels[:, 0] - pixels[:, 2]).mean((1, 2))
        for name, values in row.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


@dataclass(frozen=True, eq=False)
class Slice:
    """A group of images that is significantly worse than all others; accuracies are in [0, 1]."""

    description: str
    kind: str  # "similar images" or "attribute"
    members: Tensor  # (M,) int64, indices in order
    images: int
    accuracy: float
    interval: tuple[float, float]  # 95%, of the accuracy
    rest_accuracy: float  # accuracy of all other images
    p_value: float  # that luck gives a group of this size so many errors, corrected for all groups that were tested


@dataclass(frozen=True, eq=False)
class _Group:
    """Images that have something in common, whether the model is right on them or not."""

    description: str
    kind: str
    members: Tensor  # (M,) int64


def weak_slices(
    predictions: Predictions,
    features: Tensor,
    attributes: Mapping[str, Tensor],
    significance: float = 0.05,
    seed: int = 0,
) -> tuple[Slice, ...]:
    """Groups of similar images, by `features` (N, D) float, and ends of `attributes` (N,) float that hold too many errors.

    Similar images are clusters of k-means on the whitened principal components of the features; an end of an attribute is the
    tenth of the images with least or with most of it. The groups are formed without a look at the errors, so that the test of
    each is honest: an exact one-sided hypergeometric tail (Fisher 1935), corrected for all groups after Holm 1979.
    The slice with most errors beyond the rate of the others comes first; one that shares more than half of its images with a
    slice before it is left out, as are groups under 20 images. Raises SeewhyError for shapes that do not fit, values that are not
    finite and a significance outside of 0 to 1.
    """
    _check(predictions, features, attributes, significance)
    correct, labels = predictions.correct.cpu(), predictions.labels.cpu()
    attributes = {name: values.cpu().double() for name, values in attributes.items()}
    groups = _similar(features.cpu(), labels, attributes, predictions.classes, seed) + _ends(
        attributes
    )
    groups = [group for group in groups if MIN_IMAGES <= len(group.members) < len(labels)]
    errors = [int((~correct[group.members]).sum()) for group in groups]
    wrong = int((~correct).sum())
    tails = [
        hypergeometric_tail(len(labels), wrong, len(group.members), bad)
        for group, bad in zip(groups, errors, strict=True)
    ]
    found = []
    for group, bad, p_value in zip(groups, errors, holm(tails), strict=True):
        if p_value <= significance:
            images = len(group.members)
            rest = 1 - (wrong - bad) / (len(labels) - images)
            interval = wilson_interval(images - bad, images)
            found.append(
                Slice(
                    group.description,
                    group.kind,
                    group.members,
                    images,
                    1 - bad / images,
                    interval,
                    rest,
                    p_value,
                )
            )
    found.sort(key=lambda each: each.images * (each.accuracy - each.rest_accuracy))
    return _without_overlap(found)


def hypergeometric_tail(population: int, wrong: int, drawn: int, at_least: int) -> float:
    """Probability in [0, 1] that `drawn` of a population with so many `wrong` ones hold `at_least` so many of them by luck."""
    first, last = max(at_least, drawn + wrong - population, 0), min(drawn, wrong)
    if first > last:
        return 0.0
    counts = torch.arange(first, last + 1, dtype=torch.float64)
    whole = _log_choose(
        torch.tensor(population, dtype=torch.float64), torch.tensor(drawn, dtype=torch.float64)
    )
    terms = _log_choose(torch.full_like(counts, wrong), counts)
    terms = terms + _log_choose(torch.full_like(counts, population - wrong), drawn - counts)
    return min(1.0, (terms - whole).logsumexp(0).exp().item())


def _laplacian(luma: Tensor) -> Tensor:  # (N, H, W)
    """Four times each pixel minus its neighbors; the border is continued."""
    padded = F.pad(luma[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    neighbors = (
        padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    )
    return 4 * luma - neighbors


def _log_choose(whole: Tensor, part: Tensor) -> Tensor:
    return torch.lgamma(whole + 1) - torch.lgamma(part + 1) - torch.lgamma(whole - part + 1)


def _similar(
    features: Tensor,
    labels: Tensor,
    attributes: Mapping[str, Tensor],
    classes: tuple[str, ...],
    seed: int,
) -> list[_Group]:
    """Clusters of k-means, described by the classes that are most frequent in them and by their most unusual attribute."""
    points = _whitened(features)
    count = min(max(len(points) // _IMAGES_PER_CLUSTER, _FEWEST_CLUSTERS), _MOST_CLUSTERS)
    count = min(
        count, len(points) // MIN_IMAGES, len(torch.unique(points, dim=0)) if points.shape[1] else 1
    )
    if count < 2:
        return []
    from sklearn.cluster import KMeans

    cluster = torch.from_numpy(
        KMeans(count, n_init=2, random_state=seed).fit_predict(points.numpy())
    )
    ranks = {name: _ranks(values) for name, values in attributes.items()}
    groups = []
    for index in range(count):
        members = (cluster == index).nonzero()[:, 0]
        if len(members):
            description = _mostly(labels[members], classes) + _unusual(members, ranks)
            groups.append(_Group(description, "similar images", members))
    return groups


def _whitened(features: Tensor) -> Tensor:  # (N, at most 32) float32
    """Principal components of unit variance; those with less than 0.1% of the variance of the first are noise."""
    centered = features.double() - features.double().mean(0)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    variances, directions = variances.flip(0)[:COMPONENTS], directions.flip(1)[:, :COMPONENTS]
    kept = (variances > 1e-3 * variances[0]) & (variances > 1e-12)
    whitened: Tensor = centered @ directions[:, kept] / variances[kept].sqrt()
    return whitened.float()


def _ends(attributes: Mapping[str, Tensor]) -> list[_Group]:
    """The images with least and with most of each attribute, unless so many are equal that there is no such tenth."""
    groups = []
    for name, values in attributes.items():
        count = round(TAIL * len(values))
        if count == 0:
            continue
        ordered = values.sort().values
        low, high = ordered[count - 1].item(), ordered[-count].item()
        least, most = _WORDS.get(name, ("", "", f"lowest in {name}", f"highest in {name}"))[2:]
        lowest = values <= low, f"the {least} tenth ({name} up to {low:.3g})"
        highest = values >= high, f"the {most} tenth ({name} {high:.3g} or more)"
        for inside, description in (lowest, highest):
            if inside.sum() <= 1.5 * count:
                groups.append(_Group(description, "attribute", inside.nonzero()[:, 0]))
    return groups


def _mostly(labels: Tensor, classes: tuple[str, ...]) -> str:
    """The classes with most of the images, with their shares."""
    shares, order = (labels.bincount(minlength=len(classes)).double() / len(labels)).sort(
        descending=True, stable=True
    )
    named = [
        f"{short_name(classes[i])} ({100 * share:.0f}%)"
        for share, i in zip(shares.tolist(), order.tolist(), strict=True)
    ]
    second = f" and {named[1]}" if len(named) > 1 and shares[1] >= 0.15 else ""
    return ("mostly " if shares[0] >= 0.5 else "most often ") + named[0] + second


def _unusual(members: Tensor, ranks: Mapping[str, Tensor]) -> str:
    """The attribute in which the median of the group is furthest from that of all images, where it is far."""
    medians = {name: values[members].quantile(0.5).item() for name, values in ranks.items()}
    if not medians:
        return ""
    name = max(medians, key=lambda each: abs(medians[each] - 0.5))
    rank = medians[name]
    if abs(rank - 0.5) < 0.2:
        return ""
    less, more = _WORDS.get(name, (f"lower in {name}", f"higher in {name}"))[:2]
    return f", {less if rank < 0.5 else more} than {100 * max(rank, 1 - rank):.0f}% of images"


def _ranks(values: Tensor) -> Tensor:  # (N,) float64 in [0, 1]
    """Share of the images with less of an attribute, equal ones counted by half."""
    ordered = values.sort().values
    below, upto = (
        torch.searchsorted(ordered, values),
        torch.searchsorted(ordered, values, right=True),
    )
    return (below + upto).double() / (2 * len(values))


def _without_overlap(slices: list[Slice]) -> tuple[Slice, ...]:
    kept: list[Slice] = []
    for each in slices:
        if all(
            2 * torch.isin(each.members, stronger.members).sum() <= each.images for stronger in kept
        ):
            kept.append(each)
    return tuple(kept)


def _check(
    predictions: Predictions,
    features: Tensor,
    attributes: Mapping[str, Tensor],
    significance: float,
) -> None:
    if not 0 < significance < 1:
        raise SeewhyError(
            f"significance is a probability between 0 and 1, such as 0.05, found {significance}"
        )
    images = len(predictions.labels)
    if features.ndim != 2 or len(features) != images:
        raise SeewhyError(
            f"features must be ({images}, D), a row for each image, found {tuple(features.shape)}"
        )
    if not features.isfinite().all():
        raise SeewhyError(
            "features hold values that are not finite; look for the cause in the model or its precision"
        )
    for name, values in attributes.items():
        if values.shape != (images,) or not values.isfinite().all():
            found = (
                "values that are not finite" if values.shape == (images,) else tuple(values.shape)
            )
            raise SeewhyError(
                f"attribute {name!r} must be ({images},), a finite value for each image, found {found}"
            )
