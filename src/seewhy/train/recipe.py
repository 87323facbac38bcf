"""A recipe: what to train and how, as a flat, frozen dataclass that is saved as TOML."""

import math
import numbers
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from seewhy.errors import SeewhyError, did_you_mean, lookup
from seewhy.escaping import json_text
from seewhy.files import is_stream, problem_of_path

RECIPE_REMEDY = (
    "pass a recipe, such as find_recipe('demo'); it names its model, which seewhy.MODELS registers"
)

AugmentationSpec = str | Callable[..., Any]  # an augmentation: text in the notation, or a function
LearningRate = float | Literal["find"]

PRECISIONS = {
    "auto": "bf16 if the hardware supports it, else fp32",
    "bf16": "autocast to bfloat16",
    "fp16": "autocast to float16, with loss scaling",
    "fp32": "float32",
}


@dataclass(frozen=True)
class Recipe:
    """A training recipe; change a field with `dataclasses.replace`.

    The model, the probe, the sampler, the optimizer, the schedules, the loss scale, the test-time
    augmentation, and each augmentation are written `name:value,key=value`, with a name from MODELS,
    PROBES, SAMPLERS, OPTIMIZERS, SCHEDULES, LOSS_SCALES, TTA, or AUGMENTATIONS. From Python,
    `augment` also takes functions. A recipe checks types and ranges; names are looked up when it is
    trained, so that a recipe can be read where its names are not registered.

    Raises:
        SeewhyError: If a value has the wrong type or is out of range.
    """

    name: str = "custom"
    """Run name, used in the name of the run directory."""
    model: str = "resnet18"
    """Model, such as resnet18 or davidnet:dropout=0.1."""
    probe: str = "none"
    """Fit the head before the first step, as in logistic or logistic:views=flip."""
    epochs: float = 20.0
    """Passes over the training images; can be fractional, or 0 with a probe."""
    batch_size: int = 512
    """Maximum batch size; each epoch is split into batches of equal size."""
    drop_last: bool = True
    """Drop images that do not fill a batch; false keeps them as a smaller last batch."""
    sampler: str = "shuffle"
    """Images of an epoch: shuffle, or balanced, with equally many of each class."""
    lr: LearningRate = 0.1
    """Peak learning rate; find runs a range test first and uses its suggestion."""
    optimizer: str = "sgd:momentum=0.9"
    """Optimizer, such as sgd:momentum=0.9,nesterov=true or adamw."""
    weight_decay: float = 5e-4
    """L2 penalty (adamw, muon: decoupled weight decay); excludes biases and norms by default."""
    schedule: str = "one-cycle"
    """Learning rate schedule, such as one-cycle:pct_start=0.3 or cosine."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one before it, in (0, 1]."""
    momentum_schedule: str = "constant"
    """Momentum schedule (beta1 for Adam), as a factor, such as dip:low=0.9."""
    freeze: tuple[str, ...] = ()
    """Parameters or modules to freeze; whiten:3 freezes whiten after 3 epochs."""
    freeze_layers: float = 0.0
    """Fraction of the layers, from the first, that are frozen throughout, in [0, 1)."""
    unfreeze_epochs: int = 0
    """Gradual unfreezing: epochs until all layers train, the last one first; 0 for none."""
    freeze_bn: bool = False
    """Keep the running mean and variance of BatchNorm, and use them in training too."""
    augment: tuple[AugmentationSpec, ...] = ("crop:4", "flip", "cutout:8")
    """Augmentations, in order, such as crop:4 flip cutout:16."""
    resolution: str = "constant"
    """Image size schedule, as a factor, such as linear:warmup=0.6,start=0.5,end=1."""
    label_smoothing: float = 0.0
    """Label smoothing, in [0, 1); of multi-label data, toward 1/2."""
    class_weights: bool = False
    """Weight the loss inversely to class frequency; for multi-label data, by pos_weight."""
    l1: float = 0.0
    """L1 penalty on the weights; excludes biases and norms."""
    clip_grad_norm: float = 0.0
    """Maximum gradient norm; 0 disables clipping."""
    grad_accum_steps: int = 1
    """Batches per optimizer update (gradient accumulation)."""
    ema: float = 0.0
    """Decay of a moving average that is evaluated in place of the weights; 0 disables it."""
    lookahead: int = 0
    """Optimizer updates between lookahead steps; 0 disables lookahead."""
    patience: int = 0
    """Stop after this many evaluations without a better validation accuracy; 0 disables it."""
    tta: str = "none"
    """Test-time augmentation, such as flip or flip-shift:confidence_below=0.6."""
    precision: str = "auto"
    """auto, bf16, fp16 or fp32."""
    loss_scale: str = "dynamic"
    """Loss scaling in fp16, such as dynamic:init_scale=65536,growth_interval=2000."""
    compile: bool = False
    """Compile the model with torch.compile, once per image size."""
    eval_every: int = 1
    """Epochs between evaluations; 0 evaluates only at the end."""
    seed: int = 0
    """Seed for initial weights, data order, and augmentation."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _convert(field.name, getattr(self, field.name), field.type)
            object.__setattr__(self, field.name, value)
        lowest = 0.0 if self.probe != "none" else math.ulp(0.0)
        for name, valid, possible in (
            ("name", re.fullmatch(r"[\w+-][\w.+ -]*", self.name), "a plain file name"),
            (
                "epochs",
                lowest <= self.epochs <= 1e6,
                "more than 0 (0 needs a probe), at most a million",
            ),
            ("batch_size", self.batch_size >= 2, "at least 2"),
            ("lr", self.lr == "find" or self.lr > 0, "more than 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("layer_decay", 0 < self.layer_decay <= 1, "more than 0 and at most 1"),
            ("freeze_layers", 0 <= self.freeze_layers < 1, "in [0, 1)"),
            ("unfreeze_epochs", self.unfreeze_epochs >= 0, "at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("l1", self.l1 >= 0, "0 or more"),
            ("clip_grad_norm", self.clip_grad_norm >= 0, "0 or more"),
            ("grad_accum_steps", self.grad_accum_steps >= 1, "at least 1"),
            ("ema", 0 <= self.ema < 1, "in [0, 1)"),
            ("lookahead", self.lookahead >= 0, "0 or more"),
            ("patience", self.patience >= 0, "0 or more"),
            ("eval_every", self.eval_every >= 0, "0 or more"),
            ("seed", 0 <= self.seed < 2**32, "in [0, 2**32)"),
        ):
            if not valid:
                raise SeewhyError(
                    f"recipe field {name} must be {possible}, found {getattr(self, name)!r}"
                )
        lookup(PRECISIONS, self.precision, "precision")

    def __repr__(self) -> str:
        default = as_dict(Recipe())
        changed = {key: value for key, value in as_dict(self).items() if value != default[key]}
        return f"Recipe({', '.join(f'{key}={value!r}' for key, value in changed.items())})"

    @property
    def needs_lr(self) -> bool:
        """Whether a range test has to find the learning rate first: `lr` is "find"."""
        return self.lr == "find"


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The fields as plain values; an augmentation function becomes its name in angle brackets."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    values["freeze"] = list(recipe.freeze)
    values["augment"] = [
        step if isinstance(step, str) else f"<{_callable_name(step)}>" for step in recipe.augment
    ]
    return values


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, one line per field."""
    # strings, numbers, and lists of strings are written in TOML as in JSON
    return "".join(f"{key} = {json_text(value)}\n" for key, value in as_dict(recipe).items())


def from_dict(values: dict[str, Any], base: Recipe | None = None) -> Recipe:
    """A copy of `base` (default: `Recipe()`) with changed fields.

    Raises:
        SeewhyError: For an unknown field, a wrong type, or a value out of range.
    """
    known = {field.name: field for field in fields(Recipe)}
    for key in values:
        if key not in known:
            raise SeewhyError(
                f"unknown recipe field {key!r}{did_you_mean(key, known)}; "
                f"possible: {', '.join(known)}"
            )
    return replace(base or Recipe(), **values)


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a recipe file. Raises SeewhyError if it is missing or not TOML."""
    if is_stream(path):
        raise SeewhyError(f"{problem_of_path(path)}; pass a recipe in TOML")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # of Windows editors
    except FileNotFoundError:
        raise SeewhyError(
            f"no recipe file {path}; see `seewhy recipes` for the built-in ones"
        ) from None
    except (OSError, ValueError) as error:
        raise SeewhyError(f"{path} is not a recipe in TOML: {error}") from error


def _convert(name: str, value: Any, hint: Any) -> Any:
    """`value` with the field's type: an int becomes a float, a list becomes a tuple."""
    if hint == LearningRate:
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


def _callable_name(step: Callable[..., Any]) -> str:
    return getattr(step, "__qualname__", type(step).__qualname__)
