"""The arguments of `load`, checked."""

import re
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

from seewhy.data.decode import FILTERS, RESIZE_MODES
from seewhy.data.pixel_range import ValueRange, check_range
from seewhy.errors import SeewhyError, lookup

SPLITS = {
    "folder": "those of the folders or files",
    "random": "drawn anew from all images",
    "group": "drawn anew from all images, without images of one group in two splits",
    "test": "those of the folders or files; without a test split, all images are it",
}
DUPLICATES = "duplicates"  # group_by: near-duplicates are a group


@dataclass(frozen=True)
class LoadOptions:
    """How to decode and split a dataset.

    Raises SeewhyError for values of another type or out of range.
    """

    image_size: int | None = None  # pixels per side; None chooses from the images
    validation: float = 0.0  # fraction of train, in [0, 1)
    seed: int = 0
    skip_bad_images: bool = False
    label: str | None = None  # label column
    max_pixels: int | None = None  # of an image; None is the default of `open_image`
    channels: int | None = None  # 1 or 3; None chooses from the images
    range: ValueRange | None = None  # of images with more than 8 bits; None is that of the dataset
    margin: int = 0  # pixels by which training images are larger
    resize: str = "crop"  # crop or letterbox
    interpolation: str = "bicubic"  # bicubic or bilinear
    split: str | None = None  # one of SPLITS; None keeps the given splits, and draws those missing
    path_column: str | None = None  # of a CSV file
    label_pattern: str | None = None  # regular expression on file names, with a group "label"
    group_by: str | None = None  # column, regular expression on names, or "duplicates"
    folds: int = 0  # into which the training images are divided; 0 for none

    def __post_init__(self) -> None:
        if self.label is not None and not isinstance(self.label, str):
            raise SeewhyError(f"label must be the name of a column, found {one_line(self.label)}")
        if self.path_column is not None and not isinstance(self.path_column, str):
            raise SeewhyError(
                f"path_column must be the name of a column, found {one_line(self.path_column)}"
            )
        checked: dict[str, Any] = {
            "validation": _check_fraction("validation", self.validation),
            "seed": check_integer("seed", self.seed, minimum=0),
            "margin": check_integer("margin", self.margin, minimum=0),
            "skip_bad_images": bool(self.skip_bad_images),
            "range": check_range(self.range),
        }
        if self.folds:
            checked["folds"] = check_integer("folds", self.folds, minimum=2)
            if self.validation:
                raise SeewhyError(
                    f"folds are not for validation={self.validation:g}: every image is validated "
                    "by the run that did not see it; leave validation out"
                )
        lookup(RESIZE_MODES, self.resize, "resize")
        lookup(FILTERS, self.interpolation, "interpolation")
        if self.split is not None:
            lookup(SPLITS, self.split, "split")
        check_pattern("group_by", self.group_by)
        check_pattern("label_pattern", self.label_pattern)
        if self.label_pattern and "label" not in re.compile(self.label_pattern).groupindex:
            raise SeewhyError(
                f"label_pattern {self.label_pattern!r} has no group named label; write "
                "(?P<label>…) around the part that is the label, as in '(?P<label>[a-z]+)_'"
            )
        if self.group_by is not None and self.split in ("folder", "random"):
            raise SeewhyError(
                f"group_by is for split='group', or splits that are drawn, found split="
                f"{self.split!r}; leave one out"
            )
        if self.channels not in (None, 1, 3):
            raise SeewhyError(
                f"channels must be 1 (gray) or 3 (RGB), found {one_line(self.channels)}"
            )
        for name in ("image_size", "max_pixels"):
            if getattr(self, name) is not None:
                checked[name] = check_integer(name, getattr(self, name), minimum=1)
        for name, value in checked.items():  # numbers of NumPy become those of Python
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        values = asdict(self)
        if not self.folds:
            del values["folds"]
        if self.interpolation == "bicubic":  # always, in older runs and caches
            del values["interpolation"]
        return values | {"range": list(self.range) if isinstance(self.range, tuple) else self.range}


def check_pattern(argument: str, value: object) -> None:
    """Raise SeewhyError if `value` is neither None nor a regular expression."""
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise SeewhyError(f"{argument} must be a regular expression, found {one_line(value)}")
    try:
        re.compile(value)
    except re.error as error:
        raise SeewhyError(
            f"{argument} {value!r} is no regular expression ({error}); escape special characters "
            "with a backslash"
        ) from error


def check_integer(argument: str, value: object, minimum: int) -> int:
    """`value` as an int. Raises SeewhyError for other types and smaller values."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SeewhyError(f"{argument} must be a whole number, found {one_line(value)}")
    if value < minimum:
        raise SeewhyError(f"{argument} must be at least {minimum}, found {value}")
    return int(value)


def _check_fraction(argument: str, value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise SeewhyError(f"{argument} must be a number, found {one_line(value)}")
    fraction = float(value)
    if not 0 <= fraction < 1:
        raise SeewhyError(f"{argument} must be at least 0 and below 1, found {fraction}")
    return fraction


def one_line(value: object) -> str:
    """The value, shortened to one line, and its type."""
    return f"{' '.join(repr(value).split()):.60} of type {type(value).__name__}"
