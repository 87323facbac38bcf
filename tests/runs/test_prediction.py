from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.runs.prediction import evaluate, predict
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe


@pytest.fixture
def run(recipe: Recipe, data: Dataset) -> Run:
    return fit(recipe, data, quiet=True)


def test_evaluating_on_the_same_data_repeats_the_result(run: Run, data: Dataset) -> None:
    assert run.predictions is not None
    torch.testing.assert_close(
        evaluate(run, data).logits, run.predictions.logits, rtol=1e-4, atol=1e-5
    )


def test_a_split_or_all_of_them(run: Run, data: Dataset) -> None:
    train, test, both = (evaluate(run, data, split) for split in ("train", "test", "all"))
    assert torch.equal(both.labels, torch.cat([data.train.labels, data.test.labels]))
    assert torch.equal(both.correct, torch.cat([train.correct, test.correct]))
    with pytest.raises(
        SeewhyError,
        match=r"unknown split 'tset' \(did you mean 'test'\?\); possible: all, test, train",
    ):
        evaluate(run, data, "tset")


def test_classes_are_matched_by_name(run: Run, data: Dataset) -> None:
    order = torch.tensor([2, 0, 1])  # class k of data is class order[k] of the other
    classes = tuple(data.classes[k] for k in order.argsort())
    other = replace(data, classes=classes, test=replace(data.test, labels=order[data.test.labels]))
    assert other.classes != data.classes
    assert evaluate(run, other).accuracy == evaluate(run, data).accuracy


def test_some_classes_may_be_missing(run: Run, data: Dataset) -> None:
    chosen = data.test.take((data.test.labels == 2).nonzero().flatten())
    other = replace(
        data, classes=("slanting",), test=replace(chosen, labels=torch.zeros(20, dtype=torch.int64))
    )
    result = evaluate(run, other)
    assert [row.name for row in result.by_class] == ["slanting"]
    assert result.accuracy > 0.9


def test_a_class_that_the_network_does_not_know(run: Run, data: Dataset) -> None:
    other = replace(data, classes=("upright", "level", "wavy"))
    with pytest.raises(
        SeewhyError,
        match="classes that the model does not have: wavy; it has upright, level, slanting",
    ):
        evaluate(run, other)


def test_images_of_another_shape(run: Run, data: Dataset) -> None:
    small = replace(data.train, images=data.train.images[:, :, :4, :4])
    with pytest.raises(SeewhyError, match="bars has images of 3x4x4, but the model takes 3x8x8"):
        evaluate(run, replace(data, train=small))


def test_predict_reads_files_of_any_size_and_kind(run: Run, data: Dataset, tmp_path: Path) -> None:
    image = Image.fromarray(data.test.images[1].permute(1, 2, 0).numpy())
    image.resize((80, 80), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    answers = predict(run, [tmp_path / "large.png", str(tmp_path / "alpha.png")], top=2)
    assert [answer.top[0].name for answer in answers] == ["level", "level"]
    assert [len(answer.top) for answer in answers] == [2, 2]
    assert answers[1].top[0].probability > answers[1].top[1].probability


def test_predict_takes_one_path_and_images_in_memory(
    run: Run, data: Dataset, tmp_path: Path
) -> None:
    image = Image.fromarray(data.test.images[0].permute(1, 2, 0).numpy())
    image.save(tmp_path / "one.png")
    (answer,) = predict(run, str(tmp_path / "one.png"))
    assert answer.image == str(tmp_path / "one.png")
    (same,) = predict(run, [image])
    assert same.image == "image 0"
    assert same.top == answer.top
    with pytest.raises(SeewhyError, match=r"predict needs at least one image"):
        predict(run, [])


def test_a_run_on_data_made_in_memory_says_that_it_needs_data(run: Run) -> None:
    with pytest.raises(SeewhyError, match=r"bars was made in memory, so it cannot be loaded again"):
        evaluate(run)


def test_top_is_at_least_one(run: Run) -> None:
    with pytest.raises(SeewhyError, match=r"top must be at least 1, found 0"):
        predict(run, ["x.png"], top=0)
