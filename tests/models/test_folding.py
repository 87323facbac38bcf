"""Folded models compute what the model does, follow its weights, and leave it as it was."""

import copy

import pytest
import torch
from torch import nn

from seewhy.models.folding import folded, folded_for_training
from seewhy.models.inference import compute_logits
from seewhy.models.registry import blank_sample, build_model

IMAGES = torch.randint(0, 256, (70, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


def trained(module: nn.Module) -> nn.Module:
    """The module with running statistics, scales and shifts that change what passes."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.3, generator=generator)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


class Block(nn.Module):
    """A convolution and BatchNorm, with what may be between or beside them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=kind == "bias", groups=3)
        self.norm = nn.BatchNorm2d(6, track_running_stats=kind != "no statistics")
        self.head = nn.Linear(6, 4)
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.kind == "skip":
            x = x + self.norm(x)
        elif self.kind == "relu":
            x = self.norm(x.relu())
        elif self.kind == "twice":
            x = self.norm(self.norm(x))
        elif self.kind == "depends on values" and x.sum() > 1e9:
            x = -x
        else:
            x = self.norm(x)
        return self.scale * self.head(x.mean((2, 3)))


@pytest.mark.parametrize("kind", ["plain", "bias"])
def test_folded_for_training_has_the_gradients_of_the_model(kind):
    model = trained(Block(kind)).double()
    fast = folded_for_training(model)
    assert set(fast.parameters()) == set(model.parameters())
    pixels, gradients, calls = IMAGES[:4].double() / 255, [], []
    model.norm.register_forward_hook(lambda *_: calls.append(1))
    for each in (model, fast):
        logits = each(pixels)
        model.zero_grad()
        logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad.clone() for parameter in model.parameters())])
    assert len(calls) == 1  # none by the second pass
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["plain", "bias"])
def test_folded_equals_the_model(kind):
    torch.manual_seed(0)
    model = trained(Block(kind)).double()
    images = IMAGES.double() / 255
    fast = folded(model, images)
    assert (norms(fast), norms(model)) == (0, 1)
    torch.testing.assert_close(fast(images), model(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["skip", "relu", "twice", "depends on values", "no statistics"])
def test_folded_leaves_other_models(kind):
    model = trained(Block("plain"))
    model.kind = kind
    if kind == "no statistics":
        model = Block(kind).eval()
    assert folded(model, IMAGES) is model


@pytest.mark.parametrize("watched", ["norm", "conv"])
def test_folded_leaves_hooks(watched):
    model = trained(Block("plain"))
    with model.get_submodule(watched).register_forward_hook(lambda *values: None):
        assert folded(model, IMAGES) is model
    assert folded(model, IMAGES) is not model


def test_folded_code_outside_the_graph_is_noticed():
    class Odd(Block):
        def forward(self, x):
            if not isinstance(x, torch.Tensor):  # only where the code is traced
                return super().forward(x)
            return self.head(self.norm(2 * self.conv(x)).mean((2, 3)))

    model = trained(Odd("plain"))
    assert folded(model, IMAGES) is model


@pytest.mark.slow
def test_folded_resnet18():
    torch.manual_seed(0)
    model = trained(build_model("resnet18", 10, blank_sample(3, 32, 32)))
    before = copy.deepcopy(model.state_dict())
    fast, images = folded(model, IMAGES), IMAGES[:2] / 255
    assert (norms(fast), norms(model)) == (0, 20)
    with torch.no_grad():
        expected, found = model(images), fast(images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert fast.linear.weight is model.linear.weight
    assert folded(model, IMAGES).conv1 is fast.conv1


@pytest.mark.parametrize("change", ["step", "data", "statistics", "module", "attribute"])
def test_compute_logits_follows_the_model(change):
    torch.manual_seed(0)
    model = trained(Block("plain"))
    compute_logits(model, IMAGES)
    if change == "step":
        with torch.no_grad():
            model.conv.weight.mul_(2)
    elif change == "data":  # as some optimizers write; it leaves no version behind
        model.conv.weight.data.mul_(2)
    elif change == "statistics":
        model.norm.running_mean.add_(1)
    elif change == "attribute":
        model.scale = 2.0
    else:
        model.norm = nn.Identity()
    with torch.no_grad():
        expected = model(IMAGES / 255)
    torch.testing.assert_close(compute_logits(model, IMAGES), expected, rtol=1e-4, atol=1e-5)
