"""A small vision transformer that trains from scratch on small images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.normalization import Normalize, normalize_for


def vit(
    num_classes: int,
    sample: Split,
    patch: int = 4,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.0,
) -> nn.Module:
    """A plain vision transformer (Beyer et al. 2022, arXiv 2205.01580) with a convolutional stem.

    Fixed sine-cosine positions and the mean of all tokens take the place of learned positions and
    a class token, so that the image size may change. Tokens come from log2(`patch`) 3x3
    convolutions of stride 2 (Xiao et al. 2021, arXiv 2106.14881). `patch` is the width of a token
    in pixels, a power of 2; `width` is the size of a token, a multiple of 4 and of `heads`;
    `dropout` in [0, 1) is applied before the linear layer.
    """
    channels, *size = sample.images.shape[1:]
    if patch < 2 or patch & (patch - 1):
        raise SeewhyError(f"vit: patch must be 2, 4, 8, or another power of 2, found {patch}")
    if min(size) < 2 * patch:
        raise SeewhyError(
            f"vit needs at least 2x2 patches of {patch} pixels, found images of {size[0]}x"
            f"{size[1]}; set a smaller patch, or enlarge the images"
        )
    if heads < 1 or width < 4 or width % 4 or width % heads:
        raise SeewhyError(
            f"vit: width must be a multiple of 4 and of heads, found width {width} and {heads} "
            "heads"
        )
    if depth < 1:
        raise SeewhyError(f"vit: depth must be at least 1 block, found {depth}")
    if not 0 <= dropout < 1:
        raise SeewhyError(f"vit: dropout must be at least 0 and below 1, found {dropout}")
    return VisionTransformer(
        num_classes, channels, normalize_for(sample), patch, width, depth, heads, dropout
    )


class VisionTransformer(nn.Module):
    """Images (N, C, H, W) float in [0, 1] to logits (N, K)."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        normalize: Normalize,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.patch_embed = PatchEmbedding(channels, patch, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        grid = self.patch_embed(self.normalize(pixels))
        _, width, rows, columns = grid.shape
        positions = sincos_positions(rows, columns, width, grid.device)
        tokens = grid.flatten(2).transpose(1, 2) + positions.to(grid.dtype)
        tokens = self.norm(self.blocks(tokens))
        logits: Tensor = self.head(self.dropout(tokens.mean(1)))
        return logits


class PatchEmbedding(nn.Sequential):
    """3x3 convolutions of stride 2, twice as wide each, with BatchNorm and GELU between them."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        layers: list[nn.Module] = []
        for remaining in reversed(range(patch.bit_length() - 1)):
            outputs, last = max(4, width >> remaining), remaining == 0
            layers.append(nn.Conv2d(channels, outputs, 3, stride=2, padding=1, bias=last))
            if not last:
                layers += [nn.BatchNorm2d(outputs), nn.GELU()]
            channels = outputs
        super().__init__(*layers)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each added to its input and preceded by LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        output: Tensor = tokens + self.mlp(self.norm2(tokens))
        return output


class Attention(nn.Module):
    """Self-attention of tokens (N, L, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        qkv = self.qkv(tokens).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, length, width))
        return output


def sincos_positions(
    rows: int, columns: int, width: int, device: torch.device | None = None
) -> Tensor:
    """The positions of a grid of tokens as sines and cosines, a quarter of `width` for each.

    The frequencies fall from 1 to 1/10,000 per token (Vaswani et al. 2017, section 3.5), first for
    columns, then for rows.

    Returns:
        (rows * columns, width) float32.
    """
    frequencies = 10_000.0 ** -torch.linspace(0, 1, width // 4, device=device)
    down = torch.arange(rows, device=device)[:, None, None] * frequencies  # (rows, 1, width / 4)
    right = torch.arange(columns, device=device)[None, :, None] * frequencies
    parts = (right.sin(), right.cos(), down.sin(), down.cos())
    return torch.cat([part.expand(rows, columns, -1) for part in parts], dim=2).flatten(0, 1)
