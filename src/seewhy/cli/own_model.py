"""`--model package.module:function`: a model whose code is the user's."""

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy.errors import SeewhyError

if TYPE_CHECKING:
    from seewhy.models.classifier import Classifier
    from seewhy.runs.run import Run
    from seewhy.train.recipe import Recipe


def register_own_model(text: str, directory: Path) -> None:
    """Import a function and register it under the name that the run's recipe gives its model.

    Only the user names code to import, never a file of a run, which may come from elsewhere.

    Args:
        text: `package.module:function`, importable from here. The function returns a module; it
            may take the number of classes, or (num_classes, sample, settings) as an entry of
            MODELS.
        directory: The run.

    Raises:
        SeewhyError: If the function cannot be imported, or the run has a model of seewhy.
    """
    from seewhy.models.own import own_builder
    from seewhy.models.registry import MODELS
    from seewhy.notation import parse
    from seewhy.runs.directory import read_recipe

    name = parse(read_recipe(directory).model)[0]
    if name in MODELS:
        raise SeewhyError(f"the model of {directory} is seewhy's {name}; leave out --model")
    MODELS[name] = own_builder(_imported(text), name)


def with_own_model(recipe: "Recipe", base: "Recipe") -> "Recipe":
    """The recipe with the qualified name of its model, if that is `package.module:function`.

    The function is imported and registered under that name, unless `base`, the recipe before the
    options of the command line, has the same model: files name no code to import.

    Raises:
        SeewhyError: If the function cannot be imported.
    """
    from seewhy.models.own import own_builder, qualified_name
    from seewhy.models.registry import MODELS
    from seewhy.notation import parse

    text = recipe.model
    if recipe.model == base.model or parse(text)[0] in MODELS or not _is_path(text):
        return recipe
    function = _imported(text)
    name = qualified_name(function)
    if name not in MODELS:
        MODELS[name] = own_builder(function, name)
    return replace(recipe, model=name)


def open_model(
    text: str, device: Any, image_size: int | None = None, **options: Any
) -> "Run | Classifier":
    """What `open_classifier` opens, or the model that `package.module:function` returns.

    The function takes no arguments and returns a trained module, or a Classifier.

    Args:
        text: What the user named.
        device: Device for the model.
        image_size: As for `open_classifier`.
        options: As for `open_classifier`; of them, a function's model takes only `classes`.

    Raises:
        SeewhyError: As for `open_classifier`, and if the function cannot be imported or fails, or
            takes no such option.
    """
    from seewhy.models.classifier import as_classifier
    from seewhy.models.registry import MODELS
    from seewhy.notation import parse
    from seewhy.runs.run import open_classifier

    if not _is_path(text) or parse(text)[0] in MODELS or Path(text).exists():
        return open_classifier(text, device, image_size, **options)
    for option in ("crop", "mean", "std"):
        if options.get(option) is not None:
            raise SeewhyError(
                f"{option} is for published weights; leave it out for {text}, which may return a "
                "Classifier with its own"
            )
    function = _imported(text)
    try:
        made = function()
    except Exception as error:  # whatever the user's code raises
        raise SeewhyError(f"{text} fails: {type(error).__name__}: {error}") from error
    classifier = as_classifier(made)
    classifier.model.to(device).eval()
    classes = options.get("classes") or classifier.classes
    shape = classifier.image_shape
    if image_size is not None:
        shape = (shape[0] if shape else 3, image_size, image_size)
    return replace(classifier, classes=classes, image_shape=shape)


def _is_path(text: str) -> bool:
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", text) is not None


def _imported(text: str) -> Callable[..., Any]:
    module_name, _, function_name = text.partition(":")
    if not module_name or not function_name:
        raise SeewhyError(f"--model needs package.module:function, found {text!r}")
    sys.path.insert(0, "")  # the working directory, as `python -m` has it
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # whatever the imported code raises
        raise SeewhyError(
            f"--model {text} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove("")
    if not callable(function):
        raise SeewhyError(f"--model {text} is not a function, found {type(function).__name__}")
    called: Callable[..., Any] = function
    return called
