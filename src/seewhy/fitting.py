"""`fit`: train, show it, and keep it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from seewhy.console import Show, showing
from seewhy.data.dataset import Dataset
from seewhy.diagnose.predictions import predictions
from seewhy.figures.curves import curves_figure
from seewhy.figures.style import save_figure
from seewhy.files import write_text
from seewhy.model_card import model_card
from seewhy.models import build
from seewhy.run import (
    SCHEMA_VERSION,
    Run,
    append_metrics,
    check_free,
    create_directory,
    write_errors,
    write_model,
    write_results,
    write_status,
)
from seewhy.train.loop import EpochStats, Event, train
from seewhy.train.precision import find_device, find_precision
from seewhy.train.recipe import Recipe

Record = Callable[[EpochStats], None]


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
    without one the last epoch is the result. Interrupted or failed runs keep what was written, and say so in status.json.
    The caller's random state is left as it was. Raises SeewhyError for what the user can mend.
    """
    began = time.perf_counter()
    place = find_device(device)
    precision = find_precision(recipe.precision, place)
    directory = None if directory is None else Path(directory)
    if directory is not None:
        check_free(directory)
    with seeded(recipe.seed, place):
        model = build(recipe.model, len(data.classes), data.train).to(place)
        held_out = "test" if data.validation is None else "valid"
        events = train(model, recipe, data)
        first = next(events)  # a recipe that does not fit the data fails here, before there is a directory
        if directory is not None:
            create_directory(directory, recipe, data, place, precision)
        with recorded(directory, model, recipe, data) as record, showing(held_out, quiet) as show:
            history, best = _consume(first, events, model, data.validation is not None, show, record)
        if best is not None:
            model.load_state_dict(best)
        test = predictions(model.eval(), data.test, data.classes, precision)
    last = history[-1]
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "recipe": recipe.name,
        "data": data.name,
        "loaded_with": dict(data.loaded_with),
        "fingerprint": data.fingerprint,
        "accuracy": test.accuracy,
        "interval": test.interval,
        "images": len(test.labels),
        "test_loss": test.losses.mean().item(),
        "selected_on": "last epoch" if data.validation is None else "validation",
        "epochs": last.epoch,
        "steps": last.step,
        "seconds": last.seconds,
        "seconds_with_evaluation": time.perf_counter() - began,
        "images_per_second": last.step * min(recipe.batch_size, len(data.train)) / last.seconds,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(place),
        "precision": precision,
    }
    run = Run(recipe, model, data.classes, data.image_shape, history, test, summary, directory)
    if directory is not None:
        _write(directory, run, data, held_out)
    return run


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for the block and restore them after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def recorded(directory: Path | None, model: nn.Module, recipe: Recipe, data: Dataset) -> Iterator[Record]:
    """Yield a function that writes an epoch; if the block is interrupted, keep the weights; if it fails, say so."""
    if directory is None:
        yield lambda row: None
        return
    board = SummaryWriter(directory / "tensorboard")

    def record(row: EpochStats) -> None:
        append_metrics(directory, row)
        for name, value in asdict(row).items():
            if value is not None and name not in ("step", "epoch"):
                board.add_scalar(name.replace("_", "/", 1), value, row.step)

    try:
        yield record
    except (Exception, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        write_status(directory, "interrupted" if interrupted else "failed", str(error))
        if interrupted:
            write_model(directory / "model.safetensors", model, recipe, data.classes, data.image_shape)
        raise
    finally:
        board.close()


def _consume(
    first: Event, events: Iterator[Event], model: nn.Module, keep_best: bool, show: Show, record: Record
) -> tuple[tuple[EpochStats, ...], dict[str, torch.Tensor] | None]:
    """Show every event and record every epoch; return the history and, if asked, the weights of the best epoch."""
    history: list[EpochStats] = []
    best, best_accuracy = None, -1.0
    for event in chain([first], events):
        show(event)
        if isinstance(event, EpochStats):
            history.append(event)
            record(event)
            if keep_best and event.eval_accuracy is not None and event.eval_accuracy > best_accuracy:
                best_accuracy = event.eval_accuracy
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return tuple(history), best


def _write(directory: Path, run: Run, data: Dataset, held_out: str) -> None:
    write_results(directory, run)
    if run.test is not None:
        write_errors(directory / "errors.csv", run.test, data.test.names)
    save_figure(curves_figure(run.history, held_out, run.recipe.name), directory / "figures" / "curves")
    write_text(directory / "README.md", model_card(run))
    write_status(directory, "finished")
