"""CSV files of paths and labels, and labels in file names."""

from pathlib import Path

import pytest
from PIL import Image

from seewhy.data.sources import load, reload_data
from seewhy.errors import SeewhyError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_images(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (number, 50, 9)).save(root / name)
    return root


def refused(message: str, name: Path, **options: object) -> None:
    with pytest.raises(SeewhyError, match=message) as caught:
        load(name, quiet=True, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


NAMES = [f"img/{number}.png" for number in range(10)]
ROWS = [f"{name},{'ant' if number % 2 else 'bee'}" for number, name in enumerate(NAMES)]


def table(root: Path, lines: list[str], name: str = "labels.csv") -> Path:
    write_images(root, NAMES)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return root / name


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("path,label", {}),
        ("Filename,Class", {}),
        ("image,target", {}),
        ("url,kind", {"path_column": "url", "label": "kind"}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_table_of_paths_and_labels(tmp_path: Path, header: str, options: dict[str, str]) -> None:
    data = load(table(tmp_path, [header, *ROWS]), quiet=True, **options)  # type: ignore[arg-type]
    assert data.classes == ("ant", "bee")
    assert (len(data.train), len(data.test)) == (8, 2)
    for split in data.splits.values():
        for name, label, image in zip(split.names, split.labels, split.images, strict=True):
            number = NAMES.index(name)
            assert data.classes[label] == ("ant" if number % 2 else "bee")
            assert image[0, 0, 0] == number
    assert reload_data(data.origin).fingerprint == data.fingerprint


def test_table_with_splits_groups_and_another_root(tmp_path: Path) -> None:
    rows = [
        f"{n}.png;{'ant' if n % 2 else 'bee'};{'test' if n > 5 else 'train'};{n // 4}"
        for n in range(10)
    ]
    path = table(tmp_path, ["file;label;split;camera", *rows])
    data = load(path, root=tmp_path / "img", quiet=True)
    assert sorted(data.test.names) == [f"{number}.png" for number in range(6, 10)]
    grouped = load(path, root=tmp_path / "img", split="group", group_by="camera", quiet=True)
    cameras = [{int(name[0]) // 4 for name in split.names} for split in grouped.splits.values()]
    assert not cameras[0] & cameras[1]
    assert reload_data(grouped.origin).test.names == grouped.test.names


def test_table_mistakes_are_one_line(tmp_path: Path) -> None:
    for lines, message in [
        (["path,label"], "has no rows"),
        (["a,b", *ROWS], "no column named path or file; the first line is 'a, b'; choose a column"),
        (ROWS, "no column named path or file; the first line is 'img/0.png, bee'"),
        (["path,image,label"] + [f"{row},x" for row in ROWS], "path, image could be the path"),
        (["path,label", *ROWS, "img/1.png"], "line 12 has 1 cell, but the header has 2"),
        (["path,label", *ROWS, ",ant"], "1 of 11 rows has no path, the first in line 12"),
        (["path,label", *ROWS, "x.png,"], "1 of 11 rows has no label, the first in line 12"),
        (
            ["path,label", *ROWS, "img/1.png,bee"],
            "images listed more than once: 1, .*'img/1.png' in lines 3 and 12 as 'ant' and 'bee'",
        ),
        (["path,label", *ROWS, "./img/1.png,ant"], "images listed more than once: 1, "),
        (
            ["path,label", *ROWS, "img/99.png,ant", "img/98.png,ant"],
            "2 of 12 images are not in .*, the first is 'img/99.png' in line 12",
        ),
        (["path,label", *ROWS, '"img/1.png,ant'], "cannot be read as a table"),
        (["path,label,split"] + [f"{row},train" for row in ROWS] + ["x,ant,spare"], "'spare' in"),
    ]:
        refused(message, table(tmp_path, lines))
    path = table(tmp_path, ["path,label", *ROWS])
    refused(r"no column 'lable' \(did you mean 'label'\?\)", path, label="lable")
    refused("does not exist", tmp_path / "none.csv")
    refused("path_column is for CSV files", tmp_path / "img", path_column="path")
    path.write_bytes(b"path,label\n\xff\xfe,ant\n")
    refused("cannot be read as a table", path)


def test_missing_files_of_a_table_can_be_skipped(tmp_path: Path) -> None:
    path = table(tmp_path, ["path,label", *ROWS, "img/99.png,ant"])
    data = load(path, skip_bad_images=True, quiet=True)
    assert data.skipped == ("img/99.png",)
    assert len(data.train) + len(data.test) == 10


@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_a_table_reads_no_file_outside_its_directory(tmp_path: Path, form: str) -> None:
    """Whoever wrote the table chose the path; `root` allows what the user wants."""
    write_images(tmp_path, ["private/passport.png"])
    private = tmp_path / "private" / "passport.png"
    written = str(private) if form == "absolute" else "../private/passport.png"
    path = table(tmp_path / "set", ["path,label", *ROWS, f"{written},ant"])
    message = (
        r"1 of 11 images is outside .*set and not read, the first is '.*passport.png' in line 12"
    )
    for options in ({}, {"skip_bad_images": True}):
        refused(message, path, **options)
    rows = [f"set/{row}" for row in ROWS]
    path.write_text("\n".join(["path,label", *rows, "private/passport.png,ant"]))
    data = load(path, root=tmp_path, quiet=True)
    assert len(data.train) + len(data.test) == 11


def test_absolute_paths_and_links_into_the_directory_of_a_table(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", ["10.png"])
    (tmp_path / "link").symlink_to("set")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "shared").symlink_to(tmp_path / "elsewhere")
    rows = [f"{tmp_path}/{'link' if '3' in row else 'set'}/{row}" for row in ROWS]
    path = table(tmp_path / "set", ["path,label", *rows, "shared/10.png,ant"])
    data = load(path, quiet=True)
    assert len(data.train) + len(data.test) == 11
    assert reload_data(data.origin).fingerprint == data.fingerprint


def test_label_pattern_reads_file_names(tmp_path: Path) -> None:
    names = [f"{label}_{i}.png" for label in ("great_dane", "pug") for i in range(5)]
    data = load(
        write_images(tmp_path / "flat", names), label_pattern=r"(?P<label>\w+)_\d+", quiet=True
    )
    assert data.classes == ("great_dane", "pug")
    for split in data.splits.values():
        for name, label in zip(split.names, split.labels, strict=True):
            assert name.startswith(data.classes[label])
    assert reload_data(data.origin).fingerprint == data.fingerprint
    in_splits = [f"{'test' if '4' in name else 'train'}/{name}" for name in names]
    given = load(
        write_images(tmp_path / "split", in_splits),
        label_pattern=r"/(?P<label>[a-z_]+)_",
        quiet=True,
    )
    assert sorted(given.test.names) == ["test/great_dane_4.png", "test/pug_4.png"]
    refused("finds no label in 10 of 10 names", tmp_path / "flat", label_pattern="(?P<label>x)")
    refused("has no group named label", tmp_path / "flat", label_pattern="(x)")
    refused("is no regular expression", tmp_path / "flat", label_pattern="(?P<label>")
