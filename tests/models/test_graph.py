"""The graph of a traced model: its steps, paths, blocks, and costs."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.errors import SeewhyError
from seewhy.models.graph import IMAGE, ModelGraph, model_graph
from seewhy.models.registry import blank_sample, build_model
from seewhy.models.summary import model_summary

CONV = ("Conv 3×3", "BatchNorm", "ReLU")
POOLED = ("Conv 3×3", "MaxPool 2×2", "BatchNorm", "ReLU")


@pytest.fixture(scope="module")
def davidnet() -> ModelGraph:
    return model_graph("davidnet")


@pytest.mark.slow
def test_model_graph_steps(davidnet: ModelGraph) -> None:
    assert [(step.operations, step.inputs) for step in davidnet.steps] == [
        (("Normalize",), (IMAGE,)),
        (CONV, (0,)),
        (POOLED, (1,)),
        (CONV, (2,)),
        (CONV, (3,)),
        (("add",), (2, 4)),
        (POOLED, (5,)),
        (POOLED, (6,)),
        (CONV, (7,)),
        (CONV, (8,)),
        (("add",), (7, 9)),
        (("Global MaxPool",), (10,)),
        (("Linear",), (11,)),
    ]
    step = davidnet.steps[3]
    assert (step.layer, step.block) == ("layer1.1.conv1.conv", "layer1.1")
    assert step.shape == (128, 16, 16)
    assert step.parameters == 128 * 128 * 9 + 256
    assert step.multiply_adds == 128 * 128 * 9 * 16 * 16 + 256


@pytest.mark.slow
def test_model_graph_blocks(davidnet: ModelGraph) -> None:
    assert davidnet.blocks == ("layer1.1", "layer3.1")
    assert davidnet.types["layer1.1"] == "Residual"
    assert [step.block for step in davidnet.steps[2:6]] == ["", *3 * ["layer1.1"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["davidnet", "speednet:depth=3", "resnet18"])
def test_model_graph_costs_are_those_of_the_summary(name: str) -> None:
    """The graph counts in the trace, the summary with hooks."""
    with torch.device("meta"):
        model = build_model(name, 7, blank_sample(1, 32, 32))
    graph, summary = model_graph(model, (1, 32, 32)), model_summary(model, (1, 32, 32))
    assert graph.parameters == sum(step.parameters for step in graph.steps) == summary.parameters
    assert graph.multiply_adds == summary.multiply_adds
    assert graph.steps[-1].shape == (7,)


class Branches(nn.Module):
    """Two branches, a shared layer, a parameter outside of layers, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(1, 1, 3, padding=1)
        self.offset = nn.Parameter(torch.zeros(1, 4, 4))
        self.gate = nn.Conv2d(2, 2, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu_(self.shared(x))
        right = self.shared(left[:, :, :4]) + self.offset
        both = torch.cat([left.reshape(len(x), 1, 4, 4), right], 1)
        return (F.interpolate(self.gate(both).sigmoid(), scale_factor=2) * both).flatten(1)


def test_model_graph_of_branches() -> None:
    model = Branches()
    graph = model_graph(model, (1, 4, 4))
    assert [(step.operations, step.inputs) for step in graph.steps] == [
        (("Conv 3×3", "ReLU"), (IMAGE,)),
        (("Conv 3×3", "+ offset"), (0,)),
        (("concat",), (0, 1)),
        (("Conv 1×1 /2", "Sigmoid", "Upsample"), (2,)),
        (("multiply",), (3, 2)),
    ]
    assert [step.parameters for step in graph.steps] == [10, 16, 0, 6, 0]  # shared counts once
    assert [step.multiply_adds for step in graph.steps] == [160, 160, 0, 6 * 4, 0]
    assert graph.steps[-1].shape == (2, 4, 4)  # flattening is left out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.query_key_value = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        y = self.norm(tokens)
        tokens = tokens + self.attention(y, y, y)[0]
        query, key, value = self.query_key_value(tokens).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(query, key, value).mean(1)


@pytest.mark.slow
def test_model_graph_of_attention() -> None:
    graph = model_graph(nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), Attention()), (3, 8, 8))
    assert [(step.operations, step.inputs) for step in graph.steps] == [
        (("Conv 4×4 /4",), (IMAGE,)),
        (("LayerNorm",), (0,)),
        (("Attention",), (1,)),
        (("add",), (0, 2)),
        (("Linear",), (3,)),
        (("Attention", "Mean"), (4,)),
    ]
    assert graph.steps[2].parameters == 4 * (8 * 8 + 8)
    assert graph.steps[2].multiply_adds == 4 * 4 * (8 * 8 + 8)


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) if x.sum() > 0 else self.linear(-x.flatten(1))


def test_model_graph_of_a_model_that_cannot_be_traced() -> None:
    model = Decides()
    with pytest.raises(SeewhyError, match="Decides cannot be drawn, because ") as error:
        model_graph(model, (1, 2, 2))
    assert "\n" not in str(error.value)
    assert model_summary(model, (1, 2, 2)).multiply_adds == 10


@pytest.mark.slow
def test_model_graph_leaves_no_trace() -> None:
    model = build_model("davidnet:dropout=0.5", 10, blank_sample(3, 8, 8)).train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    graph = model_graph(model, (3, 8, 8))
    assert graph.steps[-2].operations == ("Global MaxPool", "Dropout 0.5")
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.requires_grad for parameter in model.parameters())
