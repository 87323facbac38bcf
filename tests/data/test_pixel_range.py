"""Images with more than 8 bits: one range for a dataset, whose ends become 0 and 255."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.data.decode import Preprocessing, decode_image
from seewhy.data.pixel_range import check_range, range_of_dataset
from seewhy.data.sources import load, reload_data
from seewhy.errors import SeewhyError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(values: np.ndarray) -> bytes:
    """A PNG of (H, W, 2), (H, W, 3) or (H, W, 4) uint16, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(values: np.ndarray, order: str = "<", compressed: bool = False) -> bytes:
    """A TIFF of (H, W, C) integers or floats."""
    height, width, channels = values.shape
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()  # type: ignore[call-overload]
    pixels = zlib.compress(pixels) if compressed else pixels
    padded = pixels + b"\0" * (len(pixels) % 2)
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [8 * values.itemsize] * channels),
        (259, "H", [8 if compressed else 1]),
        (262, "H", [2 if channels == 3 else 1]),
        (273, "I", [8]),
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [len(pixels)]),
        (339, "H", [form] * channels),
    ]
    start = 8 + len(padded)
    rest_start = start + 2 + 12 * len(tags) + 4
    directory, rest = struct.pack(f"{order}H", len(tags)), b""
    for tag, kind, numbers in tags:
        field = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(field) > 4:
            field, rest = struct.pack(f"{order}I", rest_start + len(rest)), rest + field
        code = {"H": 3, "I": 4}[kind]
        directory += struct.pack(f"{order}HHI", tag, code, len(numbers)) + field.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + padded + directory + b"\0\0\0\0" + rest


def decoded(source: bytes | np.ndarray, value_range: object) -> np.ndarray:
    """The pixels (H, W, 3) of an image at its own size."""
    size = (
        source.shape[:2]
        if isinstance(source, np.ndarray)
        else Image.open(io.BytesIO(source)).size[::-1]
    )
    preprocessing = Preprocessing(value_range=value_range)  # type: ignore[arg-type]
    return decode_image(source, size, 3, preprocessing).numpy().transpose(1, 2, 0)


def expected(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The definition, in exact integers where values are integers."""
    clipped = np.minimum(np.maximum(values.astype(np.float64), low), high)
    pixels = np.floor((clipped - low) / (high - low) * 255 + 0.5).astype(np.uint8)
    return pixels if pixels.shape[2:] == (3,) else np.repeat(pixels[:, :, :1], 3, 2)


def noise(dtype: object, low: float, high: float, channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(0).uniform(low, high, (6, 5, channels))
    return values.astype(dtype)  # type: ignore[call-overload]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "channels"),
    [
        (np.uint16, 0, 4095, 1),
        (np.int16, -1000, 3000, 1),
        (np.int32, -70_000, 2_000_000, 1),
        (np.uint32, 0, 2**32 - 1, 1),
        (np.float32, -1, 1, 1),
        (np.uint16, 0, 4095, 3),
        (np.uint16, 0, 255, 3),
    ],
)
def test_tiff_is_scaled_by_the_range(
    dtype: object, low: float, high: float, channels: int, compressed: bool, order: str
) -> None:
    values = noise(dtype, low, high, channels)
    if (dtype, order) == (np.uint32, ">"):
        pytest.skip("Pillow does not read it")
    pixels = decoded(tiff(values, order, compressed), (low, high))
    np.testing.assert_allclose(pixels.astype(int), expected(values, low, high), atol=1)
    narrow = (low + (high - low) / 4, high)  # what is below is clipped
    pixels = decoded(tiff(values, order, compressed), narrow)
    np.testing.assert_allclose(pixels.astype(int), expected(values, *narrow), atol=1)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_in_color_is_scaled_by_the_range(channels: int) -> None:
    """Pillow itself reads the upper byte alone, so that 0 to 255 becomes black."""
    values = noise(np.uint16, 0, 255, channels)
    alpha = (channels - 1) // 2 * 2 + 1  # the last channel of 2 and 4
    values[..., alpha:] = 65535
    colors = np.broadcast_to(values[..., :alpha], (6, 5, 3))
    np.testing.assert_array_equal(decoded(png(values), (0, 255)), colors)
    assert decoded(png(values), "dtype").max() == 1
    values[..., alpha:] = 0
    if channels != 3:
        assert decoded(png(values), (0, 255)).min() == 255  # transparent, so white


def test_gray_png_and_arrays_are_scaled_by_the_range() -> None:
    values = noise(np.uint16, 0, 4095)
    buffer = io.BytesIO()
    Image.fromarray(values[..., 0]).save(buffer, "PNG")
    for source in (buffer.getvalue(), values, values.astype(np.float32)):
        np.testing.assert_array_equal(decoded(source, (0, 4095)), expected(values, 0, 4095))
    color = noise(np.float64, -1, 1, 3)
    np.testing.assert_array_equal(decoded(color, (-1, 1)), expected(color, -1, 1))


def test_the_range_of_the_type() -> None:
    for values, low, high in (
        (noise(np.uint16, 0, 65535), 0, 65535),
        (noise(np.int16, -30_000, 30_000), -32768, 32767),
        (noise(np.uint32, 0, 2**32 - 1), 0, 2**32 - 1),
        (noise(np.float32, 0, 1), 0, 1),
    ):
        for value_range in ("dtype", None):
            for source in (values, tiff(values)):
                pixels = decoded(source, value_range).astype(int)
                np.testing.assert_allclose(pixels, expected(values, low, high), atol=1)


def test_infinite_pixels_are_clipped() -> None:
    values = np.array([[0.0, 1.0, np.inf, -np.inf, np.nan]], np.float32)[..., None]
    assert decoded(tiff(values), (0, 2))[0, :, 0].tolist() == [0, 128, 255, 0, 0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (noise(np.uint16, 0, 255), "has values from [0-9]+ to 2[0-9]+, of which the black and"),
        (noise(np.int16, -1000, 2000), "has values from -[0-9]+ to [0-9]+, of which the black"),
        (noise(np.float32, -1, 1), r"has values from -0\.[0-9]+ to 0\.[0-9]+"),
        (noise(np.float32, 0, 255), r"choose them with range=\(LOW, HIGH\), or convert"),
    ],
)
def test_an_unknown_range_is_not_guessed(values: np.ndarray, reason: str) -> None:
    for source in (values, tiff(values)):
        with pytest.raises(SeewhyError, match=reason) as caught:
            decoded(source, None)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("low", "high", "chosen"),
    [
        (0, 255, (0, 255)),
        (3, 190, (0, 255)),
        (0, 4011, (0, 4095)),
        (0, 65535, (0, 65535)),
        (0.02, 0.97, (0, 1)),
        (-0.9, 0.99, (-1, 1)),
        (0, 16, (0, 16)),  # 5 bits
        (29_000, 31_000, (29_000, 31_000)),  # a thermal camera
        (-1000, 3000, (-1000, 3000)),
        (-2.1, 2.6, (-2.1, 2.6)),
        (0, 0.1, (0, 0.1)),
        (7, 7, (7, 8)),
    ],
)
def test_range_of_dataset(low: float, high: float, chosen: tuple[float, float]) -> None:
    assert range_of_dataset(low, high) == chosen


@pytest.mark.parametrize("value", [(1, 1), (2, 1), (0, float("nan")), (1,), "auto", 3, (0, 1, 2)])
def test_check_range_rejects(value: object) -> None:
    with pytest.raises(SeewhyError, match="range must be two finite numbers, LOW below HIGH"):
        check_range(value)


# datasets


def scans(root: Path, low: int, high: int) -> Path:
    """Folders of int16 images in which one is as dark as possible and one as bright."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label in "ab":
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                values = random.integers(low + 500, high - 500, (4, 4, 1)).astype(np.int16)
                if split == "train" and i == 0:
                    values[0, 0], values[0, 1] = low, high
                (folder / f"{i}.tif").write_bytes(tiff(values))
    return root


def test_load_scales_all_images_by_one_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = scans(tmp_path / "ct", -1024, 3071)
    for _ in range(2):  # the second time from the cache
        data = load(root)
        assert data.value_range == (-1024, 3071)
        assert (
            "ct: images with more than 8 bits: values from -1024 to 3071 become black to white, "
            "the range of the training images (range sets another)"
        ) in capsys.readouterr().err
    for split in (data.train, data.test):
        for name, image in zip(split.names, split.images, strict=True):
            values = np.asarray(Image.open(root / name))[..., None]
            wanted = expected(values, -1024, 3071)[..., 0]
            np.testing.assert_allclose(image[0].numpy().astype(int), wanted, atol=1)
    assert reload_data(data.origin).fingerprint == data.fingerprint


@pytest.mark.parametrize("chosen", [(-160, 240), "dtype"])
def test_load_takes_a_range(tmp_path: Path, chosen: object) -> None:
    root = scans(tmp_path / "ct", -1024, 3071)
    data = load(root, range=chosen, quiet=True)  # type: ignore[arg-type]
    assert data.value_range == chosen
    values = np.asarray(Image.open(root / data.train.names[1]))[..., None]
    low, high = (-32768, 32767) if chosen == "dtype" else (-160, 240)
    wanted = expected(values, low, high)[..., 0]
    np.testing.assert_allclose(data.train.images[1, 0].numpy().astype(int), wanted, atol=1)
    assert reload_data(data.origin).value_range == chosen


@pytest.mark.slow
def test_load_finds_a_deep_image_late(tmp_path: Path) -> None:
    """Only 256 headers are looked at before decoding."""
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(200):
            Image.new("L", (2, 2), i).save(tmp_path / label / f"{i}.png")
    (tmp_path / "a" / "1.png").write_bytes(tiff(np.full((2, 2, 1), 200, np.uint16)))
    (tmp_path / "a" / "2.png").write_bytes(tiff(np.full((2, 2, 1), 0, np.uint16)))
    (tmp_path / "a" / "3.png").write_bytes(tiff(np.full((2, 2, 1), 3, np.uint16)))
    data = load(tmp_path, quiet=True)
    assert data.value_range == (0, 255)
    values = dict(zip(data.train.names, data.train.images[:, 0, 0, 0].tolist(), strict=True))
    values |= dict(zip(data.test.names, data.test.images[:, 0, 0, 0].tolist(), strict=True))
    assert [values[f"a/{i}.png"] for i in (0, 1, 2, 3, 4)] == [0, 200, 0, 3, 4]


def test_arrays_of_all_splits_have_one_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test images of a dark night are dark."""
    train = np.linspace(0, 4095, 64).reshape(4, 4, 4).astype(np.uint16)
    test = train // 8
    labels = np.arange(4) % 2
    infinite = train.astype(np.float32)
    infinite[0, 0, 0] = np.inf
    np.savez(tmp_path / "x.npz", x_train=train, y_train=labels, x_test=test, y_test=labels)
    data = load(tmp_path / "x.npz", quiet=True)
    assert data.value_range == (0, 4095)
    np.testing.assert_allclose(data.test.images[:, 0].numpy(), test / 4095 * 255, atol=0.51)
    np.savez(tmp_path / "y.npz", x_train=infinite, y_train=labels, x_test=test, y_test=labels)
    assert load(tmp_path / "y.npz").value_range == (0, 4095)
    assert "y: images with pixels that are not finite: 1" in capsys.readouterr().err


def test_images_of_8_bits_have_no_range(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            Image.new("L", (2, 2), i).save(tmp_path / label / f"{i}.png")
    assert load(tmp_path, quiet=True).value_range is None
