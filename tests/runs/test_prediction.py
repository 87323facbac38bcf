"""`evaluate` and `predict`, of runs, classifiers and modules."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from seewhy.data.dataset import Dataset
from seewhy.data.decode import Preprocessing
from seewhy.data.sources import load, reload_data
from seewhy.diagnosis.predictions import predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier, with_range
from seewhy.reporting.context import is_own_data
from seewhy.reporting.page import report
from seewhy.runs.lr_search import find_lr
from seewhy.runs.prediction import evaluate, measured_data, predict
from seewhy.runs.prediction_stream import top_predictions
from seewhy.runs.run import Run, open_run
from seewhy.runs.training import fit, resume
from seewhy.train.recipe import Recipe

pytestmark = pytest.mark.train


def test_evaluate_repeats_the_result(run: Run, data: Dataset) -> None:
    assert run.predictions is not None
    expected = run.predictions.logits
    for classifier in (run, run.classifier, run.model):
        predictions = evaluate(classifier, data)
        torch.testing.assert_close(predictions.logits, expected, rtol=1e-4, atol=1e-5)
        assert predictions.classes == data.classes


@pytest.mark.usefixtures("source")
def test_evaluate_loads_the_data_of_a_run(weak_run: Run) -> None:
    assert weak_run.predictions is not None
    assert evaluate(weak_run).accuracy == weak_run.predictions.accuracy
    assert evaluate(weak_run, "bars").accuracy == weak_run.predictions.accuracy


@pytest.mark.usefixtures("changed_source")
def test_evaluate_rejects_changed_data(weak_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that the caller names may differ from the training data."""
    with pytest.raises(SeewhyError, match=r"bars is not the data of the run: .*f{32}"):
        evaluate(weak_run)
    assert len(evaluate(weak_run, "bars").labels) == 60
    assert "bars has changed since the run was trained" in capsys.readouterr().err


def test_a_dataset_made_by_hand_is_that_of_its_run(recipe: Recipe, data: Dataset) -> None:
    """Without a fingerprint, which `fit` computes; other images are refused."""
    by_hand = replace(data, fingerprint="")
    run = fit(replace(recipe, epochs=1 / 6), by_hand, quiet=True)
    assert run.data_origin.fingerprint
    assert is_own_data(run, by_hand, None)
    assert reload_data(run.data_origin, by_hand).fingerprint == run.data_origin.fingerprint
    fewer = replace(by_hand, test=data.test.take(torch.arange(50)), fingerprint="")
    assert not is_own_data(run, fewer, None)
    with pytest.raises(SeewhyError, match="bars is not the data of the run"):
        reload_data(run.data_origin, fewer)


def write_folder(directory: Path, data: Dataset, count: int) -> Path:
    """A folder of classes, without splits: `count` images of the training split in each."""
    for label, name in enumerate(data.classes):
        (directory / name).mkdir(parents=True)
        for index in torch.where(data.train.labels == label)[0][:count].tolist():
            image = data.train.images[index].permute(1, 2, 0).numpy()
            Image.fromarray(image).save(directory / name / f"{index}.png")
    return directory


def test_evaluate_measures_all_of_a_folder_without_splits(
    run: Run, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "new", data, 5)
    predictions = evaluate(run, folder)
    assert len(predictions.labels) == 15
    assert (
        "new has no test split of its own: all of its images are measured"
        in capsys.readouterr().err
    )
    assert len(evaluate(run, folder, "test").labels) == 15
    capsys.readouterr()
    assert len(evaluate(run, folder, "all").labels) == 15
    assert "no test split" not in capsys.readouterr().err
    with pytest.raises(SeewhyError, match="unknown split 'train'; possible: all, test"):
        evaluate(run, folder, "train")


@pytest.mark.parametrize(
    ("folders", "split", "measured"),
    [
        (["test"], None, "test"),
        (["test"], "all", "test"),
        (["val"], "test", "val"),
        (["val", "test"], None, "test"),
        (["val", "test"], "validation", "val"),
        (["val", "test"], "all", "both"),
    ],
)
def test_evaluate_measures_a_folder_that_has_no_training_images(
    run: Run,
    data: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folders: list[str],
    split: str | None,
    measured: str,
) -> None:
    for number, name in enumerate(["test", "val"]):
        if name in folders:
            write_folder(tmp_path / "new" / name, data, 4 - number)
    predictions = evaluate(run.classifier, tmp_path / "new", split)
    assert len(predictions.labels) == {"test": 12, "val": 9, "both": 21}[measured]
    assert f"from {folders[0]}/" in capsys.readouterr().err
    with pytest.raises(SeewhyError, match="unknown split 'train'; possible: all, test"):
        evaluate(run.classifier, tmp_path / "new", "train")


def test_evaluate_measures_folders_that_cannot_be_split(
    run: Run, data: Dataset, tmp_path: Path
) -> None:
    """One image of each class, or one class alone."""
    assert len(evaluate(run, write_folder(tmp_path / "one", data, 1)).labels) == 3
    only = write_folder(tmp_path / "only", data, 4)
    for name in data.classes[1:]:
        shutil.rmtree(only / name)
    predictions = evaluate(run, only)
    assert predictions.labels.tolist() == [0] * 4
    with pytest.raises(SeewhyError, match="found only the class"):
        load(only, quiet=True)


def test_load_with_split_test_is_for_measuring(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "new", data, 3)
    loaded = load(folder, split="test", margin=2, image_size=6, quiet=True)
    assert list(loaded.splits) == ["test"]
    assert loaded.image_shape == (3, 6, 6)
    assert loaded.held_out == ("test",)
    assert len(reload_data(loaded.origin).test) == 9
    with pytest.raises(SeewhyError, match="new has no training images; load data with"):
        fit(recipe, loaded)
    tested = tmp_path / "tested"
    write_folder(tested / "test", data, 2)
    with pytest.raises(SeewhyError, match="tested has no training images, only test; add some"):
        load(tested, quiet=True)
    assert len(load(tested, split="random", quiet=True).train) > 0


def test_evaluate_says_in_which_order_it_takes_the_outputs(
    data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    evaluate(model, data)
    names = ", ".join(data.classes)
    assert f"its outputs are taken in the order of {data.name}: {names};" in capsys.readouterr().err
    evaluate(Classifier(model, data.classes), data)
    assert capsys.readouterr().err == ""


def test_evaluate_splits_the_folder_of_the_training_as_the_training_did(
    recipe: Recipe, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "mine", data, 10)
    run = fit(replace(recipe, epochs=1), load(folder, seed=3, validation=0.2), quiet=True)
    assert run.predictions is not None
    assert torch.equal(evaluate(run, folder).labels, run.predictions.labels)
    assert len(evaluate(run, folder, "validation").labels) == 6
    capsys.readouterr()
    next(folder.rglob("*.png")).unlink()
    with pytest.raises(SeewhyError, match=r"mine is not the data of the run"):
        evaluate(run)
    with pytest.raises(SeewhyError, match=r"mine has changed .*drawn now may hold training images"):
        evaluate(run, folder)
    assert len(evaluate(run, folder, "all").labels) == 29
    assert "mine has changed since the run was trained; it is meas" in capsys.readouterr().err


def test_evaluate_needs_data(run: Run) -> None:
    with pytest.raises(SeewhyError, match="bars was made in memory, so it cannot be loaded again"):
        evaluate(run)
    with pytest.raises(SeewhyError, match="evaluate needs data"):
        evaluate(run.model)


def test_evaluate_takes_any_split(run: Run, data: Dataset) -> None:
    train, test, both = (evaluate(run, data, split) for split in ("train", "test", "all"))
    assert torch.equal(both.labels, torch.cat([data.train.labels, data.test.labels]))
    assert torch.equal(both.correct, torch.cat([train.correct, test.correct]))


def test_evaluate_matches_classes_by_name(run: Run, data: Dataset) -> None:
    order = torch.tensor([2, 0, 1])  # class k of data is class order[k] of the other
    classes = tuple(data.classes[k] for k in order.argsort())
    other = replace(data, classes=classes, test=replace(data.test, labels=order[data.test.labels]))
    assert other.classes != data.classes
    assert evaluate(run, other).accuracy == evaluate(run, data).accuracy


def test_evaluate_accepts_missing_classes(run: Run, data: Dataset) -> None:
    slanting = data.test.take((data.test.labels == 2).nonzero().flatten())
    test = replace(slanting, labels=torch.zeros(20, dtype=torch.int64))
    predictions = evaluate(run, replace(data, classes=("slanting",), test=test))
    assert [row.name for row in predictions.by_class] == ["slanting"]
    assert predictions.accuracy > 0.9


def test_evaluate_rejects_data_that_does_not_fit(run: Run, data: Dataset) -> None:
    small = replace(data.train, images=data.train.images[:, :, :4, :4])
    for other, split, message in (
        (data, "tset", r"unknown split 'tset' \(did you mean 'test'\?\); possible: all, test"),
        (
            replace(data, classes=("upright", "level", "wavy")),
            "test",
            "classes unknown to the model: wavy; the model has upright, level, slanting",
        ),
        (
            replace(data, train=small),
            "test",
            "bars has images of 3x4x4, but the model takes 3x8x8",
        ),
    ):
        with pytest.raises(SeewhyError, match=message):
            evaluate(run, other, split)


def test_evaluate_rejects_several_labels_per_image(run: Run, data: Dataset) -> None:
    labels = torch.nn.functional.one_hot(data.test.labels).bool()
    several = replace(data.test, labels=labels)
    other = replace(data, classes=data.classes[::-1], train=several, test=several)
    with pytest.raises(SeewhyError, match=r"images of bars have any number of labels, but .*pass"):
        evaluate(run, other)


def test_several_labels_are_matched_by_name(data: Dataset) -> None:
    model = Classifier(torch.nn.Identity(), ("x", *data.classes), activation="sigmoid")
    labels = torch.nn.functional.one_hot(data.test.labels).bool()
    several = replace(data.test, labels=labels)
    _, measured = measured_data(model, replace(data, train=several, test=several))
    assert torch.equal(measured.test.labels[:, 1:], labels)
    assert not measured.test.labels[:, 0].any()


def test_predict_reads_files_of_any_size_and_mode(run: Run, data: Dataset, tmp_path: Path) -> None:
    image = Image.fromarray(data.test.images[1].permute(1, 2, 0).numpy())
    image.resize((80, 80), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    predictions = predict(run, [tmp_path / "large.png", str(tmp_path / "alpha.png")], top=2)
    assert [prediction.top[0].name for prediction in predictions] == ["level", "level"]
    assert [len(prediction.top) for prediction in predictions] == [2, 2]
    assert predictions[1].top[0].probability > predictions[1].top[1].probability


def test_predict_says_what_to_do_with_arrays(run: Run, data: Dataset) -> None:
    for images in (data.test.images.numpy(), data.test.images):
        with pytest.raises(SeewhyError, match=r"found \(3, 8, 8\) uint8; pass PIL\.Image\.fromarr"):
            predict(run, images)  # type: ignore[arg-type]


def test_predict_takes_one_path_or_pillow_images(run: Run, data: Dataset, tmp_path: Path) -> None:
    image = Image.fromarray(data.test.images[0].permute(1, 2, 0).numpy())
    image.save(tmp_path / "one.png")
    (from_file,) = predict(run, str(tmp_path / "one.png"))
    assert from_file.image == str(tmp_path / "one.png")
    (in_memory,) = predict(run.classifier, [image])
    assert in_memory.image == "image 0"
    assert in_memory.top == from_file.top


def test_predict_numbers_classes_without_names(run: Run, data: Dataset) -> None:
    image = Image.fromarray(data.test.images[1].permute(1, 2, 0).numpy())
    (prediction,) = predict(Classifier(run.model, image_shape=(3, 8, 8)), [image])
    assert prediction.top[0].name == "1"


def test_nan_is_no_class(run: Run, data: Dataset) -> None:
    class Broken(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.full((len(pixels), 3), torch.nan)

    broken = replace(run.classifier, model=Broken())
    with pytest.raises(SeewhyError, match="the logits of 60 of 60 images are not finite"):
        evaluate(broken, data)
    with pytest.raises(SeewhyError, match="the logits of 1 of 1 image are not finite"):
        predict(broken, [Image.new("RGB", (8, 8))])
    logits = torch.tensor([[torch.nan, 0.0], [1.0, 0.0]])
    assert [len(each.top) for each in top_predictions(logits, ("a", "b"), ["x", "y"], 5)] == [0, 2]


def test_predict_rejects(run: Run) -> None:
    with pytest.raises(SeewhyError, match="predict needs at least one image"):
        predict(run, [])
    with pytest.raises(SeewhyError, match="top must be at least 1, found 0"):
        predict(run, ["x.png"], top=0)
    with pytest.raises(SeewhyError, match=r"the classifier has no image shape .*; pass Classifier"):
        predict(run.model, ["x.png"])


def test_the_range_of_the_training_images_is_kept(
    recipe: Recipe, data: Dataset, tmp_path: Path
) -> None:
    """A run on 12-bit images scales a 12-bit file as it did its training images."""
    made = replace(data, value_range=(0.0, 4095.0))
    fit(replace(recipe, epochs=1), made, tmp_path / "run", quiet=True)
    run = open_run(tmp_path / "run")
    assert run.classifier.preprocessing.value_range == (0, 4095)
    gray = torch.arange(64, dtype=torch.int32).view(8, 8) * 65  # 0 to 4095
    Image.fromarray(gray.numpy()).save(tmp_path / "deep.tif")
    Image.fromarray((gray / 4095 * 255).round().byte().numpy()).save(tmp_path / "flat.png")
    deep, flat = predict(run, [tmp_path / "deep.tif", tmp_path / "flat.png"])
    assert deep.top == flat.top
    bright = predict(with_range(run.classifier, (0, 1000)), tmp_path / "deep.tif")[0]
    assert bright.top != flat.top
    unknown = replace(run.classifier, preprocessing=Preprocessing())
    with pytest.raises(
        SeewhyError, match=r"deep\.tif is stored .* values from 0 to 4095, of which"
    ):
        predict(unknown, tmp_path / "deep.tif")


def test_evaluate_converts_gray_files_as_predict_does(run: Run, tmp_path: Path) -> None:
    """The run takes color; its classes are the folders."""
    for label in run.classes:
        (tmp_path / "gray" / label).mkdir(parents=True)
        for index in range(3):
            values = torch.randint(0, 256, (8, 8), generator=torch.Generator().manual_seed(index))
            Image.fromarray(values.byte().numpy()).save(tmp_path / "gray" / label / f"{index}.png")
    measured = evaluate(run, tmp_path / "gray", "all")
    files = [
        path
        for label in sorted(run.classes)
        for path in sorted((tmp_path / "gray" / label).iterdir())
    ]
    found = predict(run, files, top=1)
    counts = [sum(row.top[0].name == name for row in found) for name in run.classes]
    assert torch.bincount(measured.predicted, minlength=3).tolist() == counts


def test_predict_split_refuses_outputs_that_are_no_classes(data: Dataset) -> None:
    """The head of ImageNet on data with three classes: the others could only be errors."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1000))
    with pytest.raises(
        SeewhyError, match="the model has 1,000 outputs, but the labels are from 0 to 2"
    ):
        predict_split(model, data.test)
    with pytest.raises(SeewhyError, match="the model has 1,000 classes, but the classifier has 3"):
        evaluate(model, data)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, data: report(model), "report needs data, as in report"),
        (
            lambda model, data: fit(model, data),
            "expected a Recipe, found Linear; pass a recipe, such",
        ),
        (lambda model, data: find_lr(model, data), "expected a Recipe, found Linear"),
        (
            lambda model, data: open_run(model),
            "expected a str or Path, found Linear; pass the direc",
        ),
        (lambda model, data: resume(model), "expected a str or Path, found Linear"),
        (lambda model, data: evaluate(model), "evaluate needs data, as in evaluate"),
        (lambda model, data: predict(model, "cat.png"), "the classifier has no image shape"),
    ],
)
def test_functions_of_runs_say_what_a_model_needs(call: Any, message: str, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=message):
        call(torch.nn.Linear(1, 1), data)
