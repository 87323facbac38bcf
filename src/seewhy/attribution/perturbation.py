"""Gradient-free methods: perturb the image or the activation, and measure the score."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attribution.capture import Capture
from seewhy.attribution.hooks import forward_hooks, main_tensor, replace_tensor
from seewhy.attribution.imputation import BASELINES
from seewhy.attribution.maps import resize_maps, scale_to_unit
from seewhy.attribution.target import ForwardPass, predict_logits, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size
from seewhy.models.inference import autocasting
from seewhy.models.inspection import inspecting
from seewhy.notation import bind


def score_cam(capture: Capture, baseline: float = 0.0) -> Tensor:
    """Channels weighted by the score of the image masked with them.

    Wang et al. 2020, arXiv 1910.01279, algorithm 1. Each channel, resized to the image and scaled
    to [0, 1], blends the image with the baseline. The weights are a softmax over channels of the
    score minus that of the baseline. A constant channel leaves only the baseline.

    Args:
        capture: Activation and gradient of the layer.
        baseline: Pixel value in [0, 1].

    Returns:
        (N, h, w).
    """
    check_baseline(baseline)
    forward = capture.forward
    empty = torch.full_like(forward.images[:1], baseline)
    floor = predict_logits(forward, empty)
    maps = []
    for n, channels in enumerate(capture.activation):  # (C, h, w)
        image, weights = forward.images[n : n + 1], forward.weights[n]
        scores = (floor @ weights).expand(len(channels)).clone()
        varied = (channels.amax((1, 2)) > channels.amin((1, 2))).nonzero().flatten()
        for index in _batches(varied, batch_size(forward.model, forward.images)):
            # Downsizing may leave a fine grid constant; then only the baseline is left.
            large = scale_to_unit(resize_maps(channels[index], image.shape[2:])[:, None])
            blended = torch.lerp(empty, image, large.to(empty.dtype))
            scores[index] = predict_logits(forward, blended) @ weights
        shares = (scores - floor @ weights).softmax(0).to(channels.dtype)
        maps.append(torch.einsum("c,chw->hw", shares, channels))
    return torch.stack(maps)


def ablation_cam(capture: Capture) -> Tensor:  # (N, h, w)
    """Channels weighted by the relative drop of the score without them.

    Desai & Ramaswamy 2020, Ablation-CAM. The drop is divided by the absolute score. The paper
    divides by the score, which inverts the map if the score is negative. Only the part of the model
    after the layer runs; channels of zeros are skipped.
    """
    forward, scores, runs = capture.forward, capture.forward.scores, runs_per_pass(capture)
    maps = []
    for n, channels in enumerate(capture.activation):  # (C, h, w)
        weights = torch.zeros_like(channels[:, 0, 0])
        active = channels.flatten(1).any(1).nonzero().flatten()
        for index in _batches(active, _activation_batch_size(capture)):
            ablated = channels.expand(len(index), -1, -1, -1).clone()
            ablated[torch.arange(len(index)), index] = 0
            without = logits_from_layer(capture, n, ablated, runs) @ forward.weights[n]
            loss = (scores[n] - without) / scores[n].abs().clamp(min=1e-12)
            weights[index] = loss.to(weights.dtype)
        maps.append(torch.einsum("c,chw->hw", weights, channels))
    return torch.stack(maps)


def rise(
    forward: ForwardPass, masks: int = 2000, grid: int = 7, keep: float = 0.5, seed: int = 0
) -> Tensor:
    """Mean of random masks, weighted by the probability of the masked image.

    Petsiuk et al. 2018, arXiv 1806.07421, eq. 6. A score that is no probability is measured from
    that of a black image, because a constant part of it would only add noise.

    Args:
        forward: From `forward_pass`.
        masks: Number of masks.
        grid: Cells per side of a mask, which is resized bilinearly and shifted at random.
        keep: Probability that a cell is kept.
        seed: Seed of the masks.

    Returns:
        (N, H, W).
    """
    if masks < 1 or grid < 1 or not 0 < keep < 1:
        raise SeewhyError(
            "rise needs masks and grid of at least 1 and 0 < keep < 1, found "
            f"masks={masks}, grid={grid}, keep={keep}"
        )
    images, generator = forward.images, torch.Generator().manual_seed(seed)
    maps = torch.zeros_like(images[:, 0])
    floor = images.new_zeros(1, forward.logits.shape[1])
    if forward.classifier.activation == "none":
        floor = predict_logits(forward, torch.zeros_like(images[:1]))
    for start in range(0, masks, _RISE_BATCH):
        shown = _rise_masks(min(_RISE_BATCH, masks - start), grid, keep, images, generator)
        for n, image in enumerate(images):
            logits = predict_logits(forward, image * shown[:, None])
            values = (forward.classifier.extracted_probabilities(logits) - floor) @ forward.weights[
                n
            ]
            maps[n] += torch.einsum("m,mhw->hw", values.to(maps.dtype), shown)
    return maps / (masks * keep)


def occlusion(
    forward: ForwardPass, size: int = 0, stride: int = 0, baseline: float = 0.5
) -> Tensor:
    """Drop of the score under a gray square (Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2).

    The value of a pixel is the mean over the squares that cover it.

    Args:
        forward: From `forward_pass`.
        size: Side of the square in pixels; 0 for a quarter of the shorter side.
        stride: Distance of the squares in pixels; 0 for half of `size`.
        baseline: Pixel value of the square, in [0, 1].

    Returns:
        (N, H, W).
    """
    check_baseline(baseline)
    images = forward.images
    height, width = images.shape[2:]
    size = size or max(1, min(height, width) // 4)
    stride = stride or max(1, size // 2)
    # A longer stride would skip pixels.
    if not 1 <= size <= min(height, width) or not 1 <= stride <= size:
        raise SeewhyError(
            f"occlusion of images of {height}x{width} needs 1 <= size <= {min(height, width)} and "
            f"1 <= stride <= size, found size={size} and stride={stride}"
        )
    corners = torch.cartesian_prod(
        _square_starts(height, size, stride), _square_starts(width, size, stride)
    ).to(images.device)
    maps, count = torch.zeros_like(images[:, 0]), torch.zeros_like(images[0, 0])
    for batch in torch.split(corners, batch_size(forward.model, images)):
        hidden = _squares(batch, size, height, width)
        covered = hidden.to(images.dtype)
        count += covered.sum(0)
        for n, image in enumerate(images):
            logits = predict_logits(forward, torch.where(hidden[:, None], baseline, image))
            loss = forward.scores[n] - logits @ forward.weights[n]
            maps[n] += torch.einsum("s,shw->hw", loss.to(maps.dtype), covered)
    return maps / count


def lime(
    forward: ForwardPass,
    samples: int = 500,
    grid: int = 8,
    baseline: str = "blur",
    ridge: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Coefficients of a linear model of the probability, fitted to images with hidden cells.

    Ribeiro et al. 2016, arXiv 1602.04938, section 3, with the cells of a grid instead of segments:
    each cell is hidden with probability 1/2, a sample weighs exp(-d^2 / 0.25^2) with the cosine
    distance d to the image with all cells, and the fit is a ridge regression with an intercept.

    Args:
        forward: From `forward_pass`.
        samples: Number of images with hidden cells.
        grid: Cells along the shorter side.
        baseline: What replaces a hidden cell, an entry of BASELINES.
        ridge: Penalty of squared coefficients, above 0.
        seed: Seed of the hidden cells, which are the same for every image.

    Returns:
        (N, rows, columns), one value per cell.
    """
    images = forward.images
    height, width = images.shape[2:]
    if samples < 1 or not 1 <= grid <= min(height, width) or not ridge > 0:
        raise SeewhyError(
            f"lime of images of {height}x{width} needs samples of at least 1, grid from 1 to "
            f"{min(height, width)} and ridge above 0, found samples={samples}, grid={grid}, "
            f"ridge={ridge}"
        )
    hidden = bind(BASELINES, baseline, "baseline", n_supplied=1)(images)
    rows, columns = (round(grid * side / min(height, width)) for side in (height, width))
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(2, (samples, rows * columns), generator=generator).double()
    values = torch.zeros(len(images), samples, dtype=torch.float64)
    for index in torch.split(torch.arange(samples), batch_size(forward.model, images)):
        shape = len(index), 1, rows, columns
        shown = F.interpolate(cells[index].view(shape), (height, width)).to(images)
        for n, image in enumerate(images):
            mixed = torch.lerp(hidden[n], image, shown)
            logits = predict_logits(forward, mixed)
            explained = forward.classifier.extracted_probabilities(logits) @ forward.weights[n]
            values[n, index] = explained.cpu().double()
    coefficients = values @ _ridge_fit(cells, ridge).T
    return coefficients.reshape(-1, rows, columns).to(images)


def _ridge_fit(cells: Tensor, ridge: float) -> Tensor:
    """The linear map (cells, M) from values of samples (M, cells) to LIME's coefficients."""
    distances = 1 - cells.mean(1).sqrt()
    weights = torch.exp(-((distances / 0.25) ** 2))
    inputs = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
    penalty = torch.full_like(inputs[0], ridge)
    penalty[-1] = 0  # of the intercept
    weighted = inputs.T * weights
    fit: Tensor = torch.linalg.solve(weighted @ inputs + penalty.diag(), weighted)
    return fit[:-1]


PERTURBATIONS: dict[str, Callable[..., Tensor]] = {
    "rise": rise,
    "occlusion": occlusion,
    "lime": lime,
}

_RISE_BATCH = 500  # masks per batch
_VALUES_PER_PIXEL = 16  # values of an activation per pixel of the image


def check_baseline(baseline: float) -> None:
    """Raise SeewhyError unless `baseline` is a pixel value."""
    if not 0 <= baseline <= 1:
        raise SeewhyError(f"baseline must be a pixel value from 0 to 1, found {baseline}")


def logits_from_layer(
    capture: Capture, n: int, activations: Tensor, runs: int = 1
) -> Tensor:  # (M, K)
    """Logits of image `n` with each of `activations` (M, C, h, w) as the output of the layer.

    If the layer runs `runs` times, its last output is replaced. The model's input is one image and
    the layer's output a batch, so that the part before the layer runs once; skip connections around
    the layer broadcast. If the model cannot broadcast, the input is M copies of the image.
    """
    forward = capture.forward
    image = forward.images[n : n + 1]
    with inspecting(forward.model), torch.no_grad(), autocasting(forward.precision, image.device):
        with suppress(SeewhyError), _replaced_output(capture, activations, runs, 1):
            logits = run_model(forward.classifier, image)
            if len(logits) == len(activations):
                return logits
        parts = []
        for batch in torch.split(activations, batch_size(forward.model, image)):
            with _replaced_output(capture, batch, runs, len(batch)):
                parts.append(run_model(forward.classifier, image.expand(len(batch), -1, -1, -1)))
        return torch.cat(parts)


def _replaced_output(
    capture: Capture, activations: Tensor, runs: int, count: int
) -> AbstractContextManager[None]:
    """Replace the layer's last output by `activations` in a pass of `count` images in the block."""
    remaining = runs

    def replace(name: str, module: object, output: object) -> object:
        nonlocal remaining
        remaining -= 1
        tensor = main_tensor(output, count)
        if remaining or tensor is None:
            return output
        values = capture.layout.to_output(activations.to(tensor.dtype), tensor[:1])
        return replace_tensor(output, tensor, values)

    model = capture.forward.model
    return forward_hooks({capture.layer: model.get_submodule(capture.layer)}, replace)


def runs_per_pass(capture: Capture) -> int:
    """Number of times the layer runs in a forward pass."""
    forward, runs = capture.forward, 0

    def count(name: str, module: object, output: object) -> None:
        nonlocal runs
        runs += 1

    with forward_hooks({capture.layer: forward.model.get_submodule(capture.layer)}, count):
        predict_logits(forward, forward.images[:1])
    return runs


def _activation_batch_size(capture: Capture) -> int:
    """Batch size of activations for the part of the model after the layer."""
    model, images = capture.forward.model, capture.forward.images
    values = _VALUES_PER_PIXEL * batch_size(model, images) * images[0, 0].numel()
    return max(1, values // capture.activation[0].numel())


def _batches(channels: Tensor, size: int) -> tuple[Tensor, ...]:
    """Indices of channels in batches; none for no channels, where torch.split returns one."""
    return torch.split(channels, size) if len(channels) else ()


def _rise_masks(
    count: int, grid: int, keep: float, images: Tensor, generator: torch.Generator
) -> Tensor:  # (count, H, W)
    height, width = images.shape[2:]
    cell = (-(-height // grid), -(-width // grid))
    cells = (torch.rand(count, 1, grid + 1, grid + 1, generator=generator) < keep).float()
    size = ((grid + 1) * cell[0], (grid + 1) * cell[1])
    large = F.interpolate(cells, size, mode="bilinear", align_corners=False)[:, 0]
    tops = torch.randint(cell[0], (count,), generator=generator).tolist()
    lefts = torch.randint(cell[1], (count,), generator=generator).tolist()
    masks = [
        mask[top : top + height, left : left + width]
        for mask, top, left in zip(large, tops, lefts, strict=True)
    ]
    return torch.stack(masks).to(images)


def _square_starts(length: int, size: int, stride: int) -> Tensor:
    """Starts of the squares along a side; the last square ends at the border."""
    return torch.tensor([*range(0, length - size, stride), length - size])


def _squares(corners: Tensor, size: int, height: int, width: int) -> Tensor:  # (M, H, W) bool
    """Squares of `size` pixels with upper left corners (M, 2)."""
    rows = torch.arange(height, device=corners.device) - corners[:, :1]
    columns = torch.arange(width, device=corners.device) - corners[:, 1:]
    in_rows, in_columns = ((each >= 0) & (each < size) for each in (rows, columns))
    return in_rows[:, :, None] & in_columns[:, None]
