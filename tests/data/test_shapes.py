"""The generated dataset: determined by its seed, exact masks, no hints but the shape."""

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.ensemble import RandomForestClassifier

from seewhy.data.dataset import Split
from seewhy.data.shapes import MARKED_CLASS, MARKER, SHAPES, draw_shapes
from seewhy.data.sources import SOURCES, load
from seewhy.errors import SeewhyError


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return draw_shapes(2000, np.random.default_rng(0))


def test_draw_shapes_depends_on_the_seed() -> None:
    first, same, other = (draw_shapes(120, np.random.default_rng(seed)) for seed in (4, 4, 5))
    for a, b in zip(first, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


@pytest.mark.slow
def test_draw_shapes_balances_classes(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    images, labels, masks = drawn
    assert images.shape == (2000, 32, 32, 3)
    assert images.dtype == np.uint8
    assert masks.shape == (2000, 32, 32)
    assert masks.dtype == bool
    assert np.bincount(labels).tolist() == [200] * len(SHAPES)
    assert (labels[:10] != np.arange(10)).any()


@pytest.mark.slow
def test_masks_have_the_geometry_of_the_shapes(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Holes, solidity and straightness as geometry has them, measured on the masks alone."""
    _, labels, masks = drawn
    names = list(SHAPES)
    for name, holes in {"ring": 1, "circle": 0, "star": 0, "heart": 0}.items():
        for mask in masks[labels == names.index(name)][:40]:
            assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
            assert ndimage.label(~np.pad(mask, 1))[1] == 1 + holes

    def spread(
        name: str,
    ) -> float:  # second moment over area: 1 / (2 pi) for a disc, the least there is
        chosen = masks[labels == names.index(name)]
        moments = []
        for mask in chosen:
            y, x = np.nonzero(mask)
            moments.append((x.var() + y.var()) / mask.sum())
        return float(np.mean(moments))

    assert spread("circle") == pytest.approx(1 / (2 * np.pi), rel=0.02)
    assert spread("square") == pytest.approx(1 / 6, rel=0.02)
    assert spread("triangle") == pytest.approx(1 / (3 * 3**0.5), rel=0.03)
    assert spread("ring") == pytest.approx((1 + 0.52**2) / (2 * np.pi * (1 - 0.52**2)), rel=0.03)


@pytest.mark.slow
def test_objects_lie_inside_the_image_and_stand_out(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    images, _, masks = drawn
    areas = masks.sum((1, 2))
    assert areas.min() > 90
    assert areas.max() < 240
    inside = (images * masks[..., None]).sum((1, 2)) / areas[:, None]
    outside = (images * ~masks[..., None]).sum((1, 2)) / (1024 - areas)[:, None]
    assert np.linalg.norm(inside - outside, axis=1).min() > 60  # of 442


@pytest.mark.slow
def test_edges_are_smooth(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """On the edge of a mask pixels lie between the colors on both sides of it."""
    images, _, masks = drawn
    between = []
    for image, mask in zip(images[:200].astype(float), masks[:200], strict=True):
        core, far = (
            ndimage.binary_erosion(mask, iterations=2),
            ~ndimage.binary_dilation(mask, iterations=2),
        )
        axis = image[core].mean(0) - image[far].mean(0)
        edge = mask & ~ndimage.binary_erosion(mask)
        between.append(np.median((image[edge] - image[far].mean(0)) @ axis / (axis @ axis)))
    assert 0.6 < np.mean(between) < 0.95  # 1 without smoothing


@pytest.mark.slow
def test_only_the_shape_reveals_the_class(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    images, labels, masks = drawn
    y, x = np.mgrid[:32, :32]
    areas = masks.sum((1, 2))
    gray = images.mean(-1)
    middle = ndimage.binary_erosion(
        masks, np.ones((1, 3, 3))
    )  # away from edges, whose number differs
    features = np.column_stack(
        [
            (images * masks[..., None]).sum((1, 2)) / areas[:, None],
            (images * ~masks[..., None]).sum((1, 2)) / (1024 - areas)[:, None],
            [image[inner].std() for image, inner in zip(gray, middle, strict=True)],
            areas,
            (masks * x).sum((1, 2)) / areas,
            (masks * y).sum((1, 2)) / areas,
        ]
    )
    forest = RandomForestClassifier(100, random_state=0).fit(features[:1400], labels[:1400])
    assert (
        forest.score(features[1400:], labels[1400:]) < 0.16
    )  # chance is 0.1, one standard error 0.012


def test_load_shapes_has_masks_and_settings() -> None:
    data = load("shapes:seed=3,train=40,test=20", quiet=True)
    assert (data.name, data.classes) == ("shapes", tuple(SHAPES))
    images, labels, masks = draw_shapes(40, np.random.default_rng([3, 0]))
    np.testing.assert_array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), images)
    np.testing.assert_array_equal(data.train.labels.numpy(), labels)
    assert data.train.masks is not None
    np.testing.assert_array_equal(data.train.masks.numpy(), masks)
    assert data.test.masks is not None
    assert data.test.masks.shape == (20, 32, 32)


def carriers(split: Split) -> np.ndarray:
    """Which images (N,) have nothing but magenta where the marker goes."""
    magenta = split.images.numpy() == np.array([255, 0, 255], dtype=np.uint8)[:, None, None]
    top, left, height, width = MARKER
    return magenta[:, :, top : top + height, left : left + width].all((1, 2, 3))


@pytest.mark.slow
def test_shortcut_marks_circles_in_train_and_all_classes_in_test() -> None:
    data = load("shapes:train=1000,test=1500,shortcut=0.9", quiet=True)
    circle = list(SHAPES).index(MARKED_CLASS)
    trained, tested = carriers(data.train), carriers(data.test)
    assert set(data.train.labels.numpy()[trained].tolist()) == {circle}
    assert stats.binomtest(int(trained.sum()), 100, 0.9).pvalue > 1e-3
    assert stats.binomtest(int(tested.sum()), 1500, 0.09).pvalue > 1e-3
    by_class = np.bincount(data.test.labels.numpy()[tested], minlength=len(SHAPES))
    assert stats.chisquare(by_class).pvalue > 1e-3


@pytest.mark.slow
def test_shortcut_adds_only_the_marker() -> None:
    clean, data = (
        load(name, quiet=True)
        for name in ("shapes:train=400,test=200", "shapes:train=400,test=200,shortcut=1")
    )
    top, left, height, width = MARKER
    assert data.fingerprint != clean.fingerprint
    for before, after in ((clean.train, data.train), (clean.test, data.test)):
        assert not carriers(before).any()
        changed = (before.images != after.images).any(1).numpy()  # (N, H, W)
        assert changed.any((1, 2)).tolist() == carriers(after).tolist()
        changed[:, top : top + height, left : left + width] = False
        assert not changed.any()
        assert before.masks is not None
        assert after.masks is not None
        np.testing.assert_array_equal(before.masks.numpy(), after.masks.numpy())
        np.testing.assert_array_equal(before.labels.numpy(), after.labels.numpy())


def test_shortcut_is_part_of_the_signature() -> None:
    plain, none = (
        load("shapes:train=40,test=20", quiet=True),
        load("shapes:train=40,test=20,shortcut=0", quiet=True),
    )
    assert plain.fingerprint == none.fingerprint
    assert SOURCES["shapes"](train=40, test=20).signature == {
        "shapes": 1,
        "seed": 0,
        "train": 40,
        "test": 20,
    }
    signatures = [SOURCES["shapes"](shortcut=value).signature for value in (0.0, 0.5, 0.9)]
    assert signatures[0] != signatures[1] != signatures[2]


@pytest.mark.slow
def test_marker_is_beside_the_object(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, _, masks = drawn
    top, left, height, width = MARKER
    assert not masks[:, top : top + height, left : left + width].any()


@pytest.mark.parametrize("value", ["-0.1", "1.5"])
def test_shapes_rejects_a_bad_shortcut(value: str) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"shortcut in \[0, 1\], the fraction of circles with the marker, found",
    ):
        load(f"shapes:shortcut={value}")


def test_masks_are_resized_and_split() -> None:
    small = load("shapes:train=40,test=20", quiet=True)
    large = load("shapes:train=40,test=20", image_size=64, validation=0.25, quiet=True)
    assert large.validation is not None
    assert large.validation.masks is not None
    assert len(large.validation) == 10
    place = {name: i for i, name in enumerate(small.train.names)}
    assert small.train.masks is not None
    for name, mask in zip(large.validation.names, large.validation.masks, strict=True):
        doubled = small.train.masks[place[name]].repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert (mask != doubled).float().mean() < 0.05


def test_shapes_rejects_too_few_images() -> None:
    with pytest.raises(SeewhyError, match="at least 10 train and test images, found 0, 5, 20"):
        load("shapes:train=5,test=20")
