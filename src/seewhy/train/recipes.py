"""The built-in recipes, and finding one by its name or file.

A recipe of your own is `replace(RECIPES["davidnet-24"], epochs=10)`, or a TOML file that starts from another.
"""

from pathlib import Path

from seewhy.errors import SeewhyError, lookup
from seewhy.train.recipe import Recipe, from_dict, read_toml


def find_recipe(name: str | Path) -> Recipe:
    """The recipe of that name in RECIPES, or the one in that TOML file."""
    if str(name).endswith(".toml"):
        return read_recipe(name)
    try:
        return lookup(RECIPES, str(name), "recipe")
    except SeewhyError as error:
        raise SeewhyError(f"{error}, or a FILE.toml") from None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a TOML file; a field `base` names the recipe, or the file beside it, whose other fields it keeps."""
    return _read(Path(path), ())


def _read(path: Path, before: tuple[Path, ...]) -> Recipe:
    if path.resolve() in before:
        raise SeewhyError(f"{path} starts from itself: base = {' -> '.join(map(str, (*before, path.resolve())))}")
    values = read_toml(path)
    base = str(values.pop("base", ""))
    values.setdefault("name", path.stem)
    try:
        if base.endswith(".toml"):
            return from_dict(values, _read(path.parent / base, (*before, path.resolve())))
        return from_dict(values, find_recipe(base) if base else None)
    except SeewhyError as error:
        raise SeewhyError(f"{path}: {error}") from error


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="davidnet-24",
            model="davidnet",
            epochs=24,
            batch_size=512,
            lr=0.45,
            optimizer="sgd:momentum=0.9,nesterov=true,decay_all=true",
            weight_decay=5e-4,
            schedule="one-cycle:pct_start=0.3333",
            augment=("crop:4", "flip", "cutout:8"),
            label_smoothing=0.1,
        ),
        Recipe(
            name="demo",
            model="speednet",
            epochs=20,
            batch_size=128,
            lr=1.0,
            optimizer="sgd:momentum=0.85,nesterov=true,bias_lr=8",
            weight_decay=5e-4,
            schedule="linear:warmup=0.2,start=0.2,end=0.05",
            augment=("crop:1,mode=constant",),
            label_smoothing=0.1,
        ),
        Recipe(
            name="resnet18-onecycle",
            model="resnet18",
            epochs=20,
            batch_size=512,
            lr=0.1,
            optimizer="sgd:momentum=0.9,decay_all=true",
            weight_decay=5e-4,
            schedule="one-cycle:pct_start=0.25,div=100,final_div=100",
            augment=("crop:4,mode=constant", "flip", "cutout:16"),
        ),
        Recipe(
            name="speednet-8",
            model="speednet",
            epochs=8,
            batch_size=500,
            lr=1.0,
            optimizer="sgd:momentum=0.85,nesterov=true,bias_lr=16",
            weight_decay=1e-3,
            schedule="linear:warmup=0.23,start=0.2",
            augment=("crop:2", "alternating-flip"),
            label_smoothing=0.2,
        ),
    )
}
