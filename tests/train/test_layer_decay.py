from dataclasses import replace

import pytest
import torch
from torch import nn

from seewhy.data.dataset import Dataset
from seewhy.models.registry import build_model
from seewhy.train.layer_decay import decay_by_depth, layer_depths
from seewhy.train.optimizers import bind_optimizer, set_lr_and_momentum
from seewhy.train.plan import make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import new_state

IMAGES = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)


class Transformer(nn.Module):
    """A class token, a position embedding, two encoder layers, a norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)  # the order of definition is not that of the forward pass
        self.position = nn.Parameter(torch.zeros(1, 17, 8))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], 1) + self.position
        for layer in self.encoder:
            tokens = layer(tokens)
        logits: torch.Tensor = self.head(self.norm(tokens)[:, 0])
        return logits


def depths_by_name(model: nn.Module) -> dict[str, int]:
    depths = layer_depths(model, IMAGES)
    return {name: depths[parameter] for name, parameter in model.named_parameters()}


def test_depths_of_a_transformer_are_those_of_its_paper() -> None:
    """BEiT: the embeddings are layer 0, the blocks 1 to L, the head L + 1."""
    depths = depths_by_name(Transformer())
    assert {name: depth for name, depth in depths.items() if "encoder" not in name} == {
        "position": 0,
        "token": 0,
        "patches.weight": 0,
        "patches.bias": 0,
        "norm.weight": 2,
        "norm.bias": 2,
        "head.weight": 3,
        "head.bias": 3,
    }
    for layer in range(2):
        inside = {depth for name, depth in depths.items() if name.startswith(f"encoder.{layer}.")}
        assert inside == {1 + layer}  # also of the projection, which is not called as a module


def test_depths_of_a_resnet_count_residual_blocks(data: Dataset) -> None:
    depths = depths_by_name(build_model("resnet18", 3, data.train))
    layers = [depths["conv1.weight"], depths["bn1.weight"]]
    layers += [depths[f"layer{s}.{b}.conv2.weight"] for s in range(1, 5) for b in range(2)]
    assert [*layers, depths["linear.weight"]] == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert depths["layer2.0.shortcut.0.weight"] == depths["layer2.0.conv1.weight"] == 3


@pytest.mark.parametrize(
    "optimizer", ["adamw:bias_lr_factor=2", "muon:head_lr_factor=3", "sgd:momentum=0.9"]
)
def test_layer_decay_multiplies_the_rates_of_every_optimizer(optimizer: str) -> None:
    model = Transformer()
    optimizers = bind_optimizer(optimizer)(model, 0.1, 0.01)
    plain = {
        parameter: (group["lr"], group["weight_decay"])
        for each in optimizers
        for group in each.param_groups
        for parameter in group["params"]
    }
    decay_by_depth(optimizers, model, IMAGES, 0.5)
    depths = layer_depths(model, IMAGES)
    groups = [group for each in optimizers for group in each.param_groups]
    decayed = {parameter: group for group in groups for parameter in group["params"]}
    assert decayed.keys() == plain.keys() == depths.keys()
    assert sum(len(group["params"]) for group in groups) == len(plain)
    for parameter, (lr, weight_decay) in plain.items():
        assert decayed[parameter]["lr"] == pytest.approx(lr * 0.5 ** (3 - depths[parameter]))
        assert decayed[parameter]["weight_decay"] == weight_decay
    set_lr_and_momentum(optimizers, 0.1)
    patches = decayed[model.patches.weight]
    assert patches["lr"] == pytest.approx(0.1 * plain[model.patches.weight][0] * 0.5**3)
    assert optimizers[-1].param_groups[0]["lr"] == max(
        group["lr"] for group in optimizers[-1].param_groups[:1]
    )


def test_layer_decay_of_a_recipe(recipe: Recipe, data: Dataset) -> None:
    state = new_state(make_plan(replace(recipe, layer_decay=0.5), data, "cpu"))
    rates = {group["lr"] for group in state.optimizers[0].param_groups}
    depth = len(set(layer_depths(state.model, data.train.images).values()))
    assert max(rates) == recipe.lr
    assert rates <= {recipe.lr * 0.5**layer for layer in range(depth)}
    assert len(rates) >= depth - 1  # of the first layer only a bias is trained, if at all
