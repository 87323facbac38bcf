"""`fit`: train, show it, and keep it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from seewhy.console import showing
from seewhy.data.dataset import Dataset
from seewhy.data.sources import checked
from seewhy.diagnose.predictions import Predictions, predictions
from seewhy.figures.curves import curves_figure
from seewhy.figures.style import save_figure
from seewhy.files import write_text
from seewhy.model_card import model_card
from seewhy.models import build
from seewhy.recording import Recorder, describe_setting, write_result
from seewhy.run import Result, Run, check_free
from seewhy.train.batches import equal_batches
from seewhy.train.loop import EpochStats, train
from seewhy.train.precision import find_device, find_precision
from seewhy.train.recipe import Recipe


def fit(
    recipe: Recipe,
    data: Dataset,
    directory: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Run:
    """Train a new model as `recipe` says and return it with its history and its predictions on the test split.

    With a `directory`, everything is also written there (see `seewhy.open_run`); it must not exist yet, or be empty.
    With a validation split the weights of the best epoch on it are kept, and the test split is read once, at the end;
    without one the last epoch is the result. A run that ends early keeps what was written, and says so in status.json.
    The caller's random state is left as it was. Raises SeewhyError for what the user can mend.
    """
    data = checked(data)
    place = find_device(device)
    precision = find_precision(recipe.precision, place)
    home = None if directory is None else Path(directory)
    if home is not None:
        check_free(home)
    setting = describe_setting(data, place, precision)
    held_out = "test" if data.validation is None else "valid"
    with seeded(recipe.seed, place):
        model = build(recipe.model, len(data.classes), data.train).to(place)
        events = train(model, recipe, data)
        first = next(events)  # a recipe that does not fit the data fails here, before anything is written
        with Recorder(home, model, recipe, data, setting) as recorder:
            with showing(held_out, quiet) as show:
                for event in chain([first], events):
                    show(event)
                    if isinstance(event, EpochStats):
                        recorder.epoch(event)
            recorder.keep_weights()
            test = predictions(model, data.test, data.classes, precision)
            history = tuple(recorder.history)
            _, batch_size = equal_batches(len(data.train), recipe.batch_size)
            result = _result(test, history, recorder.best_row or history[-1], batch_size, model, data)
            run = Run(recipe, model.eval(), data.classes, data.image_shape, history, test, result, setting, home)
            if home is not None:
                write_result(home, result, test, data.test.names)
                write_text(home / "README.md", model_card(run))
                save_figure(curves_figure(run.history, held_out, recipe.name), home / "figures" / "curves")
    return run


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for the block and restore them after it."""
    every_gpu = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=every_gpu):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.manual_seed(seed)
        yield


def _result(
    test: Predictions, history: Sequence[EpochStats], chosen: EpochStats, batch_size: int, model: nn.Module, data: Dataset
) -> Result:
    last = history[-1]
    return Result(
        accuracy=test.accuracy,
        interval=test.interval,
        images=len(test.labels),
        test_loss=test.losses.mean().item(),
        selected_on="last epoch" if data.validation is None else "validation",
        selected_epoch=chosen.epoch,
        epochs=last.epoch,
        steps=last.step,
        seconds=last.seconds,
        images_per_second=last.step * batch_size / last.seconds,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
