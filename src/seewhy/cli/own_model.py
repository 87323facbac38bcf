"""`--model package.module:function`: the code of a run's model, if it is not one of seewhy's."""

import importlib
import sys
from pathlib import Path

from seewhy.errors import SeewhyError


def register_own_model(text: str, directory: Path) -> None:
    """Import a function and register it under the name that the run's recipe gives its model.

    Only the user names code to import, never a file of a run, which may come from elsewhere.

    Args:
        text: `package.module:function`, importable from here. The function is as an entry of
            MODELS: `function(num_classes, sample, settings)` returns a module.
        directory: The run.

    Raises:
        SeewhyError: If the function cannot be imported, or the run has a model of seewhy.
    """
    from seewhy.models.registry import MODELS
    from seewhy.notation import parse
    from seewhy.runs.directory import read_recipe

    name = parse(read_recipe(directory).model)[0]
    if name in MODELS:
        raise SeewhyError(f"the model of {directory} is seewhy's {name}; leave out --model")
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
    MODELS[name] = function
