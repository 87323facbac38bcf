"""Recipes that differ from one another in some fields."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any, get_origin

from seewhy.errors import SeewhyError, did_you_mean
from seewhy.train.plan import check_recipe
from seewhy.train.recipe import LearningRate, Recipe

FIELDS = {field.name: field.type for field in fields(Recipe) if field.name not in ("name", "seed")}


def recipe_grid(recipe: Recipe, vary: Mapping[str, Sequence[Any]]) -> dict[str, Recipe]:
    """A recipe for each combination of the values in `vary`, by a name that tells them apart.

    Where the optimizer varies and the learning rate is not in `vary`, it is "find": each gets the rate that a range test finds.
    Raises SeewhyError for a field that there is not, for values that it rejects, and for equal ones.
    """
    for field, values in vary.items():
        _check(field, values)
    if "optimizer" in vary and "lr" not in vary:
        recipe = replace(recipe, lr="find")
    varied = [field for field, values in vary.items() if len(values) > 1]
    recipes: dict[str, Recipe] = {}
    for values in product(*vary.values()):
        changed = replace(recipe, **dict(zip(vary, values, strict=True)))
        name = " · ".join(_said(field, getattr(changed, field)) for field in varied) or recipe.name
        if name in recipes:
            raise SeewhyError(f"{name} is given twice; a comparison needs each value once")
        check_recipe(changed)
        recipes[name] = changed
    return recipes


def parse_vary(options: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
    """The values of fields from the command line, as in `[("lr", "0.1", "0.2"), ("augment", "crop:4 flip", "none")]`.

    Spaces separate the entries of a list; `none` is the empty list.

    Raises:
        SeewhyError: If a field has no values, is unknown, or is given twice.
    """
    vary: dict[str, list[Any]] = {}
    for words in options:
        if len(words) < 2 or not all(word.strip() for word in words):
            raise SeewhyError(
                "--vary needs a field and its values, as in --vary optimizer sgd adam, "
                f"found {' '.join(words)!r}"
            )
        field = words[0].replace("-", "_")
        if field in vary:
            raise SeewhyError(f"{field} varies twice; give all its values to one --vary")
        _known(field)
        vary[field] = [_value(field, word.strip()) for word in words[1:]]
    return vary


def _known(field: str) -> None:
    if field == "seed":
        raise SeewhyError(
            "the seed does not vary by itself: every recipe is trained with the same ones, see --seeds"
        )
    if field not in FIELDS:
        raise SeewhyError(
            f"unknown recipe field {field!r}{did_you_mean(field, FIELDS)}; possible: {', '.join(FIELDS)}"
        )


def _check(field: str, values: Sequence[Any]) -> None:
    _known(field)
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise SeewhyError(f"{field} varies over a list of values, found {values!r}")


def _value(field: str, text: str) -> Any:
    """`text` as the field's type has it; what does not fit stays text, which the recipe then rejects."""
    kind = FIELDS[field]
    if get_origin(kind) is tuple:
        return () if text == "none" else tuple(text.split())
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float, LearningRate):
        try:
            return int(text) if kind is int else float(text)
        except ValueError:
            return text
    return text


def _said(field: str, value: Any) -> str:
    """A value in a name: words speak for themselves, numbers need their field's."""
    if isinstance(value, tuple):
        return " ".join(str(step) for step in value) or f"no {field}"
    if isinstance(value, str) and value != "find":
        return value
    return (
        f"{field}={value:g}"
        if isinstance(value, float) and float(f"{value:g}") == value
        else f"{field}={value}"
    )
