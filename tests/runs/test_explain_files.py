"""Explaining files and errors: the files that are written, and overlays of any size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seewhy.attribution.explanation import explain
from seewhy.attribution.gradients import ATTRIBUTIONS
from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.runs import explain_files
from seewhy.runs.explain_files import (
    ExplainOptions,
    ImageFile,
    error_images,
    write_explanations,
)
from seewhy.runs.run import Run
from seewhy.runs.trust_run import trust_of_run

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("source")]


@pytest.fixture(autouse=True)
def full_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method "full" with heat everywhere."""

    def ones(forward: Any) -> Tensor:
        return torch.ones_like(forward.images[:, 0])

    monkeypatch.setitem(ATTRIBUTIONS, "full", ones)


FULL = ExplainOptions(("full",))


def write_photo(path: Path, width: int, height: int) -> ImageFile:
    """An image whose left half is black and whose right half is white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).save(path)
    return ImageFile(str(path), path)


def test_error_images_are_the_most_confident_errors(weak_run: Run, data: Dataset) -> None:
    predictions = weak_run.predictions
    assert predictions is not None
    wrong = [
        index for index in range(60) if predictions.predicted[index] != data.test.labels[index]
    ]
    expected = sorted(wrong, key=lambda index: -predictions.confidence[index].item())[:3]
    images = error_images(weak_run, 3)
    assert [image.name for image in images] == [data.test.names[index] for index in expected]
    assert [image.label for image in images] == data.test.labels[expected].tolist()
    source = images[0].source
    assert isinstance(source, np.ndarray)
    assert np.array_equal(source, data.test.images[expected[0]].permute(1, 2, 0).numpy())


def test_error_images_needs_errors(weak_run: Run) -> None:
    predictions = weak_run.predictions
    assert predictions is not None
    perfect = replace(weak_run, predictions=replace(predictions, labels=predictions.predicted))
    with pytest.raises(SeewhyError, match="no errors on the 60 test images"):
        error_images(perfect, 3)
    with pytest.raises(SeewhyError, match="has not finished, so its errors are unknown"):
        error_images(replace(weak_run, predictions=None), 3)


@pytest.mark.usefixtures("changed_source")
def test_changed_data_is_rejected(weak_run: Run) -> None:
    with pytest.raises(SeewhyError, match="is not the data of the run"):
        error_images(weak_run, 3)
    with pytest.raises(SeewhyError, match="is not the data of the run"):
        trust_of_run(weak_run, ["gradients"], ["auto"], "predicted", 5, quiet=True)


def test_write_explanations_writes_grid_maps_and_overlays(weak_run: Run, tmp_path: Path) -> None:
    images, methods = error_images(weak_run, 3), ("grad-cam", "gradients")
    written = write_explanations(
        weak_run, images, ExplainOptions(methods), tmp_path / "out", quiet=True
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"grid.png", "grid.svg", "maps.npz", "predictions.csv", "overlays"}
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3 * len(written.maps)
    arrays = [torch.from_numpy(np.asarray(image.source)).permute(2, 0, 1) for image in images]
    expected = explain(weak_run, torch.stack(arrays), methods, warn=False)
    with np.load(tmp_path / "out" / "maps.npz") as saved:
        for (layer, method), maps in expected.maps.items():
            assert np.allclose(saved[f"{layer}/{method}"], maps.numpy(), atol=1e-6)
            kinds = expected.statuses[layer, method].kinds
            assert saved[f"status/{layer}/{method}"].tolist() == list(kinds)
        assert saved["names"].tolist() == [image.name for image in images]
        assert saved["labels"].tolist() == [image.label for image in images]
        assert saved["classes"].tolist() == list(weak_run.classes)
        assert np.allclose(saved["logits"], expected.logits.numpy(), atol=1e-5)


def test_overlay_has_the_size_of_its_image(weak_run: Run, tmp_path: Path) -> None:
    """The model sees the middle of a wide image, so only the middle has heat."""
    photo = write_photo(tmp_path / "wide.png", width=90, height=30)
    before = np.asarray(Image.open(tmp_path / "wide.png")).astype(int)
    write_explanations(weak_run, [photo], replace(FULL, opacity=1), tmp_path / "out", quiet=True)
    (path,) = (tmp_path / "out" / "overlays").glob("wide-*.png")
    after = np.asarray(Image.open(path)).astype(int)
    assert after.shape == before.shape
    assert np.array_equal(after[:, :30], before[:, :30])
    assert np.array_equal(after[:, 60:], before[:, 60:])
    assert (after[:, 30:60] != before[:, 30:60]).any(2).all()


def test_overlay_of_a_large_image_is_smaller(
    weak_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write_photo(tmp_path / "wide.png", width=90, height=30)
    monkeypatch.setattr(explain_files, "OVERLAY_PIXELS", 300)
    write_explanations(weak_run, [photo], FULL, tmp_path / "out", quiet=True)
    (path,) = (tmp_path / "out" / "overlays").glob("wide-*.png")
    with Image.open(path) as written:
        assert written.size == (30, 10)
    with pytest.raises(SeewhyError, match=r"wide\.png is larger than max_pixels=2699"):
        write_explanations(weak_run, [photo], replace(FULL, max_pixels=2699), tmp_path / "x")


def test_unreadable_images_are_left_out_and_reported(
    weak_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write_photo(tmp_path / "good.png", 8, 8), tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    images = [ImageFile(str(bad), bad), good]
    assert len(write_explanations(weak_run, images, FULL, tmp_path / "out").logits) == 1
    assert "skipped: " in (stderr := capsys.readouterr().err)
    assert "bad.png" in stderr
    with pytest.raises(SeewhyError, match=r"1 image, none can be read: .*bad\.png"):
        write_explanations(weak_run, images[:1], FULL, tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def test_images_of_one_name_have_overlays_of_different_names(weak_run: Run, tmp_path: Path) -> None:
    photos = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        photos.append(write_photo(tmp_path / folder / "x.png", 8, 8))
    write_explanations(weak_run, photos, FULL, tmp_path / "out", quiet=True)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2


def test_many_images_are_explained_in_batches(
    weak_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_files, "BATCH_SIZE", 2)
    monkeypatch.setattr(explain_files, "GRID_ROWS", 3)
    images, options = error_images(weak_run, 5), ExplainOptions(("grad-cam",))
    together = write_explanations(weak_run, images, options, tmp_path / "out", quiet=True)
    alone = write_explanations(weak_run, images[:1], options, tmp_path / "one", quiet=True)
    assert len(together.logits) == len(images)
    for key, maps in alone.maps.items():
        assert torch.allclose(together.maps[key][:1], maps, atol=1e-5)


def test_maps_that_are_not_finite_have_no_heat(
    weak_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nans(forward: Any) -> Tensor:
        return torch.full_like(forward.images[:, 0], torch.nan)

    monkeypatch.setitem(ATTRIBUTIONS, "broken", nans)
    images, options = error_images(weak_run, 1), ExplainOptions(("broken",))
    written = write_explanations(weak_run, images, options, tmp_path / "out", quiet=True)
    assert written.statuses["pixels", "broken"].kinds == ("not finite",)
    assert (tmp_path / "out" / "grid.png").exists()


def test_too_many_maps_for_a_grid_are_rejected(weak_run: Run, tmp_path: Path) -> None:
    methods = tuple(f"rise:masks={count}" for count in range(1, 50))
    with pytest.raises(SeewhyError, match="a grid has room for 48 maps of an image, found 49"):
        write_explanations(
            weak_run, error_images(weak_run, 1), ExplainOptions(methods), tmp_path / "out", True
        )
    assert not (tmp_path / "out").exists()


def test_a_classifier_without_image_shape_is_rejected(weak_run: Run, tmp_path: Path) -> None:
    with pytest.raises(SeewhyError, match=r"the classifier has no image shape .*; pass Classifier"):
        write_explanations(
            Classifier(weak_run.model), error_images(weak_run, 1), FULL, tmp_path / "out"
        )


def test_trust_of_run_measures_test_images(weak_run: Run) -> None:
    methods = ["grad-cam", "gradients"]
    first, second = (
        trust_of_run(weak_run, methods, ["group3"], "predicted", 12, quiet=True) for _ in range(2)
    )
    assert {(score.layer, score.method) for score in first} == {
        ("group3", "grad-cam"),
        ("pixels", "gradients"),
    }
    assert all(score.pointing is None for score in first)
    assert [score.gain for score in first] == [score.gain for score in second]


def test_trust_of_run_names_what_it_leaves_out(
    weak_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, not as a Python warning; the model has GELUs, not ReLUs."""
    methods = ["gradients", "guided-backpropagation"]
    (score,) = trust_of_run(weak_run, methods, ["group3"], "predicted", 4, quiet=True)
    assert score.method == "gradients"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "left out: guided-backpropagation failed: guided backpropagation changes"
    )


def test_trust_of_run_says_how_many_maps_were_measured_in_the_time(
    weak_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["grad-cam", "gradients"]
    options = (weak_run, methods, ["group2", "group3"], "predicted", 2, True)
    assert len(trust_of_run(*options, seconds=1e-9)) == 1
    assert capsys.readouterr().err == (
        "1 of 3 maps were measured in the time, those of the last layers; to measure all, "
        "--seconds 60, or fewer --images or --layers\n"
    )
    assert len(trust_of_run(*options, seconds=600)) == 3
    assert capsys.readouterr().err == ""


def test_trust_of_run_needs_two_images(weak_run: Run) -> None:
    with pytest.raises(SeewhyError, match="at least 2 images for its intervals, found -5"):
        trust_of_run(weak_run, ["gradients"], ["auto"], "predicted", -5, quiet=True)


def test_stems_of_overlays_are_unique() -> None:
    names = ["IMG-1", "IMG", "img", "IMG", "x" * 300, "x" * 300, "a/b"]
    stems = explain_files._unique_stems(names)
    assert len({stem.casefold() for stem in stems}) == 7
    assert stems[:3] == ["IMG-1", "IMG", "img-2"]
    assert max(map(len, stems)) < 110
    assert stems[-1] == "a-b"
