"""Choosing a recipe by the data, the model, and the machine."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seewhy.data.dataset import Dataset
from seewhy.data.facts import DataFacts, data_facts
from seewhy.models.pretrained import PACKAGES, pretrained_info
from seewhy.models.published import LAYOUTS
from seewhy.notation import parse
from seewhy.train.device import find_device
from seewhy.train.recipe import Recipe
from seewhy.train.recipes import RECIPES
from seewhy.wording import counted

PHOTO_SIDE = 64  # pixels of the shorter side from which images are photographs
FINETUNE_FROM = 500  # images: see benchmarks/finetuning.py
FINETUNE_ON_CPU = 20_000  # images above which a CPU would take hours
UNEVEN = 3.0  # images of the largest class, as a multiple of the smallest, for class weights
SMALL_DATA = 5000  # images of fewer pixels, for which the small model of the demo is enough
TIMM_MODEL = "timm:efficientnet_lite0.ra_in1k,pretrained=true"
TIMM_REPOSITORY = "timm/efficientnet_lite0.ra_in1k"


@dataclass(frozen=True)
class Choice:
    """A recipe for a dataset, and why."""

    recipe: Recipe
    loading: Mapping[str, Any]  # arguments of `load`: image_size, margin, interpolation
    reason: str  # what was chosen and why
    alternative: str  # how to choose otherwise


def choose_recipe(
    data: str | os.PathLike[str] | Dataset,
    model: str | None = None,
    device: str = "auto",
    root: str | os.PathLike[str] | None = None,
    label: str | None = None,
    **options: Any,
) -> Choice:
    """Choose a recipe, and how to load the data for it.

    Args:
        data: A dataset, or its name or path, as `seewhy.load` takes it.
        model: The model, such as "efficientnet-lite0:weights=FILE"; by default published weights
            that timm has in its local cache, else a model for training from scratch.
        device: Device to train on.
        root: As for `seewhy.load`.
        label: As for `seewhy.load`.
        options: Others of `seewhy.load` that decide which images and labels there are:
            `limit`, `label_pattern`, `path_column`, `group_by` and `skip_bad_images`.

    Raises:
        SeewhyError: If there is no such dataset, model, or device.
    """
    facts = data_facts(data, root, label, **options)
    on_cpu = find_device(device).type == "cpu"
    photographs = facts.side >= PHOTO_SIDE
    if model is None and photographs and _timm_has_weights():
        model = TIMM_MODEL
    pretrained = model is not None and has_published_weights(model)
    images = f"{counted(facts.train_images, 'training image')}"
    if pretrained and on_cpu and facts.train_images > FINETUNE_ON_CPU:
        name, why = "probe", f"{images} are many for this CPU"
    elif pretrained and facts.train_images >= FINETUNE_FROM:
        name, why = "finetune", f"{images} are enough to train the whole model"
    elif pretrained:
        name, why = "probe", f"{images} are few, so only the head of the model is trained"
    elif photographs:
        name, why = "from-scratch", "without published weights, a model is trained from scratch"
    elif facts.train_images < SMALL_DATA:
        name, why = "demo", f"{images} are small (about {facts.side} pixels) and few"
    else:
        name, why = "speednet-8", f"the images are small (about {facts.side} pixels)"
    recipe = RECIPES[name]
    if model is not None:
        recipe = replace(recipe, model=model)
    if not facts.multi_label and max(facts.class_counts) > UNEVEN * min(facts.class_counts):
        recipe = replace(recipe, class_weights=True)
        why += f"; class weights, as classes have {_range(facts)} images"
    other = {"probe": "finetune", "finetune": "probe"}.get(name, "probe")
    advice = f"to choose another: `seewhy train {other} --data …`; `seewhy recipes` lists all"
    if name == "from-scratch":
        advice = (
            "with published weights it would take minutes: --model "
            "efficientnet-lite0:weights=FILE, or pip install timm"
        )
    return Choice(
        recipe,
        loading_for(recipe.model, facts, default=224 if name == "from-scratch" else None),
        f"recipe {name}: {why}",
        advice,
    )


def loading_for(model: str, facts: DataFacts, default: int | None = None) -> Mapping[str, Any]:
    """Arguments of `load` for photographs: size, margin and interpolation of a model's weights.

    Empty for small images, and for a model without published weights unless there is a `default`
    size.
    """
    info = pretrained_info(model) if has_published_weights(model) else None
    if facts.side < PHOTO_SIDE or (info is None and default is None):
        return {}
    if info is None:
        return {"image_size": default, "margin": 32}
    margin = round(info.image_size / info.preprocessing.crop) - info.image_size
    interpolation = info.preprocessing.interpolation
    return {"image_size": info.image_size, "margin": margin, "interpolation": interpolation}


def has_published_weights(model: str) -> bool:
    """Whether a spec names published weights, by `weights=FILE`, `pretrained=true`, or `hf:`."""
    name, _, keywords = parse(model)
    default = "true" if name == "hf" else ""
    return "weights" in keywords or keywords.get("pretrained", default).lower() == "true"


def random_features_note(model: str) -> str:
    """A warning for a probe of a model that could have published weights but has none, or empty."""
    name = parse(model)[0]
    if name not in (*LAYOUTS, *PACKAGES) or has_published_weights(model):
        return ""
    setting = "pretrained=true" if name in PACKAGES else "weights=FILE"
    joint = "," if ":" in model else ":"
    return (
        f"the probe uses features of random weights: {model} names no published ones; name them, "
        f"as in {model}{joint}{setting}"
    )


def _timm_has_weights() -> bool:
    """Whether timm is installed, and its weights are in the local cache of the hub."""
    if importlib.util.find_spec("timm") is None:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(TIMM_REPOSITORY, "model.safetensors"), str)


def _range(facts: DataFacts) -> str:
    return f"{min(facts.class_counts):,} to {max(facts.class_counts):,}"
