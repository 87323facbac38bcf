"""Sums over an epoch, kept on the device."""

import math

import torch
from torch import Tensor


class Totals:
    """Running sums of loss and correct answers, and the first step that was not finite, kept on the device.

    No step waits for them: on a GPU the host sees them a few steps late, through a copy into pinned memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device_sums = torch.zeros(4, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        pinned = device.type == "cuda"
        self.host_sums = torch.zeros(4, dtype=self.device_sums.dtype, pin_memory=pinned) if pinned else self.device_sums

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), outputs (B, K) and labels (B, K)."""
        count = torch.full_like(loss, len(outputs))
        correct = (outputs.argmax(1) == labels.argmax(1)).sum()
        self.device_sums[:3] += torch.stack([loss.detach() * count, correct, count])
        if self.host_sums is not self.device_sums:
            self.host_sums.copy_(self.device_sums, non_blocking=True)

    def fail(self, finite: Tensor, step: int) -> Tensor:
        """Remember `step` where `finite` () is False, unless one failed before; returns whether none ever did."""
        failed = self.device_sums[3]
        failed.copy_(torch.where((failed == 0) & ~finite, step, failed))
        return failed == 0

    def latest(self) -> tuple[float, float]:
        """Mean loss and accuracy as far as the host knows them; nan before the first copy has arrived."""
        loss, correct, count, _ = self.host_sums.tolist()
        return (loss / count, correct / count) if count else (math.nan, math.nan)

    def failed(self) -> int:
        """The first step that was not finite, as far as the host knows; 0 for none."""
        return int(self.host_sums[3])

    def sound(self) -> bool:
        """Whether all was finite so far; this waits for the device."""
        return bool(self.device_sums.isfinite().all()) and int(self.device_sums[3]) == 0

    def reset(self) -> None:
        """Start a new epoch."""
        self.device_sums.zero_()
        self.host_sums.zero_()
