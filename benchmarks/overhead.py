"""Overhead of `fit` over a minimal hand-written loop with the same settings.

`fit` writes logs, TensorBoard and checkpoints. Both train for one epoch and for several; the
difference is the cost of the epochs, without start-up, evaluation and finishing.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.results import Row, keep
from seewhy.data.augment import bind_augmentations, encode_labels
from seewhy.data.batch import Batch
from seewhy.data.dataset import Dataset, Split
from seewhy.models.registry import build_model
from seewhy.runs.checkpoint import CheckpointPolicy
from seewhy.runs.lr_search import find_lr
from seewhy.runs.training import fit
from seewhy.train.device import find_precision
from seewhy.train.recipe import Recipe

REPEATS, EPOCHS, IMAGES, CHECKPOINT_SECONDS, STEPS = 4, 4, 2560, 10.0, 20
RECIPE = Recipe(
    model="speednet",
    batch_size=512,
    lr=0.1,
    optimizer="sgd:momentum=0.9",
    weight_decay=5e-4,
    schedule="linear",
    augment=("crop:4", "flip", "cutout:8"),
    label_smoothing=0.1,
    eval_every=0,
)


def by_hand(data: Dataset, epochs: int) -> float:
    """Seconds of a fast hand-written loop without logs or checkpoints."""
    began = time.perf_counter()
    torch.manual_seed(0)
    model = build_model("speednet", 10, data.train).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True
    )
    augment = bind_augmentations(RECIPE.augment)
    generator = torch.Generator().manual_seed(0)
    steps = epochs * (len(data.train) // 512)
    step = 0
    bf16 = find_precision("auto", torch.device("cpu")) == "bf16"
    for epoch in range(epochs):
        order = torch.randperm(len(data.train), generator=generator)
        for start in range(0, len(order), 512):
            chosen = order[start : start + 512]
            labels = encode_labels(data.train.labels[chosen], 10)
            batch = augment(Batch(data.train.images[chosen], labels, chosen, epoch), generator)
            images = batch.images.to(torch.float32, memory_format=torch.channels_last).div_(255)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                outputs = model(images)
            loss = F.cross_entropy(outputs.float(), batch.labels, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
    return time.perf_counter() - began


def with_fit(data: Dataset, epochs: int) -> float:
    """Seconds of `fit` with a run directory."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        fit(
            replace(RECIPE, epochs=epochs),
            data,
            run,
            quiet=True,
            checkpoint=CheckpointPolicy(checkpoint_seconds=CHECKPOINT_SECONDS),
        )
    return time.perf_counter() - began


def range_test_of(data: Dataset) -> float:
    """Seconds of a range test with learning rates so low that it does not diverge."""
    began = time.perf_counter()
    assert len(find_lr(RECIPE, data, end=1e-3, updates=STEPS).lrs) == STEPS
    return time.perf_counter() - began


def same_steps(data: Dataset) -> float:
    """Seconds of `fit`, in memory, for the same number of steps."""
    began = time.perf_counter()
    run = fit(replace(RECIPE, epochs=STEPS * 512 / len(data.train)), data, quiet=True)
    assert run.history[-1].step == STEPS
    return time.perf_counter() - began


def noise() -> Dataset:
    """Random images; only time is measured."""
    images = torch.randint(
        0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    split = Split(images, torch.arange(IMAGES) % 10, [str(index) for index in range(IMAGES)])
    test = Split(images[:100], split.labels[:100], split.names[:100])
    return Dataset("noise", tuple("abcdefghij"), split, test, None, "0" * 32)


def range_test_cost() -> None:
    """Compare a range test with the same number of steps of `fit`, and save."""
    data = noise()
    tests, fits = zip(
        *((range_test_of(data), same_steps(data)) for _ in range(REPEATS + 1)), strict=True
    )
    ratios = sorted(test / trained for test, trained in zip(tests[1:], fits[1:], strict=True))
    how = (
        f"`benchmarks/overhead.py`, {STEPS} updates in batches of 512, "
        f"median of {REPEATS} interleaved repeats"
    )
    beside = (
        f"{median(fits[1:]):.1f} s; overhead of the range test {100 * (median(ratios) - 1):+.1f}%"
    )
    spread = f" ({100 * (ratios[0] - 1):+.1f} to {100 * (ratios[-1] - 1):+.1f})"
    rows = [
        Row("a range test, building its model included", f"{median(tests[1:]):.1f} s", how),
        Row("`fit` for the same number of steps, in memory", beside + spread, how),
    ]
    keep(
        "overhead-range-test",
        "Overhead of a range test over the same number of steps of `fit`",
        rows,
    )


def main() -> None:
    """Measure and save."""
    data = noise()
    loops = {"by hand": by_hand, "fit": with_fit}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(REPEATS + 1):
        for name, loop in loops.items():
            spent = loop(data, 1 + EPOCHS) - loop(data, 1)
            if repeat:
                times[name].append(spent)
    hand, ours = median(times["by hand"]), median(times["fit"])
    ratio = median(mine / other for mine, other in zip(times["fit"], times["by hand"], strict=True))
    how = (
        f"`benchmarks/overhead.py`, {EPOCHS} epochs of {IMAGES:,} images in batches of 512, "
        f"median of {REPEATS} interleaved repeats; a checkpoint every {CHECKPOINT_SECONDS:g} s, "
        "six times as often as by default"
    )
    rows = [
        Row("a minimal hand-written loop", f"{EPOCHS * IMAGES / hand:.0f} images/s", how),
        Row(
            "`fit`, with logs, TensorBoard and checkpoints",
            f"{EPOCHS * IMAGES / ours:.0f} images/s, overhead {100 * (ratio - 1):+.1f}%",
            how,
        ),
    ]
    keep("overhead", "Overhead of `fit` over a hand-written loop", rows)
    range_test_cost()


if __name__ == "__main__":
    main()
