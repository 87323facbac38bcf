"""The small model of the benchmark of the learning-rate finder."""

import pytest
import torch
from benchmarks.lr_finder import NarrowResNet18

from seewhy.models.registry import blank_sample


@pytest.mark.slow
def test_narrow_resnet18_has_an_eighth_of_the_channels() -> None:
    model = NarrowResNet18(10, blank_sample(3, 32, 32))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert model.linear.in_features == 512 // 8
