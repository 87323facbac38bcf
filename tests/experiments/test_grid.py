"""Grids of recipes, and `--vary` on the command line."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from seewhy.cli.compare import parse_vary
from seewhy.errors import SeewhyError
from seewhy.experiments.grid import recipe_grid
from seewhy.train.recipe import Recipe

RECIPE = Recipe(name="base", model="speednet:width=0.05", epochs=2, lr=0.3, augment=("flip",))


def test_recipe_grid_has_every_combination_in_order() -> None:
    vary: dict[str, list[Any]] = {
        "lr": [0.1, 0.2, 0.3],
        "batch_size": [32, 64],
        "augment": [["crop:4", "flip"], []],
    }
    recipes = recipe_grid(RECIPE, vary)
    expected = [
        replace(RECIPE, lr=lr, batch_size=size, augment=tuple(augment))
        for lr, size, augment in product(*vary.values())
    ]
    assert list(recipes.values()) == expected
    assert list(recipes)[:3] == [
        "lr=0.1 · batch_size=32 · crop:4 flip",
        "lr=0.1 · batch_size=32 · no augment",
        "lr=0.1 · batch_size=64 · crop:4 flip",
    ]
    assert len(recipes) == 12


def test_recipe_grid_sets_a_field_with_one_value() -> None:
    recipes = recipe_grid(RECIPE, {"epochs": [7], "lr": [0.1, "find"]})
    assert list(recipes) == ["lr=0.1", "lr=find"]
    assert all(recipe.epochs == 7 for recipe in recipes.values())


@pytest.mark.parametrize("vary", [{}, {"epochs": [7.0]}])
def test_recipe_grid_of_one_recipe_keeps_its_name(vary: dict[str, list[Any]]) -> None:
    recipes = recipe_grid(RECIPE, vary)
    assert list(recipes) == ["base"]
    assert recipes["base"] == replace(RECIPE, epochs=7.0 if vary else RECIPE.epochs)


@pytest.mark.parametrize(
    ("field", "values", "names"),
    [
        (
            "optimizer",
            ["sgd:momentum=0.9,nesterov=true", "adam"],
            ["sgd:momentum=0.9,nesterov=true", "adam"],
        ),
        ("compile", [True, False], ["compile=True", "compile=False"]),
        ("lr", [1, 1e-4, "find"], ["lr=1", "lr=0.0001", "lr=find"]),
        ("freeze", [(), ("whiten:3",)], ["no freeze", "whiten:3"]),
    ],
)
def test_recipe_grid_names_recipes_by_their_values(
    field: str, values: list[Any], names: list[str]
) -> None:
    assert list(recipe_grid(RECIPE, {field: values})) == names


def test_recipe_grid_of_optimizers_finds_the_lr() -> None:
    recipes = recipe_grid(RECIPE, {"optimizer": ["sgd", "adam"]})
    assert [recipe.lr for recipe in recipes.values()] == ["find", "find"]
    recipes = recipe_grid(RECIPE, {"optimizer": ["sgd", "adam"], "lr": [0.01]})
    assert [recipe.lr for recipe in recipes.values()] == [0.01, 0.01]
    recipes = recipe_grid(RECIPE, {"batch_size": [32, 64]})
    assert [recipe.lr for recipe in recipes.values()] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (
            {"optimiser": ["sgd"]},
            "unknown recipe field 'optimiser' (did you mean 'optimizer'?); possible: model, probe",
        ),
        (
            {"seed": [0, 1]},
            "seed cannot vary: all recipes are trained with the same seeds, see --seeds",
        ),
        ({"name": ["a", "b"]}, "unknown recipe field 'name'"),
        ({"lr": []}, "lr must vary over a list of values, found []"),
        ({"optimizer": "sgd"}, "optimizer must vary over a list of values, found 'sgd'"),
        ({"lr": 0.1}, "lr must vary over a list of values, found 0.1"),
        ({"lr": [0.1, -1.0]}, "recipe field lr must be more than 0, found -1.0"),
        ({"lr": ["fnd"]}, "recipe field lr must be a number, or find, found 'fnd'"),
        ({"augment": ["flip"]}, "recipe field augment must be a list"),
        ({"epochs": [1, 2, 1.0]}, "two recipes would be equal (epochs=1); list each value once"),
        ({"lr": [0.1], "augment": [[], ()]}, "two recipes would be equal (no augment)"),
    ],
)
def test_recipe_grid_rejects_bad_values(vary: Any, message: str) -> None:
    with pytest.raises(SeewhyError) as raised:
        recipe_grid(RECIPE, vary)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "field", "values"),
    [
        (
            ["optimizer", "sgd:momentum=0.9,nesterov=true", "adam"],
            "optimizer",
            ["sgd:momentum=0.9,nesterov=true", "adam"],
        ),
        (
            ["schedule", "multi-step:[0.5,0.75],factor=0.2", "cosine"],
            "schedule",
            ["multi-step:[0.5,0.75],factor=0.2", "cosine"],
        ),
        (["lr", "0.1", "1e-3", "find"], "lr", [0.1, 0.001, "find"]),
        (["epochs", "1", "2.5"], "epochs", [1.0, 2.5]),
        (["batch-size", "32", "64"], "batch_size", [32, 64]),
        (["weight-decay", " 0", "5e-4 "], "weight_decay", [0.0, 5e-4]),
        (["class-weights", "true", "False"], "class_weights", [True, False]),
        (
            ["augment", "flip", "crop:4,mode=constant flip", "none"],
            "augment",
            [("flip",), ("crop:4,mode=constant", "flip"), ()],
        ),
        (["freeze", "none", "whiten:3"], "freeze", [(), ("whiten:3",)]),
        (["tta", "none", "flip"], "tta", ["none", "flip"]),  # here none is an entry of TTA
    ],
)
def test_parse_vary_converts_to_the_type_of_the_field(
    words: list[str], field: str, values: list[Any]
) -> None:
    vary = parse_vary([words])
    assert vary == {field: values}
    assert list(map(type, vary[field])) == list(map(type, values))
    recipe_grid(RECIPE, vary)  # and the recipe accepts them


def test_parse_vary_keeps_the_order_of_fields() -> None:
    vary = parse_vary([("lr", "0.1", "0.2"), ("batch-size", "32", "64")])
    assert list(recipe_grid(RECIPE, vary)) == [
        "lr=0.1 · batch_size=32",
        "lr=0.1 · batch_size=64",
        "lr=0.2 · batch_size=32",
        "lr=0.2 · batch_size=64",
    ]
    assert parse_vary([]) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [["lr"]],
            "--vary needs a field and its values, as in --vary optimizer sgd adam, found 'lr'",
        ),
        ([[]], "--vary needs a field and its values"),
        ([["lr", " "]], "--vary needs a field and its values"),
        ([["lr", "0.1", ""]], "--vary needs a field and its values"),
        ([["lr", "0.1"], ["lr", "0.2"]], "lr varies twice; give all its values to one --vary"),
        ([["batch-size", "32"], ["batch_size", "64"]], "batch_size varies twice"),
        ([["seed", "1", "2"]], "see --seeds"),
        ([["name", "a", "b"]], "unknown recipe field 'name'"),
        (
            [["bach-size", "1", "2"]],
            "unknown recipe field 'bach_size' (did you mean 'batch_size'?)",
        ),
    ],
)
def test_parse_vary_rejects_bad_options(options: list[list[str]], message: str) -> None:
    with pytest.raises(SeewhyError) as raised:
        parse_vary(options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch-size", "32", "many"], "recipe field batch_size must be of type int, found 'many'"),
        (["batch-size", "32", "64.5"], "recipe field batch_size must be of type int, found '64.5'"),
        (["compile", "true", "yes"], "recipe field compile must be of type bool, found 'yes'"),
        (["epochs", "1", "nan"], "recipe field epochs must be of type float, found nan"),
        (["lr", "0.1", "serach"], "recipe field lr must be a number, or find, found 'serach'"),
    ],
)
def test_recipe_grid_rejects_a_parsed_value_as_written(words: list[str], message: str) -> None:
    with pytest.raises(SeewhyError) as raised:
        recipe_grid(RECIPE, parse_vary([words]))
    assert message in str(raised.value)
