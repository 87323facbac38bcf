"""Models of timm as ONNX files."""

from pathlib import Path

import pytest
import torch

from seewhy.exporting.exporter import export
from seewhy.models.classifier import Classifier
from seewhy.models.registry import blank_sample, build_model

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_timm_exports_to_onnx(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(f"timm:{name}", 5, blank_sample(3, 224, 224)).eval()
    check = export(Classifier(model, image_shape=(3, 224, 224)), tmp_path / "model.onnx")
    assert check.same_class == check.images == 64
    assert check.largest_difference < 1e-4
