"""Cost of augmentation in a step; speedup of bf16 and channels-last over fp32 and NCHW.

`python -m benchmarks.steps photographs` measures only images of 224x224.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.results import Row, keep
from seewhy.data.augment import bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.dataset import Split
from seewhy.models.registry import build_model
from seewhy.train.device import find_precision

BATCH, RUNS = 512, 7
PHOTOGRAPHS, PHOTOGRAPH_RUNS = 32, 3


def interleaved(functions: dict[str, Callable[[], object]], runs: int = RUNS) -> dict[str, float]:
    """Median seconds of each function, called in turn `runs` times after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(runs + 1):
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


def noise(count: int, side: int) -> Split:
    """Random images."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return Split(pixels, torch.arange(count) % 10, [str(i) for i in range(count)])


def photographs() -> None:
    """Measure and save the cost of augmentation of images of 224x224."""
    split, best = noise(PHOTOGRAPHS, 224), find_precision("auto", torch.device("cpu"))
    batch = Batch(split.images, encode_labels(split.labels, 10), torch.arange(PHOTOGRAPHS), 0)
    generator = torch.Generator().manual_seed(0)
    sets = [("resized-crop",), ("flip",), ("rotate",), ("resized-crop", "flip", "rotate")]
    functions: dict[str, Callable[[], object]] = {
        " + ".join(names): partial(bind_augmentations(names), batch, generator) for names in sets
    }
    training = step("resnet18", best, True, split)
    times = interleaved({**functions, "step": training}, PHOTOGRAPH_RUNS)
    how = (
        f"`benchmarks/steps.py`, batch {PHOTOGRAPHS} of 224x224, {best}, median of "
        f"{PHOTOGRAPH_RUNS} interleaved repeats"
    )
    rows = [Row("ResNet-18, forward, backward, and update", f"{times['step']:.2f} s", how)]
    rows += [
        Row(
            name,
            f"{1000 * times[name]:.0f} ms, {100 * times[name] / times['step']:.1f}% of the step",
            how,
        )
        for name in functions
    ]
    keep("steps-photographs", "Augmentation of photographs", rows)


def main() -> None:
    """Measure and save."""
    split = noise(BATCH, 32)
    best = find_precision("auto", torch.device("cpu"))
    augment = bind_augmentations(("crop:4", "flip", "cutout:16"))
    generator = torch.Generator().manual_seed(0)
    labels = encode_labels(split.labels, 10)
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
    photographs()


if __name__ == "__main__":
    photographs() if sys.argv[1:] == ["photographs"] else main()
