"""Files of a run that are damaged, or well-formed but wrong: one line, never a traceback."""

import hashlib
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models.inference import compute_logits
from seewhy.runs.checkpoint import load_checkpoint
from seewhy.runs.directory import read_environment, read_history, read_predictions, read_result
from seewhy.runs.prediction import evaluate
from seewhy.runs.run import open_classifier, open_run
from seewhy.runs.training import resume
from seewhy.runs.weights import load_classifier
from seewhy.train.recipes import find_recipe

pytestmark = pytest.mark.train


def refused(read: Callable[[], object], name: str) -> str:
    """The message of the error that `read` raises: one line that names the file."""
    message = message_of(read)
    assert name in message
    return message


def message_of(read: Callable[[], object]) -> str:
    """The message of the SeewhyError that `read` raises, which is one line; "" for none."""
    message = ""
    try:
        read()
    except SeewhyError as error:
        message = str(error)
    assert not {"\n", "\x1b"} & set(message), message
    assert len(message) < 700
    return message


@pytest.mark.parametrize("damage", ["flip", "cut", "zeros", "noise"])
def test_damaged_predictions(damage: str, directory: Path) -> None:
    path, choose = directory / "predictions.npz", random.Random(damage)
    content = path.read_bytes()
    noticed = 0
    for _ in range(40):
        changed = bytearray(content)
        start = choose.randrange(len(content))
        if damage == "flip":
            changed[start] ^= 1 << choose.randrange(8)
        elif damage == "cut":
            del changed[start:]
        else:
            length = min(20, len(content) - start)
            changed[start : start + length] = (
                bytes(length) if damage == "zeros" else choose.randbytes(length)
            )
        path.write_bytes(changed)
        noticed += message_of(lambda: read_predictions(directory)) != ""
    assert noticed > 20


@pytest.mark.parametrize(
    "arrays",
    [
        {"logits": np.zeros((60, 3), "<U3")},
        {"logits": np.zeros((60, 4), np.float32)},
        {"logits": np.zeros(60, np.float32)},
        {"labels": np.full(60, 7)},
        {"labels": np.zeros((60, 1), np.int64)},
        {"labels": np.zeros(60, np.float32)},
        {"classes": np.array([1, 2, 3])},
        {"classes": np.array(["a", "b"])},
        {"classes": None},
        {"classes": np.array(["a", "b", "c"])},
    ],
    ids=str,
)
def test_predictions_of_another_form(arrays: dict[str, Any], directory: Path) -> None:
    path = directory / "predictions.npz"
    with np.load(path) as stored:
        values = {name: stored[name] for name in stored.files} | arrays
    np.savez(path, **{name: value for name, value in values.items() if value is not None})
    refused(lambda: open_run(directory), "predictions.npz")


JSON_CHANGES: list[tuple[str, Callable[[Path], object], Any]] = [
    ("summary.json", read_result, {"accuracy": "high"}),
    ("summary.json", read_result, {"interval": [0.1]}),
    ("summary.json", read_result, {"interval": 3}),
    ("summary.json", read_result, {"steps": None}),
    ("summary.json", read_result, {"new_metric": 1}),
    ("summary.json", read_result, []),
    ("env.json", read_environment, {"data": {"name": "x"}}),
    ("env.json", read_environment, {"data": 3}),
    ("env.json", read_environment, {"resumed": 3}),
    ("env.json", read_environment, {"resumed": ["x"]}),
    ("env.json", read_environment, {"packages": {"torch": 2}}),
    ("env.json", read_environment, {"cores": "many"}),
    ("metrics.jsonl", read_history, {"step": "many"}),
    ("metrics.jsonl", read_history, {"lr": None}),
    ("metrics.jsonl", read_history, {"unknown": 1}),
    ("metrics.jsonl", read_history, 7),
]


@pytest.mark.parametrize(
    ("name", "read", "change"),
    JSON_CHANGES,
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_json_of_another_form(
    name: str, read: Callable[[Path], object], change: Any, directory: Path
) -> None:
    path = directory / name
    text = path.read_text().splitlines()[0] if name.endswith("l") else path.read_text()
    values = change if not isinstance(change, dict) else json.loads(text) | change
    path.write_text(json.dumps(values))
    refused(lambda: read(directory), name)


def test_fields_with_a_default_may_be_missing(directory: Path) -> None:
    """As in the files of older versions."""
    path = directory / "summary.json"
    values = json.loads(path.read_text())
    del values["test_used_by"]
    path.write_text(json.dumps(values))
    assert read_result(directory).test_used_by == ""


def test_a_finished_run_without_epochs(directory: Path) -> None:
    (directory / "metrics.jsonl").write_text("")
    refused(lambda: open_run(directory), "metrics.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"model": "speednet:width=99999"},
        {"classes": 10},
        {"classes": [1, 2, 3]},
        {"classes": []},
        {"image_shape": [3, 8]},
        {"image_shape": [3, -8, 8]},
        {"image_shape": [3, 10**6, 10**7]},
        {"image_shape": ["3", 8, 8]},
        {"image_shape": [7, 8, 8]},
        {"preprocessing": {"crop": 7}},
        {"preprocessing": {"crop": 1.0, "interpolation": []}},
        {"preprocessing": 3},
    ],
    ids=str,
)
def test_metadata_of_weights_of_another_form(change: dict[str, Any], directory: Path) -> None:
    """Nothing takes memory for a model or an image of any size that the metadata name."""
    path = directory / "model.safetensors"
    described = {
        "model": "speednet:width=0.125",
        "classes": ["a", "b", "c"],
        "image_shape": [3, 8, 8],
        "preprocessing": {},
    }
    tensors = load_file(path)
    save_file(tensors, path, {"seewhy": json.dumps(described)})
    load_classifier(path)
    save_file(tensors, path, {"seewhy": json.dumps(described | change)})
    refused(lambda: load_classifier(path), "model.safetensors")


def write_signed(path: Path, content: Any) -> None:
    """Write anything as a checkpoint with a valid checksum."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    path.write_bytes(data + hashlib.sha256(data).digest())


@pytest.fixture
def unfinished_directory(directory: Path) -> Path:
    """The directory of a run that has not finished, with only its last checkpoint."""
    (directory / "summary.json").unlink()
    (directory / "checkpoints" / "previous.pt").unlink()
    return directory


def changed(content: Any, path: str, value: Any) -> Any:
    """`content` with the value at `path`, keys separated by slashes; None removes it."""
    *parents, last = path.split("/")
    for key in parents:
        content = content[int(key) if isinstance(content, list) else key]
    if value is None:
        del content[last]
    else:
        content[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", [1]),
        ("format", 9),
        ("state", None),
        ("history", None),
        ("recipe", None),
        ("recipe", 3),
        ("history", {}),
        ("history/0/step", "many"),
        ("history/0/new", 1),
        ("state/step", -1),
        ("state/step", 10**9),
        ("state/step", 1.5),
        ("state/epoch", "one"),
        ("state/seconds", float("nan")),
        ("state/watched_losses", ["x"]),
        ("state/model", 3),
        ("state/model/linear.weight", torch.zeros(1, 1)),
        ("state/model/linear.weight", None),
        ("state/optimizers", []),
        ("state/optimizers", None),
        ("state/optimizers/0/state", {0: {"momentum_buffer": torch.zeros(2)}}),
        ("state/totals", torch.zeros(2)),
        ("state/random", {}),
        ("state/random/torch", torch.zeros(3)),
        ("state/random/numpy", ("MT19937", [1, 2], 0, 0, 0.0)),
        ("state/gradients", 5),
    ],
    ids=str,
)
def test_a_signed_checkpoint_of_another_form(
    path: str, value: Any, unfinished_directory: Path, data: Dataset
) -> None:
    last = unfinished_directory / "checkpoints" / "last.pt"
    content = load_checkpoint(last)
    if path:
        changed(content, path, value)
    write_signed(last, content if path else value)
    before = torch.get_rng_state()
    refused(lambda: resume(unfinished_directory, data, quiet=True), "last.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_mutated_checkpoints_with_a_valid_checksum(directory: Path) -> None:
    path, choose = directory / "checkpoints" / "last.pt", random.Random(0)
    content = path.read_bytes()[:-32]
    pickled = content.index(b"data.pkl")
    for number in range(40):
        mutated = bytearray(content)
        for _ in range(1 + number % 4):
            mutated[choose.randrange(pickled, pickled + 4000)] = choose.randrange(256)
        path.write_bytes(bytes(mutated) + hashlib.sha256(mutated).digest())
        message_of(lambda: load_checkpoint(path))


FILES = ("env.json", "metrics.jsonl", "predictions.npz", "recipe.toml", "summary.json")


@pytest.mark.parametrize("damage", ["empty", "cut", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_a_run_is_used_without_its_damaged_file(
    name: str, damage: str, directory: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = compute_logits(open_run(directory), data.test.images)
    path = directory / name
    content = path.read_bytes()
    path.write_bytes(b"" if damage == "empty" else content[: len(content) // 3])
    if damage == "missing":
        path.unlink()
    opened = open_classifier(str(directory))
    assert torch.equal(compute_logits(opened, data.test.images), expected)
    noted = capsys.readouterr().err
    if not (name == "summary.json" and damage == "missing"):  # as of a run that has not finished
        assert f"{name} is missing or damaged" in noted or "damaged" not in noted
        assert noted.count("\n") == 1 or damage == "cut"
    assert "train again" not in noted
    if name in FILES[1:3]:
        assert evaluate(opened, data).accuracy > 0.9


@pytest.mark.parametrize("name", ["env.json", "summary.json", "metrics.jsonl", "recipe.toml"])
def test_a_run_of_another_version_is_used(
    name: str, directory: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has a field more than this version knows, or lacks one."""
    path = directory / name
    text = path.read_text()
    if name == "recipe.toml":
        more, fewer = text + "dreams = 3\n", text.replace("tta = ", "# ")
    else:
        more = text.replace("{", '{"dreams": 3, ', 1)
        fewer = re.sub(r'"(python|accuracy|lr)": [^,]+, ?', "", text, count=1)
    assert text not in (more, fewer)
    for changed_text in (more, fewer):
        path.write_text(changed_text)
        assert len(compute_logits(open_classifier(str(directory)), data.test.images)) == 60
        assert "train again" not in capsys.readouterr().err


def test_a_recipe_of_an_editor_that_writes_a_byte_order_mark(directory: Path) -> None:
    path = directory / "recipe.toml"
    expected = find_recipe(path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert find_recipe(path) == expected


def test_resume_names_the_recipe_that_is_damaged(unfinished_directory: Path, data: Dataset) -> None:
    path = unfinished_directory / "recipe.toml"
    path.write_text(path.read_text() + "dreams = 3\n")
    message = refused(lambda: resume(unfinished_directory, data, quiet=True), "recipe.toml")
    assert "unknown recipe field 'dreams'" in message
