"""Lists of what a recipe or a command can name; they fit a terminal of 60 columns."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import TextWrapper
from typing import Any

from seewhy.attribution.methods import METHODS
from seewhy.cli.tables import console, table
from seewhy.models.pretrained_list import PublishedModel
from seewhy.train.recipe import Recipe, as_dict
from seewhy.wording import counted

_MOST_ROWS = 40  # of published weights


def print_functions(functions: Mapping[str, Callable[..., object]], given: int) -> None:
    """The entries of a table with their descriptions and settings."""
    for name, function in sorted(functions.items()):
        _print_entry(name, [_summary(function), _settings(function, given)])


def print_names(names: Mapping[str, Sequence[str]]) -> None:
    """Lists of names under their headings."""
    for heading, listed in names.items():
        _print_entry(heading, [" ".join(listed)])
    console().print("\n`seewhy list TABLE` describes the entries of a table")


def _summary(function: Callable[..., object]) -> str:
    """The first paragraph of a docstring; of a partial, that of its function and its settings."""
    if isinstance(function, partial):
        bound = [_function_name(value) for value in function.args]
        bound += [f"{key}={_short(value)}" for key, value in function.keywords.items()]
        return f"{_summary(function.func)} Here: {', '.join(bound)}."
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def _function_name(function: Any) -> str:
    return _function_name(function.func) if isinstance(function, partial) else function.__name__


def _print_entry(name: str, lines: Sequence[str]) -> None:
    """A name with indented lines below it; empty lines are left out."""
    out = console()
    out.print(name, style="bold")
    wrapper = TextWrapper(
        out.width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    for line in filter(None, lines):
        out.print(wrapper.fill(line))


def print_methods(functions: Mapping[str, Callable[..., object]]) -> None:
    """Paper, cost and settings of each attribution method."""
    for name, function in functions.items():
        facts = METHODS.get(name)
        summary = ""
        if facts is not None:
            kind = "class-specific" if facts.discriminative else "not class-specific"
            summary = f"{facts.paper}; {facts.passes}; {kind}"
        _print_entry(name, [summary, _settings(function, given=1)])
    console().print(
        "\nF: forward pass, B: backward pass. Methods marked `shared` share one of each. "
        "Settings follow a colon, as in `rise:masks=500`."
    )


HEADLINE_FIELDS = (
    "name",
    "model",
    "epochs",
    "batch_size",
    "lr",
    "optimizer",
    "weight_decay",
    "schedule",
    "augment",
)


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """The main fields of each recipe, and the others that differ from their defaults."""
    defaults = as_dict(Recipe())
    for recipe in recipes.values():
        others = {
            key: value
            for key, value in as_dict(recipe).items()
            if key not in HEADLINE_FIELDS and value != defaults[key]
        }
        lines = [
            f"{recipe.model}, {counted(recipe.epochs, 'epoch')}, batch size {recipe.batch_size}, "
            f"lr {_short(recipe.lr)}",
            f"{recipe.optimizer}, weight decay {recipe.weight_decay:g}",
            recipe.schedule,
            " ".join(map(str, recipe.augment)),
            ", ".join(f"{key.replace('_', ' ')} {_listed(value)}" for key, value in others.items()),
        ]
        _print_entry(recipe.name, lines)
    console().print("\n`seewhy recipes NAME > mine.toml` saves a recipe for editing")


def _settings(function: Callable[..., object], given: int) -> str:
    """The parameters of a function that the notation can set, with their defaults, if any."""
    settings = list(inspect.signature(function).parameters.values())[given:]
    listed = ", ".join(
        "and others"
        if p.kind is p.VAR_KEYWORD
        else (p.name if p.default is p.empty else f"{p.name}={_short(p.default)}")
        for p in settings
    )
    return f"settings: {listed}" if listed else ""


def _listed(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else _short(value)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_published(models: Sequence[PublishedModel], remarks: Sequence[str]) -> None:
    """Models with published weights; a value that is not known is a dash."""
    out = console()
    listed = models[:_MOST_ROWS]
    columns = {
        "pixels": [_number(model.size) for model in listed],
        "classes": [_number(model.classes) for model in listed],
        "params": [_millions(model.parameters) for model in listed],
        "top-1": ["–" if m.accuracy is None else f"{m.accuracy:.1f}%" for m in listed],
    }
    known = {heading: cells for heading, cells in columns.items() if set(cells) != {"–"}}
    rows = table("model", *known)
    for model, *cells in zip(listed, *known.values(), strict=True):
        rows.add_row(model.spec, *cells)
    if models:
        out.print(rows)
    more = len(models) - _MOST_ROWS
    if more > 0:
        out.print(f"and {more:,} more; add a word or a limit, as in 'resnet size<=224'")
    elif not models:
        out.print("No published weights fit; remove a word or a limit.")
    if any(model.spec.startswith(("timm:", "torchvision:")) for model in models):
        out.print("Train from them with --model NAME,pretrained=true, or NAME,weights=FILE.")
    for remark in remarks:
        out.print(remark)


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _millions(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f}M"
