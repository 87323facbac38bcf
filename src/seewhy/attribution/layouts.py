"""Layouts of a layer's output on the image: a grid with channels first or last, or tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Layout of a layer's output: a grid of spatial positions, channels first or last, or tokens.

    Args:
        form: "NCHW", "NHWC", or "NLC" for tokens.
        grid: Height and width (h, w) of the grid.
        prefix: Tokens before those of the grid, such as the class token.
        strides: Empty for tokens in row-major order. In Hiera's order of mask units, the strides
            (down, right) of its poolings to come: the tokens that the first one will merge are
            equally far apart.
    """

    form: Literal["NCHW", "NHWC", "NLC"]
    grid: tuple[int, int]
    prefix: int = 0
    strides: tuple[tuple[int, int], ...] = ()

    def to_grid(self, output: Tensor) -> Tensor:
        """A layer's output, or its gradient, as (N, C, h, w)."""
        if self.form == "NCHW":
            return output
        if self.form == "NHWC":
            return output.permute(0, 3, 1, 2)
        tokens = output[:, self.prefix :].transpose(1, 2)
        if self.strides:
            sizes, axes = self._units()
            tokens = tokens.reshape(*tokens.shape[:2], *sizes)
            tokens = tokens.permute(0, 1, *(2 + axis for axis in axes))
        return tokens.reshape(len(output), -1, *self.grid)

    def to_output(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `to_grid`, with the prefix tokens of `like`, an output of one image."""
        if self.form == "NCHW":
            return values
        if self.form == "NHWC":
            return values.permute(0, 2, 3, 1)
        if self.strides:
            sizes, axes = self._units()
            inverse = sorted(range(len(axes)), key=axes.__getitem__)
            values = values.reshape(*values.shape[:2], *(sizes[axis] for axis in axes))
            values = values.permute(0, 1, *(2 + axis for axis in inverse))
        tokens = values.flatten(2).transpose(1, 2)
        return torch.cat([like[:, : self.prefix].expand(len(tokens), -1, -1), tokens], 1)

    def _units(self) -> tuple[list[int], list[int]]:
        """Sizes of the axes that the tokens have in memory, and their order in the grid.

        In memory, the steps down and right of the first stride come first, and the coarse grid
        last. In the grid, the coarse rows are followed by the steps down, the last stride's first.
        """
        rows, columns = self.grid
        for down, right in self.strides:
            rows, columns = rows // down, columns // right
        sizes = [size for stride in self.strides for size in stride] + [rows, columns]
        vertical = list(range(len(sizes) - 2, -1, -2))
        return sizes, [*vertical, *(axis + 1 for axis in vertical)]


@dataclass(frozen=True)
class TokenOrder:
    """What is known of a model's tokens: how many come before the grid, and their order in it."""

    prefix: int | None = None
    strides: Mapping[tuple[int, int], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    # of Hiera, by grid; other tokens are in row-major order

    def layout(self, name: str, shape: Sequence[int], images: Sequence[int]) -> Layout | None:
        """`layout_of` for a layer of the model; before the patches are embedded, by rows."""
        layout = layout_of(shape, images, self.prefix)
        if layout is None or layout.form != "NLC" or "embed" in name:
            return layout
        return replace(layout, strides=self.strides.get(layout.grid, ()))


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
    if shape[2] == 1:
        return None  # channels after pooling over the positions
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


def token_order(model: nn.Module) -> TokenOrder:
    """The order of a model's tokens, from its attributes (timm, transformers)."""
    counts = (getattr(module, "num_prefix_tokens", None) for module in model.modules())
    prefix = next((count for count in counts if isinstance(count, int)), None)
    return TokenOrder(prefix, _mask_unit_strides(model))


def _mask_unit_strides(
    model: nn.Module,
) -> dict[tuple[int, int], tuple[tuple[int, int], ...]]:
    """Hiera's strides by grid: of each stage, the strides of the poolings to come and its grid."""
    for module in model.modules():
        schedule = getattr(module, "schedule", None)
        if type(module).__name__ in ("Reroll", "HieraEncoder") and isinstance(schedule, dict):
            return {
                (size[0], size[1]): tuple((down, right) for down, right in strides)
                for strides, size in schedule.values()
            }
    return {}
