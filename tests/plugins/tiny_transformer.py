"""A transformer of three blocks whose attention can be written in several ways."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, GRID = 16, (4, 4)
TARGET = torch.tensor([0, 1, 2])


class Block(nn.Module):
    """Attention and a layer for each token, with skip connections."""

    def __init__(self, width: int, heads: int, attend: Callable[["Block", Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.proj, self.mlp = nn.Linear(width, width), nn.Linear(width, width)
        self.saved: list[Tensor] = []

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attend(self, self.norm(tokens))
        return tokens + F.gelu(self.mlp(tokens))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (N, heads, T, d) each
        count, length, _ = tokens.shape
        parts = self.qkv(tokens).reshape(count, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        return query, key, value

    def join(self, values: Tensor) -> Tensor:
        return self.proj(values.transpose(1, 2).flatten(2))


def scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT / math.sqrt(query.shape[-1])


def fused(block: Block, tokens: Tensor) -> Tensor:
    return block.join(F.scaled_dot_product_attention(*block.split(tokens)))


def method(block: Block, tokens: Tensor) -> Tensor:
    query, key, value = block.split(tokens)
    return block.join(scores(query, key).softmax(dim=-1) @ value)


def function(block: Block, tokens: Tensor) -> Tensor:
    """Images and heads in one axis."""
    query, key, value = (each.flatten(0, 1) for each in block.split(tokens))
    values = torch.bmm(F.softmax(scores(query, key), 2), value)
    return block.join(values.unflatten(0, (-1, block.heads)))


def module(block: Block, tokens: Tensor, need_weights: bool = False) -> Tensor:
    width = tokens.shape[-1]
    attention = nn.MultiheadAttention(width, block.heads, batch_first=True).to(tokens).eval()
    attention.in_proj_weight, attention.in_proj_bias = block.qkv.weight, block.qkv.bias
    attention.out_proj.weight, attention.out_proj.bias = block.proj.weight, block.proj.bias
    output: Tensor = attention(tokens, tokens, tokens, need_weights=need_weights)[0]
    return output


def module_with_weights(block: Block, tokens: Tensor) -> Tensor:
    return module(block, tokens, need_weights=True)


def saving(block: Block, tokens: Tensor) -> Tensor:
    """Keeps the probabilities, for tests that derive maps from them."""
    query, key, value = block.split(tokens)
    weights = torch.exp(scores(query, key))
    probabilities = weights / weights.sum(-1, keepdim=True)
    probabilities.retain_grad()
    block.saved.append(probabilities)
    return block.join(probabilities @ value)


ATTENTIONS = {
    each.__name__: each for each in (fused, method, function, module, module_with_weights)
}


def class_token(tokens: Tensor) -> Tensor:
    return tokens[:, 0]


def two_tokens(tokens: Tensor) -> Tensor:
    return (tokens[:, 0] + tokens[:, 1]) / 2


def mean_of_all(tokens: Tensor) -> Tensor:
    return tokens.mean(1)


def mean_of_patches(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].mean(1)


# number of prefix tokens, and the tokens that are read
POOLINGS: dict[Callable[[Tensor], Tensor], tuple[int, list[int]]] = {
    class_token: (1, [0]),
    two_tokens: (2, [0, 1]),
    mean_of_all: (0, list(range(16))),
    mean_of_patches: (1, list(range(1, 17))),
}


class TinyTransformer(nn.Module):
    """Images (N, 2, 16, 16) to logits (N, 3), by 4x4 patches."""

    def __init__(
        self,
        attend: Callable[[Block, Tensor], Tensor] = fused,
        pool: Callable[[Tensor], Tensor] = class_token,
        width: int = 8,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.prefix = pool, POOLINGS[pool][0]
        self.layer = nn.Conv2d(2, width, 4, 4)
        self.before = nn.Parameter(torch.randn(1, 2, width))
        self.position = nn.Parameter(torch.randn(1, 18, width))
        self.blocks = nn.Sequential(*(Block(width, 2, attend) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.7)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.layer(images).flatten(2).mT
        before = self.before[:, : self.prefix].expand(len(images), -1, -1)
        tokens = torch.cat([before, patches], 1)
        tokens = tokens + self.position[:, : tokens.shape[1]]
        return self.read(self.blocks(tokens))

    def read(self, tokens: Tensor) -> Tensor:
        """Logits of tokens."""
        logits: Tensor = self.head(self.norm(self.pool(tokens)))
        return logits


def images_of(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 2, SIDE, SIDE, dtype=torch.float64, generator=generator)


def by_hand(
    model: TinyTransformer, target: Tensor = TARGET
) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
    """Logits, and probabilities and gradients of all blocks, of a pass that keeps them."""
    clone = TinyTransformer(saving, model.pool)
    clone.load_state_dict(model.state_dict())
    logits = clone(images_of())
    logits.gather(1, target[:, None]).sum().backward()
    saved = [block.saved[0] for block in clone.blocks]
    return logits.detach(), [each.detach() for each in saved], [each.grad for each in saved]
