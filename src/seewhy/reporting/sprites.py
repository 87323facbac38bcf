"""The images of a page in sheets, each image once, however many places show it."""

import base64
import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from seewhy.data.thumbnails import to_rgb

COLUMNS = ROWS = 8  # of a sheet: few enough that a browser decodes only what it shows
LOSSLESS = 64  # pixels of the longer side; larger images are thumbnails already, and kept as photographs are


@dataclass(frozen=True)
class Sprite:
    """Where an image is: the sheet, and the pixels from its corner."""

    sheet: int
    left: int
    top: int


@dataclass(frozen=True)
class SpriteSheet:
    """Images in rows and columns, as one."""

    width: int
    height: int
    url: str  # a data URL of WebP, without loss where the images are small: an attack lies in the last bits


class Sprites:
    """Gives each image that is asked for a place on a sheet, when it is asked for the first time."""

    def __init__(self, images: Mapping[Hashable, Tensor]) -> None:  # each (C, h, w) uint8
        self.images = images
        self.height = max((image.shape[1] for image in images.values()), default=1)
        self.width = max((image.shape[2] for image in images.values()), default=1)
        self.tiles: dict[Hashable, Sprite] = {}

    def __getitem__(self, key: Hashable) -> Sprite | None:
        """Where the image of that key is; None where there is none."""
        if key in self.images and key not in self.tiles:
            sheet, place = divmod(len(self.tiles), ROWS * COLUMNS)
            row, column = divmod(place, COLUMNS)
            self.tiles[key] = Sprite(sheet, column * self.width, row * self.height)
        return self.tiles.get(key)

    def sheets(self) -> list[SpriteSheet]:
        """The sheets with everything that was asked for."""
        keys = list(self.tiles)
        return [
            self._sheet(keys[start : start + ROWS * COLUMNS])
            for start in range(0, len(keys), ROWS * COLUMNS)
        ]

    def _sheet(self, keys: list[Hashable]) -> SpriteSheet:
        rows = -(-len(keys) // COLUMNS)
        tiles = torch.full((rows * COLUMNS, 3, self.height, self.width), 255, dtype=torch.uint8)
        for place, key in enumerate(keys):
            tiles[place] = self._centered(to_rgb(self.images[key]))
        grid = (
            tiles.reshape(rows, COLUMNS, 3, self.height, self.width)
            .permute(0, 3, 1, 4, 2)
            .flatten(2, 3)
            .flatten(0, 1)
        )  # (height, width, 3)
        return SpriteSheet(
            grid.shape[1],
            grid.shape[0],
            data_url(grid, lossless=max(self.height, self.width) <= LOSSLESS),
        )

    def _centered(self, image: Tensor) -> Tensor:
        """Images of unlike sizes stand in the middle of white, so that all tiles are of one size."""
        below, beside = self.height - image.shape[1], self.width - image.shape[2]
        return F.pad(
            image, (beside // 2, beside - beside // 2, below // 2, below - below // 2), value=255
        )


def data_url(pixels: Tensor, lossless: bool) -> str:  # (height, width, 3) uint8
    """An image as a data URL of WebP."""
    stream = io.BytesIO()
    settings = {"lossless": True, "quality": 70} if lossless else {"quality": 80}
    Image.fromarray(pixels.contiguous().numpy()).save(stream, "WEBP", method=4, **settings)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
