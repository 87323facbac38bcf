"""Noisy linear imputation against a sparse solver in float64, and the plain baselines."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from seewhy.attribution import imputation, multigrid
from seewhy.attribution.imputation import BASELINES, blur, noisy_linear
from seewhy.errors import SeewhyError
from seewhy.notation import bind

NEAR = 5e-4  # half of what the docstring promises


def images_of(count, height=40, width=33, channels=3):
    return torch.rand(
        count, channels, height, width, generator=torch.Generator().manual_seed(0)
    ).round()  # extremes: 0 and 1


def solved(image, removed):
    """Pixel by pixel: sum of weights * x = weighted neighbors, for (C, H, W) in float64."""
    channels, height, width = image.shape
    unknown = {
        position: index for index, position in enumerate(zip(*np.nonzero(removed), strict=True))
    }
    matrix, right = lil_matrix((len(unknown), len(unknown))), np.zeros((len(unknown), channels))
    for (row, column), index in unknown.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                position = (row + down, column + across)
                if (down or across) and 0 <= position[0] < height and 0 <= position[1] < width:
                    weight = 1 / 12 if down and across else 1 / 6
                    matrix[index, index] += weight
                    if position in unknown:
                        matrix[index, unknown[position]] -= weight
                    else:
                        right[index] += weight * image[:, position[0], position[1]]
    result = image.astype(np.float64).copy()
    result[:, removed] = spsolve(matrix.tocsc(), right).reshape(len(unknown), channels).T
    return result


def masks(height=40, width=33):
    """Blobs, scattered pixels, all but one pixel, all but an edge, corridors."""
    generator = np.random.default_rng(0)
    smooth = gaussian_filter(generator.normal(size=(height, width)), 4)
    scattered = generator.random((height, width))
    result = {
        f"blobs {share}": smooth > np.quantile(smooth, 1 - share) for share in (0.2, 0.5, 0.9)
    }
    result |= {f"scattered {share}": scattered < share for share in (0.05, 0.6, 0.97)}
    one, edge, corridors = (np.ones((height, width), dtype=bool) for _ in range(3))
    one[0, 0] = False
    edge[:, -1] = False
    corridors[::3] = False
    return result | {"all but a corner": one, "all but an edge": edge, "corridors": corridors}


@pytest.mark.slow
def test_noisy_linear_matches_sparse_solver():
    removed = np.stack(list(masks().values()))
    images = images_of(len(removed))
    expected = np.stack(
        [solved(image, mask) for image, mask in zip(images.numpy(), removed, strict=True)]
    )
    result = noisy_linear(images, torch.from_numpy(removed), noise=0.0)
    np.testing.assert_allclose(result.numpy(), expected, atol=NEAR)


@pytest.mark.slow
def test_eight_iterations_are_enough(monkeypatch):
    removed = masks(80, 75)["blobs 0.9"]
    image = images_of(1, 80, 75, channels=1)
    monkeypatch.setattr(multigrid, "MAX_ITERATIONS", 8)
    result = noisy_linear(image, torch.from_numpy(removed[None]), noise=0.0)
    np.testing.assert_allclose(result[0].numpy(), solved(image[0].numpy(), removed), atol=NEAR)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300), (300, 1), (5, 64)])
def test_noisy_linear_of_thin_images(size):
    removed = np.random.default_rng(1).random(size) < 0.97
    removed[0, 0] = False
    image = images_of(1, *size)
    result = noisy_linear(image, torch.from_numpy(removed[None]), noise=0.0)
    np.testing.assert_allclose(result[0].numpy(), solved(image[0].numpy(), removed), atol=1e-3)


def test_noisy_linear_continues_slope():
    slope = (0.1 + 0.02 * torch.arange(20.0)[:, None] + 0.01 * torch.arange(30.0)).expand(
        1, 2, 20, 30
    )
    removed = torch.zeros(1, 20, 30, dtype=torch.bool)
    removed[:, 3:18, 4:27] = True
    torch.testing.assert_close(noisy_linear(slope, removed, noise=0.0), slope, atol=NEAR, rtol=0)


def test_noisy_linear_keeps_known_pixels():
    images, removed = images_of(2), torch.zeros(2, 40, 33, dtype=torch.bool)
    removed[1, 5:9] = True
    result = noisy_linear(images, removed, noise=0.5)
    assert torch.equal(result[0], images[0])
    known = ~removed[1].expand(3, 40, 33)
    assert torch.equal(result[1][known], images[1][known])
    assert not torch.equal(result[1], images[1])


def test_noisy_linear_of_unknown_image_is_gray():
    images, removed = images_of(3), torch.from_numpy(np.stack([masks()["blobs 0.5"]] * 3))
    removed[1] = True
    result = noisy_linear(images, removed, noise=0.0)
    assert (result[1] == 0.5).all()
    torch.testing.assert_close(
        result[[0, 2]], noisy_linear(images[[0, 2]], removed[[0, 2]], noise=0.0), atol=NEAR, rtol=0
    )


def test_noisy_linear_noise():
    images, removed = images_of(4), torch.from_numpy(np.stack([masks()["blobs 0.9"]] * 4))

    def noisy(seed):
        return noisy_linear(images, removed, 0.1, torch.Generator().manual_seed(seed))

    noise = (noisy(0) - noisy_linear(images, removed, noise=0.0))[
        removed[:, None].expand_as(images)
    ]
    assert abs(float(noise.std()) - 0.1) < 0.003
    assert abs(float(noise.mean())) < 0.003
    assert torch.equal(noisy(0), noisy(0))
    assert not torch.equal(noisy(0), noisy(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_noisy_linear_types_and_memory_formats(dtype):
    images, removed = images_of(2), torch.from_numpy(np.stack([masks()["blobs 0.5"]] * 2))
    expected = noisy_linear(images, removed, noise=0.0)
    result = noisy_linear(images.to(dtype, memory_format=torch.channels_last), removed, noise=0.0)
    assert result.dtype == dtype
    torch.testing.assert_close(
        result.float(), expected, atol=0.004 if dtype == torch.bfloat16 else NEAR, rtol=0
    )


def test_noisy_linear_in_batches_and_inference_mode(monkeypatch):
    images, removed = images_of(3), torch.from_numpy(np.stack(list(masks().values())[:3]))
    expected = noisy_linear(images, removed, noise=0.0)
    monkeypatch.setitem(imputation.BATCH_VALUES, "cpu", 1)
    with torch.inference_mode():
        result = noisy_linear(images, removed, noise=0.0)
    torch.testing.assert_close(result, expected, atol=NEAR, rtol=0)


def test_plain_baselines():
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    result = {
        name: bind(BASELINES, name, "baseline", n_supplied=1)(images)
        for name in ("black", "gray", "mean")
    }
    assert (result["black"] == 0).all()
    assert (result["gray"] == 0.5).all()
    expected = np.broadcast_to(
        images.numpy().astype(np.float64).mean((2, 3), keepdims=True), images.shape
    )
    np.testing.assert_allclose(result["mean"].numpy(), expected, atol=1e-6)
    assert {each.shape for each in result.values()} == {images.shape}


@pytest.mark.parametrize("width", [0.02, 0.1, 0.6])
def test_blur_matches_gaussian_filter(width):
    images, sigma = images_of(2).double(), width * 33
    radius = max(1, round(3 * sigma))
    expected = gaussian_filter(images.numpy(), sigma, axes=(2, 3), mode="nearest", radius=radius)
    np.testing.assert_allclose(blur(images, width).numpy(), expected, atol=1e-9)


REMOVED = torch.zeros(2, 40, 33, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda images: noisy_linear((images * 255).to(torch.uint8), REMOVED),
            r"needs images \(N, C, H, W\) float",
        ),
        (
            lambda images: noisy_linear(images, REMOVED[:1]),
            r"needs removed \(2, 40, 33\) bool, one mask per image, found \(1, 40, 33\)",
        ),
        (
            lambda images: noisy_linear(images, REMOVED.to(torch.uint8)),
            r"found \(2, 40, 33\) uint8",
        ),
        (lambda images: noisy_linear(images, REMOVED, noise=-0.1), "at least 0, found -0.1"),
        (lambda images: blur(images, 0), "blur needs a width above 0, .*found 0"),
    ],
)
def test_imputation_errors(call, message):
    with pytest.raises(SeewhyError, match=message):
        call(images_of(2))
