"""Hostile and unusual files in the place of an image: nothing is run, nothing blocks."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

import seewhy
from seewhy.data.decode import decode_image, open_image
from seewhy.data.image_formats import FORMATS
from seewhy.data.sources import load
from seewhy.errors import SeewhyError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def blank_png(width: int, height: int) -> bytes:
    """A PNG whose header names a size; its pixels are missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def folder_with(tmp_path: Path) -> Path:
    """Class folders a and b with five images each."""
    for number, label in enumerate("ab"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (4, 4), 40 * i + number).save(tmp_path / "set" / label / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that would start Ghostscript or any other program."""

    def started(*arguments: object, **options: object) -> None:
        pytest.fail(f"a program was started: {arguments}")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)


@pytest.mark.parametrize(
    "start", [b"", b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, 90, *[0] * 5)]
)
def test_postscript_is_never_run(tmp_path: Path, start: bytes) -> None:
    content = start + EPS
    path = folder_with(tmp_path) / "a" / "cat.png"
    path.write_bytes(content)
    for source in (content, path, str(path)):
        with pytest.raises(SeewhyError, match=r"PostScript \(EPS\), a program, which is never run"):
            decode_image(source, (8, 8), 3)
    with pytest.raises(SeewhyError, match=r"a/cat\.png is PostScript"):
        load(tmp_path / "set", quiet=True)
    assert load(tmp_path / "set", skip_bad_images=True, quiet=True).skipped == ("a/cat.png",)


def test_postscript_opened_by_the_caller_is_not_run() -> None:
    image = Image.open(io.BytesIO(EPS))
    assert image.format == "EPS"
    with pytest.raises(SeewhyError, match="the image is PostScript"):
        decode_image(image, (8, 8), 3)


@pytest.mark.parametrize("kind", [name for name in Image.SAVE if name not in ("EPS", "PDF")])
def test_formats_are_a_closed_list(kind: str) -> None:
    Image.init()
    image = Image.new("RGB", (8, 8), (250, 120, 3))
    try:
        content = encoded(image, kind)
    except Exception:  # a format that does not hold RGB, or that this build lacks
        pytest.skip(f"no RGB in {kind}")
    if kind in FORMATS or kind == "MPO":  # which is a JPEG to begin with
        assert decode_image(content, (8, 8), 3).shape == (3, 8, 8)
    elif kind == "DIB":
        pytest.skip("Pillow writes a BMP without its file header")
    else:
        with pytest.raises(SeewhyError, match="not an image, or of a format that is not supported"):
            decode_image(content, (8, 8), 3)


def test_images_are_opened_in_one_place() -> None:
    """`Image.open` would try every format of Pillow, also those that run programs."""
    package = Path(seewhy.__file__).parent
    calls = [
        (path.name, call)
        for path in package.rglob("*.py")
        for call in re.findall(r"\b(?:Image|PIL|plt)\.(?:open|imread)\(", path.read_text())
    ]
    assert calls == []


def test_heic_names_the_package_it_needs() -> None:
    content = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)
    with pytest.raises(SeewhyError, match=r"HEIC or HEIF, which needs .* pip install pillow-heif"):
        decode_image(content, (8, 8), 3)


# size


def test_the_number_of_pixels_is_limited_before_decoding(tmp_path: Path) -> None:
    path = folder_with(tmp_path) / "a" / "large.png"
    path.write_bytes(blank_png(14_000, 14_000))
    reason = r"larger than max_pixels=150000000 \(14000x14000 is 196000000 pixels\)"
    with pytest.raises(SeewhyError, match=reason):
        decode_image(path, (8, 8), 3)
    with pytest.raises(SeewhyError, match=f"a/large.png is {reason}"):
        load(tmp_path / "set", quiet=True)
    with pytest.raises(SeewhyError, match=r"larger than max_pixels=63 \(8x8"):
        decode_image(Image.new("L", (8, 8)), (8, 8), 3, max_pixels=63)
    assert open_image(path, max_pixels=196_000_000).size == (14_000, 14_000)  # also beyond Pillow's


def test_a_tile_of_a_tiff_counts_as_pixels() -> None:
    """An image of one pixel may be stored in a tile of any size, which is decoded whole."""
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (277, 1)]
    tags += [(322, 16384), (323, 16384), (324, 8), (325, 1)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack("<I", 10)
    content = b"II*\0" + start + b"\0\0" + struct.pack("<H", len(tags)) + fields + b"\0" * 4
    with pytest.raises(SeewhyError, match=r"larger than max_pixels=150000000 \(16384x16384"):
        decode_image(content, (8, 8), 1)


def test_load_limits_the_number_of_pixels(tmp_path: Path) -> None:
    root = folder_with(tmp_path)
    Image.new("L", (9, 9)).save(root / "b" / "large.png")
    with pytest.raises(SeewhyError, match=r"b/large\.png is larger than max_pixels=80"):
        load(root, max_pixels=80, quiet=True)
    assert len(load(root, max_pixels=80, skip_bad_images=True, quiet=True).train) == 8
    data = load(root, max_pixels=81, quiet=True)
    assert len(data.train) + len(data.test) == 11
    assert data.load_args["max_pixels"] == 81
    with pytest.raises(SeewhyError, match="max_pixels must be at least 1, found 0"):
        load(root, max_pixels=0, quiet=True)


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(SeewhyError, match="larger than an image of max_pixels=150000000"):
        decode_image(path, (8, 8), 3)


# what is not a file


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes, devices or links")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pipe", "a named pipe, not a regular file"),
        ("device", "a device, not a regular file"),
        ("dead", "a link to nowhere.png, which does not exist"),
    ],
)
def test_only_regular_files_are_read(tmp_path: Path, kind: str, reason: str) -> None:
    path = folder_with(tmp_path) / "a" / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere.png")
    with pytest.raises(SeewhyError, match=f"x.png is {reason}; pass a PNG"):
        decode_image(path, (8, 8), 3)
    with pytest.raises(SeewhyError, match=f"a/x.png is {reason}; remove"):
        load(tmp_path / "set", quiet=True)
    assert load(tmp_path / "set", skip_bad_images=True, quiet=True).skipped == ("a/x.png",)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes")
@pytest.mark.parametrize("name", ["train.parquet", "train_32x32.mat", "x.npz", "cifar.tar.gz"])
def test_data_files_must_be_regular_files(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    if name.endswith(".mat"):
        (tmp_path / "test_32x32.mat").touch()
    path = tmp_path / name if name.endswith(("npz", "gz")) else tmp_path
    with pytest.raises(SeewhyError, match=f"{name} is a named pipe, not a regular file"):
        load(path, quiet=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no links")
def test_a_link_that_leads_to_itself_is_one_bad_image(tmp_path: Path) -> None:
    path = folder_with(tmp_path) / "a" / "loop.png"
    path.symlink_to("loop.png")
    with pytest.raises(SeewhyError, match=r"a/loop\.png is a link that leads to itself; remove"):
        load(tmp_path / "set", quiet=True)
    assert load(tmp_path / "set", skip_bad_images=True, quiet=True).skipped == ("a/loop.png",)


def test_a_tiff_that_pillow_does_not_read_says_what_to_do() -> None:
    fields = [(256, 1), (257, 1), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1), (279, 4)]
    tags = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in fields)
    content = (
        b"MM\0*" + struct.pack(">II", 12, 7) + struct.pack(">H", len(fields)) + tags + bytes(4)
    )
    with pytest.raises(SeewhyError, match="a TIFF of a kind that Pillow does not read"):
        decode_image(content, (8, 8), 1)
