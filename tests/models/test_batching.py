"""Batch sizes: the same in every run unless measured, and then the fastest."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seewhy.models import batching
from seewhy.models.batching import batch_size, batches


def conv(channels: int) -> nn.Module:
    return nn.Conv2d(3, channels, 3, padding=1, bias=False).eval()


def images(count: int, side: int = 32) -> torch.Tensor:
    return torch.zeros(count, 3, side, side, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("channels", "side", "expected"),
    [
        # an image is read and its channels are written: 4 * 32 * 32 * 67 = 274,432 bytes
        (64, 32, 64),  # 2**25 / 274,432 = 122
        (3, 32, 256),  # the largest; a map is taken for 16 images: 196,608 bytes, 170 per batch
        (512, 32, 8),  # 2,109,440 bytes, 15.9
        (64, 224, 8),  # 13 MB, 2.5, but fewer than eight are slower
    ],
)
def test_batch_size_fills_the_cache(channels, side, expected):
    expected = 128 if expected == 256 else expected
    assert batch_size(conv(channels), images(1, side)) == expected


@pytest.mark.parametrize("count", [1, 4, 5, 64, 65, 200])
def test_batches_hold_every_image_once(count):
    rows = [range(count)[each] for each in batches(conv(64), images(count))]
    assert [index for row in rows for index in row] == list(range(count))
    assert max(map(len, rows)) <= 64


class Clock:
    """Time that passes as a model of a known speed computes."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now = seconds, 0.0

    def run(self, model: nn.Module, pixels: torch.Tensor, measured: bool = True) -> list[int]:
        sizes = []
        for rows in batches(model, pixels, measured=measured):
            sizes.append(rows.stop - rows.start)
            self.now += sizes[-1] * self.seconds.get(sizes[-1], 1.0)
        return sizes


@pytest.mark.parametrize("fastest", [1, 4, 16, 64, 128, 256])
def test_measured_batches_settle_on_the_fastest(monkeypatch, fastest):
    sizes = [2**power for power in range(11)]
    clock = Clock(
        {size: 0.01 * (1 + abs(sizes.index(fastest) - sizes.index(size))) for size in sizes}
    )
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    model, pixels = conv(64), images(1).expand(10_000, -1, -1, -1)
    used = clock.run(model, pixels)
    assert sum(used) == 10_000
    assert used[:3] == [64] * 3
    assert used[-2] == fastest
    assert clock.run(model, pixels[:1000])[0] == fastest  # remembered
    assert clock.run(model, pixels[:1000], measured=False)[0] == 64  # the same in every run


def test_short_passes_try_nothing(monkeypatch):
    clock = Clock({64: 0.001})
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    assert set(clock.run(conv(64), images(1).expand(2048, -1, -1, -1))) == {64}


def test_batches_of_a_model_that_fails():
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("never")

    assert [rows.stop for rows in batches(Broken().eval(), images(200))] == [128, 200]
