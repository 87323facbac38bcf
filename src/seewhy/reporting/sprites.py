"""The images of a page as sprites: every image once, in sheets of 64."""

import base64
import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from seewhy.data.thumbnails import to_rgb

COLUMNS = ROWS = 8  # of a sheet: small, so that a browser decodes only what is in view
LOSSLESS = 64  # pixels of the longer side; larger images are thumbnails, and compressed as photos


@dataclass(frozen=True)
class Sprite:
    """The position of an image: its sheet, and its offset in pixels."""

    sheet: int
    left: int
    top: int


@dataclass(frozen=True)
class SpriteSheet:
    """Up to 64 images in one."""

    width: int
    height: int
    url: str  # WebP as a data URL; small images are lossless, to preserve adversarial perturbations
    lossless: bool


class Sprites:
    """The images that a page may show; an image gets a sprite at its first lookup."""

    def __init__(self, images: Mapping[Hashable, Tensor]) -> None:
        """`images` are (C, h, w) uint8; images of different sizes are padded with white."""
        self.images = images
        self.height = max((image.shape[1] for image in images.values()), default=1)
        self.width = max((image.shape[2] for image in images.values()), default=1)
        self.used: dict[Hashable, Sprite] = {}

    def __getitem__(self, key: Hashable) -> Sprite | None:
        """The sprite of an image; None if there is no image with this key."""
        if key in self.images and key not in self.used:
            sheet, index = divmod(len(self.used), ROWS * COLUMNS)
            row, column = divmod(index, COLUMNS)
            self.used[key] = Sprite(sheet, column * self.width, row * self.height)
        return self.used.get(key)

    def copy(self) -> "Sprites":
        """The same images and sprites, for lookups that leave this one unchanged."""
        sprites = Sprites(self.images)
        sprites.used = dict(self.used)
        return sprites

    def sheets(self) -> list[SpriteSheet]:
        """The sheets with all images that were looked up."""
        keys = list(self.used)
        size = ROWS * COLUMNS
        return [self._sheet(keys[start : start + size]) for start in range(0, len(keys), size)]

    def _sheet(self, keys: list[Hashable]) -> SpriteSheet:
        rows = -(-len(keys) // COLUMNS)
        tiles = torch.full((rows * COLUMNS, 3, self.height, self.width), 255, dtype=torch.uint8)
        for index, key in enumerate(keys):
            tiles[index] = self._padded(to_rgb(self.images[key]))
        tiles = tiles.reshape(rows, COLUMNS, 3, self.height, self.width)
        grid = tiles.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (height, width, 3)
        lossless = max(self.height, self.width) <= LOSSLESS
        return SpriteSheet(grid.shape[1], grid.shape[0], data_url(grid, lossless), lossless)

    def _padded(self, image: Tensor) -> Tensor:
        """The image in the middle of a white sprite."""
        below, beside = self.height - image.shape[1], self.width - image.shape[2]
        left, top = beside // 2, below // 2
        return F.pad(image, (left, beside - left, top, below - top), value=255)


def data_url(pixels: Tensor, lossless: bool) -> str:  # (height, width, 3) uint8
    """An image as a data URL of WebP."""
    stream = io.BytesIO()
    settings = {"lossless": True, "quality": 70} if lossless else {"quality": 80}
    Image.fromarray(pixels.contiguous().numpy()).save(stream, "WEBP", method=4, **settings)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def image_sheet(images: Tensor, columns: int) -> Tensor:  # (height, width, 3) uint8
    """Images (N, 3, h, w) side by side, `columns` in a row."""
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % columns))
    grid = padded.reshape(-1, columns, *images.shape[1:])
    return grid.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
