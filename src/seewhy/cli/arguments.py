"""Parsing a command's arguments with tyro: the fields of a dataclass are its options."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from seewhy.errors import SeewhyError, did_you_mean
from seewhy.train.recipe import AugmentationSpec, Recipe

if TYPE_CHECKING:
    from seewhy.data.dataset import Dataset

T = TypeVar("T")

# Types of options. The help of an optional one says what its default is, so tyro does not add it.
DataName = Annotated[str, arg(metavar="NAME|PATH")]
Flag = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]
OptionalInt = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
OptionalNumbers = Annotated[tuple[float, ...] | None, arg(metavar="FLOAT …", help_behavior_hint="")]
OptionalText = Annotated[str | None, arg(metavar="STR", help_behavior_hint="")]
MetadataFile = Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")]
OptionalPath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
LabelFiles = Annotated[tuple[str, ...], arg(metavar="FILE.csv …", help_behavior_hint="")]
RangeWords = Annotated[
    tuple[str, ...], arg(metavar="LOW HIGH|dataset|dtype", help_behavior_hint="")
]
RunPath = Annotated[Positional[Path], arg(metavar="RUN")]
ReportMinutes = Annotated[float, arg(metavar="MINUTES")]
RunOrFile = Annotated[Positional[str], arg(metavar="RUN|FILE.onnx|MODEL")]

# Options that several commands have, with their help.
RunOrModel = Annotated[
    Positional[str],
    arg(
        metavar="RUN|MODEL",
        help="Run directory, such as runs/latest, or published weights, as in "
        "vgg16:weights=vgg16.pth.",
    ),
]
ClassNames = Annotated[
    Path | None,
    arg(
        metavar="PATH",
        help_behavior_hint="",
        help="Text file with a class name per line, for published weights.",
    ),
]
MaxPixels = Annotated[
    int | None,
    arg(
        metavar="INT",
        help_behavior_hint="",
        help="Refuse images with more pixels than this (default: 150 million).",
    ),
]
ImageRange = Annotated[
    tuple[str, ...],
    arg(
        metavar="LOW HIGH|dataset|dtype",
        help_behavior_hint="",
        help="Pixel range of images above 8 bits: LOW HIGH, dtype, or dataset (training; default).",
    ),
]
OwnModel = Annotated[
    str | None,
    arg(
        name="model",
        metavar="MODULE:FUNCTION",
        help_behavior_hint="",
        help="Function that builds the run's model, if it is your own.",
    ),
]
Device = Annotated[str, arg(help="auto, cpu, cuda, cuda:1 or mps.")]
Quiet = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="", help="Print only errors.")]

HELP = ("-h", "--help")
# In errors: a remark for Python, keywords of `load`, and a word that is no word of English there.
_FOR_PYTHON = re.compile(r" \(in Python (?:[^()]|\([^()]*\))*\)")
_LOADING = re.compile(r"load\((?:\.\.\.|…), ([^()]*)\)")
_IS_ARGUMENT = (
    r"(?:(?==)|(?= (?:must be|is for|are not for|is not for) )|(?<=leave {argument})(?= out))"
)
_NOT_A_NUMBER = {
    "could not convert string to float": "a number",
    "invalid literal for int()": "a whole number",
}
_NO_RECIPE = "?"  # default of the recipe while its name is looked for
AUTO = "auto"  # the recipe that `choose_recipe` finds for the data


@dataclass(frozen=True)
class DataOptions:
    """Options of `seewhy.load`."""

    root: OptionalPath = None
    """Directory or archive with the published files of the named dataset."""
    image_size: OptionalInt = None
    """Resize and crop images to this side (default: the size that all share, or their median)."""
    validation: float = 0.0
    """Fraction of the training images to hold out, stratified by class."""
    limit: OptionalInt = None
    """Maximum number of training images, sampled from each class in proportion."""
    split_seed: int = 0
    """Seed for splits and subsampling."""
    label: OptionalText = None
    """Label column, if the dataset has several."""
    skip_bad_images: Flag = False
    """Skip images that cannot be read, and list them."""
    max_pixels: MaxPixels = None
    channels: OptionalInt = None
    """1 for gray, 3 for RGB (default: gray if all images are)."""
    margin: int = 0
    """Extra pixels per side of training images, for random crops: 32 stores 256 for 224."""
    resize: str = "crop"
    """crop keeps the center of an image that is not square, letterbox all of it."""
    interpolation: OptionalText = None
    """Filter that resizes images, bicubic or bilinear (default: of published weights; bicubic)."""
    split: OptionalText = None
    """folder (default): as in the source; random: redrawn; group: redrawn by group; test: all."""
    path_column: OptionalText = None
    """Column of image paths in a CSV file (default: path, file, filename or image)."""
    label_pattern: OptionalText = None
    """Regular expression on file names whose group "label" is the class: (?P<label>[a-z]+)_"""
    group_by: OptionalText = None
    """Group images by a column, by a regular expression on names, or by duplicates (default)."""
    labels: LabelFiles = ()
    """CSV of corrected labels and dropped images, as downloaded from a report."""
    range: RangeWords = ()
    """Pixel range of images above 8 bits: LOW HIGH, dtype, or dataset (measured; default)."""

    def of_source(self) -> dict[str, Any]:
        """Those that decide which images and labels there are."""
        names = ("root", "label", "limit", "label_pattern", "path_column", "group_by")
        return {name: getattr(self, name) for name in (*names, "skip_bad_images")}


@dataclass(frozen=True)
class RecipeOptions:
    """Options of a command that trains a recipe on a dataset."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE|FILE.toml")]
    """Built-in recipe (see `seewhy recipes`) or TOML file."""
    data: DataName
    """Dataset: a name, hub:owner/name, or the path of a directory or an archive."""
    loading: Annotated[OmitArgPrefixes[DataOptions], arg(name="data")] = field(
        default_factory=DataOptions
    )
    """How to load the data."""
    settings: Annotated[OmitArgPrefixes[Recipe], arg(name="recipe")] = field(default_factory=Recipe)
    """Override fields of the recipe; with the name of a recipe, --help shows its values."""

    default_recipe = ""  # of a command that needs no recipe

    def base_recipe(self) -> Recipe:
        """The recipe that `settings` start from."""
        from seewhy.train.recipes import find_recipe

        try:
            return find_recipe(self.recipe)
        except SeewhyError:
            _check_recipe_argument(self.recipe)
            raise


def _check_recipe_argument(text: str) -> None:
    """Raise SeewhyError if a run or a dataset is in the place of a recipe."""
    from seewhy.data.sources import SOURCES

    if (recipe := Path(text) / "recipe.toml").is_file():
        raise SeewhyError(
            f"{text} is a run, not a recipe; its recipe is {recipe}, and `seewhy report {text} "
            "--against RUN` compares two runs"
        )
    if Path(text).is_dir() or text in SOURCES:
        raise SeewhyError(f"{text} is data, not a recipe; pass it as --data {text}")


def parse(command: str, options: type[T], arguments: Sequence[str]) -> T:
    """Parse the arguments of a command.

    Raises:
        SeewhyError: If the arguments do not fit the options.
    """
    registry = ConstructorRegistry()
    registry.primitive_rule(_augmentation_from_text)
    registry.primitive_rule(_words_or_none)
    settings: dict[str, Any] = {
        "prog": f"seewhy {command}",
        "registry": registry,
    }
    with _one_line_errors(command, options, arguments):
        if issubclass(options, RecipeOptions):
            base = _named_recipe(options, arguments, settings)
            name = options.default_recipe or tyro.MISSING
            settings["default"] = options(name, tyro.MISSING, settings=base)
        if set(arguments) & set(HELP):
            arguments = ["--help"]  # tyro's help leaves out positional arguments that are given
        parsed: T = tyro.cli(options, args=arguments, **settings)
    return parsed


def _named_recipe(
    options: type[RecipeOptions], arguments: Sequence[str], settings: dict[str, Any]
) -> Recipe:
    """The recipe that the arguments name, from a first parse in which nothing is required."""
    settings_default = Recipe(model=AUTO)  # to see if a model is named
    default = options(options.default_recipe or _NO_RECIPE, "", settings=settings_default)
    without_help = [argument for argument in arguments if argument not in HELP]
    parsed, unknown = tyro.cli(
        options, args=without_help, default=default, return_unknown_args=True, **settings
    )
    if unknown:
        _check_recipe_argument(parsed.recipe)
    if unknown or parsed.recipe == _NO_RECIPE or (parsed.recipe == AUTO and not parsed.data):
        return Recipe()  # the second parse prints the error or the help
    return parsed.base_recipe()


@contextmanager
def _one_line_errors(command: str, options: type, arguments: Sequence[str]) -> Iterator[None]:
    """Turn errors of tyro into SeewhyError.

    Its hook for them is not public yet. Without the hook, tyro draws its box and exits with 2.
    """
    on_parse_error = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    if on_parse_error is None:
        yield
        return

    def fail(event: Any) -> None:
        message = _unknown_option(options, arguments) or _error_message(command, event)
        if message:
            raise SeewhyError(f"{message} (see `seewhy {command} --help`)")

    with on_parse_error(fail):
        yield


def _unknown_option(options: type, arguments: Sequence[str]) -> str:
    """An error for the first option that the command does not have; empty if there is none."""
    names = option_names(options)
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        known = name in HELP or name in names or name.replace("--no-", "--", 1) in names
        if name.startswith("--") and not known:
            return f"unknown option {name}{did_you_mean(name, names)}"
    return ""


def _error_message(command: str, event: Any) -> str:
    """One line for an error of tyro; empty for one of a kind that is not known."""
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return f"unexpected argument {event.tokens[0]!r}"
    if kind == "MissingArgs":
        missing = [each.arg.get_invocation_text()[1] for each in event.missing_arguments]
        return f"{command} needs {' and '.join(text.as_str_no_ansi() for text in missing)}"
    if kind not in ("BadValue", "InvalidChoice", "InstantiationFailure") or event.argument is None:
        return ""
    name = event.argument.display_name()
    if kind == "BadValue":
        return f"{name} needs a value"
    if kind == "InvalidChoice":
        return f"{name} must be one of {', '.join(event.choices)}, found {event.value!r}"
    message = " ".join(str(event.message).split())
    for failure, expected in _NOT_A_NUMBER.items():
        if failure in message:
            return f"{name} must be {expected}, found {message.rpartition(': ')[2]}"
    return f"{name}: {message}"


def option_names(options: type) -> list[str]:
    """The options of a command as they are typed."""
    names = []
    for name, hint in get_type_hints(options, include_extras=True).items():
        field_type = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if is_dataclass(field_type):
            names += option_names(field_type)  # type: ignore[arg-type]
        elif Positional not in (settings := getattr(hint, "__metadata__", ())):
            option = next((each.name for each in settings if getattr(each, "name", None)), name)
            names.append(f"--{option.replace('_', '-')}")
    return names


def name_options(message: str, options: type) -> str:
    """The message with the options of a command instead of the arguments of a function.

    `skip_bad_images=True` becomes `--skip-bad-images`, also in `load(..., skip_bad_images=True)`.
    What is in parentheses that begin with "in Python" is left out. The bare names of a recipe's
    settings, which are the same in TOML, and the arguments in an example of a call stay.
    """
    message = _FOR_PYTHON.sub("", message)
    message = _LOADING.sub(lambda found: found[1].replace(", ", " "), message)
    recipe = {field.name for field in fields(Recipe)}
    names = option_names(options)
    if "--skip-bad-images" not in names:  # as evaluate, which measures all images
        message = re.sub(r",? or skip [\w ]+ with skip_bad_images=True", "", message)
    for option in names:
        argument = option[2:].replace("-", "_")
        bare = "" if "_" in argument else _IS_ARGUMENT.format(argument=argument)
        if argument in recipe:
            bare = "(?==)"
        message = re.sub(f"`{argument}`", option, message)

        def replaced(found: re.Match[str], option: str = option) -> str:
            if re.search(r"\w\([^()]*$", found.string[: found.start()]):
                return found[0]
            value = (found[1] or "").strip("()").replace(", ", " ")
            if value.lower() == "false":
                return option.replace("--", "--no-", 1)
            return option if value in ("", "True", "true") else f"{option} {value}"

        pattern = rf"(?<![\w.,:'-]){argument}{bare}(?:=(\([^)]*\)|[\w.'…-]+))?(?![\w-])"
        message = re.sub(pattern, replaced, message)
    return message


def _augmentation_from_text(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Augmentations are text on the command line, though from Python they may be callables."""
    if info.type != AugmentationSpec:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str) or callable(value),
        str_from_instance=lambda value: [str(value)],
    )


def _words_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Words, as tyro parses them; if the default is to have none, the help says so."""
    if info.type != tuple[str, ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[STR [STR ...]]",
        instance_from_str=tuple,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda words: list(words) or ["none"],
    )


def load_data(
    name: str, options: DataOptions, folds: int | None = None, quiet: bool = False
) -> "Dataset":
    """Load a dataset with the options; folds are for cross-validation."""
    from seewhy.data.sources import load

    values = {each.name: getattr(options, each.name) for each in fields(options)}
    values["range"] = range_of_words(values["range"])
    values |= {} if folds is None else {"folds": folds}
    values["interpolation"] = values["interpolation"] or "bicubic"
    return load(name, seed=values.pop("split_seed"), quiet=quiet, **values)


def check_report_minutes(minutes: float) -> None:
    """Raise SeewhyError unless the value of --report-minutes is above 0."""
    if not minutes > 0:
        raise SeewhyError(f"--report-minutes must be above 0, found {minutes:g}; inf sets no limit")


def range_of_words(words: Sequence[str]) -> tuple[float, float] | str | None:
    """The value of --range; `load` and `Preprocessing` check it."""
    try:
        low, high = map(float, words)
    except ValueError:
        return " ".join(words) or None
    return low, high
