"""Odd files: damaged and misnamed images, names that act, files that are none, damaged tables."""

import gzip
import io
import os
import socket
import stat
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n(x) print\nshowpage\n"
EPS += b" " * 200
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"

# names of valid images; they end in .png
NAMES = [
    "two\nlines", "tab\there", "\x1b[2J\x1b]0;title\x07", "\x9b31mC1", "'single'", '"double"',
    "-rf", "--json", "\u202egnp.exe", "e\u0301-NFD", "\u00e9-NFC", " leading", "trailing ",
    "%s%n%d",
    "{x}", "[red]rich[/red]", "[/]", "<img src=x onerror=alert(1)>", "a,b;c", "=cmd|' -C calc'!A0",
    "@SUM(1)", "$(touch pwned)", "`touch pwned`", "a*b?[c]", "~", "#1", "\u65e5\u672c\u8a9e",
    "\U0001f600", "\u200b", "con", "x" * 251, "\\", "C:\\x", "a|b", "\ufeffbom", "..", "\u2028line",
]  # fmt: skip
RAW_NAMES = [b"\xff\xfe.png", b"caf\xe9.png"]  # not UTF-8


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    bands = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}.get(mode, 3)
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(values[:, :, 0] if bands == 1 else values, mode if bands > 1 else "L")


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of 8-bit gray with a header that need not fit its data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def image_contents() -> dict[str, bytes]:
    """Content by file name: valid images of every kind, and files that are none."""
    whole = encoded(noise(), "PNG")
    jpeg = encoded(noise(size=(24, 16)), "JPEG")
    palette = noise("RGB").quantize(8)
    wide = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900)
    floats = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    broken = floats.copy()
    broken[0, 0], broken[1, 1] = np.nan, np.inf
    frames = [noise(size=(8, 8)), noise(size=(8, 8)).rotate(90)]
    big = np.arange(64, dtype=">u4").reshape(8, 8)
    contents = {
        "whole.png": whole, "gray.png": encoded(noise("L"), "PNG"),
        "alpha.png": encoded(noise("RGBA"), "PNG"), "gray-alpha.png": encoded(noise("LA"), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette-alpha.png": encoded(palette, "PNG", transparency=b"\0\x80\xff"),
        "bits1.png": encoded(noise("L").convert("1"), "PNG"), "bits16.png": encoded(wide, "PNG"),
        "cmyk.jpg": encoded(noise("CMYK"), "JPEG"), "photo.jpg": jpeg,
        "profile.png": encoded(noise(), "PNG", icc_profile=b"no profile" * 20),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "float.tif": encoded(Image.fromarray(floats), "TIFF"),
        "nan.tif": encoded(Image.fromarray(broken), "TIFF"),
        "int32.tif": encoded(Image.fromarray(big.astype("<i4")), "TIFF"),
        "double.tif": tiff(np.linspace(0, 1, 64).reshape(8, 8), 3),
        "big-endian.tif": tiff(big, 1), "int8.tif": tiff(np.arange(64,
        dtype="i1").reshape(8, 8), 2),
        "bmp.bmp": encoded(noise(), "BMP"), "ppm.ppm": encoded(noise(), "PPM"),
        "jp2.jp2": encoded(noise(), "JPEG2000"), "ico.ico": encoded(noise(), "ICO"),
        "wrong-suffix.jpg": whole, "wrong-suffix.png": jpeg, "upper.PNG": whole,
        "one-pixel.png": encoded(noise(size=(1, 1)), "PNG"),
        "long.png": encoded(noise("L", (1, 3000)), "PNG"),
        "eps.png": EPS, "ps.jpg": EPS.replace(b" EPSF-3.0", b""), "pdf.png": PDF, "svg.png": SVG,
        "html.jpg": b"<html><body>404</body></html>", "svgz.png": gzip.compress(SVG),
        "zero.png": b"", "zero.jpg": b"", "text.png": b"not an image", "byte.jpg": b"\xff",
        "nulls.png": bytes(300), "magic.png": whole[:8], "cut.png": whole[: len(whole) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2], "noise.png": bytes(range(256)) * 3,
        "flipped.png": whole[:40] + bytes([whole[40] ^ 255]) + whole[41:],
        "huge.png": png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
        "large.png": png(14_000, 14_000, zlib.compress(bytes(1000))),
        "flat.png": png(0, 0, b""), "bomb.png": png(8, 8, zlib.compress(bytes(10**6))),
        "broken-exif.jpg": encoded(noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff"),
        "odd-exif.jpg": encoded(noise(), "JPEG", exif=exif(99)),
    }  # fmt: skip
    contents |= {
        f"turned-{turn}.jpg": encoded(noise(size=(12, 8)), "JPEG", exif=exif(turn))
        for turn in range(2, 9)
    }
    return contents


def tiff(array: np.ndarray, kind: int) -> bytes:
    """A TIFF of one strip; `kind` is its sample format: 1 unsigned, 2 signed, 3 float."""
    order = ">" if array.dtype.byteorder == ">" else "<"
    height, width = array.shape
    tags = [(256, width), (257, height), (258, 8 * array.itemsize), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, height), (279, array.nbytes), (339, kind)]
    fields = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    start = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8 + array.nbytes)
    return start + array.tobytes() + struct.pack(f"{order}H", len(tags)) + fields + bytes(4)


def write_images(directory: Path) -> list[Path]:
    """Odd images, names and special files in a directory, as far as its file system takes them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in image_contents().items():
        (directory / name).write_bytes(content)
    whole = (directory / "whole.png").read_bytes()
    for name in NAMES:
        with suppress(OSError):
            (directory / f"{name}.png").write_bytes(whole)
    for raw in RAW_NAMES:
        with suppress(OSError):
            Path(os.fsdecode(os.fsencode(directory) + b"/" + raw)).write_bytes(whole)
    (directory / "directory.png").mkdir()
    for name, make in SPECIAL.items():
        with suppress(OSError, AttributeError):
            make(directory / name)
    (directory / "unreadable.png").write_bytes(whole)
    (directory / "unreadable.png").chmod(0)
    return sorted(directory.iterdir())


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe.png": lambda path: os.mkfifo(path),
    "socket.png": _socket,
    "dead-link.png": lambda path: path.symlink_to("nowhere.png"),
    "loop.png": _loop,
    "device.png": lambda path: path.symlink_to("/dev/zero"),
    "up": lambda path: path.symlink_to("..", target_is_directory=True),
}


def table_contents() -> dict[str, bytes]:
    """Content of damaged and empty tables, arrays and archives by file name."""
    arrays = io.BytesIO()
    np.savez(arrays, images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 0, 1]))
    whole = arrays.getvalue()
    odd = io.BytesIO()
    np.savez(odd, images=np.array([{}, None], object), labels=np.array(["a", "b"]))
    names = ("train.parquet", "data.npz", "data.npy", "data.zip", "data.tar.gz", "data.csv")
    contents = {f"empty-{name}": b"" for name in names}
    contents |= {f"text-{name}": b"a,b\n1,2\n" for name in names}
    return contents | {
        "cut.npz": whole[: len(whole) // 2],
        "flipped.npz": whole[:60] + bytes([whole[60] ^ 255]) + whole[61:],
        "objects.npz": odd.getvalue(),
        "magic.parquet": b"PAR1" + bytes(40) + b"PAR1",
        "cut.tar.gz": gzip.compress(bytes(2000))[:30],
        "data.mat": b"MATLAB 5.0 MAT-file" + bytes(200),
    }


def is_special(path: Path) -> bool:
    """Whether a path is no regular file."""
    return not stat.S_ISREG(path.lstat().st_mode)
