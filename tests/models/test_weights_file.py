"""Weights in files of the published layouts, against the same network in plain functions."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_weights import (
    efficientnet_logits,
    efficientnet_weights,
    resnet_logits,
    resnet_weights,
    vgg16_logits,
    vgg16_weights,
)
from safetensors.torch import save_file

from seewhy.data.decode import decode_image
from seewhy.errors import SeewhyError
from seewhy.models.classifier import pretrained_classifier
from seewhy.models.registry import blank_sample, build_model, untrained_spec
from seewhy.models.weights_file import loading_note, read_class_names, read_state_dict

RESNET18 = (2, 2, 2, 2)
RESNET34 = (3, 4, 6, 3)


def image_batch(side: int) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def refused(message: str, name: str, **options: object) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        pretrained_classifier(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    weights = resnet_weights(RESNET18, num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(weights, path)
    return path, weights


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg16_in_a_file(tmp_path: Path, batch_norm: bool) -> None:
    torch.manual_seed(0)
    weights = vgg16_weights(batch_norm=batch_norm)
    path = tmp_path / "vgg16.pth"
    torch.save(weights, path)
    name = "vgg16-bn" if batch_norm else "vgg16"
    classifier = pretrained_classifier(f"{name}:weights={path}")
    assert classifier.image_shape == (3, 224, 224)
    images = image_batch(64)
    with torch.no_grad():
        found = classifier.model(images)
        expected = vgg16_logits(weights, images, batch_norm)
    assert found.shape == (2, 1000)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [RESNET18, RESNET34], ids=["resnet18", "resnet34"])
def test_resnet_in_a_file(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weights = resnet_weights(blocks)
    path = tmp_path / "resnet.safetensors"
    save_file(weights, path)
    name = "resnet18" if blocks == RESNET18 else "resnet34"
    before = torch.get_rng_state()
    classifier = pretrained_classifier(f"{name}:weights={path}", image_size=96)
    assert torch.equal(torch.get_rng_state(), before)
    assert classifier.image_shape == (3, 96, 96)
    images = image_batch(96)
    with torch.no_grad():
        found, expected = classifier.model(images), resnet_logits(weights, images, blocks)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    weights = efficientnet_weights(num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(weights, path)
    return path, weights


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (45, 32)], ids=["even", "odd"])
def test_efficientnet_lite0_in_a_file(
    lite0: tuple[Path, dict[str, torch.Tensor]], size: tuple[int, int]
) -> None:
    path, weights = lite0
    classifier = pretrained_classifier(f"efficientnet-lite0:weights={path}")
    assert classifier.image_shape == (3, 224, 224)
    assert classifier.preprocessing.crop == 0.875
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = classifier.model(images), efficientnet_logits(weights, images)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_weights_for_training_keep_all_but_the_head(
    lite0: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    """A new head for the classes of the data; gray images are shown to the summed filters."""
    path, weights = lite0
    spec = f"efficientnet-lite0:weights={path}"
    torch.manual_seed(3)
    model = build_model(spec, 2, blank_sample(1, 40, 40)).eval()
    assert loading_note(model) == ("lite0.pth: a head for 7 classes; the one for 2 classes is new")
    assert model.linear.weight.shape == (2, 1280)
    assert model.linear.weight.std() > 0
    gray = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    model.linear = torch.nn.Linear(1280, 7)
    model.linear.load_state_dict({k: weights[f"_fc.{k}"] for k in ("weight", "bias")})
    with torch.no_grad():
        expected = efficientnet_logits(weights, gray.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model(gray), expected, rtol=1e-4, atol=1e-4)
    fitting = build_model(spec, 7, blank_sample(3, 32, 32))
    assert loading_note(fitting) == ""
    assert torch.equal(fitting.linear.weight, weights["_fc.weight"])
    assert untrained_spec(spec) == "efficientnet-lite0"


@pytest.mark.slow
def test_resnet_with_a_small_stem(tmp_path: Path) -> None:
    """As in the common implementations for CIFAR-10: a 3x3 stem, `shortcut` and `linear`."""
    torch.manual_seed(0)
    model = build_model("resnet18", 10, blank_sample(3, 32, 32)).eval()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("normalize.")}
    path = tmp_path / "ckpt.pth"
    checkpoint = {"net": {f"module.{key}": value for key, value in weights.items()}, "epoch": 3}
    torch.save(checkpoint, path)
    spec = f"resnet18:weights={path}"
    refused("need the mean and std of their training images: pass both, as in --mean 0.49", spec)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    classifier = pretrained_classifier(spec, mean=mean, std=std)
    assert classifier.image_shape == (3, 32, 32)
    assert classifier.preprocessing.crop == 1
    images = image_batch(32)
    with torch.no_grad():
        shifted = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(classifier.model(images), model(shifted))  # mean 0, std 1


@pytest.mark.slow
def test_weights_in_other_forms(
    tmp_path: Path, resnet18: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    """Half precision, without counters, in the format of old files."""
    _, weights = resnet18
    old = {k: v.half() for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "old.pth"
    torch.save({"state_dict": old}, path, _use_new_zipfile_serialization=False)
    model = pretrained_classifier(f"resnet18:weights={path}").model
    assert all(value.dtype == torch.float32 for value in model.parameters())
    torch.testing.assert_close(model.conv1.weight, weights["conv1.weight"].half().float())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
def test_options_of_weights_in_a_file(resnet18: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, _ = resnet18
    spec = f"resnet18:weights={path}"
    names = [f"class {index}" for index in range(7)]
    classifier = pretrained_classifier(spec, classes=names, crop=0.95, mean=[0] * 3, std=[1] * 3)
    assert classifier.classes == tuple(names)
    assert classifier.preprocessing.crop == 0.95
    assert classifier.preprocessing.interpolation == "bilinear"
    assert classifier.model.normalize.mean.flatten().tolist() == [0, 0, 0]
    refused("has 7 classes, but the classifier has 2 class names", spec, classes=["a", "b"])
    refused("mean must be 3 numbers, one per channel, found 1", spec, mean=[0.5], std=[1] * 3)
    refused("std must be above 0, found 0", spec, mean=[0.5] * 3, std=[1, 0, 1])
    refused("need the mean and std .*: pass both", spec, mean=[0.5] * 3)
    refused("crop must be above 0", spec, crop=0)
    refused("mean and std are for weights in a file", "timm:resnet50", mean=[0.5] * 3)


@pytest.mark.slow
def test_preprocessing_as_published(tmp_path: Path) -> None:
    """torchvision: the shorter side resized to 256, bilinear and antialiased, then a 224 crop."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (20, 27, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((864, 640), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.png")
    torch.manual_seed(0)
    torch.save(resnet_weights(RESNET18, 3), tmp_path / "w.pth")
    classifier = pretrained_classifier(f"resnet18:weights={tmp_path / 'w.pth'}")
    assert classifier.image_shape is not None
    found = decode_image(
        tmp_path / "photo.png", classifier.image_shape[1:], 3, classifier.preprocessing
    )
    resized = photo.resize((round(864 * 256 / 640), 256), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (256 - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.mean() < 1.5  # a fraction of a pixel where 256 is not exact


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet34",
            r"does not have the published layout of resnet34: missing: layer1.2.conv1.weight, "
            r"layer1.2.bn1.weight, layer1.2.bn1.bias, … \(\d+ in all\); pass weights of this",
        ),
        (
            "vgg16",
            r"layout of vgg16: missing: features.0.weight, features.0.bias, features.2.weight, … "
            r"\(30 in all\); unexpected: conv1.weight, bn1.weight, bn1.bias, … \(122 in all\)",
        ),
        (
            "efficientnet-lite0",
            "layout of efficientnet-lite0: missing: _conv_stem.weight, _bn0.weight, _bn0.bias, … ",
        ),
        (
            "davidnet",
            "davidnet has no published weights in a file; possible: efficientnet-lite0, r",
        ),
    ],
)
def test_a_foreign_layout_is_refused(
    resnet18: tuple[Path, dict[str, torch.Tensor]], name: str, message: str
) -> None:
    refused(message, f"{name}:weights={resnet18[0]}")


@pytest.mark.slow
def test_weights_of_another_shape_are_refused(
    tmp_path: Path, resnet18: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    path = tmp_path / "wide.pth"
    torch.save({**resnet18[1], "layer1.0.conv2.weight": torch.zeros(64, 128, 3, 3)}, path)
    refused(
        r"of another shape: layer1.0.conv2.weight \(64, 128, 3, 3\) instead of \(64, 64, 3, 3\)",
        f"resnet18:weights={path}",
    )


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch proof",)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"class Net: pass\n", "is a text file"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"\xfe\xff\x00\x01", "is damaged, or has another format"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(SeewhyError, match=rf"w\.pth holds no weights: it {found}.*; pass a state"):
        read_state_dict(path)


def test_an_image_given_as_weights_is_named(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "text.png")
    with pytest.raises(SeewhyError, match=r"text\.png holds no weights: it is a PNG image; pass"):
        read_state_dict(tmp_path / "text.png")


def test_read_state_dict_refuses_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    cases: list[tuple[object, str]] = [
        ({"a": torch.zeros(1), "b": 5}, "holds more than tensors by name; save model.state_dict"),
        ([torch.zeros(1)], "holds list instead of a state dict"),
        ({}, "holds dict instead of a state dict"),
        (
            Hostile(),
            "holds no weights: it is damaged, or holds objects other than tensors; pass a state",
        ),
    ]
    for value, message in cases:
        torch.save(value, path)
        with pytest.raises(SeewhyError, match=message) as caught:
            read_state_dict(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(pickle.dumps(Hostile()))
    for content in (path.read_bytes(), b"", b"damaged"):
        for name in ("w.pth", "w.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(SeewhyError, match=f"{name} holds no weights: it is "):
                read_state_dict(tmp_path / name)
    assert not (tmp_path / "proof").exists()
    with pytest.raises(SeewhyError, match=r"is a directory, not a regular file; pass the path of"):
        read_state_dict(tmp_path)
    with pytest.raises(SeewhyError, match=r"nothing\.pth does not exist; download the weights"):
        read_state_dict(tmp_path / "nothing.pth")


def test_read_class_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("tench\n\n goldfish, Carassius auratus \r\n", encoding="utf-8")
    assert read_class_names(path) == ("tench", "goldfish, Carassius auratus")
    path.write_text("\n")
    with pytest.raises(SeewhyError, match="has no class names; write one per line"):
        read_class_names(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(SeewhyError, match="cannot be read as class names"):
        read_class_names(path)
