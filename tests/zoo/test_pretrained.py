"""Weights of files and of transformers, against the networks of the packages themselves."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import transformers

import seewhy
from seewhy.errors import SeewhyError
from seewhy.models.classifier import pretrained_classifier
from seewhy.models.pretrained import pretrained_info
from seewhy.models.registry import blank_sample, build_model
from seewhy.models.weights_file import loading_note

pytestmark = pytest.mark.zoo

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        ("timm:resnet18", lambda: timm.create_model("resnet18")),
        ("torchvision:resnet18", lambda: torchvision.models.resnet18()),
        ("resnet18", lambda: torchvision.models.resnet18()),
        ("torchvision:squeezenet1_1", lambda: torchvision.models.squeezenet1_1()),
    ],
    ids=["timm", "torchvision", "ours", "convolution"],
)
def test_weights_of_a_file_are_those_of_the_package(tmp_path: Path, spec: str, make) -> None:
    torch.manual_seed(0)
    net = make().eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    classifier = pretrained_classifier(
        f"{spec}:weights={tmp_path / 'w.pth'}"
        if ":" not in spec
        else f"{spec},weights={tmp_path / 'w.pth'}"
    )
    pixels = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(classifier.model(pixels), net((pixels - MEAN) / STD))
    separator = "," if ":" in spec else ":"
    model = build_model(
        f"{spec}{separator}weights={tmp_path / 'w.pth'}", 3, blank_sample(3, 96, 96)
    )
    assert loading_note(model) == "w.pth: a head for 1,000 classes; the one for 3 classes is new"
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 3)


def test_timm_weights_at_another_size(tmp_path: Path) -> None:
    """The position embeddings are those that timm itself computes for the size."""
    net = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    spec = f"timm:vit_tiny_patch16_224,img_size=64,weights={tmp_path / 'w.pth'}"
    model = build_model(spec, 1000, blank_sample(3, 64, 64)).eval()
    expected = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=64,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "w.pth")},
    ).eval()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), expected((pixels - 0.5) / 0.5))
    other = timm.create_model("vit_small_patch16_224")
    torch.save(other.state_dict(), tmp_path / "w.pth")
    with pytest.raises(SeewhyError, match="does not have the published layout of timm:vit_tiny"):
        build_model(spec, 3, blank_sample(3, 64, 64))


@pytest.fixture
def vit(tmp_path: Path) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    names = {0: "ant", 1: "bee", 2: "cat"}
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "vit")
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "size": {"height": 32, "width": 32},
        "resample": 2,
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return net


def test_model_of_transformers(
    tmp_path: Path, vit: transformers.PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    classifier = pretrained_classifier("hf:vit")
    assert classifier.classes == ("ant", "bee", "cat")
    assert classifier.image_shape == (3, 32, 32)
    assert classifier.preprocessing.interpolation == "bilinear"
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    with torch.no_grad():
        expected = vit((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).logits
        torch.testing.assert_close(classifier.model(pixels), expected)
        gray = pixels[:, :1]
        model = build_model("hf:vit", 3, blank_sample(1, 32, 32)).eval()
        torch.testing.assert_close(model(gray), classifier.model(gray.expand(-1, 3, -1, -1)))
    assert pretrained_info("hf:vit").mean == (0.5, 0.4, 0.3)
    with pytest.raises(SeewhyError, match="needs OWNER/NAME of the hub, or a directory"):
        build_model("hf:nothing", 3, blank_sample(3, 32, 32))


@pytest.mark.usefixtures("vit")
def test_run_of_a_model_of_transformers_is_opened_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = seewhy.load("digits", image_size=32, limit=100)
    recipe = seewhy.find_recipe("demo", epochs=1, model="hf:vit", lr=0.01)
    run = seewhy.fit(recipe, data, "run", quiet=True)
    shutil.rmtree("vit")
    opened = seewhy.open_run("run")
    assert seewhy.evaluate(opened, data).accuracy == run.result.plain_accuracy
