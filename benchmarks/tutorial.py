"""Training throughput against the loop of tutorials, and as a share of the matrix-product rate.

The tutorial's loop: a DataLoader with Pillow transforms, float32, NCHW, `.item()` in every step.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.results import Row, keep
from seewhy.data.dataset import Dataset, Split
from seewhy.models.registry import build_model
from seewhy.train.device import find_precision
from seewhy.train.loop import train
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import new_state

REPEATS, STEPS = 5, 6
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
MODELS = {"speednet": 512, "resnet18": 128}  # batch size by model


class TutorialImages(TorchDataset[tuple[Tensor, int]]):
    """RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor, Normalize, as in torchvision."""

    def __init__(self, split: Split) -> None:
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in split.images]
        self.labels = split.labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(self.images[index], 4)
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        return pixels.sub_(mean).div_(std), self.labels[index]


def tutorial(name: str, data: Dataset, batch_size: int) -> Callable[[], float]:
    """A function that trains an epoch of STEPS batches with the tutorial's loop; returns seconds.

    Its workers start and end with the call.
    """
    torch.manual_seed(0)
    model = build_model(name, 10, data.train).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = Subset(TutorialImages(data.train), range(STEPS * batch_size))
    loader = DataLoader(images, batch_size, shuffle=True, num_workers=2, drop_last=True)
    seen = {"loss": 0.0, "correct": 0.0}

    def epoch() -> float:
        began = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            outputs = model(images)
            loss = F.cross_entropy(outputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen["loss"] += loss.item()
            seen["correct"] += (outputs.argmax(1) == labels).sum().item()
        return time.perf_counter() - began

    return epoch


def ours(name: str, data: Dataset, batch_size: int) -> Callable[[], float]:
    """A function that trains STEPS steps with seewhy, after one to warm up; returns their seconds.

    Each call closes its events, so that memory kept for reuse does not help the other loop.
    """
    torch.manual_seed(0)
    recipe = Recipe(
        model=name,
        epochs=1000,
        batch_size=batch_size,
        lr=0.01,
        augment=("crop:4,mode=constant", "flip"),
    )
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan)

    def steps() -> float:
        events = train(state, plan)
        next(events)
        began = time.perf_counter()
        for _ in range(STEPS):
            next(events)
        spent = time.perf_counter() - began
        events.close()
        return spent

    return steps


def flops(name: str, split: Split) -> float:
    """Floating-point operations of a training step per image."""
    model = build_model(name, 10, split).train()
    images = split.images[:8].float().div(255)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def matmul_rate(dtype: torch.dtype, size: int = 2048) -> Callable[[], float]:
    """A function that measures the FLOP/s of a square matrix product."""
    one, other = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(4):
            one @ other
        return 4 * 2 * size**3 / (time.perf_counter() - began)

    return measure


def measured(name: str, batch_size: int, data: Dataset) -> list[Row]:
    """The rows of one model; tutorial, ours and matrix product are interleaved."""
    precision = find_precision("auto", torch.device("cpu"))
    rate = matmul_rate(torch.bfloat16 if precision == "bf16" else torch.float32)
    loops = {"tutorial": tutorial(name, data, batch_size), "ours": ours(name, data, batch_size)}
    times: dict[str, list[float]] = {name: [] for name in loops}
    rates = []
    for repeat in range(REPEATS + 1):
        for which, steps in loops.items():
            spent = steps()
            if repeat:
                times[which].append(spent / STEPS)
        rates.append(rate())
    slow, fast, peak = median(times["tutorial"]), median(times["ours"]), median(rates)
    how = (
        f"`benchmarks/tutorial.py`, batch {batch_size}, "
        f"median of {REPEATS} interleaved blocks of {STEPS} steps"
    )
    gflop = flops(name, data.train) / 1e9
    return [
        Row(f"{name}: the usual tutorial loop", f"{batch_size / slow:.0f} images/s", how),
        Row(
            f"{name}: seewhy, {precision}",
            f"{batch_size / fast:.0f} images/s, {slow / fast:.2f}x",
            how,
        ),
        Row(
            f"{name}: share of the {precision} matrix-product rate",
            f"{100 * 1e9 * gflop * batch_size / fast / peak:.0f}%",
            f"{how}; {peak / 1e9:.0f} GFLOP/s in 2048 x 2048 products, {gflop:.2f} GFLOP per image",
        ),
    ]


def main() -> None:
    """Measure and save."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8192, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(8192) % 10, [str(index) for index in range(8192)])
    data = Dataset("noise", tuple("abcdefghij"), split, split, None, "0")
    rows = [row for name, batch_size in MODELS.items() for row in measured(name, batch_size, data)]
    keep("tutorial", "Training throughput", rows)


if __name__ == "__main__":
    main()
