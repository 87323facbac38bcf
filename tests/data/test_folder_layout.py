"""Folder layouts of published datasets: which folders become splits and classes."""

from pathlib import Path

import pytest
from PIL import Image

from seewhy.data.folder_layout import find_layout
from seewhy.data.sources import load
from seewhy.errors import SeewhyError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))


def tree(root: Path, *folders: str) -> Path:
    """Folders with an empty file each, as if it were an image; {} stands for a and for b."""
    for name in folders:
        for folder in [name.replace("{}", label) for label in "ab"]:
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / "0.png").touch()
    return root


def layout(root: Path) -> tuple[dict[str, dict[str, str]], str]:
    found = find_layout(root)
    folders = {
        role: {name: folder.relative_to(root).as_posix() for name, folder in classes.items()}
        for role, classes in found.classes.items()
    }
    return folders, found.description


SPLITS = [  # train, test, a folder beside them, and what is said to be unused
    ("training_set/training_set/{}", "test_set/test_set/{}", "", ""),  # Cat and Dog
    ("seg_train/seg_train/{}", "seg_test/seg_test/{}", "seg_pred/seg_pred", "seg_pred/"),  # Intel
    ("Training/{}", "Testing/{}", "", ""),  # brain tumors
    ("fruits/Training/{}", "fruits/Test/{}", "fruits/test-multiple", "fruits/test-multiple/"),
    ("train_images/{}", "test_images/{}", "", ""),
    ("TrainingData/{}", "ValData/{}", "", ""),
    ("archive/data/train/{}", "archive/data/val/{}", "", ""),
    ("train/{}", "test/{}", "extra/{}", "extra/"),
    ("train/{}", "test/{}", "test1", "test1/"),
    ("train/{}", "validation/{}", "train_masks/{}", "train_masks/"),
    ("train/train/{}", "test/{}", "", ""),
]


@pytest.mark.parametrize(("train", "test", "beside", "unused"), SPLITS)
def test_splits_of_classes_are_recognized(
    tmp_path: Path, train: str, test: str, beside: str, unused: str
) -> None:
    root = tree(tmp_path / "set", *filter(None, [train, test, beside]))
    folders, description = layout(root)
    assert folders == {
        role: {label: path.replace("{}", label) for label in "ab"}
        for role, path in (("train", train), ("test", test))
    }
    rest = f"; not used: {unused}" if unused else ""
    assert description == f"train from {train[:-2]}, test from {test[:-2]}{rest}"


def test_three_splits_are_recognized(tmp_path: Path) -> None:
    """Chest X-rays, with the copy of the directory that its archive holds."""
    names = [f"chest_xray/{split}/{{}}" for split in ("train", "test", "val")]
    folders, description = layout(tree(tmp_path, *names, "chest_xray/chest_xray/train/{}"))
    assert {role: set(classes) for role, classes in folders.items()} == {
        role: {"a", "b"} for role in ("train", "test", "validation")
    }
    assert description == (
        "train from chest_xray/train/, test from chest_xray/test/, "
        "validation from chest_xray/val/; not used: chest_xray/chest_xray/"
    )


@pytest.mark.parametrize("held_out", ["test", "val", "test_images"])
def test_classes_of_splits_are_recognized(tmp_path: Path, held_out: str) -> None:
    folders, description = layout(tree(tmp_path, "set/{}/train", f"set/{{}}/{held_out}"))
    assert folders == {
        "train": {"a": "set/a/train", "b": "set/b/train"},
        "test": {"a": f"set/a/{held_out}", "b": f"set/b/{held_out}"},
    }
    assert description == f"train from CLASS/train/, test from CLASS/{held_out}/"


@pytest.mark.parametrize(
    ("names", "classes", "inside"),
    [
        (["cat", "dog"], "cat dog", "CLASS/"),
        (["animals/cat", "animals/dog"], "cat dog", "animals/CLASS/"),
        (["cat", "train"], "cat train", "CLASS/"),  # the vehicle
        (["freight_train", "test_tube", "cat"], "cat freight_train test_tube", "CLASS/"),
        (["valid", "invalid"], "invalid valid", "CLASS/"),
        (["test", "control"], "control test", "CLASS/"),
        (["cat/small", "cat/large", "dog"], "cat dog", "CLASS/"),
        (["cat/train", "dog/train"], "cat dog", "CLASS/"),  # nothing was held out
    ],
)
def test_classes_are_recognized(
    tmp_path: Path, names: list[str], classes: str, inside: str
) -> None:
    folders, description = layout(tree(tmp_path / "set", *names))
    assert " ".join(folders["train"]) == classes
    assert list(folders) == ["train"]
    assert description == f"train and test (20% of each class) from {inside}"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "test"], "test, train hold images but no class folders; move each image into"),
        (["train_images", "test_images"], "test_images, train_images hold images but no class"),
        (["train", "test", "cat"], "test, train hold images but no class folders"),
        (["train/{}", "training/{}"], "both 'train' and 'training' could be the train split"),
        (["seg_train/{}", "train_2/{}"], "both 'seg_train' and 'train_2' could be the train split"),
        (["cat/train", "cat/test", "dog"], "cat/ has folders for training and testing, but dog/"),
        (["bullet_train/{}", "car/{}"], "bullet_train could be the training split, or a class"),
        (["bullet_train/{}", "test_car/{}", "bus/{}"], "bullet_train could be .* like bus; move"),
        (["seg_train/{}", "seg_pred"], "seg_train could be the training split, or a class"),
        (["train/{}", "bus/{}"], "train could be the training split, or a class like bus"),
    ],
)
def test_doubtful_folders_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        find_layout(tree(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_class_names_are_one_form_of_unicode(tmp_path: Path) -> None:
    """An archive that was packed on macOS has é as e and an accent."""
    root = tree(tmp_path / "set", "train/caf\u00e9", "train/b", "test/cafe\u0301", "test/b")
    folders, _ = layout(root)
    assert list(folders["train"]) == list(folders["test"]) == ["b", "caf\u00e9"]
    tree(root, "train/cafe\u0301")
    with pytest.raises(SeewhyError, match=r"two folders are named 'caf\u00e9', in two forms of"):
        find_layout(root)


def test_load_prints_which_folders_are_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("seg_train", 3), ("seg_test", 2)):
        for label in "ab":
            folder = tmp_path / split / split / label / "deep"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (4, 4), i).save(folder / f"{i}.png")
    for _ in range(2):  # also if it is in the cache
        data = load(tmp_path)
        assert (len(data.train), len(data.test)) == (6, 4)
        assert (
            f"{tmp_path.name}: train from seg_train/seg_train/, test from seg_test/seg_test/; "
            "the folders in a class belong to it\n"
        ) in capsys.readouterr().err
    load(tmp_path, quiet=True)
    assert capsys.readouterr().err == ""
