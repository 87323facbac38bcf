"""`seewhy explain` and `seewhy trust`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_weights import resnet_weights

from seewhy.cli import main
from seewhy.cli.explain import Trust

Capture = pytest.CaptureFixture[str]
ErrorOf = Callable[..., str]


@pytest.mark.slow
def test_explain_draws_the_most_confident_errors(trained: Path, capsys: Capture) -> None:
    options = ["--methods", "hires-cam", "gradients", "--errors", "2", "--output", "why"]
    assert main.main(["explain", "run", *options]) == 0
    out = capsys.readouterr().out
    assert "1 image, 3 maps per image" in out  # the run has one error; two layers and the pixels
    assert "written to: why\n" in out
    written = {path.name for path in (trained.parent / "why").iterdir()}
    assert written == {"grid.png", "grid.svg", "maps.npz", "predictions.csv", "overlays"}


@pytest.mark.slow
def test_explain_takes_files_and_directories(trained: Path, capsys: Capture) -> None:
    workspace = trained.parent
    (workspace / "photos").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (20, 12), "navy").save(workspace / "photos" / name)
    Image.new("RGB", (9, 9), "red").save(workspace / "c.png")
    options = ["--layers", "group3", "--target", "level", "--quiet"]
    assert main.main(["explain", "run", "photos", "c.png", *options]) == 0
    assert capsys.readouterr().out == ""
    (directory,) = (workspace / "explanations").iterdir()  # named after the time and the method
    assert directory.name.endswith("-grad-cam")
    with np.load(directory / "maps.npz") as arrays:
        assert [Path(name).name for name in arrays["names"]] == ["a.png", "b.jpg", "c.png"]
        assert arrays["weights"].tolist() == [[0, 1, 0]] * 3
    with Image.open(directory / "overlays" / "a-group3-grad-cam.png") as overlay:
        assert overlay.size == (20, 12)


@pytest.mark.slow
def test_explain_takes_a_pair_of_targets_and_skips_bad_images(
    trained: Path, capsys: Capture
) -> None:
    Image.new("RGB", (9, 9), "red").save("c.png")
    Path("bad.png").write_text("no image")
    options = ["--layers", "group3", "--target", "level", "upright", "--output", "why"]
    assert main.main(["explain", "run", "c.png", "bad.png", *options]) == 1  # partly done
    assert "bad.png" in capsys.readouterr().err
    with np.load("why/maps.npz") as arrays:
        assert arrays["weights"].tolist() == [[-1, 1, 0]]


@pytest.mark.slow
def test_explain_names_a_very_long_image_and_does_the_rest(trained: Path, capsys: Capture) -> None:
    Path("photos").mkdir()
    for name, size in {"a": (9, 9), "long": (1, 20000), "z": (1, 20), "even": (1, 2)}.items():
        Image.new("RGB", size, "red").save(f"photos/{name}.png")
    options = ["--layers", "group3", "--output", "why", "--quiet"]
    assert main.main(["explain", "run", "photos", *options]) == 1
    assert capsys.readouterr().err == (
        "skipped: photos/long.png has 1x20000 pixels, of which the model sees only the middle 1x1; "
        "cut a part out of it\n"
    )
    names = {path.name for path in Path("why", "overlays").iterdir()}
    assert names == {f"{stem}-group3-grad-cam.png" for stem in ("a", "z", "even")}
    assert Path("why", "grid.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "grad-can"], "unknown method 'grad-can' (did you mean 'grad-cam'?)"),
        (["--layers", "group4"], "unknown layer 'group4' (did you mean 'group"),
        (["--target", "lvel"], "unknown target 'lvel' (did you mean 'level'?)"),
        (["--target", "7"], "class 7 does not exist: the model has 3 classes"),
        (["--target", "level-slanting"], "or two of these"),
        (["--target", "true", "level", "7"], "one class, or two for a difference of logits, found"),
        (["--smooth", "flop"], "unknown smoothing 'flop' (did you mean 'flip'?)"),
        (["--opacity", "2"], "opacity must be from 0 to 1, found 2"),
        (["--errors", "0"], "errors must be at least 1, found 0"),
        (["nowhere.png"], "nowhere.png does not exist; pass image files"),
        (["--output", "run"], "run is not empty; nothing was written"),
    ],
)
def test_explain_errors_write_nothing(
    trained: Path, options: list[str], message: str, error_of: ErrorOf
) -> None:
    before = {path for path in trained.parent.rglob("*") if path.is_file()}
    assert message in error_of("explain", "run", *options)
    assert {path for path in trained.parent.rglob("*") if path.is_file()} == before
    assert not (trained.parent / "explanations").exists()


@pytest.mark.slow
def test_trust_ranks_methods(trained: Path, capsys: Capture) -> None:
    options = ["--methods", "hires-cam", "gradients", "--layers", "group3", "--images", "12"]
    assert main.main(["trust", "run", *options, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert {(each["method"], each["layer"]) for each in values} == {
        ("hires-cam", "group3"),
        ("gradients", "pixels"),
    }
    assert main.main(["trust", "run", *options, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "most faithful: " in out or "no method passes" in out


@pytest.mark.slow
def test_trust_chooses_methods_that_suit_the_model(trained: Path, capsys: Capture) -> None:
    assert main.main(["trust", "run", "--layers", "group3", "--images", "4", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert {each["method"] for each in values} == {"grad-cam", "hires-cam", "layer-cam", "lrp"}


@pytest.mark.slow
def test_trust_says_at_once_if_it_takes_long(
    trained: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seewhy.runs.trust_run.MANY_PASSES", 0)
    command = ["trust", "run", "--methods", "grad-cam", "--layers", "group3", "--images", "2"]
    assert main.main(command) == 0
    note = "406 forward passes, for at most 5:00; fewer --images or --layers take less time"
    err = capsys.readouterr().err
    assert note in err  # 2 x (2 x 16 + 2 x 5 + 1 + 5 x 2 x 16)
    assert "were measured" not in err
    assert main.main([*command, "--seconds", "inf"]) == 0
    assert "406 forward passes; fewer --images" in capsys.readouterr().err


def test_trust_has_a_time_limit(capsys: Capture) -> None:
    assert Trust(Path("run")).seconds == 300
    assert main.main(["trust", "--help"]) == 0
    help_text = " ".join(capsys.readouterr().out.split())
    assert "(default: 300.0)" in help_text


@pytest.mark.slow
def test_trust_tunes_a_method(trained: Path, capsys: Capture) -> None:
    options = ["--tune", "hires-cam", "--layers", "group3", "--images", "16", "--seconds", "60"]
    assert main.main(["trust", "run", *options, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["candidates"]) + len(values["left_out"]) == 4
    assert values["default"] == {"methods": "hires-cam", "layers": "group3"}
    assert values["best"] in [
        {key: each[key] for key in ("methods", "layers", "smooth") if key in each}
        for each in values["candidates"]
    ]
    assert main.main(["trust", "run", *options]) == 0
    printed = capsys.readouterr()
    assert "proposed: hires-cam" in printed.out or "no setting is proposed" in printed.out
    assert "measuring settings of hires-cam, for at most 1:00" in printed.err


@pytest.mark.slow
def test_explain_a_photograph_with_published_weights(
    workspace: Path, capsys: Capture, error_of: ErrorOf
) -> None:
    torch.manual_seed(0)
    torch.save(resnet_weights((2, 2, 2, 2), num_classes=6), "resnet18.pth")
    Image.effect_noise((90, 70), 80).convert("RGB").save("photo.jpg")
    Path("names.txt").write_text("ant\nbee\ncat\ndog\neel\nfox\n")
    spec = "resnet18:weights=resnet18.pth"
    maps = ["--methods", "grad-cam", "grad-cam++", "--layers", "layer4", "--output", "why"]
    options = ["--classes", "names.txt", "--image-size", "64", *maps]
    assert main.main(["explain", spec, "photo.jpg", *options]) == 0
    out = capsys.readouterr().out
    with np.load("why/maps.npz") as arrays:
        logits = torch.from_numpy(arrays["logits"])[0]
        assert arrays["layer4/grad-cam"].shape == arrays["layer4/grad-cam++"].shape == (1, 2, 2)
    probabilities, order = logits.softmax(0).sort(descending=True)
    names = ["ant", "bee", "cat", "dog", "eel", "fox"]
    top = [f"{100 * value:.2f}% {names[i]}" for value, i in zip(probabilities, order, strict=True)][
        :5
    ]
    printed = [" ".join(line.split()) for line in out.splitlines()]
    start = printed.index("photo.jpg")
    assert printed[start + 1 : start + 6] == top
    rows = Path("why/predictions.csv").read_text().splitlines()
    assert rows[0] == "image,rank,class,probability"
    assert [row.split(",")[2] for row in rows[1:]] == [names[i] for i in order[:5]]
    assert main.main(["layers", spec, "--image-size", "64"]) == 0
    assert "layer4" in capsys.readouterr().out
    assert main.main(["predict", spec, "photo.jpg"]) == 0
    Path("names.txt").write_text("ant\nbee\n")
    message = error_of("explain", spec, "photo.jpg", "--classes", "names.txt")
    assert "the model has 6 classes, but the classifier has 2 class names" in message
    message = error_of("explain", "vgg16:weights=resnet18.pth", "photo.jpg")
    assert "missing: features.0.weight" in message
    assert "unexpected: conv1.weight" in message
    shutil.rmtree("why")


def test_explain_a_run_has_no_options_of_published_weights(
    trained: Path, error_of: ErrorOf
) -> None:
    assert "mean is for published weights" in error_of("explain", "run", "--mean", "0.5")
    Path("names.txt").write_text("ant\n")
    assert "classes is for published" in error_of("explain", "run", "--classes", "names.txt")
