"""The layers that "auto" takes, in small models of every family."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import explain
from seewhy.attribution.layers import list_layers
from seewhy.models.registry import blank_sample, build_model


def images_of(height, width=None, count=2, channels=3):
    return torch.rand(
        count, channels, height, width or height, generator=torch.Generator().manual_seed(0)
    )


def chosen(model, images):
    return {layer.name: layer.grid for layer in list_layers(model, images) if layer.auto}


def seeded(make, *args):
    torch.manual_seed(0)
    return make(*args).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {"layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4}),
        ("davidnet", {"prep": 32, "layer1": 16, "layer2": 8, "layer3": 4}),
        ("speednet", {"gelu": 31, "group1": 15, "group2": 7, "group3": 3}),
        ("speednet:depth=3", {"gelu": 31, "group1": 15, "group2": 7, "group3": 3}),
    ],
)
def test_auto_for_own_models(name, expected):
    model = seeded(build_model, name, 3, blank_sample(3, 32, 32))
    assert chosen(model, images_of(32)) == {layer: (side, side) for layer, side in expected.items()}


def vgg(name):
    """VGG-16 without the hundred million weights of its classifier."""
    with torch.device("meta"):
        model = build_model(name, 2, blank_sample(3, 32, 32))
    model.classifier = nn.Linear(512 * 49, 2)
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    model.normalize.mean.zero_()
    model.normalize.std.fill_(1)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ends"), [("vgg16", [8, 15, 22, 29]), ("vgg16-bn", [12, 22, 32, 42])]
)
def test_auto_for_vgg(name, ends):
    model = seeded(vgg, name)
    expected = {
        f"features.{end}": (side, side) for end, side in zip(ends, (16, 8, 4, 2), strict=True)
    }
    assert chosen(model, images_of(32)) == expected
    assert {type(model.get_submodule(layer)) for layer in expected} == {nn.ReLU}


class Bottleneck(nn.Module):
    """As torchvision writes it: one ReLU, in place, that runs three times."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = (
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv3, self.bn3 = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inputs != 2 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 2 * width, 1, stride), nn.BatchNorm2d(2 * width)
            )

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, blocks=2):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        for stage, stride in enumerate((1, 2, 2, 2), 1):
            rest = [Bottleneck(8, 4, 1) for _ in range(blocks - 1)]
            setattr(
                self,
                f"layer{stage}",
                nn.Sequential(Bottleneck(4 if stage == 1 else 8, 4, stride), *rest),
            )
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def features(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x):
        return self.fc(self.avgpool(self.features(x)).flatten(1))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((64, 64), [(16, 16), (8, 8), (4, 4), (2, 2)]),
        ((65, 129), [(17, 33), (9, 17), (5, 9), (3, 5)]),
        ((33, 65), [(9, 17), (5, 9), (3, 5), (2, 3)]),
    ],
)
def test_auto_for_resnet_with_pooling_stem(size, grids, blocks):
    assert chosen(seeded(ResNet, blocks), images_of(*size)) == dict(
        zip(["layer1", "layer2", "layer3", "layer4"], grids, strict=True)
    )


def test_auto_skips_stage_of_single_position():
    assert list(chosen(seeded(ResNet), images_of(32))) == ["relu", "layer1", "layer2", "layer3"]


class Backbone(ResNet):
    """Puts out places, and holds nearly all there is: no block, though its grid is another."""

    def forward(self, x):
        return self.features(x)


class Wrapped(nn.Module):
    def __init__(self, backbone, channels=8):
        super().__init__()
        self.backbone, self.head = (
            backbone,
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)),
        )

    def forward(self, x):
        return self.head(self.backbone(x))


def test_auto_for_backbone():
    names = list(chosen(seeded(lambda: Wrapped(Backbone())), images_of(64)))
    assert names == ["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone"]


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(self.norm(x).relu_())], 1)


class Transition(nn.Sequential):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.relu, self.conv = (
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, 4, 1),
        )
        self.pool = nn.AvgPool2d(2)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, 4, 3, padding=1))
        for index in (1, 2):
            self.features.add_module(
                f"denseblock{index}", nn.Sequential(DenseLayer(4), DenseLayer(8))
            )
            self.features.add_module(f"transition{index}", Transition(12))
        self.features.add_module("denseblock3", nn.Sequential(DenseLayer(4), DenseLayer(8)))
        self.features.add_module("norm", nn.BatchNorm2d(12))
        self.classifier = nn.Linear(12, 3)

    def forward(self, x):
        return self.classifier(torch.relu_(self.features(x)).mean((2, 3)))


def test_auto_for_densenet():
    names = list(chosen(seeded(DenseNet), images_of(16)))
    assert names == ["features.denseblock1", "features.denseblock2", "features.denseblock3"]


class Pooled(nn.Module):
    """A block of a beginner's network, which ends in its pooling."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.relu, self.pool = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

    def forward(self, x):
        return self.pool(self.relu(self.conv(x)))


def head(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


def test_auto_for_blocks_with_pooling():
    model = seeded(lambda: nn.Sequential(Pooled(3, 4), Pooled(4, 5), Pooled(5, 6), *head(6)))
    assert chosen(model, images_of(32)) == {"0": (16, 16), "1": (8, 8), "2": (4, 4)}


def test_auto_for_sequences_with_pooling():
    stages = [
        nn.Sequential(
            nn.Conv2d(inputs, inputs + 1, 3, padding=1),
            nn.BatchNorm2d(inputs + 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        for inputs in (3, 4, 5)
    ]
    model = seeded(lambda: nn.Sequential(*stages, *head(6)))
    assert chosen(model, images_of(32)) == {"0.2": (32, 32), "1.2": (16, 16), "2.2": (8, 8)}


class Inverted(nn.Module):
    """As in MobileNet: widened at the grid of the block before, and narrowed at its own."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(inputs, 8, 1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, stride, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(nn.Conv2d(8, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if x.shape == out.shape else out


def test_auto_skips_layers_inside_blocks():
    blocks = [
        Inverted(4, 4, 1),
        Inverted(4, 4, 2),
        Inverted(4, 4, 1),
        Inverted(4, 4, 2),
        Inverted(4, 4, 1),
    ]
    last = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU6())
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *blocks, last)
    model = seeded(lambda: nn.Sequential(features, *head(6)))
    assert list(chosen(model, images_of(16))) == ["0.1", "0.3", "0.6"]


class Mixed(nn.Module):
    """As in Inception: a branch that shrinks in two steps, beside one that pools."""

    def __init__(self, stride):
        super().__init__()
        self.branch1 = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU())
        self.branch2 = nn.Sequential(nn.Conv2d(3, 3, 3, stride, 1), nn.ReLU())
        self.branch3 = nn.Conv2d(4, 1, 3, stride, 1)

    def forward(self, x):
        return torch.cat([self.branch2(self.branch1(x)), self.branch3(x)], 1)


def test_auto_skips_branches():
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), Mixed(1), Mixed(1), Mixed(2), Mixed(1), Mixed(2), *head(4)
        )
    )
    assert list(chosen(model, images_of(16))) == ["2", "4", "5"]


def test_auto_names_innermost_stage():
    def make():
        stages = [nn.Sequential(Mixed(stride), Mixed(1)) for stride in (1, 2, 2)]
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(*stages), *head(4))

    assert list(chosen(seeded(make), images_of(16))) == ["1.0", "1.1", "1.2"]


def test_auto_avoids_bare_convolution():
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), *head(4))
    )
    assert chosen(model, images_of(16)) == {"0": (14, 14), "2": (6, 6)}


@pytest.mark.slow
def test_auto_skips_layers_off_the_path():
    class TwoHeads(ResNet):
        def __init__(self):
            super().__init__()
            self.map = nn.ConvTranspose2d(
                8, 2, 4, 4
            )  # segmentation, which classification does not look at

        def forward(self, x):
            features = self.features(x)
            self.map(features)
            return self.fc(self.avgpool(features).flatten(1))

    assert "map" in {layer.name for layer in list_layers(seeded(TwoHeads), images_of(96))}
    assert list(chosen(seeded(TwoHeads), images_of(96))) == ["layer1", "layer2", "layer3", "layer4"]


def test_auto_keeps_stage_without_gradient():
    """As where all its ReLUs are off: that is of the image, not of the network."""

    class Off(nn.Module):
        def forward(self, x):
            return x * 0 + 1

    stages = [
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2, 2),
        Off(),
        nn.Conv2d(4, 4, 1),
        nn.Softplus(),
    ]
    model = seeded(lambda: nn.Sequential(*stages, *head(4)))
    assert list(chosen(model, images_of(8))) == ["1", "5"]
    captured = capture_layers(model, images_of(8), ["1", "5"])
    assert not captured["1"].gradient.any()
    assert captured["5"].gradient.any()


def test_auto_prefers_proportional_grid():
    rows = [nn.Linear(8, 2), nn.Tanh()]  # mixes the pixels of each row: (N, C, H, 2)
    alone = seeded(lambda: nn.Sequential(*rows, *head(3)))
    assert chosen(alone, images_of(8)) == {"1": (8, 2)}
    beside = seeded(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), *rows, *head(3)))
    assert chosen(beside, images_of(8)) == {"1": (8, 8)}


# Transformers


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v)


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), Attention(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """With timm's names. The first of the `prefix` tokens is read; without any, the mean."""

    def __init__(self, positions, prefix=1, depth=5, dim=8, patch=8, says_so=True):
        super().__init__()
        if says_so:
            self.num_prefix_tokens = prefix
        self.patch_embed = PatchEmbed(dim, patch)
        self.cls_token = nn.Parameter(torch.randn(1, prefix, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, positions + prefix, dim))
        self.blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 3)
        self.prefix = prefix

    def forward(self, x):
        x = (
            torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
            + self.pos_embed
        )
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0] if self.prefix else x.mean(1))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("says_so", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (64, 24)])
def test_auto_for_transformer(size, prefix, says_so):
    """The last block is left out if only a class token is read, but not if the mean is.

    A normalization alone reads the last one that is used: it is taken instead.
    """
    rows, columns = size[0] // 8, size[1] // 8
    model, images = seeded(lambda: ViT(rows * columns, prefix, says_so=says_so)), images_of(*size)
    blocks = (
        ["blocks.0", "blocks.1", "blocks.2", "blocks.4.norm1"]
        if prefix
        else ["blocks.1", "blocks.2", "blocks.3", "norm"]
    )
    assert chosen(model, images) == dict.fromkeys(blocks, (rows, columns))
    captured = capture_layers(model, images, [*blocks, "patch_embed", "patch_embed.proj"])
    assert all(captured[name].gradient.count_nonzero() for name in blocks)
    tokens = model.blocks[:2](
        torch.cat([model.cls_token.expand(2, -1, -1), model.patch_embed(images)], 1)
        + model.pos_embed
    )
    for row in range(rows):
        for column in range(columns):
            position = captured["blocks.1"].activation[:, :, row, column]
            torch.testing.assert_close(position, tokens[:, prefix + row * columns + column])
    torch.testing.assert_close(
        captured["patch_embed"].activation, captured["patch_embed.proj"].activation
    )


def test_auto_skips_blocks_without_gradient():
    captured = capture_layers(seeded(ViT, 16), images_of(32), ["blocks.3", "blocks.4", "norm"])
    assert captured["blocks.3"].gradient.any()
    assert not captured["blocks.4"].gradient.any()
    assert not captured["norm"].gradient.any()


def test_auto_for_short_transformer():
    assert list(chosen(seeded(ViT, 16, 1, 3), images_of(32))) == ["blocks.0", "blocks.2.norm1"]


def test_auto_for_head_of_zeros():
    model = seeded(ViT, 16)
    nn.init.zeros_(model.head.weight)
    assert list(chosen(model, images_of(32))) == ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]


def test_auto_for_in_place_conflict():
    class Overwriting(nn.Module):
        def forward(self, x):
            return torch.sigmoid(x).mul_(2)

    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Overwriting(), *head(4)))
    assert list(chosen(model, images_of(8))) == ["2"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: ViT(16), ResNet])
def test_auto_without_gradient(make):
    model = seeded(make)
    expected = [layer.name for layer in list_layers(model, images_of(32))]
    forward = model.forward
    model.forward = torch.no_grad()(forward)
    assert [layer.name for layer in list_layers(model, images_of(32))] == expected
    assert len(chosen(model, images_of(32))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_auto_for_compiled_blocks(whole):
    model = seeded(ViT, 16)
    if whole:
        model.blocks = torch.compile(model.blocks, backend="eager")
    else:
        model.blocks = nn.Sequential(
            *(torch.compile(block, backend="eager") for block in model.blocks)
        ).eval()
    expected = ["blocks.0", "blocks.1", "blocks.2", "blocks.4.norm1"]
    assert list(chosen(model, images_of(32))) == expected


def test_auto_skips_attention_maps():
    class Talking(Attention):
        """Mixes attention between heads by a linear layer: its output is (N, L, L, heads)."""

        def __init__(self, dim):
            super().__init__(dim)
            self.talk = nn.Linear(2, 2)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            weights = self.talk((q @ k.mT).softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.proj((weights @ v).transpose(1, 2).flatten(2))

    def make():
        model = ViT(16, prefix=0)
        for block in model.blocks:
            block.attn = Talking(8)
        return model

    layers = {layer.name: layer.grid for layer in list_layers(seeded(make), images_of(32))}
    assert layers["blocks.0.attn.talk"] == (16, 16)
    assert list(chosen(seeded(make), images_of(32))) == ["blocks.1", "blocks.2", "blocks.3", "norm"]


def test_auto_for_convolutional_stem_and_class_token():
    """The last stage is one of tokens, whose last block has no gradient at its places."""

    class Hybrid(ViT):
        def __init__(self):
            super().__init__(16, depth=3, patch=1)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 4, 3, 2, 1), nn.GELU(), nn.Conv2d(4, 3, 3, 4, 1), nn.GELU()
            )

        def forward(self, x):
            return super().forward(self.stem(x))

    assert chosen(seeded(Hybrid), images_of(32)) == {"stem.1": (16, 16), "blocks.2.norm1": (4, 4)}


class WindowBlock(nn.Module):
    """Attention within windows of 2x2, with a layer that makes a table of positions."""

    def __init__(self, dim, tokens):
        super().__init__()
        self.norm, self.attn, self.table, self.tokens = (
            nn.LayerNorm(dim),
            Attention(dim),
            nn.Linear(2, dim),
            tokens,
        )

    def forward(self, x):
        side = int(x.shape[1] ** 0.5) if self.tokens else x.shape[1]
        shape = (len(x), side // 2, 2, side // 2, 2, x.shape[-1])
        windows = self.norm(x).reshape(shape).transpose(2, 3).reshape(-1, 4, x.shape[-1])
        table = self.table(torch.ones(1, 3, 3, 2)).mean((1, 2))
        mixed = self.attn(windows).reshape(len(x), side // 2, side // 2, 2, 2, -1).transpose(2, 3)
        return x + mixed.reshape(x.shape) + table


class Merging(nn.Module):
    def __init__(self, dim, tokens):
        super().__init__()
        self.norm, self.reduction, self.tokens = (
            nn.LayerNorm(4 * dim),
            nn.Linear(4 * dim, 2 * dim),
            tokens,
        )

    def forward(self, x):
        side = int(x.shape[1] ** 0.5) if self.tokens else x.shape[1]
        x = x.reshape(len(x), side // 2, 2, side // 2, 2, -1).transpose(2, 3).flatten(3)
        x = self.reduction(self.norm(x))
        return x.flatten(1, 2) if self.tokens else x


class Swin(nn.Module):
    """Stages of (N, h, w, C), or of (N, L, C)."""

    def __init__(self, tokens):
        super().__init__()
        self.patch_embed = PatchEmbed(6, 4)
        self.layers, self.tokens = nn.Sequential(), tokens
        for stage in range(3):
            dim = 6 * 2**stage
            merging = [Merging(dim // 2, tokens)] if stage else []
            self.layers.append(
                nn.Sequential(*merging, WindowBlock(dim, tokens), WindowBlock(dim, tokens))
            )
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, x):
        x = self.patch_embed(x)
        x = self.layers(x if self.tokens else x.unflatten(1, (int(x.shape[1] ** 0.5), -1)))
        return self.head(self.norm(x).flatten(1, -2).mean(1))


@pytest.mark.parametrize("tokens", [False, True])
def test_auto_for_window_attention(tokens):
    model, images = seeded(Swin, tokens), images_of(64)
    listed = {layer.name: layer for layer in list_layers(model, images)}
    assert not [
        name for name in listed if "attn" in name or "table" in name
    ]  # these go by window, or by no image at all
    assert chosen(model, images) == {"layers.0": (16, 16), "layers.1": (8, 8), "norm": (4, 4)}
    assert [listed[name].channels for name in ("layers.0", "layers.1", "layers.2")] == [6, 12, 24]
    result = capture_layers(model, images, "layers.0")["layers.0"].activation
    x = model.patch_embed(images)
    expected = model.layers[0](x if tokens else x.unflatten(1, (16, 16))).reshape(2, 16, 16, 6)
    torch.testing.assert_close(result, expected.permute(0, 3, 1, 2))


# Layers that are not what they seem


class Padded(nn.Conv2d):
    """Pads by a module inside, as EfficientNet-Lite's convolutions do."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3)
        self.static_padding = nn.ZeroPad2d(1)

    def forward(self, x):
        return super().forward(self.static_padding(x))


class PaddedAround(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.padding, self.conv = nn.ZeroPad2d(1), nn.Conv2d(inputs, outputs, 3)

    def forward(self, x):
        return self.conv(self.padding(x))


CONVOLUTIONS = {
    "plain": lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1),
    "weight_norm": lambda inputs, outputs: nn.utils.parametrizations.weight_norm(
        nn.Conv2d(inputs, outputs, 3, padding=1)
    ),
    "spectral_norm": lambda inputs, outputs: nn.utils.parametrizations.spectral_norm(
        nn.Conv2d(inputs, outputs, 3, padding=1)
    ),
    "padding inside": Padded,
    "padding around": PaddedAround,
    "in a sequence": lambda inputs, outputs: nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(inputs, outputs, 3)
    ),
}


class LiteHead(nn.Module):
    """As in EfficientNet-Lite0: one activation, which runs twice."""

    def __init__(self, convolution):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 2, 2), convolution(4, 2)
        self.norm0, self.norm1 = nn.BatchNorm2d(4), nn.BatchNorm2d(2)
        self.relu, self.fc = nn.ReLU6(), nn.Linear(2, 3)

    def forward(self, x):
        x = self.relu(self.norm0(self.stem(x)))
        return self.fc(self.relu(self.norm1(self.head(x))).mean((2, 3)))


@pytest.mark.parametrize("convolution", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_auto_avoids_convolution_with_children(convolution):
    model = seeded(LiteHead, convolution)
    assert chosen(model, images_of(16)) == {"relu": (8, 8)}
    assert not any("parametriz" in layer.name for layer in list_layers(model, images_of(16)))


def test_auto_keeps_normalization_between_convolution_and_function():
    """Nothing else at its resolution has seen the last convolution."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(4, 3)

        def forward(self, x):
            x = self.pool(torch.relu(self.norm1(self.conv1(x))))
            return self.fc(torch.relu(self.norm2(self.conv2(x))).mean((2, 3)))

    assert chosen(seeded(Functional), images_of(16)) == {"norm1": (16, 16), "norm2": (8, 8)}


class NestedBlock(nn.Module):
    """As in TNT: of the pixels of each patch, and of the patches; returns both, pixels first."""

    def __init__(self, dim):
        super().__init__()
        self.inner, self.outer = Block(4), Block(dim)
        self.norm, self.proj = nn.LayerNorm(16), nn.Linear(16, dim)

    def forward(self, pixels, patches):
        pixels = self.inner(pixels)
        new = self.proj(self.norm(pixels.reshape(len(patches), -1, 16)))
        patches = torch.cat([patches[:, :1], patches[:, 1:] + new], 1)
        return pixels, self.outer(patches)


class PixelEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 4, 4, 4)

    def forward(self, x):
        cells = self.proj(x).unfold(2, 2, 2).unfold(3, 2, 2)  # (N, 4, h, w, 2, 2)
        return cells.permute(0, 2, 3, 4, 5, 1).reshape(-1, 4, 4)


class TNT(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.pixel_embed, self.proj = PixelEmbed(), nn.Linear(16, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList(NestedBlock(8) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        count = len(x)
        pixels = self.pixel_embed(x)
        patches = self.proj(pixels.reshape(count, -1, 16))
        patches = torch.cat([self.cls_token.expand(count, -1, -1), patches], 1)
        for block in self.blocks:
            pixels, patches = block(pixels, patches)
        return self.head(self.norm(patches)[:, 0])


def test_auto_for_transformer_in_transformer():
    model, images = seeded(TNT), images_of(32)
    assert chosen(model, images) == dict.fromkeys(["blocks.0", "blocks.1"], (4, 4))
    captured = capture_layers(model, images, ["blocks.0", "blocks.1"])
    assert all(capture.gradient.count_nonzero() for capture in captured.values())
    assert captured["blocks.1"].activation.shape == (2, 8, 4, 4)


def test_auto_for_single_stage_without_gradient_at_its_end():
    """No block is recorded, and the last layer has no gradient at its positions."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(8)

        def forward(self, x):
            return [[self.block.mlp(x) + x]]  # a structure that hooks do not see

    class Model(ViT):
        def __init__(self):
            super().__init__(16, depth=0)
            self.parts = nn.ModuleList(Hidden() for _ in range(3))
            self.mix = Attention(8)

        def forward(self, x):
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
            for part in self.parts[:2]:
                x = part(x)[0][0]
            x = x + self.mix(x)
            return self.head(self.parts[2](x)[0][0][:, 0])

    (name,) = chosen(seeded(Model), images_of(32))
    assert name != "parts.2.block.mlp"
    assert capture_layers(seeded(Model), images_of(32), name)[name].gradient.any()


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.drop_path = nn.Identity()

    def forward(self, x):
        branch = self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + self.drop_path(branch)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FunctionNorm(nn.Module):
    """Normalizes by a function, without a module of its own."""

    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, 2 * dim, 2, 2)

    def forward(self, x):
        x = nn.functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)
        return self.conv(x)


class ConvNeXt(nn.Module):
    def __init__(self, module_norm=True):
        super().__init__()
        self.stem, self.stages = nn.Conv2d(3, 4, 2, 2), nn.Sequential()
        for stage in range(3):
            dim = 4 * 2**stage
            down = nn.Identity()
            if stage:
                conv = nn.Conv2d(dim // 2, dim, 2, 2)
                down = nn.Sequential(LayerNorm2d(dim // 2), conv)
                down = down if module_norm else FunctionNorm(dim // 2)
            blocks = nn.Sequential(ConvNeXtBlock(dim), ConvNeXtBlock(dim))
            self.stages.append(nn.Sequential(OrderedDict(downsample=down, blocks=blocks)))
        self.norm, self.fc = LayerNorm2d(16), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.norm(self.stages(self.stem(x)).mean((2, 3), keepdim=True)).flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module_norm", "expected"),
    [
        (True, ["stages.1.downsample.0", "stages.2.downsample.0", "stages.2"]),
        (False, ["stages.0.blocks.1.drop_path", "stages.1.blocks.1.drop_path", "stages.2"]),
    ],
)
def test_auto_avoids_residue(module_norm, expected):
    """Behind the normalization, or before the residual sum; the last is averaged first."""
    model, images = seeded(ConvNeXt, module_norm), images_of(32)
    assert list(chosen(model, images)) == expected
    result = explain(model, images, "hires-cam", warn=False)
    assert {kind for status in result.statuses.values() for kind in status.kinds} == {"ok"}
    result = explain(model, images, "hires-cam", ["stages.0", "stages.1"], warn=False)
    assert {kind for status in result.statuses.values() for kind in status.kinds} == {"residue"}
