"""`fit` and `resume`: train, show it, and keep it."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from seewhy.data.dataset import Dataset
from seewhy.data.sources import check_dataset, load
from seewhy.diagnosis.predictions import Predictions, predict_split
from seewhy.errors import SeewhyError
from seewhy.figures.curves import curves_figure
from seewhy.figures.style import save_figure
from seewhy.files import unwritable, write_text
from seewhy.models.registry import build_model, untrained_spec
from seewhy.models.tta import bind_tta
from seewhy.progress import note
from seewhy.runs.checkpoint import (
    CheckpointPolicy,
    LoadedCheckpoint,
    best_weights,
    newest_checkpoint,
)
from seewhy.runs.console import live_table
from seewhy.runs.lr_search import find_lr
from seewhy.runs.model_card import model_card
from seewhy.runs.recorder import Recorder, ResumeState, describe_setting, write_result
from seewhy.runs.run import (
    Run,
    RunResult,
    check_empty,
    lock_directory,
    read_range_test,
    read_setting,
)
from seewhy.train.averaging import Weights
from seewhy.train.batches import equal_batches
from seewhy.train.device import find_device, find_precision, seeded
from seewhy.train.distributed import broadcast_from_rank0, distributed_session
from seewhy.train.loop import EpochStats, train
from seewhy.train.optimizers import optimizer_state_bytes
from seewhy.train.recipe import Recipe, as_dict, from_dict, read_toml
from seewhy.train.state import TrainState, load_state_dict, new_state
from seewhy.train.world import World


def fit(
    recipe: Recipe,
    data: Dataset,
    directory: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
    checkpoint: CheckpointPolicy | None = None,
) -> Run:
    """Train a new model as `recipe` says and return it with its history and its predictions on the test split.

    With a `directory`, everything is also written there (see `seewhy.open_run`); it must not exist yet, or be empty.
    With a validation split the weights of the best epoch on it are kept, and the test split is read once, at the end;
    without one the last epoch is the result. A run that ends early keeps what was written, says so in status.json, and can
    be resumed. Started by torchrun, all processes train one model, and the first of them shows and writes.
    Where `recipe.lr` is "find", a range test comes first, and the recipe of the run has the rate that it suggests.
    The caller's random state is left as it was. Raises SeewhyError for what the user can mend.
    """
    data = check_dataset(data)
    _check(recipe, data)
    home = None if directory is None else Path(directory)
    with distributed_session(device) as (world, own_device):
        place = find_device(own_device)
        if home is not None and world.is_first:
            check_empty(home)
        before = ResumeState()
        if recipe.lr == "find":
            found = broadcast_from_rank0(lambda: find_lr(recipe, data, device=own_device), world)
            recipe, before = replace(recipe, lr=found.suggestion), ResumeState(range_test=found)
            doubt = f"; {found.doubt}" if found.doubt else ""
            note(
                f"lr {recipe.lr:.3g}, by a range test of {len(found.rates)} updates{doubt}",
                quiet or not world.is_first,
            )
        setting = describe_setting(data, place, find_precision(recipe.precision, place))
        with seeded(recipe.seed, place):
            state = new_state(
                build_model(recipe.model, len(data.classes), data.train).to(place), recipe
            )
            return _finished(
                state, data, home, setting, world, quiet, checkpoint or CheckpointPolicy(), before
            )


def resume(
    directory: str | Path,
    data: Dataset | None = None,
    device: str = "auto",
    quiet: bool = False,
    checkpoint: CheckpointPolicy | None = None,
    recipe: Recipe | None = None,
) -> Run:
    """Go on with a training that was interrupted, in its directory, from its last checkpoint, as if it had not stopped.

    On the same device and number of processes the result is the same to the last bit. `data` is by default what the run was
    trained on; `recipe` is needed only where augmentations are Python's. A damaged checkpoint is named, and the one before it
    used. Raises SeewhyError where the run has finished, or `data` or `recipe` is not what it was trained on or as.
    """
    home = Path(directory)
    setting = read_setting(home)
    if (home / "summary.json").exists():
        raise SeewhyError(
            f"{home} has finished, so there is nothing to go on with; `seewhy evaluate {home}` uses it"
        )
    recipe = _recipe_of(home, recipe)
    if data is None:
        if not setting["data"]["load_args"]:
            raise SeewhyError(
                f"{setting['data']['name']} was made in memory; give resume() the data of {home}"
            )
        data = load(**setting["data"]["load_args"])
    data = check_dataset(data)
    _check(recipe, data)
    if data.fingerprint != setting["data"]["fingerprint"]:
        raise SeewhyError(
            f"{data.name} is not the data that {home} was trained on: its fingerprint differs"
        )
    with (
        distributed_session(device) as (world, own_device),
        lock_directory(home if world.is_first else None),
    ):
        found = _newest(home, recipe)
        if world.is_first:
            _put_aside(found)
        place = find_device(own_device)
        with seeded(recipe.seed, place):
            name = (
                recipe.model if found is None else untrained_spec(recipe.model)
            )  # whose weights are in the checkpoint
            state = new_state(build_model(name, len(data.classes), data.train).to(place), recipe)
            history: list[EpochStats] = []
            if found is not None:
                load_state_dict(state, found.content["state"])
                history = [EpochStats(**row) for row in found.content["history"]]
            best = (
                _best(home / "checkpoints", history, state.step, world) if data.validation else None
            )
            before = ResumeState(history, best, read_range_test(home))
            again = {
                "step": state.step,
                "device": str(place),
                "time": datetime.now().isoformat("T", "seconds"),
            }
            setting = {**setting, "resumed": [*setting.get("resumed", []), again]}
            return _finished(
                state, data, home, setting, world, quiet, checkpoint or CheckpointPolicy(), before
            )


def _recipe_of(home: Path, given: Recipe | None) -> Recipe:
    """The recipe of a run, which the one that is given must be. Raises SeewhyError where it is another, or cannot be read."""
    values = as_dict(Recipe()) | read_toml(home / "recipe.toml")
    if given is not None:
        given = replace(given, lr=values["lr"]) if given.lr == "find" else given
        if as_dict(given) != values:
            raise SeewhyError(
                f"the recipe given is not the one in {home / 'recipe.toml'}; to change one, train anew"
            )
        return given
    if isinstance(values["augment"], list):
        own = [step for step in values["augment"] if str(step).startswith("<")]
        if own:
            raise SeewhyError(
                f"augmentations of {home} are Python's: {', '.join(own)}; give resume() the recipe"
            )
    return from_dict(values)


def _newest(home: Path, recipe: Recipe) -> LoadedCheckpoint | None:
    """The checkpoint to go on from; None for a training that ended before its first one, and begins again."""
    if not any((home / "checkpoints").glob("*.pt")):
        return None
    found = newest_checkpoint(home / "checkpoints")
    if as_dict(Recipe()) | found.content["recipe"] != as_dict(recipe):
        raise SeewhyError(
            f"{home / 'recipe.toml'} is no longer what the training began with; put it back, or train anew"
        )
    return found


def _put_aside(found: LoadedCheckpoint | None) -> None:
    """Name what was damaged and rename it, or it would be kept as the one before the next; remove what was half written."""
    if found is None:
        return
    for path, complaint in found.damaged.items():
        print(f"seewhy: {complaint}; going on from {found.path.name} instead", file=sys.stderr)
        try:
            if path.exists():
                path.replace(path.with_suffix(".damaged"))
        except OSError as error:
            raise unwritable(path, error) from error
    for path in found.path.parent.glob(".*.pt"):
        path.unlink(missing_ok=True)


def _best(
    directory: Path, history: Sequence[EpochStats], step: int, world: World
) -> Weights | None:
    """The weights of the best epoch so far, where there is one."""
    if not any(row.eval_accuracy is not None for row in history):
        return None
    try:
        return best_weights(directory, step)
    except SeewhyError as error:
        if world.is_first:
            print(f"seewhy: {error}; the best epoch is chosen from those to come", file=sys.stderr)
        return None


def _check(recipe: Recipe, data: Dataset) -> None:
    """Raise SeewhyError for what a recipe asks of data that this data lacks."""
    images = data.test.images[:1]
    bind_tta(recipe.tta)(lambda some: torch.zeros(len(some), len(data.classes)), images)
    if recipe.patience and recipe.eval_every == 0:
        raise SeewhyError(
            f"patience {recipe.patience} needs evaluations to wait for; eval_every is 0, and 1 is every epoch"
        )
    if recipe.patience and data.validation is None:
        raise SeewhyError(
            f"patience {recipe.patience} needs a validation split to watch, as validation=0.1 draws one: "
            "the test split is not there to choose by"
        )


def _finished(
    state: TrainState,
    data: Dataset,
    home: Path | None,
    setting: dict[str, Any],
    world: World,
    quiet: bool,
    checkpoint: CheckpointPolicy,
    before: ResumeState,
) -> Run:
    """Train from `state` to the end, and write what comes of it."""
    recipe, model = state.recipe, state.model
    home = home if world.is_first else None
    held_out = "test" if data.validation is None else "valid"
    events = train(state, data, world)
    first = next(
        events, None
    )  # a recipe that does not fit the data fails here, before anything is written
    with (
        lock_directory(home),
        Recorder(home, state, data, setting, checkpoint, world, before) as recorder,
    ):
        with (
            live_table(held_out, quiet or not world.is_first) as show,
            stoppable(world) as stopping,
        ):
            for event in chain([] if first is None else [first], events):
                show(event)
                recorder.record(event)
                if stopping():
                    recorder.checkpoint()
                    goes_on = "" if home is None else f"; `seewhy train --resume {home}` goes on"
                    raise KeyboardInterrupt(f"interrupted after step {state.step}{goes_on}")
                if recipe.patience and recorder.stale() >= recipe.patience:
                    break
        events.close()
        recorder.checkpoint()
        recorder.keep_weights()
        test = predict_split(model, data.test, data.classes, setting["precision"], recipe.tta)
        plain = (
            test
            if recipe.tta == "none"
            else predict_split(model, data.test, data.classes, setting["precision"])
        )
        history = tuple(recorder.history)
        result = _result(test, plain, history, recorder.best_row or history[-1], state, data)
        run = Run(
            recipe,
            model.eval(),
            data.classes,
            data.image_shape,
            history,
            test,
            result,
            setting,
            home,
            before.range_test,
        )
        if home is not None:
            write_text(home / "README.md", model_card(run))
            save_figure(
                curves_figure(run.history, held_out, recipe.name), home / "figures" / "curves"
            )
            write_result(home, result, test, data.test.names)
    return run


@contextmanager
def stoppable(world: World) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C or SIGTERM has asked for an end: the step at hand is finished first.

    A second Ctrl-C does not wait. Several processes end at once, with the checkpoint that there is: none can wait for others.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if (
        world.size > 1 or threading.current_thread() is not threading.main_thread()
    ):  # only that one may set handlers
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _result(
    test: Predictions,
    plain: Predictions,
    history: Sequence[EpochStats],
    chosen: EpochStats,
    state: TrainState,
    data: Dataset,
) -> RunResult:
    last = history[-1]
    _, batch_size = equal_batches(len(data.train), state.recipe.batch_size)
    return RunResult(
        accuracy=test.accuracy,
        plain_accuracy=plain.accuracy,
        interval=test.interval,
        images=len(test.labels),
        test_loss=test.losses.mean().item(),
        selected_on="last epoch" if data.validation is None else "validation",
        selected_epoch=chosen.epoch,
        epochs=last.epoch,
        steps=last.step,
        seconds=last.seconds,
        images_per_second=last.step * batch_size / last.seconds,
        parameters=sum(parameter.numel() for parameter in state.model.parameters()),
        optimizer_bytes=optimizer_state_bytes(state.optimizers),
    )
