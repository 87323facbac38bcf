"""The mosaic game, on models whose relevant pixels are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from seewhy.attribution.mosaics import CHANCE, auroc, make_mosaics, mosaic_game
from seewhy.attribution.sanity import SanityCheck
from seewhy.attribution.scores import trust
from seewhy.attribution.target import prepare, run_forward
from seewhy.errors import SeewhyError

COUNT, SIDE, CLASSES = 16, 8, 4


class Colors(nn.Module):
    """A class is the mean of its channel over the image, whatever its size."""

    def __init__(self, side: int | None = None) -> None:
        super().__init__()
        self.color = nn.Conv2d(CLASSES, CLASSES, 1, bias=False)
        self.color.weight.data = 8 * torch.eye(CLASSES)[:, :, None, None]
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.side is not None and x.shape[2] != self.side:
            raise ValueError(f"only images of {self.side} pixels")
        return self.color(x).mean((2, 3))


def images_and_labels(side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with the channel of their class in their lower half, and noise."""
    labels = torch.arange(COUNT) % CLASSES
    noise = torch.rand(COUNT, CLASSES, side, side, generator=torch.Generator().manual_seed(0))
    images = 0.1 * noise
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label, side // 2 :] += 0.8
    return images, labels


IMAGES, LABELS = images_and_labels()


def mosaics_of(model, images=IMAGES, labels=LABELS, count=12):
    inputs = prepare(model, images, labels=labels)
    return make_mosaics(inputs, run_forward(inputs).logits, count)


def evidence(capture):  # the output of the layer is one map per class
    rows = torch.arange(len(capture.activation))
    return capture.activation[rows, capture.forward.target].clone()


def upside_down(capture):
    return evidence(capture).flip(1)


def center(capture):
    height, width = capture.activation.shape[2:]
    y, x = (torch.linspace(-1, 1, side) for side in (height, width))
    blob = torch.exp(-3 * (y[:, None] ** 2 + x**2))
    return blob.expand(len(capture.activation), -1, -1).clone()


def test_mosaics_hold_four_images_and_one_of_the_class():
    found = mosaics_of(Colors().eval())
    assert found.images.shape == (12, CLASSES, 2 * SIDE, 2 * SIDE)
    tops = found.masks.float().flatten(1).argmax(1)  # the first pixel of each quarter
    assert torch.bincount(tops).count_nonzero() == 4
    assert set(torch.bincount(tops)[torch.bincount(tops) > 0].tolist()) == {3}
    for image, mask, target in zip(found.images, found.masks, found.target.tolist(), strict=True):
        assert mask.sum() == SIDE**2
        tiles = [
            image[:, top : top + SIDE, left : left + SIDE]
            for top in (0, SIDE)
            for left in (0, SIDE)
        ]
        sources = [
            next(i for i, each in enumerate(IMAGES) if torch.equal(each, tile)) for tile in tiles
        ]
        assert len(set(sources)) == 4
        assert sorted(LABELS[sources].tolist()) == [0, 1, 2, 3]  # all different, as there are four
        inside = image[:, mask].view(CLASSES, SIDE, SIDE)
        assert torch.equal(inside, tiles[LABELS[sources].tolist().index(target)])


def test_mosaics_of_a_model_with_a_fixed_size_are_reduced():
    found = mosaics_of(Colors(SIDE).eval())
    assert found.images.shape == (12, CLASSES, SIDE, SIDE)
    assert (found.masks.sum((1, 2)) == SIDE**2 // 4).all()
    for image, mask, target in zip(found.images, found.masks, found.target.tolist(), strict=True):
        brightest = image[target].mean().item()
        assert image[target][mask].mean() > brightest


def test_mosaics_need_four_recognized_images_of_two_classes():
    model = Colors().eval()
    assert mosaics_of(model, IMAGES[:3], LABELS[:3]) is None
    assert mosaics_of(model, IMAGES[::4], LABELS[::4]) is None  # of one class
    assert mosaics_of(model, IMAGES, (LABELS + 1) % CLASSES) is None  # none is recognized
    two = LABELS < 2
    assert len(mosaics_of(model, IMAGES[two], LABELS[two]).images) == 8
    with pytest.raises(SeewhyError, match="needs 4 images that the model recognizes") as caught:
        mosaic_game(model, IMAGES[:3], evidence, "color")
    assert "\n" not in str(caught.value)


class TopHalf(Colors):
    """Sees only the upper half of what it is given, so that half of the corners do not count."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.color(x)[:, :, : x.shape[2] // 2].mean((2, 3))


def test_mosaics_that_are_not_recognized_are_left_out():
    images, labels = IMAGES.flip(2), LABELS  # bright above
    found = mosaics_of(TopHalf().eval(), images, labels)
    assert 4 <= len(found.images) < 12
    assert found.masks[:, :SIDE].any((1, 2)).all()


def test_mosaic_game_tells_right_maps_from_wrong_ones():
    methods = [evidence, upside_down, center]
    scores = mosaic_game(Colors().eval(), IMAGES, methods, "color", labels=LABELS)
    right, wrong, blob = (scores["color", each.__name__] for each in methods)
    assert right.mosaics == COUNT
    assert right.passed
    assert right.pointing.mean == 1
    assert right.relevance_mass.mean > 0.7
    assert right.auroc.mean > 0.75
    assert not wrong.passed
    assert wrong.pointing.mean == 0
    assert wrong.auroc.mean < 0.5
    assert not blob.passed
    assert blob.relevance_mass.mean == pytest.approx(CHANCE, abs=1e-6)
    assert blob.auroc.mean == pytest.approx(0.5, abs=1e-6)


def test_trust_refuses_maps_that_point_elsewhere_in_mosaics():
    """Each image is the same above and below, so that only mosaics tell a map from its mirror."""
    images = IMAGES.clone()
    images[:, :, : SIDE // 2] = images[:, :, SIDE // 2 :].flip(2)
    images[:, :, :, SIDE // 2 :] *= 0.1  # the left half has all the evidence
    scores = {
        score.method: score
        for score in trust(
            Colors().eval(), images, [evidence, upside_down], "color", labels=LABELS, steps=4
        )
    }
    passed = SanityCheck(("color",), torch.zeros(1, COUNT), True)
    right, wrong = (replace(scores[each], sanity=passed) for each in ("evidence", "upside_down"))
    assert right.gain.interval[0] > 0
    assert wrong.gain.interval[0] > 0
    assert right.trusted
    assert not wrong.mosaic.passed
    assert not wrong.trusted
    assert replace(wrong, mosaic=None).trusted


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (16, 16)])
def test_auroc_is_that_of_scikit_learn(shape):
    generator = torch.Generator().manual_seed(0)
    maps = (8 * torch.rand(3, *shape, generator=generator)).round()  # with ties
    masks = torch.zeros(3, 48, 48, dtype=torch.bool)
    masks[:, :24, 24:] = True
    small = np.zeros(shape, bool)
    small[: shape[0] // 2, shape[1] // 2 :] = True
    expected = [roc_auc_score(small.ravel(), each.numpy().ravel()) for each in maps]
    np.testing.assert_allclose(auroc(maps, masks).numpy(), expected, atol=1e-6)


def test_auroc_of_an_odd_map_has_no_position_between_two_images():
    """Equal columns, and a mask over the upper half: the middle row is halved between both."""
    maps = torch.tensor([1.0, 0.5, 0.0])[None, :, None].expand(1, 3, 3)
    masks = torch.zeros(1, 12, 12, dtype=torch.bool)
    masks[:, :6] = True
    assert auroc(maps, masks).item() == 1
    assert auroc(maps.flip(1), masks).item() == 0
