"""Batches of shuffled, augmented images on the device."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.data.augment import Augmentation, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.dataset import Split


def equal_batches(num_images: int, max_batch_size: int) -> tuple[int, int]:
    """Cut an epoch into as few equal batches as possible.

    Remaining images that do not fill a batch are left out; each epoch is shuffled anew. Batches of
    equal size need only one compilation. A batch has at least two images, if available, because
    BatchNorm cannot train on one.

    Returns:
        Number of batches, and images per batch.
    """
    num_batches = max(1, min(math.ceil(num_images / max_batch_size), num_images // 2))
    batch_size = num_images // num_batches
    return num_images // batch_size, batch_size


def full_batches(num_images: int, batch_size: int) -> tuple[int, int]:
    """Cut an epoch into batches of `batch_size` images; the last one may be smaller.

    Returns:
        Number of batches, and images per batch.
    """
    batch_size = min(batch_size, num_images)
    return math.ceil(num_images / batch_size), batch_size


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """The order of the images in an epoch, (N,) int64; it depends only on the arguments."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(num_images, generator=generator)


def batches(
    split: Split,
    num_classes: int,
    batch_size: int,
    order: Tensor,  # (N,) int64
    epoch: int,
    augment: Augmentation,
    generator: torch.Generator,
    device: torch.device,
    margin: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of `order`, augmented; the last one may be smaller.

    Images of the split are larger by `margin` rows and columns, which the augmentations crop. Each
    is images (B, C, H, W) float32 in [0, 1], channels last, and labels (B, K) float32.
    """
    # once per epoch, because copies to and from a GPU synchronize
    height, width = split.images.shape[2:]
    size = (height - margin, width - margin)
    order_on_split, order_on_device = order.to(split.images.device), order.to(device)
    for start in range(0, len(order), batch_size):
        indices = order_on_split[start : start + batch_size]
        images = split.images[indices].to(device, non_blocking=True)
        labels = encode_labels(split.labels[indices].to(device, non_blocking=True), num_classes)
        numbers = order_on_device[start : start + batch_size]
        batch = augment(Batch(images, labels, numbers, epoch, size), generator)
        floats = batch.images.to(torch.float32, memory_format=torch.channels_last)
        yield floats.div_(255), batch.labels


def resize_images(images: Tensor, factor: float) -> Tensor:
    """Scale both sides of images (B, C, H, W) float to a multiple of 4, at least 4.

    Images are never enlarged; a factor of 1 returns them unchanged.
    """
    if factor == 1:
        return images
    height, width = (min(side, max(4, 4 * round(side * factor / 4))) for side in images.shape[2:])
    resized = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)


def move_to_gpu(split: Split, device: torch.device) -> Split:
    """Move images to a GPU if they take at most half of its free memory."""
    if device.type != "cuda":
        return split
    free_bytes, _ = torch.cuda.mem_get_info(device)
    if split.images.numel() > free_bytes // 2:
        return split
    return Split(split.images.to(device), split.labels.to(device), split.names, split.masks)
