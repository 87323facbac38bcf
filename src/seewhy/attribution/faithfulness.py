"""Whether a map names the pixels that the network really uses: take them away, or show nothing else, and ask again.

In `FAITHFULNESS` more is better, except in what `LOWER_IS_BETTER` names.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from seewhy.attribution.imputation import BASELINES, noisy_linear
from seewhy.attribution.maps import check_maps, resize_maps
from seewhy.attribution.target import ForwardPass, batch_size, predict_logits
from seewhy.errors import SeewhyError
from seewhy.notation import bind

MEASURES = (
    "road",
    "deletion",
    "insertion",
    "average-drop",
    "increase-in-confidence",
    "average-gain",
)
PERCENTILES = (20, 40, 60, 80, 90)  # of the pixels are removed


def measure_faithfulness(
    question: ForwardPass, maps: Tensor, measures: Sequence[str] = MEASURES
) -> dict[str, Tensor]:
    """Each of `measures`, entries of FAITHFULNESS as in "deletion:steps=50", of maps (N, h, w) float of any size: (N,) each.

    What is measured is the explained probability, softmax(logits) summed with the question's weights. Raises SeewhyError for
    an unknown measure or argument and for maps that do not fit the question or are not finite.
    """
    bound = {
        text: bind(FAITHFULNESS, text, "measure", n_supplied=2) for text in measures
    }  # all, before the first one computes
    return {text: measure(question, maps) for text, measure in bound.items()}


@dataclass(frozen=True)
class BootstrapSummary:
    """A measure over the images."""

    mean: float
    interval: tuple[float, float]  # 95%, of the mean; nan for a single image


def bootstrap_summary(
    values: Mapping[str, Tensor], seed: int = 0, resamples: int = 1000
) -> dict[str, BootstrapSummary]:
    """Mean and bootstrap interval (percentiles, Efron 1979) of each (N,) tensor; all draw the same images."""
    summaries = {}
    for name, each in values.items():
        row, generator = each.detach().double().cpu(), torch.Generator().manual_seed(seed)
        if len(row) < 2:
            summaries[name] = BootstrapSummary(float(row.mean()), (float("nan"), float("nan")))
            continue
        drawn = (
            torch.randint(len(row), (len(row),), generator=generator) for _ in range(resamples)
        )
        means = torch.stack([row[index].mean() for index in drawn]).sort().values
        low, high = (float(means[round(share * (resamples - 1))]) for share in (0.025, 0.975))
        summaries[name] = BootstrapSummary(float(row.mean()), (low, high))
    return summaries


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """The explained probability while the pixels are exchanged, most relevant first, in equal shares."""

    scores: Tensor  # (N, steps + 1), from none to all of the pixels

    @property
    def auc(self) -> Tensor:  # (N,)
        """Area under the curve over the share of the pixels, by the trapezoidal rule."""
        return torch.trapezoid(self.scores, dx=1 / (self.scores.shape[1] - 1), dim=1)


def deletion(
    question: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "black", seed: int = 0
) -> PerturbationCurve:
    """From the image to its `baseline`, an entry of BASELINES, most relevant pixels first (Petsiuk et al. 2018).

    Pixels of equal relevance come in a random order, which is the same for all maps.
    """
    other = bind(BASELINES, baseline, "baseline", n_supplied=1)
    return PerturbationCurve(
        _scores(
            question,
            maps,
            seed,
            lambda images, ranks: _exchanged(images, other(images), ranks, steps),
        )
    )


def insertion(
    question: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "blur", seed: int = 0
) -> PerturbationCurve:
    """From the `baseline`, an entry of BASELINES, to the image, most relevant pixels first (Petsiuk et al. 2018)."""
    other = bind(BASELINES, baseline, "baseline", n_supplied=1)
    return PerturbationCurve(
        _scores(
            question,
            maps,
            seed,
            lambda images, ranks: _exchanged(other(images), images, ranks, steps),
        )
    )


def deletion_auc(
    question: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "black", seed: int = 0
) -> Tensor:  # (N,)
    """Area under the curve of `deletion`; lower is better."""
    return deletion(question, maps, steps, baseline, seed).auc


def insertion_auc(
    question: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "blur", seed: int = 0
) -> Tensor:  # (N,)
    """Area under the curve of `insertion`; higher is better."""
    return insertion(question, maps, steps, baseline, seed).auc


def deletion_gain(
    question: ForwardPass,
    maps: Tensor,
    steps: int = 32,
    baseline: str = "black",
    seed: int = 0,
    orders: int = 5,
) -> Tensor:  # (N,)
    """By how much the deletion curve's area is below that of random maps of the same coarseness, mean over `orders` of them."""
    chance = [
        deletion(question, other, steps, baseline, seed).auc
        for other in random_maps(maps, orders, seed)
    ]
    return torch.stack(chance).mean(0) - deletion(question, maps, steps, baseline, seed).auc


def insertion_gain(
    question: ForwardPass,
    maps: Tensor,
    steps: int = 32,
    baseline: str = "blur",
    seed: int = 0,
    orders: int = 5,
) -> Tensor:  # (N,)
    """By how much the insertion curve's area is above that of random maps of the same coarseness, mean over `orders` of them."""
    chance = [
        insertion(question, other, steps, baseline, seed).auc
        for other in random_maps(maps, orders, seed)
    ]
    return insertion(question, maps, steps, baseline, seed).auc - torch.stack(chance).mean(0)


def average_drop(question: ForwardPass, maps: Tensor) -> Tensor:  # (N,) in [0, 1]
    """Share of the probability that is lost where only the map is shown: max(0, Y - O) / Y (Chattopadhay et al. 2018, 4.1).

    O is of the image times the map, scaled to [0, 1] (a constant map to 0). Their "%" is the mean over images times 100.
    """
    before, after = _shown(question, maps)
    return ((before - after) / before.where(before > 0, 1)).clamp_min(0)


def increase_in_confidence(question: ForwardPass, maps: Tensor) -> Tensor:  # (N,) 0 or 1
    """Whether the probability is larger where only the map is shown: O > Y (Chattopadhay et al. 2018, 4.1)."""
    before, after = _shown(question, maps)
    return (after > before).to(before.dtype)


def average_gain(question: ForwardPass, maps: Tensor) -> Tensor:  # (N,) in [0, 1]
    """Share of what was missing to certainty that is won where only the map is shown: max(0, O - Y) / (1 - Y).

    Beside it `average_drop` cannot be won by showing the whole image (Zhang et al. 2023, Opti-CAM).
    """
    before, after = _shown(question, maps)
    return ((after - before) / (1 - before).where(before < 1, 1)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Road:
    """Mean change of the explained probability while pixels are removed and imputed."""

    most_relevant_first: Tensor  # (N,), negative where the map names what matters
    least_relevant_first: Tensor  # (N,), near 0 where it does

    @property
    def combined(self) -> Tensor:  # (N,)
        """Half the difference: positive where the map is better than its opposite, 0 on average for random maps."""
        return (self.least_relevant_first - self.most_relevant_first) / 2


def road(
    question: ForwardPass,
    maps: Tensor,
    percentiles: Sequence[float] = PERCENTILES,
    noise: float = 0.01,
    seed: int = 0,
) -> Road:
    """Remove and debias (Rong et al. 2022): so many per cent of the pixels are replaced by `noisy_linear`, which tells the
    model little about where they were. Raises SeewhyError for percentiles that are not between 0 and 100.
    """
    if not percentiles or not all(0 < each < 100 for each in percentiles):
        raise SeewhyError(
            f"road removes percentiles between 0 and 100, at least one, found {tuple(percentiles)}"
        )

    def imputed(images: Tensor, ranks: Tensor) -> Sequence[Tensor]:
        generator, pixels = torch.Generator(images.device).manual_seed(seed), ranks[0].numel()
        counts = [round(each / 100 * pixels) for each in percentiles]
        removed = torch.cat(
            [ranks < count for count in counts] + [ranks >= pixels - count for count in counts]
        )
        painted = noisy_linear(images.repeat(2 * len(counts), 1, 1, 1), removed, noise, generator)
        return torch.split(painted, len(images))

    changes = (
        _scores(question, maps, seed, imputed) - _probability(question, question.logits)[:, None]
    )
    most, least = changes.chunk(2, dim=1)
    return Road(most.mean(1), least.mean(1))


def road_combined(
    question: ForwardPass, maps: Tensor, noise: float = 0.01, seed: int = 0
) -> Tensor:  # (N,)
    """`road(...).combined` at the usual percentiles; higher is better."""
    return road(question, maps, PERCENTILES, noise, seed).combined


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],  # images (N, C, H, W) to maps (N, h, w)
    images: Tensor,  # (N, C, H, W) float in [0, 1]
    radius: float = 0.02,
    samples: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:  # (N,) 0 or more; lower is better
    """Max-sensitivity (Yeh et al. 2019, definition 2), relative to the map: the largest |map(x') - map(x)| / |map(x)|.

    Each x' is drawn uniformly within `radius` of x at every pixel, and clamped to [0, 1]. A map that is 0 everywhere has 0
    where it stays so, and inf where it changes. Raises SeewhyError unless radius and samples are positive.
    """
    if not radius > 0 or samples < 1:
        raise SeewhyError(
            f"sensitivity needs a radius above 0 and at least one sample, found {radius} and {samples}"
        )
    reference = explain(images).detach().flatten(1)
    largest = reference.new_zeros(len(images))
    device = images.device if generator is None else generator.device
    for _ in range(samples):
        drawn = torch.rand(images.shape, generator=generator, device=device, dtype=images.dtype).to(
            images.device
        )
        near = (images + radius * (2 * drawn - 1)).clamp(0, 1)
        largest = torch.maximum(
            largest, (explain(near).detach().flatten(1) - reference).norm(dim=1)
        )
    return torch.where(largest > 0, largest / reference.norm(dim=1), largest)


FAITHFULNESS: dict[str, Callable[..., Tensor]] = {
    "road": road_combined,
    "deletion": deletion_auc,
    "deletion-gain": deletion_gain,
    "insertion": insertion_auc,
    "insertion-gain": insertion_gain,
    "average-drop": average_drop,
    "increase-in-confidence": increase_in_confidence,
    "average-gain": average_gain,
}
LOWER_IS_BETTER = {"deletion", "average-drop"}


def _scores(
    question: ForwardPass,
    maps: Tensor,
    seed: int,
    variants: Callable[[Tensor, Tensor], Iterable[Tensor]],
) -> Tensor:  # (N, V)
    """The explained probability of V variants (n, C, H, W) of the images, which are made from a few of them and their ranks."""
    _check_fit(question, maps)
    at_once, rows = batch_size(question.images), []
    for start in range(0, len(maps), at_once):
        part = question.take(slice(start, start + at_once))
        images = part.images
        ranks = _pixel_order_ranks(_fitted(maps[start : start + at_once], images), seed)
        waiting = iter(variants(images, ranks))
        columns = []
        while group := list(
            islice(waiting, max(1, at_once // len(images)))
        ):  # few images: several variants fill a batch
            logits = predict_logits(part, torch.cat(group)).reshape(len(group), len(images), -1)
            columns += [_probability(part, each) for each in logits]
        rows.append(torch.stack(columns, 1))
    return torch.cat(rows)


def _probability(question: ForwardPass, logits: Tensor) -> Tensor:  # (N,)
    return (logits.softmax(1) * question.weights).sum(1)


def _pixel_order_ranks(maps: Tensor, seed: int) -> Tensor:  # (N, H, W) int64
    """0 for the most relevant pixel of each map, then 1, ...; the order of equal ones is random, and the same for all maps."""
    values = maps.flatten(1)
    luck = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(seed)).to(
        maps.device
    )
    order = luck[values[:, luck].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(values.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).reshape(maps.shape)


def _exchanged(images: Tensor, others: Tensor, ranks: Tensor, steps: int) -> Iterator[Tensor]:
    """The images with none, 1 / steps, ..., all of the pixels from `others`, in the order of the ranks."""
    if steps < 1:
        raise SeewhyError(f"steps must be at least 1, found {steps}")
    for step in range(steps + 1):
        yield torch.where((ranks < step * ranks[0].numel() // steps)[:, None], others, images)


def _shown(question: ForwardPass, maps: Tensor) -> tuple[Tensor, Tensor]:  # (N,), (N,)
    """The explained probability of the images, and of the images times the map scaled to [0, 1]."""
    _check_fit(question, maps)
    if (question.weights < 0).any():
        raise SeewhyError(
            "drop and gain are shares of a probability, so they need a class as target, not a contrast of classes"
        )
    rows = []
    for start in range(0, len(maps), at_once := batch_size(question.images)):
        part = question.take(slice(start, start + at_once))
        heat = _zero_to_one(_fitted(maps[start : start + at_once], part.images))
        rows.append(_probability(part, predict_logits(part, part.images * heat[:, None])))
    return _probability(question, question.logits), torch.cat(rows)


def _zero_to_one(maps: Tensor) -> Tensor:
    """Each map from 0 at its minimum to 1 at its maximum; a constant one, which names nothing, is 0 everywhere."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).where(high > low, 1)


def _fitted(maps: Tensor, images: Tensor) -> Tensor:  # (N, H, W)
    """Maps with the size, the type and the device of the images."""
    return resize_maps(
        maps.detach().to(images.device, images.dtype), (images.shape[2], images.shape[3])
    )


def _check_fit(question: ForwardPass, maps: Tensor) -> None:
    check_maps(maps)
    if len(maps) != len(question.images):
        raise SeewhyError(
            f"each image needs its map, found {len(question.images)} images and {len(maps)} maps"
        )
    if not maps.isfinite().all():
        raise SeewhyError(
            "the maps hold values that are not finite; look for the cause where they are made"
        )


def random_maps(maps: Tensor, orders: int, seed: int) -> Iterator[Tensor]:
    """Maps of noise as coarse as these: resized, they too move in smooth patches, which is easier than single pixels."""
    if orders < 1:
        raise SeewhyError(f"orders must be at least 1, found {orders}")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(orders):
        yield torch.rand(maps.shape, generator=generator)
