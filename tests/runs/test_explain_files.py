"""Explaining files and mistakes: what is written, and that pictures of any size keep their size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.attribution.explanation import explain
from seewhy.data.dataset import Dataset
from seewhy.data.decode import Preprocessing
from seewhy.data.sources import reload_data
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.runs import explain_files
from seewhy.runs.explain_files import (
    ExplainedModel,
    ExplainOptions,
    ImageFile,
    error_images,
    open_explained_model,
    trust_of_run,
    write_explanations,
)
from seewhy.runs.run import Run
from seewhy.runs.training import fit
from seewhy.train.recipe import Recipe


@pytest.fixture
def run(recipe: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(explain_files, "reload_data", lambda origin: data)
    return fit(replace(recipe, epochs=1), data, tmp_path / "run", quiet=True)


def subject_of(run: Run) -> ExplainedModel:
    return ExplainedModel(run.model, run.classes, run.image_shape, run)


def photo(path: Path, width: int, height: int) -> Path:
    """A picture whose left half is black and whose right half is white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_mistakes_come_most_confident_first(run: Run, data: Dataset) -> None:
    assert run.predictions is not None
    wrong = [
        index for index in range(60) if run.predictions.predicted[index] != data.test.labels[index]
    ]
    assert wrong, "the recipe must leave some"
    expected = sorted(wrong, key=lambda index: -run.predictions.confidence[index].item())[:3]
    found = error_images(run, 3)
    assert [picture.name for picture in found] == [data.test.names[index] for index in expected]
    assert [picture.label for picture in found] == [
        int(data.test.labels[index]) for index in expected
    ]
    source = found[0].source
    assert isinstance(source, np.ndarray)
    assert np.array_equal(source, data.test.images[expected[0]].permute(1, 2, 0).numpy())


def test_a_network_without_mistakes(
    run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.predictions is not None
    perfect = replace(run, predictions=replace(run.predictions, labels=run.predictions.predicted))
    with pytest.raises(SeewhyError, match="makes no mistake on the 60 test images"):
        error_images(perfect, 3)
    with pytest.raises(SeewhyError, match="did not come to its end"):
        error_images(replace(run, predictions=None), 3)
    monkeypatch.setattr(
        explain_files,
        "reload_data",
        lambda origin: reload_data(origin, replace(data, fingerprint="f" * 32)),
    )
    with pytest.raises(SeewhyError, match="is not the data that was trained on"):
        error_images(run, 3)


def test_what_is_written(run: Run, tmp_path: Path) -> None:
    pictures = error_images(run, 3)
    found = write_explanations(
        subject_of(run),
        pictures,
        ExplainOptions(("grad-cam", "gradients")),
        tmp_path / "out",
        quiet=True,
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "grid.png",
        "grid.svg",
        "maps.npz",
        "overlays",
    }
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3 * len(found.maps)
    pixels = torch.stack(
        [torch.from_numpy(np.asarray(picture.source)).permute(2, 0, 1) for picture in pictures]
    )
    alone = explain(run.model, pixels, ["grad-cam", "gradients"], warn=False)
    with np.load(tmp_path / "out" / "maps.npz") as arrays:
        for (layer, method), maps in alone.maps.items():
            assert np.allclose(arrays[f"{layer}/{method}"], maps.numpy(), atol=1e-6)
            assert arrays[f"status/{layer}/{method}"].tolist() == list(
                alone.statuses[layer, method].kinds
            )
        assert arrays["names"].tolist() == [picture.name for picture in pictures]
        assert arrays["labels"].tolist() == [picture.label for picture in pictures]
        assert arrays["classes"].tolist() == list(run.classes)
        assert np.allclose(arrays["logits"], alone.logits.numpy(), atol=1e-5)


def test_an_overlay_is_of_the_size_of_its_original(run: Run, tmp_path: Path) -> None:
    """Of a wide picture the network sees the middle: the rest stays as it was, where the heat may be on the middle only."""
    path = photo(tmp_path / "wide.png", width=90, height=30)
    before = np.asarray(Image.open(path)).astype(int)
    write_explanations(
        subject_of(run),
        [ImageFile(str(path), path)],
        ExplainOptions(("full",)),
        tmp_path / "out",
        opacity=1,
        quiet=True,
    )
    (overlay,) = (tmp_path / "out" / "overlays").glob("wide-*.png")
    after = np.asarray(Image.open(overlay)).astype(int)
    assert after.shape == before.shape
    assert np.array_equal(after[:, :30], before[:, :30])
    assert np.array_equal(after[:, 60:], before[:, 60:])
    assert (after[:, 30:60] != before[:, 30:60]).any(2).all()


@pytest.fixture(autouse=True)
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method with heat everywhere."""
    from seewhy.attribution.gradients import ATTRIBUTIONS

    monkeypatch.setitem(
        ATTRIBUTIONS, "full", lambda question: torch.ones_like(question.images[:, 0])
    )


def test_pictures_that_cannot_be_read_are_left_out_and_said(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = photo(tmp_path / "good.png", 8, 8), tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    pictures = [ImageFile(str(bad), bad), ImageFile(str(good), good)]
    found = write_explanations(
        subject_of(run), pictures, ExplainOptions(("full",)), tmp_path / "out"
    )
    assert len(found.logits) == 1
    assert "left out: " in (said := capsys.readouterr().err)
    assert "bad.png" in said
    with pytest.raises(SeewhyError, match=r"none of the 1 images can be read: .*bad\.png"):
        write_explanations(
            subject_of(run), pictures[:1], ExplainOptions(("full",)), tmp_path / "none", quiet=True
        )
    assert not (tmp_path / "none").exists()


def test_pictures_of_one_name_do_not_overwrite_one_another(run: Run, tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(photo(tmp_path / folder / "x.png", 8, 8))
    write_explanations(
        subject_of(run),
        [ImageFile(str(p), p) for p in paths],
        ExplainOptions(("full",)),
        tmp_path / "out",
        quiet=True,
    )
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2


def test_many_pictures_go_in_batches(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_files, "AT_ONCE", 2)
    monkeypatch.setattr(explain_files, "ON_GRID", 3)
    mistakes = error_images(run, 5)
    found = write_explanations(
        subject_of(run), mistakes, ExplainOptions(("grad-cam",)), tmp_path / "out", quiet=True
    )
    whole = write_explanations(
        subject_of(run), mistakes[:1], ExplainOptions(("grad-cam",)), tmp_path / "one", quiet=True
    )
    assert len(found.logits) == len(mistakes)
    for key, maps in whole.maps.items():
        assert torch.allclose(found.maps[key][:1], maps, atol=1e-5)


def test_a_run_or_published_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_explained_model(str(run.directory))
    assert opened.run is not None
    assert (opened.classes, opened.image_shape) == (run.classes, run.image_shape)

    published = Classifier(
        torch.nn.Linear(1, 2), ("cat", "dog"), (3, 64, 64), preprocessing=Preprocessing(0.875)
    )
    requested = []

    def open_published(*arguments: object) -> Classifier:
        requested.append(arguments)
        return published

    monkeypatch.setattr(explain_files, "pretrained_classifier", open_published)
    subject = open_explained_model("timm:some", "cpu", 64)
    assert requested == [("timm:some", "cpu", 64)]
    assert subject.model is published.model
    assert (subject.classes, subject.image_shape) == (published.classes, published.image_shape)
    assert (subject.run, subject.preprocessing) == (None, published.preprocessing)


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(
        SeewhyError, match=r"resnet18 has no trained weights: give the directory of a run"
    ):
        open_explained_model("resnet18")
    with pytest.raises(SeewhyError, match=r"nothing is not a run directory"):
        open_explained_model("nothing")


def test_trust_is_measured_on_the_test_images(run: Run) -> None:
    verdicts = trust_of_run(run, ["grad-cam", "gradients"], ["group3"], "predicted", 12, quiet=True)
    assert {(verdict.layer, verdict.method) for verdict in verdicts} == {
        ("group3", "grad-cam"),
        ("pixels", "gradients"),
    }
    assert all(verdict.pointing is None for verdict in verdicts)
    again = trust_of_run(run, ["grad-cam", "gradients"], ["group3"], "predicted", 12, quiet=True)
    assert [verdict.gain for verdict in again] == [verdict.gain for verdict in verdicts]


def test_names_of_overlays_are_never_shared() -> None:
    made = explain_files._unique(["IMG-1", "IMG", "img", "IMG", "x" * 300, "x" * 300, "a/b"])
    assert len({name.casefold() for name in made}) == 7
    assert made[:3] == ["IMG-1", "IMG", "img-2"]
    assert max(map(len, made)) < 110
    assert made[-1] == "a-b"


def test_too_many_maps_for_a_grid_are_refused_before_anything_is_written(
    run: Run, tmp_path: Path
) -> None:
    methods = tuple(
        f"occlusion:size={size},stride={stride}"
        for size in range(1, 8)
        for stride in range(1, size + 1)
    )
    assert len(methods) < 48
    methods += tuple(f"rise:masks={count}" for count in range(1, 49 - len(methods) + 1))
    with pytest.raises(
        SeewhyError,
        match=r"a grid holds 48 maps of an image, found 49; name fewer layers or methods",
    ):
        write_explanations(
            subject_of(run),
            error_images(run, 1),
            ExplainOptions(methods),
            tmp_path / "out",
            quiet=True,
        )
    assert not (tmp_path / "out").exists()


def test_maps_that_are_not_finite_are_left_out_of_overlays(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.attribution.gradients import ATTRIBUTIONS

    monkeypatch.setitem(
        ATTRIBUTIONS, "broken", lambda question: torch.full_like(question.images[:, 0], torch.nan)
    )
    found = write_explanations(
        subject_of(run),
        error_images(run, 1),
        ExplainOptions(("broken",)),
        tmp_path / "out",
        quiet=True,
    )
    assert found.statuses["pixels", "broken"].kinds == ("not finite",)
    assert (tmp_path / "out" / "grid.png").exists()


def test_untrained_weights_and_senseless_sizes_are_refused(run: Run) -> None:
    for name in ("davidnet:dropout=0.1", "speednet:width=0.5"):
        with pytest.raises(SeewhyError, match=f"{name} has no trained weights"):
            open_explained_model(name)
    with pytest.raises(SeewhyError, match="takes what it was trained on"):
        open_explained_model(str(run.directory), image_size=64)


def test_trust_needs_images_and_the_data_of_the_training(
    run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SeewhyError, match="at least 2, found -5"):
        trust_of_run(run, ["gradients"], ["auto"], "predicted", -5, quiet=True)
    monkeypatch.setattr(
        explain_files,
        "reload_data",
        lambda origin: reload_data(origin, replace(data, fingerprint="f" * 32)),
    )
    with pytest.raises(SeewhyError, match="is not the data that was trained on"):
        trust_of_run(run, ["gradients"], ["auto"], "predicted", 5, quiet=True)
