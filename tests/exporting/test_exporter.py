"""Exported files compute what their models do, for any number of images, without their code."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.exporting import check as check_module
from seewhy.exporting.exporter import export
from seewhy.exporting.formats import FORMATS
from seewhy.models.classifier import Classifier
from seewhy.models.efficientnet import STAGES
from seewhy.models.inference import compute_logits
from seewhy.models.normalization import Normalize
from seewhy.models.onnx_file import onnx_classifier
from seewhy.models.registry import MODELS, blank_sample, build_model
from seewhy.runs.calibration import FittedTemperature, calibrate, run_temperature
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import Run
from seewhy.train.recipe import Recipe, to_toml

onnxruntime = pytest.importorskip("onnxruntime")
SHAPE = (3, 8, 8)
pytestmark = pytest.mark.slow


class Ours(nn.Module):
    """A model of a user: a dict as its output, a branch on a shape, and no name in MODELS."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.tensor([0.1, -0.2, 0.3, 0.0])
        self.linear = nn.Linear(4, 3)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.conv(self.normalize(pixels))).relu()
        if x.shape[3] > 2:
            x = x.mean((2, 3))
        return {"features": x, "scores": self.linear(x)}


def ours() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Ours().eval(), ("upright", "level", "slanting"), SHAPE, output="scores")


def run_file(path: Path, pixels: np.ndarray) -> np.ndarray:
    """What onnxruntime computes, without anything of seewhy."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a torch.export program."""
    extra = {"seewhy.json": ""}
    torch.export.load(path, extra_files=extra)
    values: dict[str, str] = json.loads(extra["seewhy.json"])
    return values


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`files("model.onnx", uint8=True)`: the exported model of a user; each is written once."""
    directory = tmp_path_factory.mktemp("files")

    def made(name: str, **options: bool) -> Path:
        path = directory / f"{'-'.join([*options, ''])}{name}"
        if not path.exists():
            export(ours(), path, **options)
        return path

    return made


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_file_takes_any_number_of_images(files: Callable[..., Path], count: int) -> None:
    pixels = images(count).float() / 255
    expected = ours().model(pixels)["scores"].detach()
    found = run_file(files("model.onnx"), pixels.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    program = torch.export.load(files("model.pt2")).module()
    torch.testing.assert_close(program(pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_file_may_take_uint8_and_return_probabilities(files: Callable[..., Path]) -> None:
    pixels = images(5)
    expected = ours().model(pixels / 255)["scores"].softmax(1).detach()
    path = files("model.onnx", uint8=True, probabilities=True)
    found = run_file(path, pixels.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    opened = onnx_classifier(path)
    logits = compute_logits(replace(opened, tta="flip"), pixels)
    flipped = compute_logits(replace(ours(), tta="flip"), pixels)
    torch.testing.assert_close(logits.softmax(1), flipped.softmax(1), rtol=1e-4, atol=1e-5)


class NarrowLinear(nn.Linear):
    """Eight features instead of VGG's 4,096."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(8 if inputs == 4096 else inputs, 8 if outputs == 4096 else outputs)


def small_model(name: str, side: int, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A registered model with fewer of its equal parts, which take most of the time.

    ResNet-34 would be ResNet-18.
    """
    if name.startswith("vgg"):
        monkeypatch.setattr(nn, "Linear", NarrowLinear)
        monkeypatch.setattr("seewhy.models.vgg.STAGES", ((8,), (8,), (8, 8), (8,), (512,)))
    if name.startswith("efficientnet"):
        monkeypatch.setattr("seewhy.models.efficientnet.STAGES", STAGES[:2])
    spec = "speednet:width=0.125,depth=3" if name == "speednet" else name
    model = build_model(spec, 3, blank_sample(3, side, side)).eval()
    if name.startswith("resnet"):
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            setattr(model, stage, getattr(model, stage)[:1])
    return model


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"hf", "timm", "torchvision", "resnet34"}))
def test_every_registered_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    side = 32 if name.startswith(("vgg", "efficientnet")) else 8
    model = small_model(name, side, monkeypatch)
    classifier = Classifier(model, image_shape=(3, side, side))
    check = export(classifier, tmp_path / "model.onnx", quiet=True)
    assert check.same_class == check.images == 64
    assert check.source == "random images"
    assert check.largest_difference < 1e-4
    pixels = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    found = run_file(tmp_path / "model.onnx", pixels.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(found, model(pixels).numpy(), rtol=1e-3, atol=1e-4)
    assert capfd.readouterr() == ("", "")


@pytest.mark.train
@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_run_exports_with_its_facts(
    name: str, run: Any, data: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    check = export(run, tmp_path / name, data=data)
    assert check.path == tmp_path / name
    assert (check.images, check.same_class, check.source) == (60, 60, "test images of bars")
    assert 0 <= check.largest_difference < 1e-4
    assert min(check.model_speed, check.file_speed) > 0
    if name.endswith(".onnx"):
        session = onnxruntime.InferenceSession(tmp_path / name)
        metadata = session.get_modelmeta().custom_metadata_map
        opened = onnx_classifier(tmp_path / name)
        assert evaluate(opened, data).accuracy == run.result.accuracy
        assert (opened.classes, opened.image_shape) == (data.classes, data.image_shape)
        assert not list(opened.model.children())  # the model's code is not used
    else:
        metadata = read_metadata(tmp_path / name)
    assert json.loads(metadata["classes"]) == ["upright", "level", "slanting"]
    assert metadata["recipe"] == to_toml(run.recipe)
    assert metadata["data_fingerprint"] == data.fingerprint == "0" * 32
    assert float(metadata["accuracy"]) == run.result.accuracy
    assert json.loads(metadata["interval"]) == list(run.result.interval)
    assert metadata["test_images"] == "60"


def test_a_file_names_no_path_of_this_machine(files: Callable[..., Path]) -> None:
    content = files("model.onnx").read_bytes()
    for text in (b"site-packages", str(Path(__file__).parent).encode(), b".py"):
        assert text not in content


def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = FORMATS["torch"].open

    def flipped(path: Path, metadata: Any) -> Any:
        model = open_file(path, metadata)
        run = model.run
        model.run = lambda pixels: run(pixels).flip(1)
        return model

    monkeypatch.setitem(FORMATS, "torch", FORMATS["torch"]._replace(open=flipped))
    with pytest.raises(
        SeewhyError, match=r"does not compute what the model does: \d+ of 64 random"
    ):
        export(ours(), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_tied_classes_count_as_the_same(tmp_path: Path) -> None:
    """Where two classes are equally probable, rounding decides, here the order of the classes."""

    def constant(*logits: float) -> Classifier:
        class Constant(nn.Module):
            def forward(self, pixels: Tensor) -> Tensor:
                return torch.tensor([logits]).expand(len(pixels), -1)

        return Classifier(Constant())

    def compared(*logits: float) -> check_module.ExportCheck:
        original = constant(1.0, 1.0, 0.0)
        return check_module.check_file(tmp_path, constant(*logits), original, images(4), "images")

    assert compared(1.0, 1.000001, 0.0).same_class == 4
    with pytest.raises(SeewhyError, match="4 of 4 images get another class"):
        compared(0.0, 1.0, 1.1)
    with pytest.raises(SeewhyError, match=r"0 of 4 images get another class, and .* 0.0064;"):
        compared(1.05, 1.05, 0.0)
    with pytest.raises(SeewhyError, match="nan"):
        compared(float("nan"), 1.0, 0.0)


def test_export_leaves_the_model_and_the_random_state(tmp_path: Path) -> None:
    classifier = ours()
    classifier.model.train()
    before = {key: value.clone() for key, value in classifier.model.state_dict().items()}
    state = torch.random.get_rng_state()
    export(classifier, tmp_path / "model.pt2")
    assert classifier.model.training
    assert all(parameter.requires_grad for parameter in classifier.model.parameters())
    for key, value in classifier.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_bare_module_takes_classes_and_shape_from_the_data(data: Dataset, tmp_path: Path) -> None:
    check = export(Ours(), tmp_path / "model.pt2", data=data)
    assert (check.images, check.source) == (60, "test images of bars")
    metadata = read_metadata(tmp_path / "model.pt2")
    assert json.loads(metadata["classes"]) == ["upright", "level", "slanting"]
    assert json.loads(metadata["image_shape"]) == [3, 8, 8]


class Branching(nn.Module):
    """Branches on pixel values, which no exporter can trace."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3)) if pixels.sum() > 0 else -pixels.mean((2, 3))


class OneSize(nn.Module):
    """Takes batches of two images only."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.reshape(2, 3, -1).mean(2)


@pytest.mark.parametrize("model", [Branching(), OneSize()])
def test_a_model_that_cannot_be_traced(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(
        SeewhyError, match=r"torch.export cannot trace (Branching|OneSize)"
    ) as caught:
        export(Classifier(model, image_shape=SHAPE), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_export_rejects(data: Dataset, tmp_path: Path, files: Callable[..., Path]) -> None:
    small = replace(data.train, images=data.train.images[:, :, :4, :4])
    for classifier, name, options, message in (
        (
            ours(),
            "model.bin",
            {},
            r"must end in .onnx \(onnx\) or .pt2 \(torch\), found 'model.bin'",
        ),
        (Ours(), "model.onnx", {}, "the classifier has no image shape; pass data, or Classifier"),
        (
            onnx_classifier(files("model.onnx")),
            "model.pt2",
            {},
            "the model comes from an exported file; export the run",
        ),
        (
            ours(),
            "model.onnx",
            {"data": replace(data, train=small)},
            r"bars has images of 3x4x4, but the model takes 3x8x8",
        ),
    ):
        with pytest.raises(SeewhyError, match=message):
            export(classifier, tmp_path / name, **options)  # type: ignore[arg-type]


@pytest.mark.train
def test_a_run_of_data_in_memory_needs_its_data(run: Any, tmp_path: Path) -> None:
    with pytest.raises(SeewhyError, match="checked with the test images of the run: bars was made"):
        export(run, tmp_path / "model.onnx")


def test_exported_file_divides_by_the_temperature(tmp_path: Path) -> None:
    """Without seewhy too; opened again, it is not divided twice."""
    path, pixels = tmp_path / "model.onnx", images(20)
    classifier = replace(ours(), temperature=0.4)
    assert export(classifier, path, probabilities=True, quiet=True).same_class == 64
    expected = (compute_logits(ours(), pixels) / 0.4).softmax(1)
    np.testing.assert_allclose(
        run_file(path, pixels.numpy() / np.float32(255)), expected, atol=1e-5
    )
    opened = onnx_classifier(path)
    assert run_temperature(opened) == FittedTemperature(0.4, "", 0)
    for each in (opened, calibrate(opened)):
        found = compute_logits(each, pixels).softmax(1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.train
def test_calibrated_export_of_a_run_says_what_its_temperature_was_fitted_on(
    run: Run, data: Dataset, tmp_path: Path
) -> None:
    path, fitted = tmp_path / "model.pt2", run_temperature(run)
    check = export(run, path, data=data, calibrated=True, quiet=True)
    assert check.same_class == len(data.test)
    assert json.loads(read_metadata(path)["calibration"]) == asdict(fitted)
    assert (fitted.fitted_on, fitted.images) == ("test", 60)
    plain = compute_logits(replace(run.classifier, tta="none"), data.test.images)
    found = torch.export.load(path).module()(data.test.images.float() / 255)
    torch.testing.assert_close(found, plain / fitted.temperature, rtol=1e-4, atol=1e-4)


def test_uncalibrated_file_has_no_temperature(files: Callable[..., Path]) -> None:
    with pytest.raises(SeewhyError, match="need a run, or a file exported with calibration"):
        run_temperature(onnx_classifier(files("model.onnx")))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("probabilities", [False, True])
def test_a_model_that_ends_in_a_softmax_is_exported_with_logits(
    temperature: float, probabilities: bool, tmp_path: Path
) -> None:
    """What the file returns is what its metadata say: probabilities, or their logarithms."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    model = nn.Sequential(*layers, nn.Softmax(1)).eval()
    classifier = Classifier(model, ("a", "b", "c"), SHAPE, temperature=temperature)
    export(classifier, tmp_path / "model.pt2", probabilities=probabilities, quiet=True)
    outputs = torch.export.load(tmp_path / "model.pt2").module()(images(9).float() / 255)
    expected = compute_logits(classifier, images(9)).softmax(1)
    torch.testing.assert_close(outputs if probabilities else outputs.softmax(1), expected)
