"""The choice of a recipe by data, model and machine, and fitting one into a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.dataset import Dataset
from seewhy.data.facts import DataFacts, data_facts
from seewhy.errors import SeewhyError
from seewhy.models.published import LAYOUTS
from seewhy.models.registry import blank_sample, build_model
from seewhy.runs import choice as choice_module
from seewhy.runs import pace
from seewhy.runs.choice import choose_recipe, has_published_weights, random_features_note
from seewhy.runs.pace import fit_into
from seewhy.train.plan import check_recipe
from seewhy.train.recipe import Recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with random weights in the published layout of EfficientNet-Lite0."""
    model = build_model("efficientnet-lite0", 10, blank_sample(3, 32, 32))
    tensors = {
        key: value for key, value in model.state_dict().items() if not key.startswith("normalize.")
    }
    rename = LAYOUTS["efficientnet-lite0"]("efficientnet-lite0", tensors).rename
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save({rename(key): value for key, value in tensors.items()}, path)
    return f"efficientnet-lite0:weights={path}"


def facts(images: int = 300, side: int = 240, classes: int = 3) -> DataFacts:
    return DataFacts("birds", images, (images // classes,) * classes, side)


def chosen(monkeypatch: pytest.MonkeyPatch, found: DataFacts, model: str | None) -> tuple[str, str]:
    """The recipe's name and the reason."""
    monkeypatch.setattr(choice_module, "data_facts", lambda *arguments: found)
    choice = choose_recipe("birds", model, "cpu")
    check_recipe(choice.recipe)
    return choice.recipe.name, choice.reason


@pytest.mark.parametrize(
    ("found", "pretrained", "name", "why"),
    [
        (facts(300), True, "probe", "300 training images are few, so only the head"),
        (facts(498), True, "probe", "498 training images are few, so only the head"),
        (facts(501), True, "finetune", "501 training images are enough"),
        (facts(30_000), True, "probe", "30,000 training images are many for this CPU"),
        (facts(300), False, "from-scratch", "without published weights"),
        (facts(1500, side=8), False, "demo", "1,500 training images are small (about 8 pixels)"),
        (facts(50_000, side=32), False, "speednet-8", "the images are small (about 32 pixels)"),
    ],
)
def test_choice_by_images_and_model(
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    found: DataFacts,
    pretrained: bool,
    name: str,
    why: str,
) -> None:
    recipe, reason = chosen(monkeypatch, found, weights if pretrained else None)
    assert recipe == name
    assert reason.startswith(f"recipe {name}: {why}")


def test_models_of_transformers_have_published_weights_unless_told_otherwise() -> None:
    assert has_published_weights("hf:microsoft/resnet-18")
    assert not has_published_weights("hf:microsoft/resnet-18,pretrained=false")
    assert not has_published_weights("timm:resnet18")


def test_uneven_classes_are_weighted(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    monkeypatch.setattr(
        choice_module, "data_facts", lambda *arguments: DataFacts("birds", 110, (100, 10), 240)
    )
    choice = choose_recipe("birds", weights, "cpu")
    assert choice.recipe.class_weights
    assert choice.reason.endswith("class weights, as classes have 10 to 100 images")


def test_photographs_are_loaded_as_the_weights_need_them(
    monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    monkeypatch.setattr(choice_module, "data_facts", lambda *arguments: facts())
    assert choose_recipe("birds", weights, "cpu").loading == {
        "image_size": 224,
        "margin": 32,
        "interpolation": "bicubic",
    }
    monkeypatch.setattr(choice_module, "data_facts", lambda *arguments: facts(side=32))
    assert choose_recipe("birds", None, "cpu").loading == {}


def test_facts_are_those_of_the_headers(tmp_path: Path, data: Dataset) -> None:
    for index, (name, size) in enumerate([("a", (90, 70)), ("a", (80, 200)), ("b", (75, 99))]):
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = np.full((*size, 3), index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    found = data_facts(tmp_path)
    assert (found.train_images, found.class_counts, found.side) == (3, (2, 1), 75)
    assert data_facts(data) == DataFacts("bars", 240, (80, 80, 80), 8)
    with pytest.raises(SeewhyError, match="limit must be at least 1, found 0"):
        data_facts(data, limit=0)
    assert data_facts(data, limit=30) == DataFacts("bars", 30, (10, 10, 10), 8)


def test_epochs_that_fit_into_a_time(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 10 images/s: 24 + 2 s for each epoch and its evaluation, and 4 s for two evaluations."""
    monkeypatch.setattr(pace, "images_per_second", lambda *arguments: 10.0)
    recipe = replace(recipe, epochs=8)
    fitted, line = fit_into(recipe, data, 2.0)
    assert fitted == replace(recipe, epochs=4.0)  # (0.9 * 120 - 4) / 26
    assert line == "4 of 8 epochs of tiny fit into 2 minutes, at 10 images/s"
    assert fit_into(recipe, data, 60.0)[0] == recipe
    with pytest.raises(
        SeewhyError, match=r"not even a hundredth of an epoch of tiny fits into 0\.05"
    ):
        fit_into(recipe, data, 0.05)
    with pytest.raises(SeewhyError, match=r"minutes must be more than 0, found 0"):
        fit_into(recipe, data, 0.0)


def test_a_probe_remains_where_no_epoch_fits(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "images_per_second", lambda *arguments: 10.0)
    fitted, _ = fit_into(replace(recipe, probe="logistic"), data, 0.05)
    assert (fitted.epochs, fitted.probe) == (0.0, "logistic")


def test_each_view_of_a_probe_takes_time(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass over 240 images takes 8 s."""
    monkeypatch.setattr(pace, "images_per_second", lambda *arguments: 10.0)
    epochs = [
        fit_into(replace(recipe, probe=probe, epochs=100), data, 2.0)[0].epochs
        for probe in ("none", "logistic", "logistic:flip")
    ]
    assert epochs == [4.0, 3.69, 3.38]


def test_several_processes_have_no_common_pace(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SeewhyError, match="minutes is for one process, found 2; set epochs"):
        fit_into(recipe, data, 2.0)


def test_pace_is_measured_for_recipes_with_probe_and_range_test(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LONGEST_MEASUREMENT", 0.05)
    fitted, _ = fit_into(replace(recipe, probe="logistic", lr="find", epochs=1000), data, 0.02)
    assert 0 < fitted.epochs < 1000
    assert fitted.lr == "find"


def test_a_probe_of_random_weights_is_noted(weights: str) -> None:
    assert random_features_note("resnet18:stem=imagenet").endswith(
        "as in resnet18:stem=imagenet,weights=FILE"
    )
    assert random_features_note("timm:resnet50").endswith("timm:resnet50,pretrained=true")
    for model in (weights, "timm:resnet50,pretrained=true", "speednet", "package.module:network"):
        assert random_features_note(model) == ""
