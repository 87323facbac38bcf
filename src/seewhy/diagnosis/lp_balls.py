"""Directions, projections and random points in L-infinity and L2 balls around images."""

import torch
from torch import Generator, Tensor


def direction(gradient: Tensor, norm: str) -> Tensor:
    """Steepest direction of length 1 in the norm, per image; zero for a zero gradient."""
    if norm == "linf":
        return gradient.sign()
    tiny = torch.finfo(gradient.dtype).tiny
    # scaled to a maximum of 1 first, so that squares neither underflow nor overflow
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)
    return scaled / _length(scaled).clamp_min(tiny)


def project(point: Tensor, clean: Tensor, epsilon: float, norm: str) -> Tensor:
    """The nearest point in [0, 1] within `epsilon` of the clean image; approximate for "l2"."""
    if norm == "linf":
        return point.clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    # By the KKT conditions it is clip(clean + scale * change), with the scale at which its distance
    # is `epsilon`. Scaling once and then clipping would waste part of the radius on pixels that
    # cannot move.
    tiny = torch.finfo(point.dtype).tiny
    scale = torch.ones_like(point[:, :1, :1, :1])
    for _ in range(5):
        change = (clean + scale * (point - clean)).clamp(0, 1) - clean
        scale = (scale * epsilon / _length(change).clamp_min(tiny)).clamp(max=1)
    change = change * (epsilon / _length(change).clamp_min(max(epsilon, tiny)))
    return (clean + change).clamp(0, 1)


def random_point(like: Tensor, norm: str, generator: Generator) -> Tensor:
    """Random points of the unit ball, one per image.

    For "l2", at a distance of at most 1/4. Nearly all of a ball of many dimensions lies at its
    surface; such a start uses up the radius in a direction of no effect, which steps hardly undo.
    """
    shape = like.shape[1:]

    def sample() -> Tensor:
        if norm == "linf":
            return 2 * torch.rand(shape, generator=generator) - 1
        direction = torch.randn(shape, generator=generator)
        return direction.mul(torch.rand((), generator=generator) / (4 * direction.norm()))

    # one image at a time, so that the batch size does not change the samples
    return torch.stack([sample() for _ in range(len(like))]).to(like)


def inside(gradient: Tensor, point: Tensor) -> Tensor:
    """The gradient without the part that points out of [0, 1], which would shorten an L2 step."""
    leaves = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
    return gradient.masked_fill(leaves, 0)


def _length(change: Tensor) -> Tensor:  # (n, 1, 1, 1), Euclidean norm
    return change.square().sum((1, 2, 3), keepdim=True).sqrt()
