"""A run: a trained classifier with its history and its result."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from seewhy.data.dataset import DataOrigin
from seewhy.diagnosis.predictions import AnyPredictions, MultiLabelPredictions
from seewhy.errors import SeewhyError, check_type
from seewhy.escaping import visible
from seewhy.models.classifier import Classifier, pretrained_classifier
from seewhy.models.onnx_file import SUFFIX, onnx_classifier
from seewhy.models.own import OwnModel, using_model
from seewhy.models.registry import MODELS
from seewhy.notation import parse
from seewhy.progress import note
from seewhy.runs.directory import (
    PREDICTIONS,
    WEIGHTS,
    has_finished,
    read_environment,
    read_history,
    read_lr_range_test,
    read_predictions,
    read_probe,
    read_recipe,
    read_result,
)
from seewhy.runs.environment import Environment
from seewhy.runs.result import RunResult
from seewhy.runs.weights import load_classifier
from seewhy.serialization import DamagedFileError
from seewhy.train.device import find_precision
from seewhy.train.loop import EpochStats
from seewhy.train.lr_finder import LRRangeTest
from seewhy.train.probe import ProbeStats
from seewhy.train.recipe import Recipe
from seewhy.wording import counted

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained classifier, its recipe, its history and its result."""

    recipe: Recipe
    classifier: Classifier
    history: tuple[EpochStats, ...]
    predictions: AnyPredictions | None  # of the test split; None if the run has not finished
    result: RunResult | None  # None if the run has not finished
    environment: Environment
    data_origin: DataOrigin
    directory: Path | None  # None if nothing was written
    range_test: LRRangeTest | None = None  # which chose the learning rate, if any
    probe: ProbeStats | None = None  # which set the head before the first step, if any
    folds: tuple["Run", ...] = ()  # of a cross-validation in this process, see `fold_runs`

    @property
    def model(self) -> nn.Module:
        """The model, in evaluation mode."""
        return self.classifier.model

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K classes, in the order of the logits."""
        return self.classifier.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.data_origin.image_shape

    def __repr__(self) -> str:
        name = visible(f"{self.recipe.name} on {self.data_origin.name}")
        if self.result is None:
            return f"Run({name}: not finished, {counted(len(self.history), 'epoch')})"
        low, high = (100 * bound for bound in self.result.interval)
        kind = "held-out image" if self.result.folds else "test image"
        return (
            f"Run({name}: {100 * self.result.accuracy:.2f}% [{low:.2f}–{high:.2f}] "
            f"on {counted(self.result.test_images, kind)}, {self.result.train_seconds:.0f} s)"
        )


def open_run(
    directory: str | Path, device: str | torch.device = "cpu", model: OwnModel | None = None
) -> Run:
    """Read a run from its directory.

    An interrupted run has no result and no predictions, but its classifier can be used.

    Args:
        directory: Directory of the run, such as "runs/latest".
        device: Device for the model.
        model: The model, if it is your own, as for `fit`; it is copied, and has the weights of the
            run afterwards.

    Raises:
        SeewhyError: If `directory` is not a run directory, or a file is missing or damaged.
    """
    check_type(directory, (str, Path), "pass the directory of a run, such as 'runs/latest'")
    directory, device = Path(directory), torch.device(device)
    environment, data_origin = read_environment(directory)
    recipe = read_recipe(directory)
    if model is not None:
        with using_model(model, parse(recipe.model)[0]):
            return open_run(directory, device)
    classifier = load_classifier(directory / WEIGHTS, device)
    precision = _precision_on(device, environment)
    finished = has_finished(directory)
    predictions = _predictions(directory, classifier) if finished else None
    return Run(
        recipe=recipe,
        classifier=replace(
            classifier,
            precision=precision,
            tta=recipe.tta,
            thresholds=_thresholds(predictions),
        ),
        history=read_history(directory),
        predictions=predictions,
        result=read_result(directory) if finished else None,
        environment=environment,
        data_origin=data_origin,
        directory=directory,
        range_test=read_lr_range_test(directory),
        probe=read_probe(directory),
    )


def _open_for_use(directory: Path, device: torch.device) -> Run | Classifier:
    """The run, or as much of it as its intact files tell; those that are damaged are named."""
    if not (directory / WEIGHTS).is_file():  # nothing can be used without its weights
        return open_run(directory, device)
    classifier = load_classifier(directory / WEIGHTS, device)
    finished = has_finished(directory)
    recipe = _if_intact(lambda: read_recipe(directory))
    environment = None if recipe is None else _if_intact(lambda: read_environment(directory))
    classifier = replace(
        classifier,
        precision="fp32" if environment is None else _precision_on(device, environment[0]),
        tta="none" if recipe is None else recipe.tta,
    )
    predictions = _if_intact(lambda: _predictions(directory, classifier)) if finished else None
    classifier = replace(classifier, thresholds=_thresholds(predictions))
    if recipe is None or environment is None:
        return classifier
    return Run(
        recipe=recipe,
        classifier=classifier,
        history=_if_intact(lambda: read_history(directory)) or (),
        predictions=predictions,
        result=_if_intact(lambda: read_result(directory)) if finished else None,
        environment=environment[0],
        data_origin=environment[1],
        directory=directory,
        range_test=_if_intact(lambda: read_lr_range_test(directory)),
        probe=_if_intact(lambda: read_probe(directory)),
    )


def _if_intact(read: Callable[[], T]) -> T | None:
    """What `read` returns; a damaged file is named, and the result is None."""
    try:
        return read()
    except SeewhyError as error:
        finding = error.finding if isinstance(error, DamagedFileError) else error
        note(f"seewhy: {finding}; it is left out")
        return None


def _thresholds(predictions: AnyPredictions | None) -> tuple[float, ...]:
    """The thresholds of the labels that a finished run has chosen; empty for none."""
    return predictions.thresholds if isinstance(predictions, MultiLabelPredictions) else ()


def _predictions(directory: Path, classifier: Classifier) -> AnyPredictions:
    predictions = read_predictions(directory)
    if predictions.classes != classifier.classes:
        raise DamagedFileError(
            f"{directory / PREDICTIONS} and {WEIGHTS} have different classes",
            "restore the files of one run, or train again",
        )
    return predictions


def open_classifier(
    name: str,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
    **options: Any,
) -> Run | Classifier:
    """Open a run, an ONNX file, or a model with published weights.

    Of a run, only the weights must be intact: other damaged files are named and left out, and
    without its recipe or its environment it is a Classifier.

    Args:
        name: Directory of a run, an ONNX file of `seewhy export`, `timm:NAME`, `torchvision:NAME`,
            or `NAME:weights=FILE`.
        device: Device for the model; an ONNX file is run on the CPU.
        image_size: Height and width of the images for published weights; by default those that the
            weights were trained on.
        options: Others of `pretrained_classifier`, for published weights: classes, crop, mean, std.

    Raises:
        SeewhyError: If `name` is none of these, or a model without published weights.
    """
    is_file = Path(name).suffix == SUFFIX
    if not is_file and parse(name)[0] in MODELS and not Path(name).is_dir():
        return pretrained_classifier(name, device, image_size, **options)
    for option, value in {"image_size": image_size, **options}.items():
        if value not in (None, ()):
            raise SeewhyError(
                f"{option} is for published weights; leave it out for {name}, which keeps that of "
                "its training"
            )
    if is_file:
        return onnx_classifier(name)
    return _open_for_use(Path(name), torch.device(device))


def _precision_on(device: torch.device, environment: Environment) -> str:
    """The precision of training, for identical results, if `device` supports it."""
    precision = environment.precision
    if precision == "fp16" and environment.device.startswith(device.type):
        return precision
    return precision if find_precision("auto", device) == precision else "fp32"
