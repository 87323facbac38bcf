import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seewhy.errors import SeewhyError
from seewhy.train.optimizers import Adam, bind_optimizer, momentum_of, set_lr_and_momentum
from seewhy.train.plan import check_recipe
from seewhy.train.recipe import Recipe, from_dict, to_toml
from seewhy.train.recipes import RECIPES, find_recipe
from seewhy.train.schedules import bind_schedule


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-plus")])
def test_plus_recipe_has_the_published_budget(name: str) -> None:
    ours, published = RECIPES[name], RECIPES[name.removesuffix("-plus")]
    assert (ours.model, ours.epochs) == (published.model, published.epochs)
    assert ours != replace(published, name=name)


@pytest.mark.parametrize("name", RECIPES)
def test_to_toml_round_trip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "any.toml"
    path.write_text(to_toml(RECIPES[name]))
    assert find_recipe(path) == RECIPES[name]


def test_recipe_fields_are_documented() -> None:
    source = Path(__file__).parents[2].joinpath("src/seewhy/train/recipe.py").read_text()
    for field in fields(Recipe):
        assert f"\n{field.name} = " in "\n" + to_toml(Recipe())
        assert f"    {field.name}: " in source
        assert source.split(f"    {field.name}: ", 1)[1].split("\n")[1].startswith('    """'), (
            field.name
        )


def test_find_recipe_with_base(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_text('base = "davidnet-24"\nepochs = 48\n')
    assert find_recipe(path) == replace(RECIPES["davidnet-24"], name="long", epochs=48)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epocs": 3}, "unknown recipe field 'epocs' (did you mean 'epochs'?)"),
        ({"model": "resnet81"}, "unknown model 'resnet81' (did you mean 'resnet18'?)"),
        ({"model": "ResNet18"}, "unknown model 'ResNet18' (did you mean 'resnet18'?)"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg' (did you mean 'sgd'?)"),
        ({"schedule": "onecycle"}, "unknown schedule 'onecycle' (did you mean 'one-cycle'?)"),
        ({"augment": ["flipp"]}, "unknown augmentation 'flipp' (did you mean 'flip'?)"),
        ({"precision": "bf61"}, "unknown precision 'bf61' (did you mean 'bf16'?)"),
        (
            {"epochs": 0},
            "recipe field epochs must be more than 0 (0 needs a probe), at most a million",
        ),
        ({"epochs": float("nan")}, "recipe field epochs must be of type float, found nan"),
        ({"epochs": "ten"}, "recipe field epochs must be of type float, found 'ten'"),
        ({"batch_size": 1}, "recipe field batch_size must be at least 2, found 1"),
        ({"name": "../x"}, "recipe field name must be a plain file name, found '../x'"),
        ({"name": ""}, "recipe field name must be a plain file name"),
        ({"schedule": "linear:end=-5"}, "schedule 'linear:end=-5' gives a factor of"),
        ({"batch_size": 3.5}, "recipe field batch_size must be of type int, found 3.5"),
        ({"batch_size": True}, "recipe field batch_size must be of type int, found True"),
        ({"lr": -1}, "recipe field lr must be more than 0, found -1.0"),
        ({"weight_decay": -1e-4}, "recipe field weight_decay must be 0 or more"),
        ({"label_smoothing": 1}, "recipe field label_smoothing must be in [0, 1)"),
        ({"seed": -1}, "recipe field seed must be in [0, 2**32)"),
        ({"augment": "flip"}, "recipe field augment must be a list"),
        ({"l1": -1}, "recipe field l1 must be 0 or more"),
        ({"clip_grad_norm": -1}, "recipe field clip_grad_norm must be 0 or more"),
        ({"grad_accum_steps": 0}, "recipe field grad_accum_steps must be at least 1"),
        ({"ema": 1}, "recipe field ema must be in [0, 1)"),
        ({"lookahead": -1}, "recipe field lookahead must be 0 or more"),
        ({"patience": -1}, "recipe field patience must be 0 or more"),
        ({"tta": "flop"}, "unknown test-time augmentation 'flop' (did you mean 'flip'?)"),
        ({"momentum_schedule": "dip:low=-1"}, "schedule 'dip:low=-1' gives a factor of"),
        ({"resolution": "lin"}, "unknown schedule 'lin' (did you mean 'linear'?)"),
        (
            {"freeze": ["whiten"]},
            "freeze takes names with an epoch, as in whiten:3, found 'whiten'",
        ),
        ({"class_weights": "yes"}, "recipe field class_weights must be of type bool, found 'yes'"),
    ],
)
def test_recipe_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SeewhyError) as caught:
        check_recipe(from_dict(values))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("epochs = = 3", "is not a recipe in TOML"), ("epocs = 3", "unknown recipe field 'epocs'")],
)
def test_find_recipe_names_a_bad_file(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises(SeewhyError, match=message) as caught:
        find_recipe(path)
    assert str(path) in str(caught.value)


def test_find_recipe_unknown() -> None:
    with pytest.raises(
        SeewhyError,
        match=r"unknown recipe 'davidnet-42' .did you mean 'davidnet-24'.*or a FILE.toml",
    ):
        find_recipe("davidnet-42")
    with pytest.raises(SeewhyError, match=r"no recipe file nowhere.toml"):
        find_recipe("nowhere.toml")


def test_find_recipe_base_is_relative(tmp_path: Path) -> None:
    (tmp_path / "common.toml").write_text('base = "demo"\nlr = 0.25\n')
    (tmp_path / "mine.toml").write_text('base = "common.toml"\nseed = 4\n')
    assert find_recipe(tmp_path / "mine.toml") == replace(
        RECIPES["demo"], name="mine", lr=0.25, seed=4
    )
    (tmp_path / "common.toml").write_text('base = "mine.toml"\n')
    with pytest.raises(SeewhyError, match=r"extends itself"):
        find_recipe(tmp_path / "mine.toml")


def test_find_recipe_needs_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "directory.toml").mkdir()
    for path in (tmp_path / "directory.toml", tmp_path / "x" / "y.toml"):
        with pytest.raises(SeewhyError, match=r"is not a recipe in TOML"):
            find_recipe(path)


def test_recipe_accepts_numpy_numbers() -> None:
    recipe = Recipe(lr=np.logspace(-3, 0)[0], epochs=np.float32(2), seed=np.int64(3))  # type: ignore[arg-type]
    assert (recipe.lr, recipe.epochs, recipe.seed) == (pytest.approx(1e-3), 2.0, 3)
    assert read_recipe_text(to_toml(recipe)) == recipe


def read_recipe_text(text: str) -> Recipe:
    return from_dict(tomllib.loads(text))


def test_find_recipe_does_not_look_up_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        to_toml(RECIPES["demo"])
        .replace(RECIPES["demo"].model, "mine:depth=3")
        .replace("crop:1", "<invert>")
    )
    recipe = find_recipe(path)
    assert recipe.model == "mine:depth=3"
    assert recipe.augment == ("<invert>,mode=constant",)
    assert recipe.lr == RECIPES["demo"].lr


def test_recipe_accepts_functions_as_augmentations() -> None:
    def invert(images: Any) -> Any:
        return 255 - images

    recipe = Recipe(augment=("flip", invert))
    assert recipe.augment == ("flip", invert)
    assert "invert>" in to_toml(recipe)


def test_published_adam_cycles_momentum_as_torch() -> None:
    """OneCycleLR's own default takes Adam's beta1 from 0.95 to 0.85 and back."""
    recipe = RECIPES["resnet18-adam-onecycle"]
    model = torch.nn.Linear(2, 2)
    (ours,) = bind_optimizer(recipe.optimizer)(model, recipe.lr, recipe.weight_decay)
    theirs = Adam(model.parameters())
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        theirs,
        0.00509413801481895,
        total_steps=1001,
        pct_start=0.25,
        anneal_strategy="linear",
        div_factor=100,
        final_div_factor=100,
    )
    lr_schedule = bind_schedule(recipe.schedule)
    momentum_schedule = bind_schedule(recipe.momentum_schedule)
    for step in range(1001):
        set_lr_and_momentum(
            [ours],
            lr_schedule(step / 1000, ()),
            momentum_schedule(step / 1000, ()),
        )
        assert momentum_of(ours.param_groups[0]) == pytest.approx(
            momentum_of(theirs.param_groups[0]), abs=1e-3
        )
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=3e-5)
        theirs.step()
        cycle.step()
