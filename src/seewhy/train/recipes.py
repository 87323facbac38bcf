"""The built-in recipes, and recipes from files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from seewhy.errors import SeewhyError, lookup
from seewhy.train.recipe import Recipe, from_dict, read_toml


def find_recipe(recipe: str | Path, /, **changes: Any) -> Recipe:
    """Find a built-in recipe or read a TOML file, and change fields.

    Args:
        recipe: A name of RECIPES, or the path of a TOML file. A file may extend another recipe with
            its field `base`: a built-in name, or the path of a file relative to it.
        **changes: Fields to change, such as `epochs=10`.

    Raises:
        SeewhyError: For an unknown name or field, a value out of range, and a file that is missing
            or not a recipe.
    """
    return from_dict(changes, _find(str(recipe), ()))


def _find(recipe: str, parents: tuple[Path, ...]) -> Recipe:
    if recipe.endswith(".toml"):
        return _read(Path(recipe), parents)
    try:
        return lookup(RECIPES, recipe, "recipe")
    except SeewhyError as error:
        raise SeewhyError(f"{error}, or a FILE.toml") from None


def _read(path: Path, parents: tuple[Path, ...]) -> Recipe:
    chain = (*parents, path.resolve())
    if path.resolve() in parents:
        raise SeewhyError(
            f"{path} extends itself: base = {' -> '.join(map(str, chain))}; remove one base"
        )
    values = read_toml(path)
    base = str(values.pop("base", ""))
    values.setdefault("name", path.stem)
    if base.endswith(".toml"):
        base = str(path.parent / base)
    try:
        return from_dict(values, _find(base, chain) if base else None)
    except SeewhyError as error:
        raise SeewhyError(f"{path}: {error}") from error


# Published recipes of ResNet-18 and DavidNet on CIFAR-10. Unpublished settings have torch's
# defaults, or common values if torch has none (batch size, learning rate, momentum). Epochs end
# with a smaller batch. `NAME-plus` is our recipe for the same number of epochs.

RESNET18_ONECYCLE = Recipe(
    name="resnet18-onecycle",
    model="resnet18",
    epochs=20,
    batch_size=512,
    drop_last=False,
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
    drop_last=False,
    lr=0.01,
    optimizer="sgd:momentum=0.9",
    weight_decay=0.0,
    schedule="plateau:factor=0.1,patience=4,threshold=0.1,on=test",
    augment=("crop:4,mode=constant", "cutout:16"),
)
RESNET18_ADAM_ONECYCLE = Recipe(
    name="resnet18-adam-onecycle",
    model="resnet18",
    epochs=20,
    batch_size=32,
    drop_last=False,
    lr=0.00509413801481895,
    optimizer="adam:beta1=0.95",
    weight_decay=0.0,
    # torch's OneCycleLR with pct_start=5/20: the peak is step 7,814 of 31,259
    schedule="one-cycle:pct_start=0.249976,div_factor=100,final_div_factor=100",
    momentum_schedule="dip:pct_start=0.249976",
    augment=("flip", "crop:4", "cutout:16,where=anywhere,padding=16"),
)
RESNET18_STEPLR = Recipe(
    name="resnet18-steplr",
    model="resnet18",
    epochs=150,
    batch_size=128,
    drop_last=False,
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
    drop_last=False,
    lr=0.45,
    optimizer="sgd:momentum=0.9,nesterov=true,decay_all=true",
    weight_decay=5e-4,
    # torch's OneCycleLR over 25 steps with pct_start=8/25: the peak is step 7 of 24
    schedule=("one-cycle:pct_start=0.2916666667,div_factor=10,final_div_factor=40,per_epoch=true"),
    augment=("crop:4", "flip", "cutout:8"),
    label_smoothing=0.2,
)


def plus(recipe: Recipe, **changes: Any) -> Recipe:
    """Our recipe for the number of epochs of a published one; see benchmarks/NOTES.md."""
    ours = replace(
        recipe,
        name=f"{recipe.name}-plus",
        batch_size=512,
        drop_last=True,
        lr=0.08,
        optimizer=(
            "muon:momentum=0.9,ns_steps=3,normalize_rows=true,"
            "fallback_momentum=0.9,head_lr_factor=4,bias_lr_factor=4"
        ),
        weight_decay=5e-4,
        schedule="one-cycle:pct_start=0.2,anneal=cosine",
        momentum_schedule="constant",
        augment=("crop:4", "flip", "cutout:8"),
        resolution="linear:warmup=0.8,start=0.75,end=1",
        label_smoothing=0.1,
        tta="flip",
    )
    return replace(ours, **changes)


# Our own recipes. Models, flips, test-time augmentation, and Muon's settings follow Jordan 2024
# (arXiv 2404.00498) and later records. Small batches fit a CPU's cache; an update takes two.

SPEEDRUN94 = Recipe(
    name="speedrun94",
    model="speednet",
    epochs=8,
    batch_size=500,
    grad_accum_steps=2,
    lr=0.17,
    optimizer="muon:momentum=0.6,ns_steps=3,normalize_rows=true,head_lr_factor=4.9,bias_lr_factor=312",
    weight_decay=2.4e-3,
    schedule="linear",
    freeze=("whiten:3",),
    augment=("crop:2", "alternating-flip"),
    resolution="linear:warmup=0.25,start=0.75,end=1",
    label_smoothing=0.2,
    eval_every=0,
    tta="flip-shift:confidence_below=0.7",
)

# For a model with published weights: --model efficientnet-lite0:weights=FILE, timm:NAME or
# torchvision:NAME with pretrained=true.

PROBE = Recipe(name="probe", model="efficientnet-lite0", probe="logistic", epochs=0, augment=())
FINETUNE = Recipe(
    name="finetune",
    model="efficientnet-lite0",
    probe="logistic",
    epochs=7,
    batch_size=32,
    lr=5e-4,
    optimizer="adamw",
    weight_decay=0.05,
    schedule="cosine:warmup=0.1",
    layer_decay=0.95,
    freeze_bn=True,
    augment=("crop:0.125", "flip"),
    ema=0.99,
    eval_every=4,
    tta="flip",
)
FROM_SCRATCH = Recipe(
    name="from-scratch",
    model="resnet18:stem=imagenet",
    epochs=60,
    batch_size=64,
    lr=1e-3,
    optimizer="adamw",
    weight_decay=0.05,
    schedule="cosine:warmup=0.1",
    augment=("resized-crop:scale=0.35", "flip", "trivial-augment"),
    label_smoothing=0.1,
    eval_every=5,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DAVIDNET_24,
        plus(DAVIDNET_24),
        Recipe(
            name="demo",
            model="speednet:width=0.375",
            epochs=12,
            batch_size=64,
            lr=1.0,
            optimizer="sgd:momentum=0.85,nesterov=true,bias_lr_factor=8",
            weight_decay=5e-4,
            schedule="linear:warmup=0.2,start=0.2,end=0.05",
            augment=("crop:1,mode=constant",),
            label_smoothing=0.1,
        ),
        FINETUNE,
        FROM_SCRATCH,
        PROBE,
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
            optimizer="sgd:momentum=0.85,nesterov=true,bias_lr_factor=16",
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
        Recipe(
            name="vit-8",
            model="vit",
            epochs=8,
            batch_size=250,
            lr=0.02,
            optimizer=(
                "muon:momentum=0.9,ns_steps=3,fallback=adamw,fallback_momentum=0.9,"
                "head_lr_factor=0.1,bias_lr_factor=0.1"
            ),
            weight_decay=0.05,
            schedule="one-cycle:pct_start=0.2,anneal=cosine",
            augment=("crop:4", "flip"),
            resolution="linear:warmup=0.8,start=0.5,end=1",
            label_smoothing=0.1,
            eval_every=0,
        ),
    )
}
