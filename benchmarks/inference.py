"""Images per second by batch size, and at the size that is chosen for the model.

`python -m benchmarks.inference [EFFICIENTNET-LITE0-WEIGHTS]`; without the file of published
weights, five networks with random weights are measured.
"""

import sys
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.results import keep
from seewhy.models.batching import batches
from seewhy.models.classifier import pretrained_classifier
from seewhy.models.inference import compute_logits
from seewhy.models.registry import blank_sample, build_model

NETWORKS = (
    ("speednet", 32),
    ("davidnet", 32),
    ("resnet18", 32),
    ("resnet18", 224),
    ("vgg16", 224),
    ("efficientnet-lite0", 224),
)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # up to 32 at 224 pixels
SECONDS = 0.3  # at least, per size and round
ROUNDS = 3  # in turn, because other programs share the processor


@dataclass(frozen=True)
class SpeedRow:
    """Images per second of one network."""

    network: str
    by_size: str
    chosen: str
    ratio: str  # to the best size


def speed(model: nn.Module, pixels: Tensor, size: int | None) -> float:
    """Images per second of `compute_logits`."""
    images, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < SECONDS:
        part = pixels if size is None else pixels[: max(size, min(len(pixels), 4 * size))]
        compute_logits(model, part, batch_size=size)
        images += len(part)
    return images / seconds


def measured(name: str, side: int, weights: str | None) -> SpeedRow:
    """Measure one network."""
    torch.manual_seed(0)
    if weights is None:
        model = build_model(name, 10, blank_sample(3, side, side))
    else:
        model = pretrained_classifier(f"{name}:weights={weights}").model
    model = model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = 1024 if side < 100 else 32
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    sizes = [size for size in SIZES if size <= count]
    compute_logits(model, pixels.repeat(4, 1, 1, 1))  # a long pass, which tries other sizes
    rates: dict[int | None, list[float]] = {size: [] for size in (*sizes, None)}
    for _ in range(ROUNDS):
        for size, found in rates.items():
            found.append(speed(model, pixels, size))
    rate = {size: median(found) for size, found in rates.items()}
    best = max(rate[size] for size in sizes)
    first = next(batches(model, pixels, measured=True))
    row = SpeedRow(
        network=f"{name}, {side}x{side}",
        by_size=", ".join(f"{size}: {rate[size]:.0f}" for size in sizes),
        chosen=f"{first.stop - first.start}: {rate[None]:.0f}",
        ratio=f"{rate[None] / best:.2f}",
    )
    print(row, flush=True)  # each takes minutes
    return row


def main(weights: str | None = None) -> None:
    """Measure and save."""
    rows = [
        measured(name, side, weights if name == "efficientnet-lite0" else None)
        for name, side in NETWORKS
        if weights is not None or name != "efficientnet-lite0"
    ]
    keep(
        "inference",
        "Forward passes: images/s by batch size, and at the size that is chosen",
        rows,
        note=f"fp32, {torch.get_num_threads()} threads; medians of three rounds.",
        columns=("network", "batch size: images/s", "chosen", "chosen / best"),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
