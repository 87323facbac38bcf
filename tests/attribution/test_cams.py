"""Class activation maps against their equations and derivatives from finite differences."""

import itertools
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from seewhy.attribution.cams import (
    CAMS,
    cam,
    eigen_cam,
    eigen_grad_cam,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    guided_grad_cam,
    hessian_product,
    hires_cam,
    shapley_cam,
    xgrad_cam,
)
from seewhy.attribution.capture import Capture, capture_layers
from seewhy.attribution.layouts import Layout
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier

HEIGHT, WIDTH, CLASSES = 6, 10, 3
PLACES = HEIGHT * WIDTH


def images_of(count=2, channels=2, height=HEIGHT, width=WIDTH, seed=0):
    return torch.rand(
        count,
        channels,
        height,
        width,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )


def network(above, body=None, seed=0):
    """`body`, the layer, and `above`, the score as a function of it; random weights."""
    model = nn.Sequential(
        OrderedDict(
            body=body or nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()), above=above
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator)
                / math.sqrt(max(1, parameter[0].numel()))
            )
    return model.double().eval()


def bent(activation):
    """A second convolution with a nonlinearity, and a head that knows places."""
    return nn.Sequential(
        nn.Conv2d(4, 5, 3, padding=1), activation(), nn.Flatten(), nn.Linear(5 * PLACES, CLASSES)
    )


def pooled(classes=CLASSES, channels=4, bias=True):
    """Global average pooling and a linear head."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes, bias))


class Attention(nn.Module):
    """Places that look at each other, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, grid):
        tokens = grid.flatten(2).transpose(1, 2)
        return self.head(
            (tokens + self.heads(tokens, tokens, tokens, need_weights=False)[0]).tanh().mean(1)
        )


@torch.no_grad()
def measured(model, images, target, step=1e-6):
    """Activation of the layer, and its gradient by central differences of every value."""
    activation = model.body(images)
    gradient = torch.empty_like(activation)
    for n, values in enumerate(activation):
        nudges = step * torch.eye(values.numel(), dtype=torch.float64).view(-1, *values.shape)
        difference = (
            model.above(values + nudges)[:, target[n]] - model.above(values - nudges)[:, target[n]]
        )
        gradient[n] = (difference / (2 * step)).view(values.shape)
    return activation.numpy(), gradient.numpy()


def made_up(activation, gradient=None):
    """A capture of values that no network gave."""
    gradient = torch.zeros_like(activation) if gradient is None else gradient
    return Capture(
        None, "made up", Layout("NCHW", tuple(activation.shape[2:])), activation, gradient
    )


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def near(result, expected, tolerance=1e-9):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(result), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


# From activation a and gradient g (C, h, w) of one image to the map (h, w), as in the papers.


def by_grad_cam(a, g, row, column):
    return sum(g[k].sum() / (g.shape[1] * g.shape[2]) * a[k, row, column] for k in range(len(a)))


def by_hires_cam(a, g, row, column):
    return sum(g[k, row, column] * a[k, row, column] for k in range(len(a)))


def by_xgrad_cam(a, g, row, column):
    return sum(
        (a[k] / a[k].sum() * g[k]).sum() * a[k, row, column] for k in range(len(a)) if a[k].any()
    )


def by_layer_cam(a, g, row, column):
    return sum(max(g[k, row, column], 0) * a[k, row, column] for k in range(len(a)))


def by_element_wise_grad_cam(a, g, row, column):
    return sum(max(g[k, row, column] * a[k, row, column], 0) for k in range(len(a)))


FORMULAS = {
    "grad-cam": by_grad_cam,
    "hires-cam": by_hires_cam,
    "xgrad-cam": by_xgrad_cam,
    "layer-cam": by_layer_cam,
    "element-wise-grad-cam": by_element_wise_grad_cam,
}


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("method", FORMULAS)
def test_cams_match_formulas(method, activation):
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), activation()
    )  # with Tanh the activation is negative too
    model, images, target = network(bent(activation), body), images_of(), torch.tensor([2, 0])
    activations, gradients = measured(model, images, target)
    expected = np.empty((len(images), HEIGHT, WIDTH))
    for n, row, column in np.ndindex(expected.shape):
        expected[n, row, column] = FORMULAS[method](activations[n], gradients[n], row, column)
    near(CAMS[method](capture_layers(model, images, "body", target)["body"]), expected, 1e-6)


def test_grad_cam_plus_plus_matches_derivatives_of_exponential():
    """Equations 10 and 19, with the second and third derivatives of Y = exp(logit)."""
    model, images, target = network(bent(nn.ReLU)), images_of(), torch.tensor([1, 2])
    expected = np.empty((len(images), HEIGHT, WIDTH))
    for n, a in enumerate(model.body(images).detach()):
        nudge = torch.zeros(a.numel(), dtype=torch.float64, requires_grad=True)
        moved = a + torch.diag(nudge).view(-1, *a.shape)
        derivatives = [model.above(moved)[:, target[n]].exp()]
        for _ in range(3):
            derivatives += torch.autograd.grad(derivatives[-1].sum(), nudge, create_graph=True)
        value, first, second, third = (each.detach().view(a.shape).numpy() for each in derivatives)
        activations = a.numpy()
        weights = np.zeros(len(a))
        for k, row, column in np.ndindex(*a.shape):
            if first[k, row, column] > 0:
                below = 2 * second[k, row, column] + activations[k].sum() * third[k, row, column]
                weights[k] += second[k, row, column] / below * first[k, row, column]
        expected[n] = (
            np.tensordot(weights, activations, 1) / value[0, 0, 0]
        )  # ours are without the factor exp(logit)
    near(grad_cam_plus_plus(capture_layers(model, images, "body", target)["body"]), expected)


def test_grad_cam_plus_plus_of_small_gradients():
    """An epsilon in a denominator would drown the squares and cubes of such gradients."""
    model, images, target = (
        network(bent(nn.ReLU)).float(),
        images_of().float(),
        torch.tensor([1, 2]),
    )
    maps = []
    for _ in range(2):
        for parameter in model.above[-1].parameters():
            parameter.data *= 1e-6
        maps.append(grad_cam_plus_plus(capture_layers(model, images, "body", target)["body"]))
    result = capture_layers(model, images, "body", target)["body"]
    assert result.gradient.abs().max() < 1e-11
    near(maps[1] * 1e6, maps[0], 1e-5)
    limit = torch.einsum("nchw,ncij->nij", result.gradient.clamp(min=0) / 2, result.activation)
    near(maps[1], limit, 1e-5)


def test_grad_cam_plus_plus_is_scale_invariant():
    activation, gradient = noise(2, 4, 5, 5).abs(), noise(2, 4, 5, 5, seed=1)
    near(
        grad_cam_plus_plus(made_up(activation * 64, gradient / 64)),
        grad_cam_plus_plus(made_up(activation, gradient)),
    )


def test_grad_cam_plus_plus_of_negative_sum_is_finite():
    """With a sum of -2 / g the denominator of alpha would be zero."""
    gradient = noise(1, 3, 4, 4).abs()
    activation = -2 / gradient / 16 * 1.0000001
    result = grad_cam_plus_plus(made_up(activation, gradient))
    near(result, ((gradient / 2).sum((2, 3), keepdim=True) * activation).sum(1))


def test_xgrad_cam_of_zero_sum_is_finite():
    """Left and right cancel but for rounding, which would otherwise get all the weight there is."""
    left = noise(1, 6, 5, 7, dtype=torch.float32)
    activation, gradient = (
        torch.cat([left, -left.flip((2, 3))], 3),
        noise(1, 6, 5, 14, seed=1, dtype=torch.float32),
    )
    sums = activation.sum((2, 3)).abs()
    assert 0 < sums.max() < 1e-5
    assert (xgrad_cam(made_up(activation, gradient)) == 0).all()
    activation[:, 0] += 1
    weight = (activation * gradient)[0, 0].sum() / activation[0, 0].sum()
    near(xgrad_cam(made_up(activation, gradient)), weight * activation[:, 0], 1e-5)


def test_four_cams_agree_for_linear_head_on_pooling():
    """Grad-CAM, HiResCAM and XGrad-CAM are CAM divided by the number of places."""
    model, images, target = network(pooled()), images_of(5), torch.tensor([0, 1, 2, 2, 0])
    result = capture_layers(model, images, "body", target)["body"]
    activation, head = model.body(images).detach().numpy(), model.above[-1].weight.detach().numpy()
    expected = [
        sum(head[c, k] * a[k] for k in range(4)) for c, a in zip(target, activation, strict=True)
    ]
    near(cam(result), expected)
    for method in (grad_cam, hires_cam, xgrad_cam):
        near(method(result) * PLACES, expected)


@pytest.mark.parametrize("target", [0, 1, "predicted"])
def test_hires_cam_sums_to_logit(target):
    """Of what is piecewise linear above the layer and has a bias at its end only."""
    straight = nn.Sequential(
        nn.Conv2d(4, 5, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(75, CLASSES),
    )
    model, images = network(straight), images_of(4)
    logits = model(images).detach()
    index = logits.argmax(1) if target == "predicted" else torch.full((4,), target)
    without_bias = logits.gather(1, index[:, None])[:, 0] - model.above[-1].bias.detach()[index]
    near(hires_cam(capture_layers(model, images, "body", target)["body"]).sum((1, 2)), without_bias)


def test_grad_cam_of_pair_is_difference():
    """Of the maps with their sign: what the two ReLUs leave has another difference."""
    model, images = network(bent(nn.ReLU)), images_of(3)
    one, other, contrast = (
        grad_cam(capture_layers(model, images, "body", target)["body"]) for target in (2, 0, (2, 0))
    )
    near(contrast, one - other)
    assert not torch.allclose(
        contrast.clamp(min=0), (one.clamp(min=0) - other.clamp(min=0)).clamp(min=0)
    )


def first_component(values, like):
    """`values` (C, h, w) on numpy's first right singular vector, with the sign of `like`."""
    rows = values.reshape(len(values), -1).T
    *_, right = np.linalg.svd(rows, full_matrices=False)
    projected = (rows @ right[0]).reshape(values.shape[1:])
    return projected if (projected * like).sum() >= 0 else -projected


@pytest.mark.parametrize(("channels", "grid"), [(4, (6, 10)), (24, (3, 5)), (15, (3, 5))])
def test_eigen_cam_matches_svd(channels, grid):
    activation, gradient = noise(5, channels, *grid) + 0.3, noise(5, channels, *grid, seed=1)
    expected = [first_component(a, np.abs(a).sum(0)) for a in activation.numpy()]
    near(eigen_cam(made_up(activation)), expected)
    contributions = (activation * gradient).numpy()
    expected = [first_component(each, each.sum(0)) for each in contributions]
    near(eigen_grad_cam(made_up(activation, gradient)), expected)


def test_eigen_setting_projects_contributions():
    activation, gradient = noise(3, 4, 6, 10).abs(), noise(3, 4, 6, 10, seed=1)
    a, g = activation.numpy(), gradient.numpy()
    positive = g.clip(0)
    alpha = positive / (2 + a.sum((2, 3), keepdims=True) * positive)
    contributions = {
        "grad-cam": g.mean((2, 3), keepdims=True) * a,
        "grad-cam++": alpha.sum((2, 3), keepdims=True) * a,
        "hires-cam": g * a,
        "xgrad-cam": ((g * a).sum((2, 3)) / a.sum((2, 3)))[:, :, None, None] * a,
        "layer-cam": positive * a,
        "element-wise-grad-cam": (g * a).clip(0),
    }
    for method, terms in contributions.items():
        near(
            CAMS[method](made_up(activation, gradient), eigen=True),
            [first_component(each, each.sum(0)) for each in terms],
        )


@pytest.mark.parametrize("channels", [3, 40])
def test_principal_ignores_sign_of_eigenvector(channels, monkeypatch):
    result = made_up(noise(4, channels, 4, 5), noise(4, channels, 4, 5, seed=1))
    before = [eigen_cam(result), eigen_grad_cam(result), grad_cam(result, eigen=True)]
    solve = torch.linalg.eigh

    def other_way_round(matrices):
        values, vectors = solve(matrices)
        return torch.return_types.linalg_eigh((values, -vectors))

    monkeypatch.setattr(torch.linalg, "eigh", other_way_round)
    for maps, expected in zip(
        [eigen_cam(result), eigen_grad_cam(result), grad_cam(result, eigen=True)],
        before,
        strict=True,
    ):
        near(maps, expected)


@pytest.mark.parametrize("channels", [3, 40])
def test_principal_of_positive_activation_is_positive(channels):
    activation = noise(20, channels, 4, 5, dtype=torch.float32).abs() + 1e-3
    assert eigen_cam(made_up(activation)).min() > 0


@pytest.mark.parametrize("channels", [3, 40])
def test_principal_of_zeros_is_zero(channels):
    activation = noise(3, channels, 4, 5)
    alone = eigen_cam(made_up(activation))
    activation[1] = 0
    maps = eigen_cam(made_up(activation))
    assert (maps[1] == 0).all()
    near(maps[[0, 2]], alone[[0, 2]])


@pytest.mark.parametrize("factor", [1e-37, 1e30])
def test_eigen_cam_of_tiny_and_huge_values(factor):
    activation = noise(3, 6, 4, 5, dtype=torch.float32)
    near(eigen_cam(made_up(activation * factor)) / factor, eigen_cam(made_up(activation)), 1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_principal_keeps_nonfinite_image_apart(value):
    activation = noise(3, 6, 4, 5)
    alone = eigen_cam(made_up(activation))
    activation[1, 2, 0, 0] = value
    maps = eigen_cam(made_up(activation))
    assert maps[1].isnan().all()
    near(maps[[0, 2]], alone[[0, 2]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "above", [bent(nn.Tanh), bent(nn.GELU), Attention()], ids=["tanh", "gelu", "attention"]
)
def test_shapley_cam_matches_finite_differences(above):
    """Hessian times activation is how the gradient changes in the direction of the activation."""
    model, images, target = network(above), images_of(3), torch.tensor([1, 2, 0])
    activation = model.body(images).detach()

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(model.above(at).gather(1, target[:, None]).sum(), at)[0]

    product = (gradient(activation * (1 + 1e-5)) - gradient(activation * (1 - 1e-5))) / 2e-5
    result = capture_layers(model, images, "body", target)["body"]
    assert product.abs().max() > 0.1 * gradient(activation).abs().max()  # it matters
    near(hessian_product(result), product, 1e-6)
    weights = (gradient(activation) - product / 2).mean((2, 3))
    near(
        shapley_cam(result),
        sum(weights[:, k, None, None] * activation[:, k] for k in range(4)),
        1e-6,
    )


def test_shapley_cam_matches_shapley_values_of_quadratic_score():
    """Eight players are the values of the layer, zero outside a coalition; all coalitions."""

    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(8, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, grid):
            return self.head(self.mix(grid.flatten(1)).square())

    model = network(Square(), nn.Conv2d(1, 2, 1))
    images = images_of(1, 1, 2, 2)
    result = capture_layers(model, images, "body", 1)["body"]
    values = result.activation.flatten()
    coalitions = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    with torch.no_grad():
        worth = model.above((coalitions * values).view(-1, 2, 2, 2))[:, 1]
    expected = torch.zeros(8, dtype=torch.float64)
    for player in range(8):
        without = coalitions[:, player] == 0
        size = coalitions[without].sum(1)
        orders = [
            math.factorial(int(s)) * math.factorial(7 - int(s)) / math.factorial(8) for s in size
        ]
        position = 2 ** (7 - player)  # of the player in the row's number
        index = without.nonzero().flatten()
        expected[player] = sum(
            share * gain
            for share, gain in zip(orders, worth[index + position] - worth[index], strict=True)
        )
    near((result.activation * (result.gradient - hessian_product(result) / 2)).flatten(), expected)


def test_shapley_cam_of_relu_model_is_grad_cam():
    model, images = network(bent(nn.ReLU)), images_of()
    result = capture_layers(model, images, "body")["body"]
    assert torch.equal(shapley_cam(result), grad_cam(result))
    result = capture_layers(network(pooled()), images, "body")["body"]  # nothing but linear above
    assert torch.equal(shapley_cam(result), grad_cam(result))


def test_shapley_cam_in_batches(images_per_batch):
    result = capture_layers(network(bent(nn.Tanh)), images_of(5), "body")["body"]
    whole = shapley_cam(result)
    images_per_batch(2)
    near(shapley_cam(result), whole)


@pytest.mark.parametrize(("gamma", "classes"), [(1.0, 3), (0.6, 2), (1.0, 1), (0.6, 9)])
def test_finer_cam_of_linear_head(gamma, classes):
    """Six classes have five others; nine are not to be had."""
    model, images, target = network(pooled(6)), images_of(4), torch.tensor([5, 0, 3, 3])
    activation, logits = model.body(images).detach().numpy(), model(images).detach().numpy()
    head = model.above[-1].weight.detach().numpy()
    expected = []
    for a, logit, c in zip(activation, logits, target.tolist(), strict=True):
        others = sorted((d for d in range(6) if d != c), key=lambda d: abs(logit[d] - logit[c]))[
            :classes
        ]
        exponentials = [math.exp(logit[d]) for d in others]
        row = head[c] - gamma * sum(
            e / sum(exponentials) * head[d] for e, d in zip(exponentials, others, strict=True)
        )
        expected.append(sum(w * each / PLACES for w, each in zip(row, a, strict=True)))
    near(
        finer_cam(
            capture_layers(model, images, "body", target)["body"], gamma=gamma, classes=classes
        ),
        expected,
    )


def test_finer_cam_rejects_single_class():
    result = capture_layers(network(pooled()), images_of(), "body")["body"]
    with pytest.raises(
        SeewhyError, match=r"classes of at least 1 .*, found classes=0 and 3 in the model"
    ):
        finer_cam(result, classes=0)
    result = capture_layers(network(pooled(1)), images_of(), "body")["body"]
    with pytest.raises(SeewhyError, match="found classes=3 and 1 in the model"):
        finer_cam(result)


def test_second_pass_works_in_inference_mode():
    result = capture_layers(network(bent(nn.Tanh)), images_of(), "body")["body"]
    with torch.inference_mode():
        inside = [finer_cam(result), shapley_cam(result)]
    assert all(map(torch.equal, inside, [finer_cam(result), shapley_cam(result)]))


def test_cam_of_pair_and_without_bias():
    model, images = network(pooled(bias=False)), images_of()
    activation, head = model.body(images).detach(), model.above[-1].weight.detach()
    result = cam(capture_layers(model, images, "body", (2, 1))["body"])
    near(result, sum((head[2] - head[1])[k] * activation[:, k] for k in range(4)))
    assert not result.requires_grad


@pytest.mark.parametrize("factor", [1.0, 1e-6])
@pytest.mark.parametrize(
    "above",
    [
        bent(nn.ReLU),
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, CLASSES)
        ),
    ],
    ids=["places", "hidden"],
)
def test_cam_rejects_other_heads(above, factor):
    """Also where the logits are so small that they all look alike."""
    model = network(above)
    with torch.no_grad():
        model.above[-1].weight *= factor
        model.above[-1].bias *= factor
    with pytest.raises(
        SeewhyError, match="cam needs a model that ends in global average pooling of 'body'"
    ):
        cam(capture_layers(model, images_of(), "body")["body"])


def test_cam_in_bf16():
    model, images = network(pooled()).float(), images_of().float()
    result = capture_layers(Classifier(model, precision="bf16"), images, "body")["body"]
    near(cam(result), cam(capture_layers(model, images, "body")["body"]), 0.02)


def test_guided_grad_cam_is_product():
    """Convolution, ReLU, pooling, and a linear head on the global average."""
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
    model, images, target = network(pooled(), body), images_of(), torch.tensor([0, 2])
    head, kernel = model.above[-1].weight.detach(), model.body[0].weight.detach()
    before = model.body[0](images).detach()
    upstream = (head[target] / PLACES).clamp(min=0)[:, :, None, None] * (before > 0)
    guided = nn.functional.conv_transpose2d(upstream, kernel, padding=1).numpy()
    maps = np.einsum("nc,nchw->nhw", head[target] / 15, model.body(images).detach()).clip(0)
    rows, columns = np.meshgrid(
        (np.arange(6) + 0.5) / 2 - 0.5, (np.arange(10) + 0.5) / 2 - 0.5, indexing="ij"
    )
    positions = [rows.clip(0, 2), columns.clip(0, 4)]
    large = np.stack([ndimage.map_coordinates(each, positions, order=1) for each in maps])
    assert (large > 0).any()
    near(
        guided_grad_cam(capture_layers(model, images, "body", target)["body"]),
        large * np.abs(guided).max(1),
    )


def test_cams_of_zero_activation_or_gradient_are_zero():
    """And no 0 / 0 either."""
    values, nothing = noise(2, 4, 3, 5), torch.zeros(2, 4, 3, 5, dtype=torch.float64)
    for method in (
        "grad-cam",
        "grad-cam++",
        "hires-cam",
        "xgrad-cam",
        "layer-cam",
        "element-wise-grad-cam",
        "eigen-grad-cam",
    ):
        for activation, gradient in ((values, nothing), (nothing, values), (nothing, nothing)):
            assert (CAMS[method](made_up(activation, gradient)) == 0).all(), method
    assert (eigen_cam(made_up(nothing)) == 0).all()


def test_cam_of_a_calibrated_classifier_is_that_of_its_divided_logits():
    model, images = network(pooled()), images_of()
    plain, divided = (
        cam(capture_layers(Classifier(model, temperature=each), images, "body", 1)["body"])
        for each in (1.0, 2.5)
    )
    near(divided, plain / 2.5)
