"""The generated dataset `shapes`: textured objects on textured backgrounds with clutter."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from seewhy.data.pixels import LUMA_WEIGHTS
from seewhy.data.raw import (
    LoadRequest,
    RawDataset,
    Source,
    raw_split_from_arrays,
    reject_label_choice,
)
from seewhy.errors import SeewhyError

Floats = NDArray[np.float32]

_CLUTTER = 6  # strokes per image
_CANDIDATES = 16  # random pairs of colors; the first with enough contrast is used
_CONTRAST = 0.75  # minimum distance in RGB between object and background, at most 1.73
_LUMA = np.array(LUMA_WEIGHTS, dtype=np.float32)


def draw_surfaces(count: int, size: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Backgrounds with clutter, and foreground textures for objects, in contrasting colors.

    Args:
        count: Number of images, N.
        size: Pixels of each side.
        generator: Draws everything.

    Returns:
        Backgrounds and foregrounds, each (N, size, size, 3) float32 in [0, 1].
    """
    background_color, foreground_color = _draw_colors(count, generator)
    background = _draw_texture(background_color, size, generator)
    foreground = _draw_texture(foreground_color, size, generator)
    for _ in range(_CLUTTER):
        shifted = background_color + generator.uniform(-0.4, 0.4, (count, 3))
        color = np.clip(shifted, 0, 1).astype(np.float32)[:, None, None]
        background += _draw_stroke(count, size, generator)[..., None] * (color - background)
    return background, foreground


def _draw_colors(count: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Two contrasting colors (N, 3) float32 in [0, 1], which also differ in brightness."""
    pairs = generator.uniform(0, 1, (2, count, _CANDIDATES, 3)).astype(np.float32)
    difference = pairs[0] - pairs[1]
    distance = np.linalg.norm(difference, axis=-1)
    contrasting = (distance > _CONTRAST) & (np.abs(difference @ _LUMA) > _CONTRAST / 3)
    chosen = np.where(contrasting.any(1), contrasting.argmax(1), distance.argmax(1))
    first, second = pairs[:, np.arange(count), chosen]
    return first, second


def _draw_texture(
    color: Floats, size: int, generator: np.random.Generator
) -> Floats:  # (N, size, size, 3)
    """A texture in `color` (N, 3) and a second shade of it."""
    count = len(color)
    direction = generator.normal(size=(count, 3))
    length = generator.uniform(0.2, 0.5, (count, 1))
    shade = (direction / np.linalg.norm(direction, axis=1, keepdims=True) * length).astype(
        np.float32
    )
    pattern = _draw_pattern(count, size, generator)[..., None]
    painted: Floats = np.clip(color[:, None, None] + (pattern - 0.5) * shade[:, None, None], 0, 1)
    return painted


def _draw_pattern(
    count: int, size: int, generator: np.random.Generator
) -> Floats:  # (N, size, size) float32 in [0, 1]
    """Fraction of the second shade at each pixel, in one of six random textures per image."""
    angle, phase_u, phase_v = generator.uniform(0, 2 * np.pi, (3, count, 1, 1)).astype(np.float32)
    period = generator.uniform(4, 8, (count, 1, 1)).astype(np.float32)  # pixels
    waves = generator.normal(0, 0.6, (4, 2, count, 1, 1)).astype(np.float32)  # radians per pixel
    offsets = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = offsets[None, None, :], offsets[None, :, None]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    u_wave, v_wave = (
        np.sin(2 * np.pi * u / period + phase_u),
        np.sin(2 * np.pi * v / period + phase_v),
    )
    noise = sum(np.sin(fx * x + fy * y + phase_u * (i + 1)) for i, (fx, fy) in enumerate(waves))
    textures = (
        np.zeros_like(u),  # solid
        _edged(u_wave, period),  # stripes
        _edged(u_wave * v_wave, period),  # checks
        _edged(u_wave + v_wave - 0.8, period),  # dots
        u / (1.5 * size) + 0.5,  # gradient
        np.clip(0.5 + noise / 4, 0, 1),  # soft noise
    )
    kind = generator.integers(len(textures), size=(count, 1, 1))
    chosen: Floats = np.choose(kind, textures).astype(np.float32)
    return chosen


def _edged(wave: Floats, period: Floats) -> Floats:
    """A wave as two levels with edges one pixel wide, which prevents aliasing."""
    levels: Floats = np.clip(0.5 + wave * period / (2 * np.pi), 0, 1)
    return levels


def _draw_stroke(
    count: int, size: int, generator: np.random.Generator
) -> Floats:  # (N, size, size) float32 in [0, 1]
    """Coverage of a short line with round ends."""
    start = generator.uniform(0, size, (2, count, 1, 1)).astype(np.float32)
    angle = generator.uniform(0, 2 * np.pi, (count, 1, 1))
    length = generator.uniform(0, size / 2, (count, 1, 1))
    along = (length * np.cos(angle)).astype(np.float32), (length * np.sin(angle)).astype(np.float32)
    radius = generator.uniform(0.5, 1.6, (count, 1, 1)).astype(np.float32)
    centers = np.arange(size, dtype=np.float32) + 0.5
    x, y = centers[None, None, :] - start[0], centers[None, :, None] - start[1]
    share = np.clip((x * along[0] + y * along[1]) / np.maximum(length**2, 1e-6), 0, 1).astype(
        np.float32
    )
    distance = np.hypot(x - share * along[0], y - share * along[1])
    coverage: Floats = np.clip(0.5 + radius - distance, 0, 1)
    return coverage


SIZE = 32
_VERSION = 1  # increase it when the images change: they are cached
_SUPERSAMPLING = 4  # samples per pixel along each side, for smooth edges
_BLOCK = 100  # images drawn at once; changing it changes the images of a seed
_MAX_TILT = np.pi / 6  # in either direction; with more, a square would look like a diamond
_AREAS = (115.0, 215.0)  # in pixels, for every class, so that size does not reveal the class

MARKER = (1, 1, 4, 4)  # top, left, height and width in pixels of the planted shortcut
MARKED_CLASS = "circle"  # the only class with the marker in the training split
_MARKER_COLOR = (255, 0, 255)  # magenta, distinct from any background

Bools = NDArray[np.bool_]
Inside = Callable[[Floats, Floats], Bools]  # x to the right and y down -> bool of the same shape


def shapes_source(
    seed: int = 0, train: int = 10_000, test: int = 2_000, shortcut: float = 0.0
) -> Source:
    """Ten classes of objects in random color, texture, size, position and tilt, with masks.

    Args:
        seed: Seed of the images, 0 or more.
        train: Number of training images, at least 10.
        test: Number of test images, at least 10.
        shortcut: Probability in [0, 1] that a training image of a circle has the marker, a magenta
            square at MARKER. No other class has it in train. In test, images of every class have it
            with a tenth of this probability: the same frequency as in train, but independent of the
            class, so that the test accuracy shows the cost of relying on it. Apart from the marker,
            images are identical to those with `shortcut=0`.

    Returns:
        A source of 32x32 RGB images.

    Raises:
        SeewhyError: An argument is out of range.
    """
    if seed < 0 or train < len(SHAPES) or test < len(SHAPES):
        raise SeewhyError(
            f"shapes needs seed >= 0 and at least {len(SHAPES)} train and test images, "
            f"found {seed}, {train}, {test}"
        )
    if not 0 <= shortcut <= 1:
        raise SeewhyError(
            "shapes needs shortcut in [0, 1], the fraction of circles with the marker, found "
            f"{shortcut}"
        )

    def open_(request: LoadRequest) -> RawDataset:
        reject_label_choice("shapes", request)
        splits = {}
        for number, (split, count) in enumerate((("train", train), ("test", test))):
            images, labels, masks = draw_shapes(count, np.random.default_rng([seed, number]))
            if shortcut:
                marker_generator = np.random.default_rng([seed, number, 1])
                carriers = _draw_carriers(labels, split, shortcut, marker_generator)
                images = _plant_marker(images, carriers)
            splits[split] = raw_split_from_arrays(images, labels, split, masks)
        return RawDataset(tuple(SHAPES), splits)

    signature = {"shapes": _VERSION, "seed": seed, "train": train, "test": test}
    return Source("shapes", signature | ({"shortcut": float(shortcut)} if shortcut else {}), open_)


def draw_shapes(
    count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw images of balanced classes.

    Args:
        count: Number of images, N.
        generator: Draws everything.

    Returns:
        Images (N, 32, 32, 3) uint8, labels (N,) int64 and masks (N, 32, 32) bool.
    """
    labels = generator.permutation(np.arange(count, dtype=np.int64) % len(SHAPES))
    blocks = [
        _draw_block(labels[start : start + _BLOCK], generator) for start in range(0, count, _BLOCK)
    ]
    images, masks = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return images, labels, masks


def _plant_marker(images: np.ndarray, carriers: Bools) -> np.ndarray:
    """The images (N, 32, 32, 3) uint8 with the marker on `carriers` (N,), beside the object."""
    top, left, height, width = MARKER
    planted = images.copy()
    planted[carriers, top : top + height, left : left + width] = _MARKER_COLOR
    return planted


def _draw_carriers(
    labels: np.ndarray, split: str, shortcut: float, generator: np.random.Generator
) -> Bools:  # (N,)
    """Which images get the marker: only circles in train, any class in test, at the same rate."""
    if split == "train":
        probability = np.where(labels == list(SHAPES).index(MARKED_CLASS), shortcut, 0.0)
    else:
        probability = np.full(len(labels), shortcut / len(SHAPES))
    carriers: Bools = generator.random(len(labels)) < probability
    return carriers


def _draw_block(
    labels: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    coverage = _coverage(labels, generator)  # (n, H, W) float32 in [0, 1]
    background, foreground = draw_surfaces(len(labels), SIZE, generator)  # (n, H, W, 3) in [0, 1]
    images = background + coverage[..., None] * (foreground - background)
    images += generator.normal(0, 0.015, images.shape).astype(np.float32)  # sensor noise
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8), coverage >= 0.5


def _coverage(labels: np.ndarray, generator: np.random.Generator) -> Floats:  # (n, H, W) in [0, 1]
    """Fraction of each pixel covered by the object."""
    count = len(labels)
    areas = generator.uniform(*_AREAS, count)
    tilt = generator.uniform(-_MAX_TILT, _MAX_TILT, count)
    widest = max(reach for *_, reach in _measures().values())
    # the range of the widest shape, so that the position does not reveal the class
    free = np.maximum(SIZE / 2 - widest * np.sqrt(areas), 1.0)
    center = SIZE / 2 + generator.uniform(-1, 1, (2, count)) * free
    samples = SIZE * _SUPERSAMPLING
    positions = ((np.arange(samples) + 0.5) / _SUPERSAMPLING).astype(np.float32)
    inside = np.empty((count, samples, samples), dtype=bool)
    for label, (name, shape) in enumerate(SHAPES.items()):
        area, middle_x, middle_y, _ = _measures()[name]
        members = labels == label
        zoom = np.sqrt(area / areas[members])
        cos, sin = (
            (np.cos(tilt[members]) * zoom)[:, None, None],
            (np.sin(tilt[members]) * zoom)[:, None, None],
        )
        dx, dy = (
            (positions[None, None, :] - center[0, members, None, None]),
            (positions[None, :, None] - center[1, members, None, None]),
        )
        x = (cos * dx + middle_x).astype(np.float32) + (sin * dy).astype(np.float32)
        y = (-sin * dx + middle_y).astype(np.float32) + (cos * dy).astype(np.float32)
        inside[members] = shape(x, y)
    cells = inside.reshape(count, SIZE, _SUPERSAMPLING, SIZE, _SUPERSAMPLING)
    covered: Floats = cells.mean((2, 4), dtype=np.float32)
    return covered


def _polygon(points: list[tuple[float, float]]) -> Inside:
    """The inside of a polygon (even-odd rule)."""

    def inside(x: Floats, y: Floats) -> Bools:
        odd = np.zeros(x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (
                    x < (y - y0) * np.float32((x1 - x0) / (y1 - y0)) + np.float32(x0)
                )
        return odd

    return inside


def _corners(radii: list[float]) -> list[tuple[float, float]]:
    """Points at these distances from the center, at equal angles, the first at the top."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return [
        (r * float(np.sin(a)), -r * float(np.cos(a))) for r, a in zip(radii, angles, strict=True)
    ]


def _circle(x: Floats, y: Floats) -> Bools:
    return x * x + y * y < 1


def _ring(x: Floats, y: Floats) -> Bools:
    square = x * x + y * y
    return (square < 1) & (square > 0.52**2)


def _crescent(x: Floats, y: Floats) -> Bools:
    return (x * x + y * y < 1) & ((x - 0.48) ** 2 + y * y > 0.78**2)


def _heart(x: Floats, y: Floats) -> Bools:
    mirrored = np.abs(x)
    lobes = (mirrored - 0.5) ** 2 + (y + 0.35) ** 2 < 0.52**2
    # between the lobes and tangent to them
    tip = (y > -0.35) & (mirrored + y < 0.885) & (mirrored - y < 0.85)
    return lobes | tip


def _cross_corners(arm: float) -> list[tuple[float, float]]:
    return [
        *((-arm, -1.0), (arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm)),
        *((arm, 1.0), (-arm, 1.0), (-arm, arm), (-1.0, arm), (-1.0, -arm), (-arm, -arm)),
    ]


SHAPES: dict[str, Inside] = {
    "circle": _circle,
    "square": _polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _polygon(_corners([1.0] * 3)),
    "star": _polygon(_corners([1.0, 0.45] * 5)),
    "cross": _polygon(_cross_corners(0.3)),
    "ring": _ring,
    "heart": _heart,
    "crescent": _crescent,
    "arrow": _polygon(
        [(0, -1), (0.8, -0.05), (0.3, -0.05), (0.3, 1), (-0.3, 1), (-0.3, -0.05), (-0.8, -0.05)]
    ),
    "hourglass": _polygon([(-0.75, -1), (0.75, -1), (0.12, 0), (0.75, 1), (-0.75, 1), (-0.12, 0)]),
}


@cache
def _measures() -> dict[str, tuple[float, float, float, float]]:
    """Area, x and y of the centroid, and radius / sqrt(area), by shape."""
    positions = ((np.arange(600) + 0.5) / 200 - 1.5).astype(np.float32)
    x, y = np.meshgrid(positions, positions)
    measures = {}
    for name, shape in SHAPES.items():
        inside = shape(x, y)
        area, middle_x, middle_y = (
            9 * float(inside.mean()),
            float(x[inside].mean()),
            float(y[inside].mean()),
        )
        reach = float(np.hypot(x[inside] - middle_x, y[inside] - middle_y).max())
        measures[name] = (area, middle_x, middle_y, reach / area**0.5)
    return measures
