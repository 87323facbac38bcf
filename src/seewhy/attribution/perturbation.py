"""Methods that need no gradient: change the image or the activation, and see what becomes of the score."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.attribution.capture import Capture
from seewhy.attribution.hooks import forward_hooks, main_tensor, replace_tensor
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.target import ForwardPass, batch_size, outputs, predict_logits
from seewhy.errors import SeewhyError
from seewhy.models.inference import autocasting
from seewhy.models.inspection import inspecting


def score_cam(capture: Capture, baseline: float = 0.0) -> Tensor:  # (N, h, w)
    """Channels weighted by the score of the image seen through them (Wang et al. 2020, arXiv 1910.01279, algorithm 1).

    Each channel, enlarged bilinearly and scaled to [0, 1], blends the image with `baseline` (a pixel value in [0, 1]); a softmax
    over channels of what the score rises above that of the baseline gives the weights. A constant channel shows the baseline.
    """
    check_baseline(baseline)
    question = capture.question
    empty = torch.full_like(question.images[:1], baseline)
    floor = predict_logits(question, empty)
    maps = []
    for n, channels in enumerate(capture.activation):  # (C, h, w)
        weights = question.weights[n]
        scores = (floor @ weights).expand(len(channels)).clone()
        varied = (channels.amax((1, 2)) > channels.amin((1, 2))).nonzero().flatten()
        for some in _batches(varied, batch_size(question.images)):
            large = resize_maps(channels[some], question.images.shape[2:])[:, None]
            low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
            shown = torch.where(
                high > low, (large - low) / (high - low), 0
            )  # of a finer grid too little may be left
            scores[some] = (
                predict_logits(
                    question, torch.lerp(empty, question.images[n : n + 1], shown.to(empty.dtype))
                )
                @ weights
            )
        maps.append(
            torch.einsum(
                "c,chw->hw", (scores - floor @ weights).softmax(0).to(channels.dtype), channels
            )
        )
    return torch.stack(maps)


def ablation_cam(capture: Capture) -> Tensor:  # (N, h, w)
    """Channels weighted by the share of the score that is lost without them (Desai & Ramaswamy 2020, Ablation-CAM).

    The loss is divided by the size of the score and not, as written there, by the score: a negative one would turn the map
    upside down. Only the part of the network above the layer runs; a channel that is zero anyway is not tried.
    """
    question, scores, runs = capture.question, capture.question.scores, _runs(capture)
    maps = []
    for n, channels in enumerate(capture.activation):  # (C, h, w)
        weights = torch.zeros_like(channels[:, 0, 0])
        active = channels.flatten(1).any(1).nonzero().flatten()
        for some in _batches(active, _at_once(capture)):
            ablated = channels.expand(len(some), -1, -1, -1).clone()
            ablated[torch.arange(len(some)), some] = 0
            without = logits_from_layer(capture, n, ablated, runs) @ question.weights[n]
            weights[some] = ((scores[n] - without) / scores[n].abs().clamp(min=1e-12)).to(
                weights.dtype
            )
        maps.append(torch.einsum("c,chw->hw", weights, channels))
    return torch.stack(maps)


def rise(
    question: ForwardPass, masks: int = 2000, grid: int = 7, keep: float = 0.5, seed: int = 0
) -> Tensor:  # (N, H, W)
    """The mean of random masks, each weighted by the probability that it leaves (Petsiuk et al. 2018, arXiv 1806.07421, eq. 6).

    `masks` coarse grids of `grid` x `grid` cells, each shown with probability `keep`, are enlarged bilinearly and shifted.
    """
    if masks < 1 or grid < 1 or not 0 < keep < 1:
        raise SeewhyError(
            f"rise needs masks and grid of at least 1 and 0 < keep < 1, found masks={masks}, grid={grid}, keep={keep}"
        )
    images, generator = question.images, torch.Generator().manual_seed(seed)
    maps = torch.zeros_like(images[:, 0])
    for start in range(0, masks, _RISE_AT_ONCE):
        shown = _rise_masks(min(_RISE_AT_ONCE, masks - start), grid, keep, images, generator)
        for n, image in enumerate(images):
            probabilities = (
                predict_logits(question, image * shown[:, None]).softmax(1) @ question.weights[n]
            )
            maps[n] += torch.einsum("m,mhw->hw", probabilities.to(maps.dtype), shown)
    return maps / (masks * keep)


def occlusion(
    question: ForwardPass, size: int = 0, stride: int = 0, baseline: float = 0.5
) -> Tensor:  # (N, H, W)
    """How far the score falls when a gray square hides a place (Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2).

    Squares of `size` pixels, by default a quarter of the shorter side, every `stride` pixels, by default half of that; of the
    squares that cover a pixel the mean. `baseline` is the square's pixel value in [0, 1].
    """
    check_baseline(baseline)
    images = question.images
    height, width = images.shape[2:]
    size = size or max(1, min(height, width) // 4)
    stride = stride or max(1, size // 2)
    if (
        not 1 <= size <= min(height, width) or not 1 <= stride <= size
    ):  # a longer stride would leave out pixels
        raise SeewhyError(
            f"occlusion of images of {height}x{width} needs 1 <= size <= {min(height, width)} and 1 <= stride <= size, "
            f"found size={size} and stride={stride}"
        )
    corners = torch.cartesian_prod(_starts(height, size, stride), _starts(width, size, stride)).to(
        images.device
    )
    maps, count = torch.zeros_like(images[:, 0]), torch.zeros_like(images[0, 0])
    for some in torch.split(corners, batch_size(images)):
        hidden = _squares(some, size, height, width)
        covered = hidden.to(images.dtype)
        count += covered.sum(0)
        for n, image in enumerate(images):
            scores = (
                predict_logits(question, torch.where(hidden[:, None], baseline, image))
                @ question.weights[n]
            )
            maps[n] += torch.einsum(
                "s,shw->hw", (question.scores[n] - scores).to(maps.dtype), covered
            )
    return maps / count


PERTURBATIONS: dict[str, Callable[..., Tensor]] = {"rise": rise, "occlusion": occlusion}

_RISE_AT_ONCE = 500
_VALUES_FOR_PIXEL = (
    16  # of an activation, for each pixel of the images that go through a network at once
)


def check_baseline(baseline: float) -> None:
    """Raise SeewhyError unless `baseline` is a pixel value."""
    if not 0 <= baseline <= 1:
        raise SeewhyError(f"baseline is a pixel value from 0 to 1, found {baseline}")


def logits_from_layer(
    capture: Capture, n: int, activations: Tensor, runs: int = 1
) -> Tensor:  # (M, K)
    """The logits of image `n` with each of `activations` (M, C, h, w) in the place of the last of the layer's `runs` outputs.

    One image goes in and a batch comes out of the layer, so that what lies below runs once; a shortcut around the layer is
    broadcast. Where a network joins the two in another way, all M images go in.
    """
    question = capture.question
    image = question.images[n : n + 1]
    with inspecting(question.model), torch.no_grad(), autocasting(question.precision, image.device):
        with suppress(SeewhyError), _exchanged(capture, activations, runs):
            logits = outputs(question.model, image)
            if len(logits) == len(activations):
                return logits
        parts = []
        for some in torch.split(activations, batch_size(image)):
            with _exchanged(capture, some, runs):
                parts.append(outputs(question.model, image.expand(len(some), -1, -1, -1)))
        return torch.cat(parts)


def _exchanged(capture: Capture, activations: Tensor, runs: int) -> AbstractContextManager[None]:
    """In a forward pass inside the block, the last of the layer's `runs` outputs is `activations`."""
    left = runs

    def exchange(name: str, module: object, output: object) -> object:
        nonlocal left
        left -= 1
        tensor = main_tensor(output)
        if left or tensor is None:
            return output
        return replace_tensor(
            output, tensor, capture.layout.to_output(activations.to(tensor.dtype), tensor[:1])
        )

    return forward_hooks(
        {capture.layer: capture.question.model.get_submodule(capture.layer)}, exchange
    )


def _runs(capture: Capture) -> int:
    """How often the layer runs in a pass: one that is used several times was captured at the last."""
    question, runs = capture.question, 0

    def count(name: str, module: object, output: object) -> None:
        nonlocal runs
        runs += 1

    with forward_hooks({capture.layer: question.model.get_submodule(capture.layer)}, count):
        predict_logits(question, question.images[:1])
    return runs


def _at_once(capture: Capture) -> int:
    """How many activations go through the part of the network above their layer at once: the smaller they are the more."""
    images = capture.question.images
    return max(
        1,
        _VALUES_FOR_PIXEL
        * batch_size(images)
        * images[0, 0].numel()
        // capture.activation[0].numel(),
    )


def _batches(channels: Tensor, size: int) -> tuple[Tensor, ...]:
    """Indices of channels in batches; of none there is none, which a network could not take."""
    return torch.split(channels, size) if len(channels) else ()


def _rise_masks(
    count: int, grid: int, keep: float, images: Tensor, generator: torch.Generator
) -> Tensor:  # (count, H, W)
    height, width = images.shape[2:]
    cell = (-(-height // grid), -(-width // grid))
    cells = (torch.rand(count, 1, grid + 1, grid + 1, generator=generator) < keep).float()
    large = F.interpolate(
        cells, ((grid + 1) * cell[0], (grid + 1) * cell[1]), mode="bilinear", align_corners=False
    )[:, 0]
    tops = torch.randint(cell[0], (count,), generator=generator).tolist()
    lefts = torch.randint(cell[1], (count,), generator=generator).tolist()
    cut = [
        mask[top : top + height, left : left + width]
        for mask, top, left in zip(large, tops, lefts, strict=True)
    ]
    return torch.stack(cut).to(images)


def _starts(length: int, size: int, stride: int) -> Tensor:
    """Where squares begin along a side, the last one flush with its end."""
    return torch.tensor([*range(0, length - size, stride), length - size])


def _squares(corners: Tensor, size: int, height: int, width: int) -> Tensor:  # (M, H, W) bool
    """Squares of `size` pixels whose upper left corners (M, 2) are."""
    rows = torch.arange(height, device=corners.device) - corners[:, :1]
    columns = torch.arange(width, device=corners.device) - corners[:, 1:]
    return ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None]
