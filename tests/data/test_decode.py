"""Image files of every format, against pixels computed by hand or by other functions of Pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from seewhy.data.decode import Preprocessing, crop_box, decode_image, open_image, resize_and_crop
from seewhy.errors import SeewhyError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def decoded(source: object, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    return decode_image(source, size, channels).numpy().transpose(1, 2, 0)  # type: ignore[arg-type]


def pixel(image: Image.Image, channels: int = 3, kind: str = "PNG", **options: object) -> list[int]:
    """The single color that an image of one color is decoded to."""
    colors = np.unique(
        decoded(encoded(image, kind, **options), (image.height, image.width), channels).reshape(
            -1, channels
        ),
        axis=0,
    )
    assert len(colors) == 1
    return colors[0].tolist()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [255 * x / width, 255 * y / height, 127 + 60 * np.sin(x / width * 9)], -1
    ).astype(np.uint8)


def test_decode_image_takes_bytes_paths_images_and_arrays(tmp_path: Path) -> None:
    pixels = noise(6, 9)
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(pixels)))
    for source in (path, str(path), path.read_bytes(), Image.fromarray(pixels), pixels):
        tensor = decode_image(source, (6, 9), 3)
        assert tensor.shape == (3, 6, 9)
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy().transpose(1, 2, 0), pixels)


def test_decode_image_of_gray() -> None:
    gray = noise(5, 5)[:, :, 0]
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(gray)), (5, 5), 1)[:, :, 0], gray)
    np.testing.assert_array_equal(
        decoded(encoded(Image.fromarray(gray)), (5, 5), 3), np.repeat(gray[:, :, None], 3, 2)
    )
    np.testing.assert_array_equal(decoded(gray[:, :, None], (5, 5), 1)[:, :, 0], gray)


def test_decode_image_converts_color_to_luma() -> None:
    assert pixel(Image.new("RGB", (4, 4), (255, 0, 0)), channels=1) == [76]  # 0.299 * 255
    assert pixel(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), channels=1, kind="TIFF") == [
        179
    ]  # cyan: (0.587 + 0.114) * 255


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (4, 4), (200, 0, 100, 0)), [255, 255, 255]),
        (Image.new("RGBA", (4, 4), (200, 0, 100, 255)), [200, 0, 100]),
        (
            Image.new("RGBA", (4, 4), (200, 0, 100, 51)),
            [244, 204, 224],
        ),  # a fifth of the color, four fifths white
        (Image.new("LA", (4, 4), (50, 51)), [214, 214, 214]),
        (Image.new("1", (4, 4), 1), [255, 255, 255]),
        (Image.new("1", (4, 4), 0), [0, 0, 0]),
    ],
)
def test_decode_image_puts_transparency_on_white(image: Image.Image, expected: list[int]) -> None:
    assert pixel(image) == pytest.approx(expected, abs=1)


def test_decode_image_of_palettes() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    assert decoded(encoded(image), (1, 2)).tolist() == [[[10, 20, 30], [200, 100, 0]]]
    assert decoded(encoded(image, transparency=1), (1, 2)).tolist() == [
        [[10, 20, 30], [255, 255, 255]]
    ]
    assert decoded(encoded(image, transparency=bytes([255, 0])), (1, 2)).tolist() == [
        [[10, 20, 30], [255, 255, 255]]
    ]
    assert decoded(encoded(image, "GIF", transparency=1), (1, 2)).tolist() == [
        [[10, 20, 30], [255, 255, 255]]
    ]


def test_decode_image_of_cmyk() -> None:
    assert pixel(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), kind="TIFF") == [0, 255, 255]
    assert pixel(
        Image.new("CMYK", (8, 8), (0, 0, 0, 255)), kind="JPEG", quality=100
    ) == pytest.approx([0, 0, 0], abs=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_image_applies_exif_orientation(orientation: int) -> None:
    image = Image.fromarray(noise(4, 7))
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded(image, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(source))))
    np.testing.assert_array_equal(decoded(source, upright.shape[:2]), upright)


def test_decode_image_ignores_broken_exif() -> None:
    pixels = noise(4, 4)
    source = encoded(Image.fromarray(pixels), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    np.testing.assert_array_equal(decoded(source, (4, 4)), pixels)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_decode_image_takes_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert pixel(frames[0], kind=kind, save_all=True, append_images=frames[1:], **options) == [
        255,
        0,
        0,
    ]


@pytest.mark.parametrize("size", [(20, 20), (13, 13), (20, 31), (31, 20), (60, 60)])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (47, 47)])
def test_decode_image_resizes_and_crops(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = Image.fromarray(smooth(*shape))
    # Pillow's own: scale to cover, then cut; on smooth pictures it may differ by rounding alone
    expected = np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)).astype(
        int
    )
    assert np.abs(decoded(encoded(image), size).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (96, 64)])
def test_crop_is_a_resize_and_a_center_crop(shape: tuple[int, int]) -> None:
    image = Image.fromarray(smooth(*shape))
    height, width = shape[0] // 2, shape[1] // 2  # the shorter side becomes 32
    left, top = (width - 28) // 2, (height - 28) // 2
    expected = image.resize((width, height), Image.Resampling.BICUBIC)
    expected = expected.crop((left, top, left + 28, top + 28))
    cropped = decode_image(encoded(image), (28, 28), 3, Preprocessing(crop=28 / 32))
    difference = cropped.numpy().transpose(1, 2, 0).astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 1


def test_crop_applies_to_an_image_of_the_right_size() -> None:
    image = Image.fromarray(smooth(32, 32))
    assert crop_box((32, 32), (32, 32), Preprocessing(0.5)) == (8, 8, 24, 24)
    expected = image.resize((32, 32), Image.Resampling.BICUBIC, box=(8, 8, 24, 24))
    cropped = resize_and_crop(image, (32, 32), Preprocessing(0.5))
    np.testing.assert_array_equal(np.asarray(cropped), np.asarray(expected))
    assert resize_and_crop(image, (32, 32), Preprocessing(1.0)) is image


def test_crop_keeps_a_jpeg_large_enough() -> None:
    source = encoded(Image.fromarray(smooth(640, 800)), "JPEG")
    assert open_image(source, (32, 32), Preprocessing(0.5)).size == (200, 160)


@pytest.mark.parametrize("crop", [0.0, -1.0, 1.01, float("nan")])
def test_crop_is_a_share(crop: float) -> None:
    with pytest.raises(SeewhyError, match="crop must be above 0 and at most 1, found"):
        Preprocessing(crop)


def test_decode_image_does_not_alias() -> None:
    board = ((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)
    inner = decoded(encoded(Image.fromarray(board)), (16, 16), 1)[2:-2, 2:-2]
    assert np.abs(inner.astype(int) - 127).max() <= 2


def test_decode_image_drafts_a_large_jpeg() -> None:
    image = Image.fromarray(smooth(640, 800))
    source = encoded(image, "JPEG", quality=95)
    whole = ImageOps.fit(Image.open(io.BytesIO(source)), (32, 32), Image.Resampling.BICUBIC)
    found = decoded(source, (32, 32)).astype(int)
    assert open_image(source, (32, 32)).size == (
        100,
        80,
    )  # an eighth, still more than twice as large as asked
    assert open_image(source, (300, 300)).size == (800, 640)
    assert np.abs(found - np.asarray(whole).astype(int)).mean() < 1
    assert np.abs(found - np.asarray(whole).astype(int)).max() <= 6


def test_decode_image_names_the_problem(tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(noise(64, 64)), "JPEG")
    for name, content, why in [
        ("notes.txt", b"hello there, this is text", "not an image"),
        ("fake.png", b"hello there, this is text", "not an image"),
        ("cut.jpg", whole[: len(whole) // 2], "damaged.*truncated"),
        ("empty.png", b"", "empty"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SeewhyError, match=f"{name} is .*{why}.*pass a PNG") as caught:
            decode_image(path, (8, 8), 3)
        assert "\n" not in str(caught.value)
        assert "BytesIO" not in str(caught.value)
    with pytest.raises(SeewhyError, match="missing"):
        decode_image(tmp_path / "absent.png", (8, 8), 3)
    with pytest.raises(SeewhyError, match=r"channels must be 1 .* found 4"):
        decode_image(noise(4, 4), (8, 8), 4)
