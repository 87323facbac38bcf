"""Generated photographs: random images with the spectrum of natural ones."""

import numpy as np


def photographs(count: int, seed: int, side: int = 32, channels: int = 3) -> np.ndarray:
    """Random images with the spectrum of natural ones and correlated channels."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1
    noise = rng.normal(size=(count, 1, side, side)) + 0.5 * rng.normal(
        size=(count, channels, side, side)
    )
    images = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    images /= images.std((1, 2, 3), keepdims=True)
    return np.clip(128 + 50 * images, 0, 255).astype(np.uint8)
