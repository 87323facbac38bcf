import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seewhy.reporting.sprites import Sprite, Sprites, SpriteSheet, data_url


def decoded(url: str) -> np.ndarray:  # (height, width, 3) uint8
    head, _, content = url.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def cut(sprites: Sprites, sheets: list[SpriteSheet], tile: Sprite) -> np.ndarray:
    return decoded(sheets[tile.sheet].url)[
        tile.top : tile.top + sprites.height, tile.left : tile.left + sprites.width
    ]


def noise(count: int, *shape: int) -> Tensor:
    return torch.randint(
        0, 256, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 64, 64), (1, 8, 8)])
def test_small_images_are_lossless(shape: tuple[int, int, int]) -> None:
    images = noise(70, *shape)
    sprites = Sprites({("test", index): image for index, image in enumerate(images)})
    tiles = [sprites["test", index] for index in reversed(range(70))]
    sheets = sprites.sheets()
    assert len(sheets) == 2
    for index, tile in zip(reversed(range(70)), tiles, strict=True):
        assert tile is not None
        expected = images[index].permute(1, 2, 0).expand(-1, -1, 3).numpy()
        np.testing.assert_array_equal(cut(sprites, sheets, tile), expected)
    for sheet in sheets:
        assert decoded(sheet.url).shape == (sheet.height, sheet.width, 3)


def test_sheets_hold_each_image_that_was_looked_up_once() -> None:
    sprites = Sprites(dict(enumerate(noise(20, 3, 4, 4))))
    first = [sprites[index] for index in (3, 9, 3, 3)]
    assert first[0] == first[2] == first[3] != first[1]
    (sheet,) = sprites.sheets()
    pixels = decoded(sheet.url)
    assert pixels.shape == (4, 8 * 4, 3)
    assert (pixels[:, 8:] == 255).all()
    places = [sprites[index] for index in range(20)]
    assert len(set(places)) == 20
    assert first[0] == places[3]


def test_missing_images_have_no_sprite() -> None:
    sprites = Sprites({"a": noise(1, 3, 4, 4)[0]})
    assert sprites["b"] is None
    assert sprites.sheets() == []
    empty: Sprites = Sprites({})
    assert empty["a"] is None
    assert empty.sheets() == []


def test_images_of_unlike_sizes_are_padded_with_white() -> None:
    images: dict[Any, Tensor] = {
        "wide": noise(1, 3, 4, 10)[0] // 2,
        "high": noise(1, 3, 8, 3)[0] // 2,
        "gray": noise(1, 1, 8, 10)[0],
    }
    sprites = Sprites(images)
    tiles = {name: sprites[name] for name in images}
    sheets = sprites.sheets()
    assert (sprites.height, sprites.width) == (8, 10)
    for name, image in images.items():
        tile = tiles[name]
        assert tile is not None
        found = cut(sprites, sheets, tile)
        height, width = image.shape[1:]
        top, left = (8 - height) // 2, (10 - width) // 2
        inside = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(
            found[inside], image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
        )
        found = found.copy()
        found[inside] = 255
        assert (found == 255).all()


def test_large_images_are_compressed() -> None:
    ramp = torch.linspace(0, 255, 96)
    image = torch.stack(
        [ramp.expand(80, 96), ramp.flip(0).expand(80, 96), torch.full((80, 96), 90.0)]
    ).byte()
    sprites = Sprites({"a": image})
    tile = sprites["a"]
    assert tile is not None
    (sheet,) = sprites.sheets()
    error = np.abs(cut(sprites, [sheet], tile).astype(float) - image.permute(1, 2, 0).numpy())
    assert 0 < error.mean() < 4
    assert not sheet.lossless
    grainy = noise(1, 3, 96, 96)[0].permute(1, 2, 0)
    assert len(data_url(grainy, lossless=False)) < 0.7 * len(data_url(grainy, lossless=True))


def test_copy_leaves_the_sprites_unchanged() -> None:
    sprites = Sprites(dict(enumerate(noise(3, 3, 4, 4))))
    first = sprites[2]
    copy = sprites.copy()
    assert (copy[2], copy[0]) == (first, Sprite(0, 4, 0))
    assert list(sprites.used) == [2]
    assert sprites[1] == Sprite(0, 4, 0)
