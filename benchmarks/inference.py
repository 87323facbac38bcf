"""Forward passes: images per second at the batch size that is chosen, and at the best one.

ResNet-50 needs torchvision (`pip install 'seewhy[zoo]'`), and is left out without it.
"""

import os
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.results import keep
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size, batches
from seewhy.models.inference import compute_logits
from seewhy.models.registry import blank_sample, build_model

NETWORKS = (
    ("speednet", 32),
    ("davidnet", 32),
    ("resnet18", 32),
    ("efficientnet-lite0", 224),
    ("resnet18", 224),
    ("torchvision:resnet50", 224),
)
SMALL, LARGE = (4, 16, 32, 64, 128), (1, 2, 4, 8, 16)  # up to 32 pixels, above
SECONDS = 0.1  # at least, per size and round
ROUNDS = 5  # in turn, because other programs share the processor
LONG = 7.0  # seconds of a pass that tries other sizes


@dataclass(frozen=True)
class SpeedRow:
    """Images per second of one network."""

    network: str
    first: str  # at the size that fits the cache
    chosen: str  # after a long pass
    best: str
    ratio: str  # chosen to best
    processor_ratio: str  # the same of processor time


def seconds_per_image(model: nn.Module, pixels: Tensor, size: int) -> tuple[float, float]:
    """Wall time of the fastest of several passes of one batch, and mean processor time."""
    began, cpu, passes = time.perf_counter(), time.process_time(), list[float]()
    while not passes or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        compute_logits(model, pixels[:size], batch_size=size)
        passes.append((time.perf_counter() - start) / size)
    return min(passes), (time.process_time() - cpu) / len(passes) / size


def measured(name: str, model: nn.Module, side: int) -> SpeedRow:
    """Measure one network."""
    model = model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sizes = SMALL if side < 100 else LARGE
    pixels = torch.randint(0, 256, (sizes[-1], 3, side, side), dtype=torch.uint8)
    fitting = batch_size(model, pixels)
    seconds_per_image(model, pixels, fitting)  # to warm up
    count = LONG / seconds_per_image(model, pixels, fitting)[0]
    compute_logits(model, pixels.repeat(1 + int(count / len(pixels)), 1, 1, 1))
    first = next(batches(model, pixels, measured=True))
    chosen = first.stop - first.start
    paces: dict[int, list[tuple[float, float]]] = {size: [] for size in {*sizes, fitting, chosen}}
    for _ in range(ROUNDS):
        for size, found in paces.items():
            found.append(seconds_per_image(model, pixels, size))
    wall, cpu = (
        {size: median(each[column] for each in found) for size, found in paces.items()}
        for column in (0, 1)
    )
    best = min(wall, key=wall.__getitem__)
    row = SpeedRow(
        f"{name}, {side}x{side}",
        *(f"{size}: {1 / wall[size]:.0f} images/s" for size in (fitting, chosen, best)),
        f"{wall[best] / wall[chosen]:.2f}",
        f"{min(cpu.values()) / cpu[chosen]:.2f}",
    )
    print(row, {size: round(1 / each, 1) for size, each in sorted(cpu.items())}, flush=True)
    return row


def main() -> None:
    """Measure and save."""
    rows = []
    for name, side in NETWORKS:
        torch.manual_seed(0)
        try:
            model = build_model(name, 10, blank_sample(3, side, side))
        except SeewhyError as error:
            print(f"{name} is left out: {error}")
        else:
            rows.append(measured(name, model, side))
    keep(
        "inference",
        "Forward passes: batch sizes",
        rows,
        note=f"`benchmarks/inference.py`: fp32, {torch.get_num_threads()} threads, random weights; "
        f"medians of {ROUNDS} interleaved rounds, beside other programs. The first batches have a "
        "size that fits the cache; a pass of more than 5 s tries others. OMP_WAIT_POLICY is "
        f"{os.environ.get('OMP_WAIT_POLICY', 'not set')}.",
        columns=(
            "network",
            "at first",
            "chosen",
            "best",
            "chosen / best",
            "the same in processor time",
        ),
    )


if __name__ == "__main__":
    main()
