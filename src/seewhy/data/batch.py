"""A batch of images for augmentations, and what all augmentations need."""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from seewhy.errors import SeewhyError


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images on the device, for augmentations."""

    images: Tensor  # (B, C, H, W) uint8
    labels: Tensor  # (B, K) float32: one-hot, or 0 and 1 for several labels, unless mixed
    indices: Tensor  # (B,) int64, indices into the split
    epoch: int
    size: tuple[int, int] | None = None  # (height, width) that the images are cropped to
    originals: Tensor | None = None  # (B, C, H, W) uint8, before the first augmentation

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width) of the images after all augmentations."""
        height, width = self.images.shape[2:]
        return self.size or (height, width)


def uniform(batch: Batch, generator: Generator) -> Tensor:  # (B,)
    """A random number in [0, 1) per image, float32."""
    return torch.rand(len(batch.images), device=batch.images.device, generator=generator)


def per_image(values: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1)
    """Values of images, to be broadcast to their pixels."""
    return values[:, None, None, None]


def with_images(batch: Batch, images: Tensor) -> Batch:
    """`batch` with new images, in the memory format of the old ones."""
    old = batch.images
    channels_last = old.is_contiguous(memory_format=torch.channels_last) and not old.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return replace(batch, images=images.contiguous(memory_format=memory_format))


def require(condition: bool, rule: str, value: object) -> None:
    """Raise SeewhyError with the rule that a setting breaks."""
    if not condition:
        raise SeewhyError(f"{rule}, found {value!r}")
