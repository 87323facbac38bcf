"""Batches: shuffled, sliced, augmented, on the device."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.augment import Augmentation, Batch, one_hot
from seewhy.data.dataset import Split


def equal_batches(images: int, batch_size: int) -> tuple[int, int]:
    """(batches in an epoch, images in each): as few equal batches of at most `batch_size` as hold all images but a remainder.

    Fewer images than batches are left out of an epoch; the next one shuffles anew. Equal shapes compile once, and a
    BatchNorm never sees a batch of one: whatever `batch_size` is, a batch has at least two images where there are as many.
    """
    size = images // max(1, min(math.ceil(images / batch_size), images // 2))
    return images // size, size


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, (images,) int64: a function of seed and epoch alone, so that any epoch can be repeated."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(images, generator=generator)


def batches(
    split: Split,
    num_classes: int,
    batch_size: int,
    order: Tensor,  # (N,) int64
    epoch: int,
    augment: Augmentation,
    generator: torch.Generator,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images (B,C,H,W) float32 in [0, 1], channels last; labels (B,K) float32) for every whole batch of `order`."""
    there = order.to(split.images.device)  # once an epoch: a copy to a GPU waits for it
    here = order.to(device)
    for start in range(0, len(order) - batch_size + 1, batch_size):
        indices = there[start : start + batch_size]
        images = split.images[indices].to(device, non_blocking=True)
        labels = one_hot(split.labels[indices].to(device, non_blocking=True), num_classes)
        batch = augment(Batch(images, labels, here[start : start + batch_size], epoch), generator)
        yield (
            batch.images.to(torch.float32, memory_format=torch.channels_last).div_(255),
            batch.labels,
        )


def resize_images(images: Tensor, factor: float) -> Tensor:
    """Images (B, C, H, W) float with both sides times `factor`, each a multiple of 4 and at least 4; for 1 as they are."""
    if factor == 1:
        return images
    height, width = (min(side, max(4, 4 * round(side * factor / 4))) for side in images.shape[2:])
    smaller = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)


def on_device(split: Split, device: torch.device) -> Split:
    """`split` with its images on a GPU where they take at most half of its free memory, so that no step waits for a copy."""
    if device.type != "cuda":
        return split
    free, _ = torch.cuda.mem_get_info(device)
    if split.images.numel() > free // 2:
        return split
    return Split(split.images.to(device), split.labels.to(device), split.names, split.masks)
