"""Grids of recipes: every combination of values of fields."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from seewhy.errors import SeewhyError, did_you_mean
from seewhy.train.plan import check_recipe
from seewhy.train.recipe import Recipe

FIELDS = {field.name: field.type for field in fields(Recipe) if field.name not in ("name", "seed")}


def recipe_grid(recipe: Recipe, vary: Mapping[str, Sequence[Any]]) -> dict[str, Recipe]:
    """A recipe for each combination of values.

    If the optimizer varies and `vary` has no lr, the lr is "find": a range test finds it for each
    recipe.

    Args:
        recipe: Recipe with the values of all other fields.
        vary: Values of each field that varies, by its name. A field with a single value is set.

    Returns:
        Recipes by name, in the order of nested loops. The names consist of the varied values.

    Raises:
        SeewhyError: A field does not exist or cannot vary, a value does not fit it, or two recipes
            are equal.
    """
    for field, values in vary.items():
        check_field(field)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise SeewhyError(f"{field} must vary over a list of values, found {values!r}")
    if "optimizer" in vary and "lr" not in vary:
        recipe = replace(recipe, lr="find")
    varied = [field for field, values in vary.items() if len(values) > 1]
    recipes: dict[str, Recipe] = {}
    for combination in product(*vary.values()):
        changed = replace(recipe, **dict(zip(vary, combination, strict=True)))
        parts = [_name_value(field, getattr(changed, field)) for field in varied]
        name = " · ".join(parts) or recipe.name
        if name in recipes:
            raise SeewhyError(f"two recipes would be equal ({name}); list each value once")
        check_recipe(changed)
        recipes[name] = changed
    return recipes


def check_field(field: str) -> None:
    """Raise SeewhyError if a recipe has no such field, or it cannot vary."""
    if field == "seed":
        raise SeewhyError(
            "seed cannot vary: all recipes are trained with the same seeds, see --seeds"
        )
    if field not in FIELDS:
        raise SeewhyError(
            f"unknown recipe field {field!r}{did_you_mean(field, FIELDS)}; "
            f"possible: {', '.join(FIELDS)}"
        )


def _name_value(field: str, value: Any) -> str:
    """A value as part of a recipe's name; numbers need the name of their field."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or f"no {field}"
    if isinstance(value, str) and value != "find":
        return value
    is_short = isinstance(value, float) and float(f"{value:g}") == value
    return f"{field}={value:g}" if is_short else f"{field}={value}"
