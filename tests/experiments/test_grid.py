"""Recipes that differ in some fields: their names, their order, and how they are written on a command line."""

import shlex
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from seewhy.errors import SeewhyError
from seewhy.experiments.grid import parse_vary, recipe_grid
from seewhy.train.recipe import Recipe

RECIPE = Recipe(name="base", model="speednet:width=0.05", epochs=2, lr=0.3, augment=("flip",))


def test_every_combination_in_the_order_of_nested_loops() -> None:
    vary: dict[str, list[Any]] = {
        "lr": [0.1, 0.2, 0.3],
        "batch_size": [32, 64],
        "augment": [["crop:4", "flip"], []],
    }
    found = recipe_grid(RECIPE, vary)
    expected = [
        replace(RECIPE, lr=lr, batch_size=size, augment=tuple(augment))
        for lr, size, augment in product(*vary.values())
    ]
    assert list(found.values()) == expected
    assert list(found)[:3] == [
        "lr=0.1 · batch_size=32 · crop:4 flip",
        "lr=0.1 · batch_size=32 · no augment",
        "lr=0.1 · batch_size=64 · crop:4 flip",
    ]
    assert len(found) == 12


def test_a_field_with_one_value_is_set_but_not_named() -> None:
    found = recipe_grid(RECIPE, {"epochs": [7], "lr": [0.1, "find"]})
    assert list(found) == ["lr=0.1", "lr=find"]
    assert all(recipe.epochs == 7 for recipe in found.values())


@pytest.mark.parametrize("vary", [{}, {"epochs": [7.0]}])
def test_where_nothing_differs_the_recipe_has_its_own_name(vary: dict[str, list[Any]]) -> None:
    found = recipe_grid(RECIPE, vary)
    assert list(found) == ["base"]
    assert found["base"] == replace(RECIPE, epochs=7.0 if vary else RECIPE.epochs)


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
def test_words_speak_for_themselves_and_numbers_need_their_field(
    field: str, values: list[Any], names: list[str]
) -> None:
    assert list(recipe_grid(RECIPE, {field: values})) == names


def test_each_optimizer_gets_its_own_rate_unless_one_is_given() -> None:
    found = recipe_grid(RECIPE, {"optimizer": ["sgd", "adam"]})
    assert [recipe.lr for recipe in found.values()] == ["find", "find"]
    found = recipe_grid(RECIPE, {"optimizer": ["sgd", "adam"], "lr": [0.01]})
    assert [recipe.lr for recipe in found.values()] == [0.01, 0.01]
    found = recipe_grid(RECIPE, {"batch_size": [32, 64]})
    assert [recipe.lr for recipe in found.values()] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (
            {"optimiser": ["sgd"]},
            "unknown recipe field 'optimiser' (did you mean 'optimizer'?); possible: model, epochs",
        ),
        (
            {"seed": [0, 1]},
            "the seed does not vary by itself: every recipe is trained with the same ones, see --seeds",
        ),
        ({"name": ["a", "b"]}, "unknown recipe field 'name'"),
        ({"lr": []}, "lr varies over a list of values, found []"),
        ({"optimizer": "sgd"}, "optimizer varies over a list of values, found 'sgd'"),
        ({"lr": 0.1}, "lr varies over a list of values, found 0.1"),
        ({"lr": [0.1, -1.0]}, "recipe field lr must be more than 0, found -1.0"),
        ({"lr": ["fnd"]}, "recipe field lr must be a number, or find, found 'fnd'"),
        ({"optimizer": ["sgd", "adan"]}, "unknown optimizer 'adan' (did you mean 'adam'?)"),
        ({"augment": ["flip"]}, "recipe field augment must be a list"),
        ({"epochs": [1, 2, 1.0]}, "epochs=1 is given twice; a comparison needs each value once"),
        ({"lr": [0.1], "augment": [[], ()]}, "no augment is given twice"),
    ],
)
def test_what_cannot_vary(vary: Any, said: str) -> None:
    with pytest.raises(SeewhyError) as raised:
        recipe_grid(RECIPE, vary)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (
            "optimizer sgd:momentum=0.9,nesterov=true adam",
            ["sgd:momentum=0.9,nesterov=true", "adam"],
        ),
        ("model speednet:width=0.05,depth=1 resnet18", ["speednet:width=0.05,depth=1", "resnet18"]),
        ("lr 0.1 1e-3 find", [0.1, 0.001, "find"]),
        ("lr 0.1", [0.1]),
        ("epochs 1 2.5", [1.0, 2.5]),
        ("batch-size 32 64", [32, 64]),
        ("weight_decay 0 5e-4", [0.0, 5e-4]),
        ("class-weights true False", [True, False]),
        ("augment flip 'crop:4 flip' none", [("flip",), ("crop:4", "flip"), ()]),
        ("augment 'crop:4,mode=constant flip' none", [("crop:4,mode=constant", "flip"), ()]),
        ("freeze none whiten:3", [(), ("whiten:3",)]),
        ("tta none flip", ["none", "flip"]),  # here none is an entry of the table
    ],
)
def test_parse_vary_gives_values_the_type_of_their_field(words: str, values: list[Any]) -> None:
    field, *_ = shlex.split(words)
    vary = parse_vary([shlex.split(words)])
    assert vary == {field.replace("-", "_"): values}
    assert list(map(type, *vary.values())) == list(map(type, values))
    recipe_grid(RECIPE, vary)  # the recipe takes them


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
        ([()], "--vary needs a field and its values, as in --vary optimizer sgd adam, found ''"),
        ([("lr",)], "found 'lr'"),
        ([("lr", " ")], "found 'lr  '"),
        ([("lr", "0.1", ""), ("lr", "0.2")], "found 'lr 0.1 '"),
        ([("lr", "0.1"), ("lr", "0.2")], "lr varies twice; give all its values to one --vary"),
        ([("batch-size", "32"), ("batch_size", "64")], "batch_size varies twice"),
        ([("seed", "1", "2")], "see --seeds"),
        ([("name", "a", "b")], "unknown recipe field 'name'"),
        ([("bach-size", "1")], "unknown recipe field 'bach_size' (did you mean 'batch_size'?)"),
        ([("batch-size", "many")], "recipe field batch_size must be of type int, found 'many'"),
        ([("batch-size", "64.5")], "recipe field batch_size must be of type int, found '64.5'"),
        ([("compile", "yes")], "recipe field compile must be of type bool, found 'yes'"),
        ([("epochs", "nan")], "recipe field epochs must be of type float, found nan"),
        ([("lr", "serach")], "recipe field lr must be a number, or find, found 'serach'"),
    ],
)
def test_parse_vary_errors(options: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(SeewhyError) as error:
        recipe_grid(RECIPE, parse_vary(options))
    assert message in str(error.value)
