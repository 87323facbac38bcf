"""Opening runs and published weights; a damaged directory."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seewhy.data.dataset import Dataset
from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.registry import MODELS
from seewhy.runs import run as run_module
from seewhy.runs.environment import Environment, Resumption
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import Run, open_classifier, open_run
from seewhy.runs.training import fit
from seewhy.runs.weights import load_classifier
from seewhy.train.recipe import Recipe

pytestmark = pytest.mark.train


def assert_same_logits(one: Run, other: Run, data: Dataset) -> None:
    """Equal to the last bit."""
    first, second = (compute_logits(run, data.test.images) for run in (one, other))
    assert torch.equal(first, second)


def test_open_run_reads_everything(run: Run, directory: Path, data: Dataset) -> None:
    opened = open_run(directory)
    assert opened.recipe == run.recipe
    assert opened.history == run.history
    assert (opened.classes, opened.image_shape) == (data.classes, (3, 8, 8))
    assert not opened.model.training
    assert opened.result == run.result
    assert (opened.environment, opened.data_origin) == (run.environment, run.data_origin)
    assert (opened.classifier.precision, opened.classifier.tta) == ("fp32", "none")
    assert opened.predictions is not None
    assert run.predictions is not None
    assert torch.equal(opened.predictions.logits, run.predictions.logits)
    assert opened.directory == directory
    assert_same_logits(opened, run, data)


def test_run_repr_has_the_result(run: Run, unfinished: Run) -> None:
    assert repr(run).startswith("Run(tiny on bars: ")
    assert " on 60 test images, " in repr(run)
    assert repr(unfinished) == "Run(tiny on bars: not finished, 4 epochs)"


def test_an_unfinished_run_has_a_classifier_only(unfinished: Run, data: Dataset) -> None:
    assert (unfinished.result, unfinished.predictions) == (None, None)
    expected = unfinished.history[-1].eval_accuracy
    assert evaluate(unfinished, data).accuracy == pytest.approx(expected)


def test_open_run_of_a_model_of_ones_own(
    recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are read into the model that MODELS builds; tied weights stay tied."""

    def tied(num_classes: int, sample: object, scale: float = 1.0) -> torch.nn.Module:
        layers = [torch.nn.Linear(192, 192), torch.nn.Linear(192, 192)]
        layers[1].weight = layers[0].weight
        head = torch.nn.Linear(192, num_classes)
        torch.nn.init.constant_(head.bias, scale)
        return torch.nn.Sequential(torch.nn.Flatten(), *layers, head)

    monkeypatch.setitem(MODELS, "tied", tied)
    mine = replace(recipe, model="tied:scale=3", lr=0.001, epochs=1)
    run = fit(mine, data, tmp_path / "tied", quiet=True)
    opened = open_run(tmp_path / "tied")
    assert opened.model[3].bias.mean().item() == pytest.approx(3, abs=0.5)  # type: ignore[index]
    assert_same_logits(opened, run, data)
    monkeypatch.delitem(MODELS, "tied")
    with pytest.raises(
        SeewhyError, match="the code of the run's model 'tied' is not part of seewhy"
    ):
        open_run(tmp_path / "tied")


def test_open_run_needs_no_augmentations(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    def invert(images: torch.Tensor) -> torch.Tensor:
        return 255 - images

    mine = replace(recipe, augment=("crop:1", invert), epochs=1)
    run = fit(mine, data, tmp_path / "run", quiet=True)
    opened = open_run(tmp_path / "run")
    assert opened.recipe.augment[0] == "crop:1"
    assert_same_logits(opened, run, data)


@pytest.mark.parametrize(
    ("device", "precision", "native", "expected"),
    [
        ("cpu", "fp32", "fp32", "fp32"),
        ("cpu", "bf16", "bf16", "bf16"),
        ("cuda:0", "bf16", "fp32", "fp32"),
        ("cpu", "fp16", "fp32", "fp16"),
        ("cuda:0", "fp16", "fp32", "fp32"),
    ],
)
def test_open_run_computes_in_the_precision_of_training_if_the_device_has_it(
    device: str,
    precision: str,
    native: str,
    expected: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "find_precision", lambda name, device: native)
    environment = replace(run.environment, device=device, precision=precision)
    assert run_module._precision_on(torch.device("cpu"), environment) == expected


def test_environment_names_the_hardware(run: Run) -> None:
    environment: Environment = run.environment
    assert environment.hardware == environment.processor
    assert replace(environment, accelerator="NVIDIA H100").hardware == "NVIDIA H100"


def test_resumptions_are_read_back(directory: Path) -> None:
    values = json.loads((directory / "env.json").read_text())
    values["resumed"] = [{"step": 6, "device": "cpu", "time": "2026-11-22T02:14:00"}]
    (directory / "env.json").write_text(json.dumps(values))
    resumed = open_run(directory).environment.resumed
    assert resumed == (Resumption(6, "cpu", "2026-11-22T02:14:00"),)


def test_open_classifier_opens_runs_and_published_weights(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_classifier(str(directory)), Run)
    published = Classifier(torch.nn.Linear(1, 2), preprocessing=Preprocessing(0.875))
    requested = []

    def pretrained(*arguments: object) -> Classifier:
        requested.append(arguments)
        return published

    monkeypatch.setattr(run_module, "pretrained_classifier", pretrained)
    assert open_classifier("timm:resnet50", "cpu", 64) is published
    assert requested == [("timm:resnet50", "cpu", 64)]


def test_open_classifier_needs_weights(directory: Path) -> None:
    for name in ("resnet18", "davidnet:dropout=0.1", "speednet:width=0.5"):
        with pytest.raises(SeewhyError, match=f"{name} has no trained weights"):
            open_classifier(name)
    with pytest.raises(SeewhyError, match="nothing is not a run directory"):
        open_classifier("nothing")
    with pytest.raises(SeewhyError, match="image_size is for published weights; leave it out for"):
        open_classifier(str(directory), image_size=64)


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def write(name: str, content: bytes = b"\x00garbage") -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return damage


def write_foreign_weights(directory: Path) -> None:
    save_file({"weight": torch.zeros(3)}, directory / "model.safetensors")


def write_weights_of_another_shape(directory: Path) -> None:
    values = {
        "model": "speednet:width=0.25",
        "classes": ["a", "b"],
        "image_shape": [3, 8, 8],
        "preprocessing": {},
    }
    tensors = {"linear.weight": torch.zeros(3, 7)}
    path = directory / "model.safetensors"
    save_file(tensors, path, metadata={"seewhy": json.dumps(values)})


@pytest.mark.train
def test_every_flipped_bit_of_the_weights_is_noticed(directory: Path) -> None:
    """Anywhere in the file: sizes, names, metadata and weights."""
    path, choose = directory / "model.safetensors", random.Random(0)
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little") + 8
    end = content[:header].rstrip(b" ")  # of the header, which ends in padding
    offsets = [choose.randrange(len(content)) for _ in range(60)]
    offsets += [choose.randrange(len(end)) for _ in range(60)]
    for offset in offsets:
        flipped = bytearray(content)
        flipped[offset] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        if len(end) <= offset < header or b"seewhy-sha256" not in flipped:
            continue  # nothing that matters is damaged
        with pytest.raises(SeewhyError) as caught:
            load_classifier(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    load_classifier(path)


def truncate_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("recipe.toml"), r"is not a run directory \(it contains no recipe.toml\)"),
        (write("summary.json"), r"summary.json is missing or damaged"),
        (write("summary.json", b"[1]"), r"summary.json is missing or damaged"),
        (write("summary.json", b"{}"), r"summary.json is missing or damaged"),
        (write("env.json", b"{}"), r"env.json is missing or damaged"),
        (write("metrics.jsonl"), r"metrics.jsonl is missing or damaged"),
        (write("predictions.npz"), r"predictions.npz is missing or damaged"),
        (remove("model.safetensors"), r"model.safetensors does not exist"),
        (write("model.safetensors"), r"model.safetensors is missing or damaged"),
        (truncate_weights, r"model.safetensors is missing or damaged"),
        (write_foreign_weights, r"has no metadata of seewhy"),
        (write_weights_of_another_shape, r"do not fit the model 'speednet:width=0.25'"),
    ],
)
def test_open_run_names_the_damaged_file(
    damage: Callable[[Path], None], message: str, directory: Path
) -> None:
    damage(directory)
    with pytest.raises(SeewhyError, match=message) as caught:
        open_run(directory)
    assert "\n" not in str(caught.value)


def test_open_run_of_no_directory() -> None:
    with pytest.raises(SeewhyError, match=r"nowhere is not a run directory \(no such directory\)"):
        open_run("nowhere")
