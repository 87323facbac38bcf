from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution.explanation import explain
from seewhy.attribution.statuses import PIXELS
from seewhy.data.dataset import Split
from seewhy.diagnosis.error_maps import MapPairs, map_pairs
from seewhy.errors import SeewhyError

CLASSES = 4


def network() -> nn.Module:
    """Layers of 8x6 and 4x3 positions for images of 8x6."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(60, CLASSES),
    ).eval()


def split_of(count: int) -> Split:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 8, 6), generator=generator).byte()
    return Split(images, torch.arange(count) % CLASSES, [str(index) for index in range(count)])


def grad_cams(
    model: nn.Module, images: Tensor, goals: Tensor, layer: int
) -> np.ndarray:  # (N, h, w) float64
    """Grad-CAM of one logit an image, by the definition, in float64, one image at a time."""
    double = network().double()
    maps = []
    for image, goal in zip(images, goals.tolist(), strict=True):
        activation = double[: layer + 1](image[None].double() / 255).detach().requires_grad_()
        double[layer + 1 :](activation)[0, goal].backward()
        assert activation.grad is not None
        weights = activation.grad.mean((2, 3), keepdim=True)
        maps.append((weights * activation).sum(1)[0].detach())
    return torch.stack(maps).numpy()


class Small(NamedTuple):
    """A network, images, which of them were explained, for which class, and the maps."""

    model: nn.Module
    split: Split
    index: Tensor
    predicted: Tensor
    maps: MapPairs


@pytest.fixture
def small() -> Small:
    model, split = network(), split_of(24)
    index = torch.tensor([20, 3, 17, 8, 0])
    predicted = torch.tensor([1, 0, 3, 2, 2])
    maps = map_pairs(model, split, index, predicted, ("hires-cam", "grad-cam"), ("1", "4"))
    return Small(model, split, index, predicted, maps)


@pytest.mark.parametrize(("place", "layer"), [(0, "1"), (1, "4")])
def test_map_pairs_equal_grad_cam_in_float64(small: Small, place: int, layer: str) -> None:
    model, split, index, predicted, found = small
    assert found.methods == ("hires-cam", "grad-cam")
    assert found.layers == ("1", "4")
    pairs = found.of("grad-cam")
    assert [tuple(values.shape) for values in pairs] == [(5, 2, 8, 6), (5, 2, 4, 3)]
    assert pairs[place].dtype == torch.int8
    images = split.images[index]
    both = np.stack(
        [grad_cams(model, images, goals, int(layer)) for goals in (predicted, split.labels[index])],
        1,
    )
    largest = np.abs(both).max((1, 2, 3), keepdims=True)
    values = pairs[place].numpy()
    assert np.abs(values - 127 * both / largest).max() <= 0.5 + 1e-2
    assert (np.abs(values).max((1, 2, 3)) == 127).all()


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam"])
@pytest.mark.parametrize(("place", "layer"), [(0, "1"), (1, "4")])
def test_map_pairs_difference_is_the_map_of_the_difference(
    small: Small, place: int, layer: str, method: str
) -> None:
    model, split, index, predicted, found = small
    images, labels = split.images[index], split.labels[index]
    one = torch.nn.functional.one_hot(predicted, CLASSES).float()
    other = torch.nn.functional.one_hot(labels, CLASSES).float()
    expected = explain(model, images, method, [layer], one - other, warn=False).at(layer).double()
    values = found.of(method)[place].double()
    difference = values[:, 0] - values[:, 1]
    if method == "grad-cam":
        difference = difference.clamp_min(0)  # as in its paper
    for image in range(len(index)):
        if expected[image].abs().max() > 0:
            scale = (difference[image] * expected[image]).sum() / expected[
                image
            ].square().sum()  # by least squares
            assert (
                difference[image] - scale * expected[image]
            ).abs().max() <= 1.2  # two roundings of a half each


def test_map_pairs_difference_is_the_target_predicted_minus_true() -> None:
    model, split = network(), split_of(12)
    with torch.no_grad():
        predicted = model(split.images.float() / 255).argmax(1)
    wrong = (predicted != split.labels).nonzero().flatten()
    found = map_pairs(model, split, wrong, predicted[wrong], ("hires-cam",), ("4",))
    some = split.take(wrong)
    expected = (
        explain(
            model,
            some.images,
            "hires-cam",
            ["4"],
            ("predicted", "true"),
            labels=some.labels,
            warn=False,
        )
        .at("4")
        .double()
    )
    difference = (found.values[0][:, 0].double() - found.values[0][:, 1].double()).flatten(1)
    scale = (difference * expected.flatten(1)).sum(1) / expected.flatten(1).square().sum(1)
    assert len(wrong) > 4
    assert (difference - scale[:, None] * expected.flatten(1)).abs().max() <= 1.2


def test_map_pairs_of_equal_targets_are_equal(small: Small) -> None:
    model, split, index, _, _ = small
    found = map_pairs(model, split, index, split.labels[index], ("grad-cam",), ("4",))
    assert torch.equal(found.values[0][:, 0], found.values[0][:, 1])


def test_map_pairs_shrink_large_maps() -> None:
    class Shown(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images

    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), Shown(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    ).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 0.0])[:, None, None, None])
        model[0].bias.zero_()
        model[4].weight.copy_(torch.eye(2))
    images = torch.zeros(1, 1, 48, 24, dtype=torch.uint8)
    images[0, 0, 8:12, 20:22] = 255  # of 12 x 12 places, row 2 and column 10
    found = map_pairs(
        model,
        Split(images, torch.tensor([1]), ["a"]),
        torch.tensor([0]),
        torch.tensor([0]),
        ("grad-cam",),
        ("0",),
    )
    assert found.values[0].shape == (1, 2, 12, 12)
    assert divmod(int(found.values[0][0, 0].argmax()), 12) == (2, 10)
    assert found.values[0][0, 0, 2, 10] == 127
    assert found.values[0][0, 0, 6:, :6].abs().max() == 0
    assert found.values[0][0, 1].abs().max() == 0  # nothing is said for the other class


def test_map_pairs_of_zero_are_zero() -> None:
    model = network()
    with torch.no_grad():
        model[6].weight.zero_()
    found = map_pairs(
        model,
        split_of(2),
        torch.tensor([0, 1]),
        torch.tensor([1, 2]),
        ("grad-cam",),
        ("4",),
    )
    assert (found.values[0] == 0).all()


def test_map_pairs_take_and_no_images(small: Small) -> None:
    model, split, index, predicted, found = small
    rows = torch.tensor([4, 1])
    some = found.take(rows)
    again = map_pairs(model, split, index[rows], predicted[rows], found.methods, found.layers)
    for taken, values, fresh in zip(some.values, found.values, again.values, strict=True):
        assert torch.equal(taken, values[rows])
        assert torch.equal(taken, fresh)
    none = map_pairs(model, split, index[:0], predicted[:0], found.methods, found.layers)
    assert [tuple(values.shape) for values in none.values] == 2 * [(0, 2, 8, 6), (0, 2, 4, 3)]
    assert none.keys == found.keys


class Transformer(nn.Module):
    """Two blocks of attention between 4x4 patches of images of 8x8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        pooled: Tensor = self.head(self.blocks(tokens).mean(1))
        return pooled


def test_map_pairs_of_attention_need_no_layer() -> None:
    """The maps of `explain`, once and not for each layer, after those that were named first."""
    model = Transformer().eval()
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    split = Split(images, torch.arange(6) % CLASSES, [str(index) for index in range(6)])
    index, predicted = torch.tensor([4, 1]), torch.tensor([2, 3])
    methods, layers = ["layer-cam", "chefer-cam"], ["patches", "blocks.layers.0"]
    found = map_pairs(model, split, index, predicted, methods, layers)
    assert found.keys == (*((layer, "layer-cam") for layer in layers), (PIXELS, "chefer-cam"))
    assert (found.methods, found.layers) == (tuple(methods), tuple(layers))
    assert [found.needs_layer(method) for method in methods] == [True, False]
    (values,) = found.of("chefer-cam")
    expected = torch.stack(
        [
            explain(model, images[index], "chefer-cam", target=target, warn=False).at(PIXELS)
            for target in (predicted, split.labels[index])
        ],
        1,
    )
    scale = 127 / expected.amax((1, 2, 3), keepdim=True)
    assert (values - scale * expected).abs().max() <= 0.5 + 1e-3


def test_map_pairs_name_the_method_that_fails(small: Small) -> None:
    model, split, index, predicted, _ = small
    with pytest.raises(SeewhyError, match="attention maps need a transformer"):
        map_pairs(model, split, index, predicted, ("grad-cam", "chefer-cam"), ("1",))
