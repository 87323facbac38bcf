"""Exporting a classifier to a file that runs without the code of its model."""

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from seewhy import __version__
from seewhy.data.dataset import Dataset
from seewhy.data.sources import load, reload_data
from seewhy.errors import SeewhyError
from seewhy.exporting.check import BATCH, ExportCheck, check_file, random_images
from seewhy.exporting.formats import FORMATS, PIXELS, Format
from seewhy.files import write_atomically
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier, check_one_class
from seewhy.models.inference import compute_logits, decided
from seewhy.models.inspection import check_initialized, unwrap_model
from seewhy.models.onnx_file import CALIBRATION, MARK, FileModel
from seewhy.models.outputs import logits_of
from seewhy.progress import note
from seewhy.runs.calibration import run_temperature
from seewhy.runs.run import Run
from seewhy.train.recipe import to_toml


def export(
    classifier: ClassifierLike,
    path: str | Path,
    *,
    data: Dataset | str | Path | None = None,
    uint8: bool = False,
    probabilities: bool = False,
    calibrated: bool = False,
    quiet: bool = False,
) -> ExportCheck:
    """Write a trained model to a file that runs without its code, and check the file.

    The file takes `pixels` (N, C, H, W), for any N, and returns `logits` (N, K) or
    `probabilities`. Normalization is part of it. Its metadata hold the class names, the image
    shape, and of a run also the recipe, the data's fingerprint, and the accuracy. It computes in
    float32, without test-time augmentation.

    Before the file is put in its place, it is run on the test images, and compared with the model.

    Args:
        classifier: A run, a Classifier, or a module.
        path: File to write. Its suffix is that of the format: .onnx (needs the extra `onnx`) or
            .pt2, a torch.export program.
        data: Dataset whose test images are used for the check, or a source for `load`. By default
            that of the run is loaded again; for a Classifier or module, random images are used.
        uint8: Take pixels as uint8 from 0 to 255 instead of float32 from 0 to 1.
        probabilities: Return probabilities instead of logits.
        calibrated: Divide the logits by the temperature of the run, as from `calibrate`.
        quiet: Show no progress.

    Returns:
        The comparison of the file with the model.

    Raises:
        SeewhyError: For another suffix, a model that torch.export cannot trace or that has no
            probabilities, a file that does not compute what the model does, and a missing package.
    """
    path = Path(path)
    format_ = _format_of(path)
    run = classifier if isinstance(classifier, Run) else None
    fitted = run_temperature(classifier) if calibrated else None
    classifier = as_classifier(classifier)
    if classifier.activation != "sigmoid":
        check_one_class(classifier)
    if fitted is not None:
        note(f"calibrated: {fitted}", quiet)
        classifier = replace(classifier, temperature=fitted.temperature)
    elif classifier.temperature != 1:
        fitted = run_temperature(classifier)
    if isinstance(classifier.model, FileModel):
        raise SeewhyError("the model comes from an exported file; export the run it was made from")
    if isinstance(classifier.model, torch.jit.ScriptModule):
        raise SeewhyError(
            "the model is a TorchScript program, which torch.export cannot trace; export the "
            "nn.Module from which it was made"
        )
    images, source = None, "random images"
    dataset = _find_data(run, classifier, data)
    if dataset is not None:
        images, source = dataset.test.images, f"test images of {dataset.name}"
        classifier = replace(
            classifier,
            classes=classifier.classes or dataset.classes,
            image_shape=classifier.image_shape or dataset.image_shape,
        )
    if classifier.image_shape is None:
        raise SeewhyError(
            "the classifier has no image shape; pass data, or Classifier(model, classes, "
            "image_shape=(3, 224, 224))"
        )
    images = random_images(classifier.image_shape) if images is None else images
    original = replace(
        classifier, model=_frozen_copy(classifier.model), precision="fp32", tta="none"
    )
    original = _without_guessing(original, images)
    metadata = _metadata(run, classifier, uint8=uint8, probabilities=probabilities)
    if fitted is not None:
        metadata[CALIBRATION] = json.dumps(asdict(fitted))
    program = _trace(original, uint8=uint8, probabilities=probabilities)
    checks: list[ExportCheck] = []

    def write(temporary: Path) -> None:
        format_.save(program, temporary, metadata)
        model = format_.open(temporary, metadata)
        exported = replace(original, model=model, output=None, temperature=1.0, returns="logits")
        checks.append(check_file(path, exported, original, images, source, quiet))

    write_atomically(path, write)
    return checks[0]


def _format_of(path: Path) -> Format:
    for each in FORMATS.values():
        if path.suffix == each.suffix:
            return each
    suffixes = " or ".join(f"{each.suffix} ({name})" for name, each in FORMATS.items())
    raise SeewhyError(f"the file must end in {suffixes}, found {path.name!r}")


def _find_data(
    run: Run | None, classifier: Classifier, data: Dataset | str | Path | None
) -> Dataset | None:
    """The dataset whose test images the file is checked with; None for random images."""
    if data is None and run is not None:
        try:
            return reload_data(run.data_origin)
        except SeewhyError as error:
            raise SeewhyError(
                f"the file is checked with the test images of the run: {error}"
            ) from error
    if data is not None and not isinstance(data, Dataset):
        side = None if classifier.image_shape is None else classifier.image_shape[1]
        data = load(data, image_size=side)
    if data is not None and classifier.image_shape not in (None, data.image_shape):
        found, taken = (
            "x".join(map(str, shape)) for shape in (data.image_shape, classifier.image_shape or ())
        )
        raise SeewhyError(f"{data.name} has images of {found}, but the model takes {taken}")
    return data


def _metadata(
    run: Run | None, classifier: Classifier, *, uint8: bool, probabilities: bool
) -> dict[str, str]:
    """What the file says about itself: text by name; of a run, as in summary.json."""
    assert classifier.image_shape is not None
    values = {
        MARK: __version__,
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "image_shape": json.dumps(classifier.image_shape),
        "preprocessing": json.dumps(asdict(classifier.preprocessing)),
        "tta": classifier.tta,
        "input": "uint8" if uint8 else "float32",
        "output": "probabilities" if probabilities else "logits",
    }
    if classifier.activation != "softmax":
        values |= {
            "activation": classifier.activation,
            "thresholds": json.dumps(classifier.thresholds),
        }
    if run is not None:
        values |= {
            "recipe": to_toml(run.recipe),
            "data": run.data_origin.name,
            "data_fingerprint": run.data_origin.fingerprint,
        }
        if run.result is not None:
            values |= {
                "accuracy": str(run.result.accuracy),
                "plain_accuracy": str(run.result.plain_accuracy),
                "interval": json.dumps(run.result.interval),
                "test_images": str(run.result.test_images),
            }
    return values


def _frozen_copy(model: nn.Module) -> nn.Module:
    """A copy of the model in float32 on the CPU, in evaluation mode."""
    check_initialized(model)
    return copy.deepcopy(unwrap_model(model)).cpu().float().eval().requires_grad_(False)


def _contiguous_copy(model: nn.Module) -> nn.Module:
    """A copy without channels-last weights, which torch.export.save cannot store as they are."""
    model = copy.deepcopy(model)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model


class _Traced(nn.Module):
    """The model with the input and output of the file."""

    def __init__(self, classifier: Classifier, *, uint8: bool, probabilities: bool) -> None:
        super().__init__()
        self.model = _contiguous_copy(classifier.model)
        self.undivided = replace(classifier, temperature=1.0)
        self.temperature = classifier.temperature
        self.uint8 = uint8
        self.probabilities = probabilities

    def forward(self, pixels: Tensor) -> Tensor:
        if self.uint8:
            pixels = pixels.float() / 255
        logits = self.undivided.extract_logits(self.model(pixels)).float()
        if self.undivided.returns == "probabilities":
            logits = logits_of(logits, self.undivided.activation)
        if self.temperature != 1:
            logits = logits / self.temperature
        return self.undivided.probabilities(logits) if self.probabilities else logits


def _without_guessing(classifier: Classifier, images: Tensor) -> Classifier:
    """The classifier with what its model returns, which a traced program cannot look at."""
    outputs = replace(classifier, returns="logits")
    logits = compute_logits(outputs, images[:BATCH], check_finite=False)
    return decided(classifier, images, logits)


def _trace(classifier: Classifier, *, uint8: bool, probabilities: bool) -> ExportedProgram:
    """Trace the model for any number of images."""
    assert classifier.image_shape is not None
    traced = _Traced(classifier, uint8=uint8, probabilities=probabilities).eval()
    # two images: a dimension of 1 would be taken for a constant
    pixels = torch.zeros(2, *classifier.image_shape, dtype=torch.uint8 if uint8 else torch.float32)
    shapes: Any = {PIXELS: {0: Dim("batch")}}
    try:
        with torch.random.fork_rng(devices=[]):
            return torch.export.export(traced, (pixels,), dynamic_shapes=shapes)
    except SeewhyError:
        raise
    except Exception as error:  # whatever the model's own code raises when it is traced
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SeewhyError(
            f"torch.export cannot trace {type(classifier.model).__name__} ({reason}); its forward "
            "must take batches of any size, and must not branch on pixel values"
        ) from error
