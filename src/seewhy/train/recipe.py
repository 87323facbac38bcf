"""What to train and how: one flat, frozen, validated value that reads and writes as TOML."""

import json
import math
import numbers
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from seewhy.errors import SeewhyError, did_you_mean, lookup
from seewhy.notation import bind

Step = str | Callable[..., Any]  # an augmentation: text in the notation, or a callable
Rate = (
    float | Literal["find"]
)  # a learning rate, or the wish that a range test finds one before the training

PRECISIONS = {
    "auto": "bf16 where the hardware computes in it, else fp32",
    "bf16": "autocast to bfloat16",
    "fp16": "autocast to float16, with a scaled loss",
    "fp32": "float32",
}


@dataclass(frozen=True)
class Recipe:
    """A training recipe. Raises SeewhyError on a name that no table has and on a value out of range.

    `model`, `optimizer`, `schedule` and each entry of `augment` are in the notation `name:value,key=value`, a name of the
    tables MODELS, OPTIMIZERS, SCHEDULES and AUGMENTATIONS; from Python, `augment` also takes callables.
    """

    name: str = "custom"
    """What the run directory is called after."""
    model: str = "resnet18"
    """Network, such as resnet18 or davidnet:dropout=0.1."""
    epochs: float = 20.0
    """Passes over the training images; fractions are possible."""
    batch_size: int = 512
    """Images per step, at most: an epoch is cut into equal batches."""
    lr: Rate = 0.1
    """Peak learning rate, which the schedule scales, or find; the loss is the mean over a batch."""
    optimizer: str = "sgd:momentum=0.9"
    """Optimizer, such as sgd:momentum=0.9,nesterov=true or adamw."""
    weight_decay: float = 5e-4
    """L2 penalty (adamw: decoupled decay) of weights; biases and norms have none unless the optimizer says so."""
    schedule: str = "one-cycle"
    """Learning rate over the run, such as one-cycle:pct_start=0.3 or cosine."""
    momentum_schedule: str = "constant"
    """Momentum over the run (Adam's beta1) as a factor of the optimizer's, such as dip:low=0.9."""
    freeze: tuple[str, ...] = ()
    """Parameters to leave alone after an epoch, such as whiten:3; a name stands for all that start with it."""
    augment: tuple[Step, ...] = ("crop:4", "flip", "cutout:8")
    """Augmentations in their order, such as crop:4 flip cutout:16."""
    resolution: str = "constant"
    """Side of the training images over the run as a factor, such as linear:warmup=0.6,start=0.5,end=1; set anew each epoch."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes, in [0, 1)."""
    class_weights: bool = False
    """Weigh each class inversely to how often it occurs."""
    l1: float = 0.0
    """Times the sum of the absolute weights, added to the loss; biases and norms are left out."""
    clip: float = 0.0
    """Largest norm of the gradient of all parameters together; 0 for no limit."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one update."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is what is evaluated and kept; 0 for none."""
    lookahead: int = 0
    """Updates after which slow weights go half of the way to the weights, which go on from there; 0 for none."""
    patience: int = 0
    """Stop after so many evaluations without a better validation accuracy; 0 for never."""
    tta: str = "none"
    """Test-time augmentation, such as flip or flip-shift:confidence_below=0.6."""
    precision: str = "auto"
    """auto, bf16, fp16 or fp32."""
    compile: bool = False
    """Compile the network with torch.compile, once for each size of image."""
    eval_every: int = 1
    """Evaluate after every so many epochs; 0 for only at the end."""
    seed: int = 0
    """Seed of initial weights, data order and augmentation."""

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(
                self, field.name, _fit(field.name, getattr(self, field.name), field.type)
            )
        for name, holds, possible in (
            ("name", re.fullmatch(r"[\w+-][\w.+ -]*", self.name), "a plain file name"),
            ("epochs", 0 < self.epochs <= 1e6, "more than 0 and at most a million"),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("lr", self.lr == "find" or self.lr > 0, "more than 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("l1", self.l1 >= 0, "0 or more"),
            ("clip", self.clip >= 0, "0 or more"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("ema", 0 <= self.ema < 1, "in [0, 1)"),
            ("lookahead", self.lookahead >= 0, "0 or more"),
            ("patience", self.patience >= 0, "0 or more"),
            ("eval_every", self.eval_every >= 0, "0 or more"),
            ("seed", 0 <= self.seed < 2**32, "in [0, 2**32)"),
        ):
            if not holds:
                raise SeewhyError(
                    f"recipe field {name} must be {possible}, found {getattr(self, name)!r}"
                )
        lookup(PRECISIONS, self.precision, "precision")
        _check_names(self)

    def __repr__(self) -> str:
        return f"Recipe({', '.join(f'{key}={value!r}' for key, value in as_dict(self).items())})"


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The fields as plain values; a callable among the augmentations becomes its name in angle brackets."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    values["freeze"] = list(recipe.freeze)
    values["augment"] = [
        step if isinstance(step, str) else f"<{_callable_name(step)}>" for step in recipe.augment
    ]
    return values


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, one line a field: strings, numbers and lists of strings look in TOML as they do in JSON."""
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in as_dict(recipe).items()
    )


def from_dict(values: dict[str, Any], base: Recipe | None = None) -> Recipe:
    """`base` (by default a Recipe of defaults) with `values` in its place. Raises SeewhyError on unknown fields."""
    known = {field.name: field for field in fields(Recipe)}
    for key in values:
        if key not in known:
            raise SeewhyError(
                f"unknown recipe field {key!r}{did_you_mean(key, known)}; possible: {', '.join(known)}"
            )
    return replace(base or Recipe(), **values)


def restore_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file as it was written, its names not resolved: a run may be opened where they mean nothing."""
    return restored(read_toml(path))


def restored(values: dict[str, Any]) -> Recipe:
    """The recipe whose `as_dict` is, or was in an earlier version, `values`; its names are not resolved."""
    recipe = Recipe.__new__(Recipe)
    for key, value in (vars(Recipe()) | values).items():
        object.__setattr__(recipe, key, tuple(value) if isinstance(value, list) else value)
    return recipe


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a recipe's file. Raises SeewhyError where there is none, or it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeewhyError(
            f"no recipe file {path}; see `seewhy recipes` for the built-in ones"
        ) from None
    except (OSError, ValueError) as error:
        raise SeewhyError(f"{path} is not a recipe in TOML: {error}") from error


def _fit(name: str, value: Any, hint: Any) -> Any:
    """`value` as the field's type holds it: ints become floats, lists become tuples. Raises SeewhyError where it cannot."""
    if hint == Rate:
        if isinstance(value, str) and value != "find":
            raise SeewhyError(f"recipe field {name} must be a number, or find, found {value!r}")
        hint = str if isinstance(value, str) else float
    if get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and all(
            isinstance(step, str) or callable(step) for step in value
        ):
            return tuple(value)
        steps = "strings" if get_args(hint)[0] is str else "strings or functions"
        raise SeewhyError(f"recipe field {name} must be a list of {steps}, found {value!r}")
    if hint is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        value = float(value)
    if hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise SeewhyError(f"recipe field {name} must be of type {hint.__name__}, found {value!r}")
    return value


def _check_names(recipe: Recipe) -> None:
    """Resolve every name of the notation once, with the names of its settings; what a setting may be is the entry's affair."""
    from seewhy.data.augment import bind_augmentations
    from seewhy.models.registry import MODELS
    from seewhy.models.tta import bind_tta
    from seewhy.train.freezing import frozen_after
    from seewhy.train.optimizers import bind_optimizer
    from seewhy.train.schedules import bind_schedule

    bind(MODELS, recipe.model, "model", n_supplied=2)
    bind_optimizer(recipe.optimizer)
    for schedule in (recipe.schedule, recipe.momentum_schedule, recipe.resolution):
        bind_schedule(schedule)
    frozen_after(recipe.freeze)
    bind_tta(recipe.tta)
    bind_augmentations(recipe.augment)


def _callable_name(step: Callable[..., Any]) -> str:
    return getattr(step, "__qualname__", type(step).__qualname__)
