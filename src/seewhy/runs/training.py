"""`fit` and `resume`: train a run, show its progress, and write its directory."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from seewhy.data.dataset import Dataset
from seewhy.data.memory import check_dataset
from seewhy.data.sources import reload_data
from seewhy.errors import SeewhyError, check_type
from seewhy.escaping import shell_text
from seewhy.figures.curves import curves_figure
from seewhy.figures.style import write_figure
from seewhy.files import write_text
from seewhy.models.classifier import Classifier
from seewhy.models.own import OwnModel, using_model
from seewhy.models.registry import weights_file_of
from seewhy.models.weights_file import loading_note
from seewhy.notation import parse
from seewhy.progress import note, waiting
from seewhy.runs.checkpoint import CheckpointPolicy, checkpoint_files
from seewhy.runs.choice import random_features_note
from seewhy.runs.console import live_table
from seewhy.runs.cross_validation import OutOfFold, predict_folds
from seewhy.runs.directory import (
    CHECKPOINTS,
    FIGURES,
    FOLDS,
    MODEL_CARD,
    has_started,
    read_checkpoint_policy,
    read_lr_range_test,
    write_predictions,
    write_result,
)
from seewhy.runs.environment import Resumption, check_weights_file, current_environment
from seewhy.runs.final_predictions import fraction_correct, predict_test, with_thresholds
from seewhy.runs.lr_search import resolve_lr
from seewhy.runs.model_card import model_card
from seewhy.runs.output import claim_directory, lock_directory
from seewhy.runs.recorder import Recorder, ResumeState, Session, write_start
from seewhy.runs.result import make_result
from seewhy.runs.resumption import (
    best_weights_so_far,
    checkpoint_to_resume,
    read_resumable,
    recipe_of,
    restored_state,
    set_damaged_aside,
)
from seewhy.runs.run import Run
from seewhy.runs.stopping import stoppable
from seewhy.runs.weights import check_model_is_known
from seewhy.train.device import find_device, seeded
from seewhy.train.distributed import broadcast_from_rank0, distributed_session
from seewhy.train.loop import Event, NonFiniteError, train
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import RECIPE_REMEDY, LearningRate, Recipe
from seewhy.train.state import TrainState, new_state
from seewhy.wording import counted


def fit(
    recipe: Recipe,
    data: Dataset,
    directory: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
    checkpoint: CheckpointPolicy | None = None,
    model: OwnModel | None = None,
) -> Run:
    """Train a new model and predict the test split.

    Data with folds (`load(…, folds=5)`) are cross-validated: a model is trained without each fold
    and predicts it. The result is that of these predictions, and the model of the run is trained on
    all images. With a validation split, the weights of its best epoch are kept, and the test split
    is evaluated once, at the end. Otherwise, the weights of the last epoch are kept.

    A run that ends early keeps the files written so far and can be resumed. Under torchrun all
    processes train one model; the first one shows progress and writes files. The caller's random
    state is restored.

    Args:
        recipe: What to train and how. With `lr="find"` a range test comes first, and the recipe of
            the run has the learning rate that it suggests.
        data: Data to train and test on.
        directory: Run directory to write (see `seewhy.open_run`); must be empty or missing. By
            default nothing is written.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        quiet: Show nothing.
        checkpoint: When to write checkpoints into `directory`.
        model: A model of your own instead of the recipe's: a module from pixels in [0, 1] to
            logits, or a function that returns one. It is copied, and its head is replaced if it
            has another number of classes. The run records its qualified name.

    Returns:
        The run, with its history and its predictions on the test split.

    Raises:
        SeewhyError: If the recipe does not fit the data or the machine, `directory` is not empty or
            cannot be written, `model` does not return logits, or the loss is not finite.
        KeyboardInterrupt: After Ctrl-C, SIGTERM or SIGHUP, once the current step has ended.
    """
    check_type(recipe, Recipe, RECIPE_REMEDY)
    if model is not None:
        with using_model(model) as name:
            recipe = replace(recipe, model=name)
            return fit(recipe, data, directory, device, quiet, checkpoint)
    data = check_dataset(data)
    path = None if directory is None else Path(directory)
    with distributed_session(device) as (world, device_name):
        plan = make_plan(recipe, data, find_device(device_name), world)
        if data.folds is not None and world.size > 1:
            raise SeewhyError(
                f"folds are trained by one process, found {world.size}; start it without torchrun"
            )
        # locked from here on: another process must not begin in it during the range test
        with claim_directory(path if world.is_first else None):
            return _fit(plan, path, device_name, checkpoint, quiet or not world.is_first)


def _fit(
    plan: TrainingPlan,
    directory: Path | None,
    device_name: str,
    checkpoint: CheckpointPolicy | None,
    quiet: bool,
) -> Run:
    """Train the folds, if any; find the learning rate if the recipe leaves it open, and train."""
    recipe, world = plan.recipe, plan.world

    def new_session(test: LRRangeTest | None = None) -> Session:
        return Session(
            plan,
            current_environment(plan.device, plan.precision, weights_file_of(recipe.model)),
            directory if world.is_first else None,
            ResumeState(range_test=test),
            checkpoint or CheckpointPolicy(),
            quiet,
        )

    out_of_fold = None
    if plan.data.folds is not None:
        session = new_session()
        write_start(session)
        out_of_fold = _predict_folds(session, device_name)

    def search_lr() -> tuple[LearningRate, LRRangeTest | None]:
        with waiting("finding the learning rate", quiet or not recipe.needs_lr):
            resolved, test = resolve_lr(recipe, plan.data, device_name)
        return resolved.lr, test  # without the recipe: functions in it cannot be broadcast

    lr, test = broadcast_from_rank0(search_lr, world)
    plan = replace(plan, recipe=replace(recipe, lr=lr))
    if test is not None:
        warning = f"; {test.warning}" if test.warning else ""
        note(
            f"lr {plan.lr:.3g}, by a range test of {counted(len(test.lrs), 'update')}{warning}",
            quiet,
        )
    with seeded(recipe.seed, plan.device):
        with waiting("building the model", quiet, brief=True):
            state = new_state(plan)
        if plan.probe is not None and (remark := random_features_note(recipe.model)):
            note(remark, quiet)
        if remark := loading_note(state.model):
            note(remark, quiet)
        session = replace(new_session(test), out_of_fold=out_of_fold)
        return _train_to_end(state, session)


def _predict_folds(session: Session, device: str) -> OutOfFold:
    """Train the folds of a cross-validation that have not finished."""
    recipe, policy, quiet = session.plan.recipe, session.checkpoint, session.quiet

    def train_fold(data: Dataset, path: Path | None) -> Run:
        if path is not None and has_started(path):
            return resume(path, data, device, quiet, policy, recipe)
        return fit(recipe, data, path, device, quiet, policy)

    plan = session.plan
    out_of_fold = predict_folds(plan.data, session.directory, train_fold, plan.device, quiet)
    note(f"the model of the run: all {counted(len(plan.data.train), 'image')} to train on", quiet)
    return out_of_fold


def resume(
    directory: str | Path,
    data: Dataset | None = None,
    device: str = "auto",
    quiet: bool = False,
    checkpoint: CheckpointPolicy | None = None,
    recipe: Recipe | None = None,
    lr: float | None = None,
    model: OwnModel | None = None,
) -> Run:
    """Resume an interrupted run from its last checkpoint, in its directory.

    With the same device and number of processes, the result is bit-identical to that of an
    uninterrupted run. If a checkpoint is damaged, it is reported, and the previous one is used.

    Args:
        directory: Directory of the run.
        data: The data of the run; by default it is loaded again.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        quiet: Show nothing.
        checkpoint: When to write checkpoints; by default as before.
        recipe: The recipe of the run; needed only if its augmentations are Python functions.
        lr: Peak learning rate from the checkpoint on, for a run whose loss was not finite; it
            replaces that of the recipe. By default the rate is kept.
        model: The model, if it is your own, as for `fit`; its weights are those of the checkpoint.

    Returns:
        The run, as `fit` returns it.

    Raises:
        SeewhyError: If the run has finished, `data` or `recipe` is not that of the run, or no
            checkpoint can be read.
        KeyboardInterrupt: After Ctrl-C, SIGTERM or SIGHUP, once the current step has ended.
    """
    check_type(directory, (str, Path), "pass the directory of a run, such as 'runs/latest'")
    path = Path(directory)
    environment, origin = read_resumable(path)
    recipe = recipe_of(path, recipe)
    if model is not None:
        with using_model(model, parse(recipe.model)[0]):
            return resume(directory, data, device, quiet, checkpoint, recipe, lr)
    check_model_is_known(recipe.model)
    if lr is not None:
        recipe = replace(recipe, lr=lr)
    data = reload_data(origin, data)
    with (
        distributed_session(device) as (world, device_name),
        lock_directory(path if world.is_first else None),
    ):
        plan = make_plan(recipe, data, find_device(device_name), world)
        policy = checkpoint or read_checkpoint_policy(path)
        if data.folds is not None and not checkpoint_files(path / CHECKPOINTS):
            if lr is not None:
                raise SeewhyError(
                    f"lr is for the run of one fold, such as {path / FOLDS / '1'}; resume that "
                    "first, then all of them without it"
                )
            return _fit(plan, path, device_name, policy, quiet)
        lrs = {each.lr for each in environment.resumed} | {lr}
        loaded = checkpoint_to_resume(path, recipe, recipe.lr in lrs)
        if world.is_first and loaded is not None:
            set_damaged_aside(loaded)
        elif world.is_first:
            note(f"{path} has no checkpoint, so training starts again from the beginning")
        if loaded is None:
            check_weights_file(environment)
        with seeded(recipe.seed, plan.device):
            state, history = restored_state(plan, loaded)
            best = None
            if data.validation is not None:
                best = best_weights_so_far(path / CHECKPOINTS, history, state.step, world)
            timestamp = datetime.now().isoformat("T", "seconds")
            resumption = Resumption(state.step, str(plan.device), timestamp, lr)
            session = Session(
                plan,
                replace(environment, resumed=(*environment.resumed, resumption)),
                path if world.is_first else None,
                ResumeState(history, best, read_lr_range_test(path), state.probe),
                policy,
                quiet or not world.is_first,
            )
            if data.folds is not None:
                session = replace(session, out_of_fold=_predict_folds(session, device_name))
            return _train_to_end(state, session)


def _train_to_end(state: TrainState, session: Session) -> Run:
    """Train from `state` to the end of the plan, and write the results."""
    plan, directory = session.plan, session.directory
    recipe, data = plan.recipe, plan.data
    held_out = "test" if data.validation is None else "valid"
    events = train(state, plan)
    with ExitStack() as stack:
        with live_table(plan, session.start.history, session.quiet) as show:
            # before anything is written: a recipe that does not fit the data fails here
            first = next(events, None)
            stack.enter_context(lock_directory(directory))
            recorder = stack.enter_context(Recorder(state, session))
            stopping = stack.enter_context(stoppable(plan.world))
            for event in chain([] if first is None else [first], _explained(events, session)):
                show(event)
                recorder.record(event)
                if interruption := stopping():
                    recorder.checkpoint()
                    raise interruption(_interrupted_text(state, directory))
                if recipe.patience and recorder.evaluations_since_best() >= recipe.patience:
                    break
        events.close()
        recorder.checkpoint()
        recorder.keep_weights()
        run = _finished_run(state, session, recorder)
        if directory is not None:
            write_text(directory / MODEL_CARD, model_card(run))
            curves = curves_figure(run.history, held_out, recipe.name)
            write_figure(curves, directory / FIGURES / "curves.svg")
            assert run.predictions is not None
            assert run.result is not None
            write_predictions(directory, run.predictions, data.test.names)
            write_result(directory, run.result)
    return run


def _explained(events: Iterator[Event], session: Session) -> Iterator[Event]:
    """The events; a loss that is not finite says how the run can be resumed."""
    try:
        yield from events
    except NonFiniteError as error:
        if session.directory is None:
            raise
        lr = f"{session.plan.lr / 10:g}"
        raise NonFiniteError(
            f"{error}; resume from the last checkpoint with a smaller one, as in `seewhy resume "
            f"{shell_text(session.directory)} --lr {lr}`; without it the run would fail again"
        ) from error


def _finished_run(state: TrainState, session: Session, recorder: Recorder) -> Run:
    """Predict the test split and build the run."""
    recipe, data, model = session.plan.recipe, session.plan.data, state.model.eval()
    history, precision = tuple(recorder.history), session.environment.precision
    classifier = Classifier(
        model,
        data.classes,
        data.image_shape,
        precision,
        recipe.tta,
        data.preprocessing,
        activation=session.plan.objective.activation,
        returns="logits",
    )
    classifier = with_thresholds(classifier, session.plan, recorder.probe)
    if session.out_of_fold is not None:
        predictions = session.out_of_fold.predictions
        plain_accuracy = session.out_of_fold.plain_accuracy
    else:
        predictions = plain = predict_test(classifier, session.plan, recorder.probe)
        if recipe.tta != "none":
            plain = predict_test(replace(classifier, tta="none"), session.plan, recorder.probe)
        plain_accuracy = fraction_correct(plain)
    return Run(
        recipe=recipe,
        classifier=classifier,
        history=history,
        predictions=predictions,
        result=make_result(
            predictions, plain_accuracy, history, recorder.best_row, state, session.plan
        ),
        environment=session.environment,
        data_origin=data.origin,
        directory=session.directory,
        range_test=session.start.range_test,
        probe=recorder.probe,
        folds=() if session.out_of_fold is None else session.out_of_fold.runs,
    )


def _interrupted_text(state: TrainState, directory: Path | None) -> str:
    if directory is None:
        return f"Interrupted after step {state.step}."
    command = f"seewhy resume {shell_text(directory)}"
    return f"Interrupted. Files written so far are kept. Resume with: {command}"
