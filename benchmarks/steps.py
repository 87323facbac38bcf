"""Cost of augmentation in a step; speedup of bf16 and channels-last over fp32 and NCHW."""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.results import Row, keep
from seewhy.data.augment import bind_augmentations, one_hot
from seewhy.data.batch import Batch
from seewhy.data.dataset import Split
from seewhy.models.registry import build_model
from seewhy.train.device import find_precision

BATCH, RUNS = 512, 7


def interleaved(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each function, called in turn RUNS times after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(RUNS + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if run:
                times[name].append(time.perf_counter() - began)
    return {name: median(seconds) for name, seconds in times.items()}


def step(
    model_name: str, precision: str, channels_last: bool, split: Split
) -> Callable[[], object]:
    """One training step on a fixed batch."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = build_model(model_name, 10, split).to(memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=channels_last)
    images = split.images.float().div(255).to(memory_format=layout)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(images)
        loss = F.cross_entropy(outputs.float(), split.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def main() -> None:
    """Measure and save."""
    torch.manual_seed(0)
    split = Split(
        torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8),
        torch.arange(BATCH) % 10,
        [str(i) for i in range(BATCH)],
    )
    best = find_precision("auto", torch.device("cpu"))
    augment = bind_augmentations(("crop:4", "flip", "cutout:16"))
    generator = torch.Generator().manual_seed(0)
    labels = one_hot(split.labels, 10)
    times = interleaved(
        {
            "augment": lambda: augment(
                Batch(split.images, labels, torch.arange(BATCH), 0), generator
            ),
            "fp32": step("speednet", "fp32", False, split),
            "best": step("speednet", best, True, split),
        }
    )
    how = f"`benchmarks/steps.py`, batch {BATCH}, median of {RUNS} interleaved repeats"
    rows = [
        Row("speednet, fp32, NCHW", f"{BATCH / times['fp32']:.0f} images/s", how),
        Row(
            f"speednet, {best}, channels last",
            f"{BATCH / times['best']:.0f} images/s, {times['fp32'] / times['best']:.2f}x",
            how,
        ),
        Row(
            "crop + flip + cutout",
            f"{1000 * times['augment']:.1f} ms, "
            f"{100 * times['augment'] / times['best']:.1f}% of speednet's step",
            how,
        ),
    ]
    keep("steps", "Training steps", rows)


if __name__ == "__main__":
    main()
