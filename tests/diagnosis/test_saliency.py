from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.explanation import explain
from seewhy.attribution.sanity import SanityCheck
from seewhy.attribution.scores import TrustScore
from seewhy.data.dataset import Split
from seewhy.diagnosis.saliency import LayerMaps, first_shown, layer_maps

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
    maps: LayerMaps


@pytest.fixture
def small() -> Small:
    model, split = network(), split_of(24)
    index = torch.tensor([20, 3, 17, 8, 0])
    predicted = torch.tensor([1, 0, 3, 2, 2])
    maps = layer_maps(model, split, index, predicted, ("hires-cam", "grad-cam"), ("1", "4"))
    return Small(model, split, index, predicted, maps)


@pytest.mark.parametrize(("place", "layer"), [(0, "1"), (1, "4")])
def test_layer_maps_equal_grad_cam_in_float64(small: Small, place: int, layer: str) -> None:
    model, split, index, predicted, found = small
    assert found.methods == ("hires-cam", "grad-cam")
    assert found.layers == ("1", "4")
    assert found.sizes == ((8, 6), (4, 3))
    assert found.values[place].dtype == torch.int8
    images = split.images[index]
    both = np.stack(
        [grad_cams(model, images, goals, int(layer)) for goals in (predicted, split.labels[index])],
        1,
    )
    largest = np.abs(both).max((1, 2, 3), keepdims=True)
    values = found.values[place][:, 1].numpy()
    assert np.abs(values - 127 * both / largest).max() <= 0.5 + 1e-2
    assert (np.abs(values).max((1, 2, 3)) == 127).all()


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam"])
@pytest.mark.parametrize(("place", "layer"), [(0, "1"), (1, "4")])
def test_layer_maps_difference_is_the_map_of_the_difference(
    small: Small, place: int, layer: str, method: str
) -> None:
    model, split, index, predicted, found = small
    images, labels = split.images[index], split.labels[index]
    one = torch.nn.functional.one_hot(predicted, CLASSES).float()
    other = torch.nn.functional.one_hot(labels, CLASSES).float()
    expected = explain(model, images, method, [layer], one - other, warn=False).at(layer).double()
    values = found.values[place][:, found.methods.index(method)].double()
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


def test_layer_maps_difference_is_the_target_predicted_minus_true() -> None:
    model, split = network(), split_of(12)
    with torch.no_grad():
        predicted = model(split.images.float() / 255).argmax(1)
    wrong = (predicted != split.labels).nonzero().flatten()
    found = layer_maps(model, split, wrong, predicted[wrong], ("hires-cam",), ("4",))
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
    difference = (found.values[0][:, 0, 0].double() - found.values[0][:, 0, 1].double()).flatten(1)
    scale = (difference * expected.flatten(1)).sum(1) / expected.flatten(1).square().sum(1)
    assert len(wrong) > 4
    assert (difference - scale[:, None] * expected.flatten(1)).abs().max() <= 1.2


def test_layer_maps_of_equal_targets_are_equal(small: Small) -> None:
    model, split, index, _, _ = small
    found = layer_maps(model, split, index, split.labels[index], ("grad-cam",), ("4",))
    assert torch.equal(found.values[0][:, :, 0], found.values[0][:, :, 1])


def test_layer_maps_shrink_large_maps() -> None:
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
    found = layer_maps(
        model,
        Split(images, torch.tensor([1]), ["a"]),
        torch.tensor([0]),
        torch.tensor([0]),
        ("grad-cam",),
        ("0",),
    )
    assert found.sizes == ((12, 12),)
    assert divmod(int(found.values[0][0, 0, 0].argmax()), 12) == (2, 10)
    assert found.values[0][0, 0, 0, 2, 10] == 127
    assert found.values[0][0, 0, 0, 6:, :6].abs().max() == 0
    assert found.values[0][0, 0, 1].abs().max() == 0  # nothing is said for the other class


def test_layer_maps_of_zero_are_zero() -> None:
    model = network()
    with torch.no_grad():
        model[6].weight.zero_()
    found = layer_maps(
        model,
        split_of(2),
        torch.tensor([0, 1]),
        torch.tensor([1, 2]),
        ("grad-cam",),
        ("4",),
    )
    assert (found.values[0] == 0).all()


def test_layer_maps_take_and_no_images(small: Small) -> None:
    model, split, index, predicted, found = small
    rows = torch.tensor([4, 1])
    some = found.take(rows)
    again = layer_maps(model, split, index[rows], predicted[rows], found.methods, found.layers)
    for taken, values, fresh in zip(some.values, found.values, again.values, strict=True):
        assert torch.equal(taken, values[rows])
        assert torch.equal(taken, fresh)
    none = layer_maps(model, split, index[:0], predicted[:0], found.methods, found.layers)
    assert [tuple(values.shape) for values in none.values] == [(0, 2, 2, 8, 6), (0, 2, 2, 4, 3)]
    assert (none.sizes, none.layers, none.methods) == (found.sizes, found.layers, found.methods)


def test_first_shown_is_of_the_last_layer() -> None:
    """The best one there, unless it is mostly empty or measured worse than random maps."""

    def score(layer: str, gain: float, non_empty: float = 1.0, width: float = 0.1) -> TrustScore:
        summary = BootstrapSummary(gain, (gain - width, gain + width))
        check = SanityCheck(("head",), torch.zeros(1, 2), True)
        return TrustScore(layer, f"{gain}", summary, summary, check, None, None, None, non_empty)

    early, weak, worse = score("early", 0.5), score("late", 0.2), score("late", -0.3)
    assert first_shown([early, weak, worse], "late") is weak
    assert first_shown([early, worse], "late") is early
    unclear = score("late", -0.05)
    assert first_shown([early, worse, unclear], "late") is unclear
    empty = score("late", 0.4, non_empty=0.2)
    assert first_shown([early, empty, weak], "late") is weak
    assert first_shown([early, empty], "late") is early
