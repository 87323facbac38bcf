"""From stored images to logits, without a trace left in the model."""

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.models.classifier import PRECISIONS
from seewhy.models.inspection import device_of, evaluating
from seewhy.models.tta import bind_tta


def logits(
    model: nn.Module,
    images: Tensor,  # (N, C, H, W) uint8, in memory or memory-mapped
    *,
    batch_size: int = 500,
    precision: str = "fp32",
    device: torch.device | str | None = None,
    tta: str = "none",
) -> Tensor:  # (N, K) float32 on the CPU
    """The model's logits for every image, in evaluation mode and in batches; no more than a batch is held as floats.

    The batches go to `device`, by default where the model's parameters are. `precision` "bf16" or "fp16" runs under autocast.
    `tta` names a test-time augmentation, an entry of TTA.
    Raises SeewhyError for images that are not (N, C, H, W) uint8, for none at all, and for an unknown precision.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or len(images) == 0:
        found = f"{tuple(images.shape)} {images.dtype}".replace("torch.", "")
        raise SeewhyError(
            f"logits() needs images (N, C, H, W) uint8 with values 0 to 255 and N of at least 1, found {found}"
        )
    if precision not in PRECISIONS:
        raise SeewhyError(f"unknown precision {precision!r}; possible: {', '.join(PRECISIONS)}")
    if batch_size < 1:
        raise SeewhyError(f"batch_size must be at least 1, found {batch_size}")
    device = device_of(model) if device is None else torch.device(device)
    look = bind_tta(tta)

    def predict(batch: Tensor) -> Tensor:
        outputs: Tensor = model(_as_pixels(batch, device)).float()
        return outputs

    with evaluating(model), torch.inference_mode(), autocasting(precision, device):
        batches = [look(predict, batch) for batch in torch.split(images, batch_size)]
    return torch.cat(
        batches
    ).cpu()  # outside of inference mode, so that gradients may flow through what is returned


def autocasting(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network computes in that precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def _as_pixels(batch: Tensor, device: torch.device) -> Tensor:
    """uint8 to float32 in [0, 1], moved while it is a quarter of the size."""
    moved = batch.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)
