"""Layouts of a layer's output on the image: a grid with channels first or last, or tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Layout of a layer's output: a grid of spatial positions, channels first or last, or tokens.

    Args:
        form: "NCHW", "NHWC", or "NLC" for tokens in row-major order.
        grid: Height and width (h, w) of the grid.
        prefix: Tokens before those of the grid, such as the class token.
    """

    form: Literal["NCHW", "NHWC", "NLC"]
    grid: tuple[int, int]
    prefix: int = 0

    def to_grid(self, output: Tensor) -> Tensor:
        """A layer's output, or its gradient, as (N, C, h, w)."""
        if self.form == "NCHW":
            return output
        if self.form == "NHWC":
            return output.permute(0, 3, 1, 2)
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, *self.grid)

    def to_output(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `to_grid`, with the prefix tokens of `like`, an output of one image."""
        if self.form == "NCHW":
            return values
        if self.form == "NHWC":
            return values.permute(0, 2, 3, 1)
        tokens = values.flatten(2).transpose(1, 2)
        return torch.cat([like[:, : self.prefix].expand(len(tokens), -1, -1), tokens], 1)


def layout_of(
    shape: Sequence[int], images: Sequence[int], prefix: int | None = None
) -> Layout | None:
    """Layout of a layer's output for images (N, C, H, W); None if it is not spatial.

    If both (h, w, C) and (C, h, w) fit the image, channels come first.

    Args:
        shape: Shape of the output, batch first.
        images: Shape of the images, (N, C, H, W).
        prefix: Number of prefix tokens, if known. Otherwise the smallest number that leaves a grid
            of the image's aspect ratio.
    """
    count, _, height, width = images
    if len(shape) not in (3, 4) or shape[0] != count:
        return None
    if len(shape) == 4:
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        fits_first = is_proportional(first, height, width)
        channels_last = is_proportional(last, height, width) and not fits_first
        grid = last if channels_last else first
        return Layout("NHWC" if channels_last else "NCHW", grid) if grid[0] * grid[1] > 1 else None
    for exact, tokens in product((True, False), range(9) if prefix is None else (prefix, 0)):
        positions = shape[1] - tokens
        rows = round((positions * height / width) ** 0.5) if positions > 1 else 0
        if rows and positions % rows == 0:
            grid = (rows, positions // rows)
            if is_proportional(grid, height, width, exact):
                return Layout("NLC", grid, tokens)
    return None


def is_proportional(grid: tuple[int, int], height: int, width: int, exact: bool = False) -> bool:
    """Whether a grid has the image's aspect ratio; up to rounding unless `exact`."""
    if max(grid) == 0 or grid[0] > height or grid[1] > width:
        return False
    slack = 1 if exact or height == width else max(height, width)
    return abs(grid[0] * width - grid[1] * height) < slack


def prefix_tokens(model: nn.Module) -> int | None:
    """Number of tokens before the patch tokens, if the model has it as an attribute (timm)."""
    counts = (getattr(module, "num_prefix_tokens", None) for module in model.modules())
    return next((count for count in counts if isinstance(count, int)), None)
