"""Faithfulness: does the model use the pixels that a map shows?

In `FAITHFULNESS` more is better, except for the measures in `LOWER_IS_BETTER`.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from seewhy.attribution.imputation import BASELINES, noisy_linear
from seewhy.attribution.maps import check_finite, resize_maps, scale_to_unit
from seewhy.attribution.target import ForwardPass, predict_logits
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size, batches
from seewhy.notation import bind

MEASURES = (
    "road",
    "deletion",
    "insertion",
    "average-drop",
    "increase-in-confidence",
    "average-gain",
)
PERCENTILES = (20, 40, 60, 80, 90)  # percentages of pixels that ROAD removes


def measure_faithfulness(
    forward: ForwardPass, maps: Tensor, measures: Sequence[str] = MEASURES
) -> dict[str, Tensor]:
    """Measure maps of any method on the images of a forward pass.

    The explained probability is that of the classes, summed with the target's weights. For a target
    that is a function, it is the score itself, and measures of probabilities do not apply. Measures
    that fail are left out with a warning.

    Args:
        forward: From `forward_pass`.
        maps: (N, h, w) float, of any resolution.
        measures: Entries of FAITHFULNESS with settings, as in "deletion:steps=50".

    Returns:
        Scores (N,) by measure.

    Raises:
        SeewhyError: For an unknown measure or setting, for maps that do not fit or are not
            finite, and if all measures fail.
    """
    # Bind all first: a wrong name fails before any computation.
    bound = {text: bind(FAITHFULNESS, text, "measure", n_supplied=2) for text in measures}
    scores, failures = dict[str, Tensor](), dict[str, str]()
    for text, measure in bound.items():
        try:
            scores[text] = measure(forward, maps)
        except SeewhyError as error:
            failures[text] = str(error)
    if failures and not scores:
        raise SeewhyError("; ".join(dict.fromkeys(failures.values())))
    if failures:
        reasons = "; ".join(f"{text} failed: {reason}" for text, reason in failures.items())
        warnings.warn(reasons, stacklevel=2)
    return scores


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """Explained probability while pixels are replaced in equal shares, most relevant first.

    Args:
        scores: (N, steps + 1), with 0, 1 / steps, ..., 1 of the pixels replaced.
    """

    scores: Tensor

    @property
    def auc(self) -> Tensor:
        """Area under the curve (N,) over the fraction of pixels, by the trapezoidal rule."""
        return torch.trapezoid(self.scores, dx=1 / (self.scores.shape[1] - 1), dim=1)


def deletion(
    forward: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "black", seed: int = 0
) -> PerturbationCurve:
    """Replace pixels by a baseline, most relevant first (Petsiuk et al. 2018).

    Args:
        forward: From `forward_pass`.
        maps: (N, h, w) float, of any resolution.
        steps: Number of steps of the curve.
        baseline: Entry of BASELINES.
        seed: Seed of the random order of ties, which is the same for all maps.
    """
    return _curve(forward, maps, steps, baseline, seed, inserts=False)


def insertion(
    forward: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "blur", seed: int = 0
) -> PerturbationCurve:
    """Insert pixels into a baseline, most relevant first (arguments as in `deletion`)."""
    return _curve(forward, maps, steps, baseline, seed, inserts=True)


def deletion_auc(
    forward: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "black", seed: int = 0
) -> Tensor:
    """Area under the `deletion` curve (N,); lower is better."""
    return deletion(forward, maps, steps, baseline, seed).auc


def insertion_auc(
    forward: ForwardPass, maps: Tensor, steps: int = 32, baseline: str = "blur", seed: int = 0
) -> Tensor:
    """Area under the `insertion` curve (N,); higher is better."""
    return insertion(forward, maps, steps, baseline, seed).auc


def deletion_gain(
    forward: ForwardPass,
    maps: Tensor,
    steps: int = 32,
    baseline: str = "black",
    seed: int = 0,
    orders: int = 5,
) -> Tensor:
    """Mean deletion AUC (N,) of `orders` random maps of the same resolution, minus the map's."""
    chance = [
        deletion(forward, noise, steps, baseline, seed).auc
        for noise in random_maps(maps, orders, seed)
    ]
    return torch.stack(chance).mean(0) - deletion(forward, maps, steps, baseline, seed).auc


def insertion_gain(
    forward: ForwardPass,
    maps: Tensor,
    steps: int = 32,
    baseline: str = "blur",
    seed: int = 0,
    orders: int = 5,
) -> Tensor:
    """Insertion AUC (N,), minus the mean of `orders` random maps of the same resolution."""
    chance = [
        insertion(forward, noise, steps, baseline, seed).auc
        for noise in random_maps(maps, orders, seed)
    ]
    return insertion(forward, maps, steps, baseline, seed).auc - torch.stack(chance).mean(0)


def average_drop(forward: ForwardPass, maps: Tensor) -> Tensor:
    """Relative drop of probability, max(0, Y - O) / Y (Chattopadhay et al. 2018, section 4.1).

    Y is the probability for the image and O for the image times the map, scaled to [0, 1]. The
    paper's percentage is the mean over images times 100.

    Returns:
        (N,) in [0, 1]; lower is better.
    """
    before, after = _masked_probabilities(forward, maps)
    return ((before - after) / before.where(before > 0, 1)).clamp_min(0)


def increase_in_confidence(forward: ForwardPass, maps: Tensor) -> Tensor:
    """Whether the map alone has a higher probability, O > Y (Chattopadhay et al. 2018, sec. 4.1).

    Returns:
        (N,) 0 or 1; higher is better. O and Y as in `average_drop`.
    """
    before, after = _masked_probabilities(forward, maps)
    return (after > before).to(before.dtype)


def average_gain(forward: ForwardPass, maps: Tensor) -> Tensor:
    """Relative gain of probability, max(0, O - Y) / (1 - Y) (Zhang et al. 2023, Opti-CAM).

    Complements `average_drop`, which favors a map of the whole image.

    Returns:
        (N,) in [0, 1]; higher is better. O and Y as in `average_drop`.
    """
    before, after = _masked_probabilities(forward, maps)
    return ((after - before) / (1 - before).where(before < 1, 1)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Road:
    """Mean change of the explained probability while pixels are removed and imputed.

    Args:
        most_relevant_first: (N,), negative for a faithful map.
        least_relevant_first: (N,), near 0 for a faithful map.
    """

    most_relevant_first: Tensor
    least_relevant_first: Tensor

    @property
    def combined(self) -> Tensor:
        """Half the difference (N,): positive for a faithful map, 0 on average for random maps."""
        return (self.least_relevant_first - self.most_relevant_first) / 2


def road(
    forward: ForwardPass,
    maps: Tensor,
    percentiles: Sequence[float] = PERCENTILES,
    noise: float = 0.01,
    seed: int = 0,
) -> Road:
    """Remove and debias (Rong et al. 2022): replace pixels by noisy linear imputation.

    The imputation keeps the model from detecting the removed pixels.

    Args:
        forward: From `forward_pass`.
        maps: (N, h, w) float, of any resolution.
        percentiles: Percentages of pixels to remove, between 0 and 100.
        noise: Standard deviation of the imputation's noise.
        seed: Seed of the noise and of the random order of ties.

    Raises:
        SeewhyError: For percentiles out of range, and for maps that do not fit or are not finite.
    """
    if not percentiles or not all(0 < each < 100 for each in percentiles):
        raise SeewhyError(
            "road needs at least one percentile, each between 0 and 100, found "
            f"{tuple(percentiles)}"
        )

    def imputed(images: Tensor, ranks: Tensor) -> Sequence[Tensor]:
        generator, pixels = torch.Generator(images.device).manual_seed(seed), ranks[0].numel()
        counts = [round(each / 100 * pixels) for each in percentiles]
        removed = torch.cat(
            [ranks < count for count in counts] + [ranks >= pixels - count for count in counts]
        )
        repeated = images.repeat(2 * len(counts), 1, 1, 1)
        return torch.split(noisy_linear(repeated, removed, noise, generator), len(images))

    before = forward.confidences(forward.logits)[:, None]
    changes = _probabilities(forward, maps, seed, imputed) - before
    most, least = changes.chunk(2, dim=1)
    return Road(most.mean(1), least.mean(1))


def road_combined(forward: ForwardPass, maps: Tensor, noise: float = 0.01, seed: int = 0) -> Tensor:
    """`road(...).combined` (N,) at the paper's percentiles; higher is better."""
    return road(forward, maps, PERCENTILES, noise, seed).combined


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    images: Tensor,
    radius: float = 0.02,
    samples: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Max-sensitivity (Yeh et al. 2019, definition 2), relative: max |map(x') - map(x)| / |map(x)|.

    Args:
        explain: From images (N, C, H, W) to maps (N, h, w).
        images: (N, C, H, W) float in [0, 1].
        radius: Maximum change per pixel; x' is drawn uniformly within it and clamped to [0, 1].
        samples: Number of x' per image.
        generator: Source of the random numbers.

    Returns:
        (N,), 0 or more, lower is better. For a map of zeros: 0 if it stays zero, else inf.

    Raises:
        SeewhyError: Unless radius and samples are positive.
    """
    if not radius > 0 or samples < 1:
        raise SeewhyError(
            "max_sensitivity needs a radius above 0 and at least one sample, found "
            f"{radius} and {samples}"
        )
    reference = explain(images).detach().flatten(1)
    largest = reference.new_zeros(len(images))
    device = images.device if generator is None else generator.device
    for _ in range(samples):
        drawn = torch.rand(images.shape, generator=generator, device=device, dtype=images.dtype)
        near = (images + radius * (2 * drawn.to(images.device) - 1)).clamp(0, 1)
        change = (explain(near).detach().flatten(1) - reference).norm(dim=1)
        largest = torch.maximum(largest, change)
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


def _curve(
    forward: ForwardPass, maps: Tensor, steps: int, baseline: str, seed: int, inserts: bool
) -> PerturbationCurve:
    """A deletion or insertion curve. At one end are the images, whose logits are known."""
    if steps < 1:
        raise SeewhyError(f"steps must be at least 1, found {steps}")
    replacement = bind(BASELINES, baseline, "baseline", n_supplied=1)

    def variants(images: Tensor, ranks: Tensor) -> Iterator[Tensor]:
        blank = replacement(images)
        first, last = (blank, images) if inserts else (images, blank)
        for number in range(steps) if inserts else range(1, steps + 1):
            yield torch.where((ranks < number * ranks[0].numel() // steps)[:, None], last, first)

    known = forward.confidences(forward.logits)[:, None]
    computed = _probabilities(forward, maps, seed, variants)
    return PerturbationCurve(torch.cat([computed, known] if inserts else [known, computed], 1))


def _probabilities(
    forward: ForwardPass,
    maps: Tensor,
    seed: int,
    variants: Callable[[Tensor, Tensor], Iterable[Tensor]],
) -> Tensor:  # (N, V)
    """The explained probability of V variants of the images.

    `variants(images, ranks)` makes them, (n, C, H, W) each, for a batch of n images.
    """
    _check_fit(forward, maps)
    size, rows = batch_size(forward.model, forward.images), []
    for start in range(0, len(maps), size):
        batch = forward.take(slice(start, start + size))
        images = batch.images
        ranks = _pixel_ranks(_at_images(maps[start : start + size], images), seed)
        remaining = iter(variants(images, ranks))
        columns = []
        # A batch holds several variants of few images.
        while group := list(islice(remaining, max(1, size // len(images)))):
            logits = predict_logits(batch, torch.cat(group)).reshape(len(group), len(images), -1)
            columns += [batch.confidences(each) for each in logits]
        rows.append(torch.stack(columns, 1))
    return torch.cat(rows)


def _pixel_ranks(maps: Tensor, seed: int) -> Tensor:  # (N, H, W) int64
    """Rank of each pixel in its map, 0 for the most relevant; ties are in random order."""
    values = maps.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(values.shape[1], generator=generator).to(maps.device)
    order = shuffled[values[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    ranks = torch.arange(values.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks).reshape(maps.shape)


def _masked_probabilities(forward: ForwardPass, maps: Tensor) -> tuple[Tensor, Tensor]:  # (N,) x 2
    """The explained probability of the images, and of the images times the map in [0, 1]."""
    _check_fit(forward, maps)
    if (forward.weights < 0).any() or forward.classifier.activation == "none":
        raise SeewhyError(
            "average_drop, increase_in_confidence and average_gain need the probability of one "
            "class as target, not a pair or a function; use deletion, insertion or road"
        )
    parts = []
    for rows in batches(forward.model, forward.images):
        batch = forward.take(rows)
        heat = scale_to_unit(_at_images(maps[rows], batch.images))
        parts.append(batch.confidences(predict_logits(batch, batch.images * heat[:, None])))
    return forward.confidences(forward.logits), torch.cat(parts)


def _at_images(maps: Tensor, images: Tensor) -> Tensor:  # (N, H, W)
    """Maps in the size, type and device of the images."""
    return resize_maps(maps.detach().to(images.device, images.dtype), images.shape[2:])


def _check_fit(forward: ForwardPass, maps: Tensor) -> None:
    check_finite(maps)
    if len(maps) != len(forward.images):
        raise SeewhyError(
            f"faithfulness needs one map per image, found images and maps: {len(forward.images)} "
            f"and {len(maps)}"
        )


def random_maps(maps: Tensor, orders: int, seed: int) -> Iterator[Tensor]:
    """Random maps at the resolution of `maps`.

    After resizing they are as smooth as `maps`. Random single pixels would have worse curves.
    """
    if orders < 1:
        raise SeewhyError(f"orders must be at least 1, found {orders}")
    generator = torch.Generator().manual_seed(seed)
    for _ in range(orders):
        yield torch.rand(maps.shape, generator=generator)
