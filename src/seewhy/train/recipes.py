"""The built-in recipes, and finding one by its name or file.

A recipe of your own is `replace(RECIPES["davidnet-24"], epochs=10)`, or a TOML file that starts from another.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

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
        raise SeewhyError(
            f"{path} starts from itself: base = {' -> '.join(map(str, (*before, path.resolve())))}"
        )
    values = read_toml(path)
    base = str(values.pop("base", ""))
    values.setdefault("name", path.stem)
    try:
        if base.endswith(".toml"):
            return from_dict(values, _read(path.parent / base, (*before, path.resolve())))
        return from_dict(values, find_recipe(base) if base else None)
    except SeewhyError as error:
        raise SeewhyError(f"{path}: {error}") from error


# Published trainings of ResNet-18 and DavidNet on CIFAR-10, each as far as it was published; what an original leaves open is
# torch's default, and where there is none (batches, rates, momentum) what such trainings take. Beside each stands ours for as
# many epochs, `…-plus`.

RESNET18_ONECYCLE = Recipe(
    name="resnet18-onecycle",
    model="resnet18",
    epochs=20,
    batch_size=512,
    lr=0.1,
    optimizer="sgd:momentum=0.95,decay_all=true",
    weight_decay=5e-4,
    schedule="one-cycle:pct_start=0.25,div_factor=100,final_div_factor=100",
    momentum_schedule="dip:pct_start=0.25",
    augment=("crop:4,mode=constant", "flip", "cutout:16"),
)
RESNET18_PLATEAU = Recipe(
    name="resnet18-plateau",
    model="resnet18",
    epochs=20,
    batch_size=128,
    lr=0.01,
    optimizer="sgd:momentum=0.9",
    weight_decay=0.0,
    schedule="plateau:factor=0.1,patience=4,threshold=0.1",
    augment=("crop:4,mode=constant", "cutout:16"),
)
RESNET18_ADAM_ONECYCLE = Recipe(
    name="resnet18-adam-onecycle",
    model="resnet18",
    epochs=20,
    batch_size=32,
    lr=5.09e-3,
    optimizer="adam:beta1=0.95",
    weight_decay=0.0,
    schedule="one-cycle:pct_start=0.25",
    momentum_schedule="dip:pct_start=0.25",
    augment=("crop:4,mode=constant", "flip", "cutout:16"),
)
RESNET18_STEPLR = Recipe(
    name="resnet18-steplr",
    model="resnet18",
    epochs=150,
    batch_size=128,
    lr=0.1,
    optimizer="sgd:momentum=0.9,decay_all=true",
    weight_decay=5e-4,
    schedule="step:stages=3,factor=0.1",
    augment=("crop:4,mode=constant", "flip"),
)
DAVIDNET_24 = Recipe(
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
)


def plus(recipe: Recipe, **changes: Any) -> Recipe:
    """Our form of a published recipe for as many epochs, with `changes`; benchmarks/NOTES.md says what it was chosen by."""
    ours = replace(
        recipe,
        name=f"{recipe.name}-plus",
        batch_size=512,
        lr=0.08,
        optimizer="muon:momentum=0.9,iterations=3,unit_rows=true,rest_momentum=0.9,head_lr=4,bias_lr=4",
        weight_decay=5e-4,
        schedule="one-cycle:pct_start=0.2,anneal=cosine",
        momentum_schedule="constant",
        augment=("crop:4", "flip", "cutout:8"),
        resolution="linear:warmup=0.8,start=0.75,end=1",
        label_smoothing=0.1,
        tta="flip",
    )
    return replace(ours, **changes)


# Our own. Nets, flips, test-time augmentation and Muon's settings after Jordan 2024 (arXiv 2404.00498) and the records that
# followed it; in batches that a processor's cache holds, each update made of several.

SPEEDRUN94 = Recipe(
    name="speedrun94",
    model="speednet",
    epochs=8,
    batch_size=500,
    accumulate=2,
    lr=0.17,
    optimizer="muon:momentum=0.6,iterations=3,unit_rows=true,head_lr=4.9,bias_lr=312",
    weight_decay=2.4e-3,
    schedule="linear",
    freeze=("whiten:3",),
    augment=("crop:2", "alternating-flip"),
    resolution="linear:warmup=0.25,start=0.75,end=1",
    label_smoothing=0.2,
    eval_every=0,
    tta="flip-shift:confidence_below=0.7",
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DAVIDNET_24,
        plus(DAVIDNET_24),
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
        RESNET18_ADAM_ONECYCLE,
        plus(RESNET18_ADAM_ONECYCLE, optimizer="adamw", batch_size=128, lr=2e-3, weight_decay=0.05),
        RESNET18_ONECYCLE,
        plus(RESNET18_ONECYCLE),
        RESNET18_PLATEAU,
        plus(RESNET18_PLATEAU, schedule="plateau:factor=0.3,patience=0,threshold=0.05", ema=0.999),
        RESNET18_STEPLR,
        plus(RESNET18_STEPLR),
        replace(RESNET18_STEPLR, name="resnet18-steplr-cutout", augment=("cutout:16",)),
        plus(
            replace(RESNET18_STEPLR, name="resnet18-steplr-cutout"),
            augment=("crop:4", "flip", "cutout:16"),
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
        SPEEDRUN94,
        replace(SPEEDRUN94, name="speedrun95", model="speednet:width=1.5", epochs=16),
        replace(
            SPEEDRUN94,
            name="speedrun96",
            model="speednet:width=2,depth=3",
            epochs=36,
            augment=("crop:4", "alternating-flip", "cutout:12"),
        ),
    )
}
