"""What the pictures of `shapes` are painted with: six textures in two shades each, and clutter on the ground."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_CLUTTER = 6  # pieces per picture
_CANDIDATES = 16  # pairs of colours tried for one with enough contrast
_CONTRAST = 0.75  # least distance in RGB, of 1.73 at most, between an object and its ground
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def textured(count: int, size: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Ground with clutter, and the surface to cut an object from: each (N, size, size, 3) float32 in [0, 1].

    Their colours are far apart, their textures independent.
    """
    ground_colour, surface_colour = _contrasting(count, generator)
    ground = _textured(ground_colour, size, generator)
    surface = _textured(surface_colour, size, generator)
    for _ in range(_CLUTTER):
        colour = np.clip(ground_colour + generator.uniform(-0.4, 0.4, (count, 3)), 0, 1).astype(np.float32)
        ground += _stroke(count, size, generator)[..., None] * (colour[:, None, None] - ground)
    return ground, surface


def _contrasting(count: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Two colours (N, 3) float32 in [0, 1]: the first of some random pairs that contrast enough, and differ in brightness."""
    pairs = generator.uniform(0, 1, (2, count, _CANDIDATES, 3)).astype(np.float32)
    difference = pairs[0] - pairs[1]
    distance = np.linalg.norm(difference, axis=-1)
    enough = (distance > _CONTRAST) & (np.abs(difference @ _LUMA) > _CONTRAST / 3)
    chosen = np.where(enough.any(1), enough.argmax(1), distance.argmax(1))
    first, second = pairs[:, np.arange(count), chosen]
    return first, second


def _textured(colour: Floats, size: int, generator: np.random.Generator) -> Floats:  # (N, size, size, 3)
    """A texture in `colour` (N, 3) and a second shade of it."""
    count = len(colour)
    direction = generator.normal(size=(count, 3))
    length = generator.uniform(0.2, 0.5, (count, 1))
    shade = (direction / np.linalg.norm(direction, axis=1, keepdims=True) * length).astype(np.float32)
    pattern = _pattern(count, size, generator)[..., None]
    painted: Floats = np.clip(colour[:, None, None] + (pattern - 0.5) * shade[:, None, None], 0, 1)
    return painted


def _pattern(count: int, size: int, generator: np.random.Generator) -> Floats:  # (N, size, size) float32 in [0, 1]
    """How much of the second shade is where, in one of six textures for each picture, turned and shifted at random."""
    angle, phase_u, phase_v = generator.uniform(0, 2 * np.pi, (3, count, 1, 1)).astype(np.float32)
    period = generator.uniform(4, 8, (count, 1, 1)).astype(np.float32)  # pixels
    waves = generator.normal(0, 0.6, (4, 2, count, 1, 1)).astype(np.float32)  # radians per pixel
    at = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x, y = at[None, None, :], at[None, :, None]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    u_wave, v_wave = np.sin(2 * np.pi * u / period + phase_u), np.sin(2 * np.pi * v / period + phase_v)
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
    """A wave turned into two levels with an edge one pixel wide, so that it does not alias."""
    levels: Floats = np.clip(0.5 + wave * period / (2 * np.pi), 0, 1)
    return levels


def _stroke(count: int, size: int, generator: np.random.Generator) -> Floats:  # (N, size, size) float32 in [0, 1]
    """Coverage of a short line with round ends: a speck if it is short."""
    start = generator.uniform(0, size, (2, count, 1, 1)).astype(np.float32)
    angle = generator.uniform(0, 2 * np.pi, (count, 1, 1))
    length = generator.uniform(0, size / 2, (count, 1, 1))
    along = (length * np.cos(angle)).astype(np.float32), (length * np.sin(angle)).astype(np.float32)
    radius = generator.uniform(0.5, 1.6, (count, 1, 1)).astype(np.float32)
    at = np.arange(size, dtype=np.float32) + 0.5
    x, y = at[None, None, :] - start[0], at[None, :, None] - start[1]
    share = np.clip((x * along[0] + y * along[1]) / np.maximum(length**2, 1e-6), 0, 1).astype(np.float32)
    distance = np.hypot(x - share * along[0], y - share * along[1])
    coverage: Floats = np.clip(0.5 + radius - distance, 0, 1)
    return coverage
