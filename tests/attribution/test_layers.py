"""Layouts of outputs on the image, and names of layers."""

import numpy as np
import pytest
import torch
from torch import nn

from seewhy.attribution.capture import capture_layers
from seewhy.attribution.hooks import forward_hooks, main_tensor
from seewhy.attribution.layers import Layer, list_layers, resolve_layers
from seewhy.attribution.layouts import Layout, layout_of
from seewhy.errors import SeewhyError


def numbered(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape)


def test_to_grid_positions():
    """Rows before columns, prefix tokens left out."""
    batch, channels, height, width, prefix = 2, 3, 4, 5, 2
    first, last = numbered(batch, channels, height, width), numbered(batch, height, width, channels)
    tokens = numbered(batch, prefix + height * width, channels)
    grids = {
        "NCHW": Layout("NCHW", (height, width)).to_grid(first),
        "NHWC": Layout("NHWC", (height, width)).to_grid(last),
        "NLC": Layout("NLC", (height, width), prefix).to_grid(tokens),
    }
    for n, c, row, column in np.ndindex(batch, channels, height, width):
        assert grids["NCHW"][n, c, row, column] == first[n, c, row, column]
        assert grids["NHWC"][n, c, row, column] == last[n, row, column, c]
        assert grids["NLC"][n, c, row, column] == tokens[n, prefix + row * width + column, c]
    assert {grid.shape for grid in grids.values()} == {(batch, channels, height, width)}


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (Layout("NCHW", (4, 5)), (1, 3, 4, 5)),
        (Layout("NHWC", (4, 5)), (1, 4, 5, 3)),
        (Layout("NLC", (4, 5), 2), (1, 22, 3)),
        (Layout("NLC", (4, 6), 2, ((2, 3), (2, 1))), (1, 26, 3)),
    ],
)
def test_to_output_inverts_to_grid(layout, shape):
    output = numbered(*shape)
    assert torch.equal(layout.to_output(layout.to_grid(output), output), output)
    several = torch.rand(6, 3, *layout.grid)
    values = layout.to_output(several, output)
    assert values.shape == (6, *shape[1:])
    assert torch.equal(layout.to_grid(values), several)
    assert layout.form != "NLC" or (values[:, :2] == output[:, :2]).all()


def test_to_grid_of_mask_units():
    """Hiera's order by its definition: windows split off, each stride in turn, and put first."""
    height, width = 12, 8
    grid = numbered(1, 1, height, width)
    windows = grid[0, 0].flatten().reshape(1, height, width)
    for _ in range(2):
        count, rows, columns = windows.shape
        windows = windows.reshape(count, rows // 2, 2, columns // 2, 2)
        windows = windows.permute(0, 2, 4, 1, 3).reshape(count * 4, rows // 2, columns // 2)
    tokens = windows.reshape(1, -1, 1)
    layout = Layout("NLC", (height, width), strides=((2, 2), (2, 2)))
    assert torch.equal(layout.to_grid(tokens), grid)
    pooled = tokens.reshape(1, 4, -1, 1).amax(1)  # merges neighbors, as in the next stage
    expected = nn.functional.max_pool2d(grid, 2)
    layout = Layout("NLC", (height // 2, width // 2), strides=((2, 2),))
    assert torch.equal(layout.to_grid(pooled), expected)


class HieraEncoder(nn.Module):
    """As in transformers: tokens in mask units, and the strides to come at each stage."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.schedule = {0: ([(2, 2)], [4, 6]), 1: ([], [2, 3])}

    def forward(self, x):
        x = x.unflatten(1, (2, 2, 3, 2)).permute(0, 2, 4, 1, 3, 5).flatten(1, 4)
        return self.layer(x).unflatten(1, (4, 6)).amax(1)


class Hiera(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings, self.encoder = nn.Conv2d(3, 4, 2, 2), HieraEncoder()
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.embeddings(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.encoder(x)).mean(1))


def test_capture_of_mask_units():
    """Each position depends on its pixels only."""
    torch.manual_seed(0)
    model, image = Hiera().eval(), torch.full((1, 3, 8, 12), 0.5)
    changed = image.clone()
    changed[:, :, 6:8, 2:4] = 1.0
    both = torch.cat([image, changed])
    captures = capture_layers(model, both, ["encoder.layer", "encoder"])
    for name, position in {"encoder.layer": (3, 1), "encoder": (1, 0)}.items():
        before, after = captures[name].activation
        assert (after - before).abs().sum(0).nonzero().tolist() == [list(position)]


class Shuffled(nn.Module):
    """A transformer's tokens in an order that nobody knows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.head = nn.Conv2d(3, 4, 2, 2), nn.LayerNorm(4), nn.Linear(4, 3)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2)))
        self.order = torch.randperm(64)

    def forward(self, x):
        x = torch.relu(self.embed(x)).flatten(2).transpose(1, 2)
        x = self.blocks[0](x)
        return self.head(self.norm(self.blocks[1](x[:, self.order])).mean(1))


def test_auto_skips_misplaced_layer():
    layers = list_layers(Shuffled().eval(), torch.full((1, 3, 16, 16), 0.5))
    assert [layer.name for layer in layers if layer.auto] == ["blocks.0"]


SQUARE, WIDE, ODD = (2, 3, 224, 224), (2, 3, 64, 96), (2, 3, 33, 65)


@pytest.mark.parametrize(
    ("shape", "images", "expected"),
    [
        ((2, 64, 7, 7), SQUARE, Layout("NCHW", (7, 7))),
        ((2, 7, 7, 64), SQUARE, Layout("NHWC", (7, 7))),
        ((2, 7, 7, 7), SQUARE, Layout("NCHW", (7, 7))),  # nobody can know
        ((2, 7, 9, 9), SQUARE, Layout("NCHW", (9, 9))),
        (
            (2, 64, 10, 3),
            SQUARE,
            Layout("NCHW", (10, 3)),
        ),  # an unusual grid may be named all the same
        ((2, 16, 4, 6), WIDE, Layout("NCHW", (4, 6))),
        ((2, 4, 6, 16), WIDE, Layout("NHWC", (4, 6))),
        ((2, 4, 6, 9), WIDE, Layout("NCHW", (6, 9))),  # four channels of 6x9, which fits as well
        ((2, 9, 17, 33), ODD, Layout("NCHW", (17, 33))),
        ((2, 196, 192), SQUARE, Layout("NLC", (14, 14))),
        ((2, 197, 192), SQUARE, Layout("NLC", (14, 14), 1)),
        ((2, 198, 192), SQUARE, Layout("NLC", (14, 14), 2)),  # class and distillation token
        ((2, 201, 192), SQUARE, Layout("NLC", (14, 14), 5)),  # class token and four registers
        ((2, 24, 8), WIDE, Layout("NLC", (4, 6))),
        ((2, 25, 8), WIDE, Layout("NLC", (4, 6), 1)),
        ((2, 28, 8), WIDE, Layout("NLC", (4, 6), 4)),  # not 4x7, whose cells would not be square
        ((2, 9 * 17 + 1, 8), ODD, Layout("NLC", (9, 17), 1)),
        ((2, 512), SQUARE, None),
        ((2, 64, 1, 1), SQUARE, None),
        ((2, 1, 192), SQUARE, None),
        ((2, 196, 1), SQUARE, None),  # pooled channels
        ((2, 190, 192), SQUARE, None),
        ((32, 49, 96), SQUARE, None),  # windows
        ((1, 15, 15, 12), SQUARE, None),  # a table of positions
        ((2, 3, 4, 14, 14), SQUARE, None),
        ((), SQUARE, None),
    ],
)
def test_layout_of(shape, images, expected):
    assert layout_of(shape, images) == expected


@pytest.mark.parametrize(
    ("tokens", "prefixes", "expected"),
    [
        (197, 1, Layout("NLC", (14, 14), 1)),
        (
            196,
            1,
            Layout("NLC", (14, 14)),
        ),  # before the class token is put there, or after it was taken off
        (197, 0, None),
        (205, 9, Layout("NLC", (14, 14), 9)),  # more than would be tried
        (205, None, None),
    ],
)
def test_layout_of_with_known_prefix(tokens, prefixes, expected):
    assert layout_of((2, tokens, 8), SQUARE, prefixes) == expected


@pytest.mark.parametrize("size", [(33, 65), (65, 33), (31, 50), (97, 41), (30, 30), (224, 160)])
@pytest.mark.parametrize("halved", [lambda side: side // 2, lambda side: -(-side // 2)])
def test_layout_of_odd_sizes(size, halved):
    """Down to few cells, in every form, whichever way a stride rounds."""
    grid, images = size, (2, 3, *size)
    while min(grid) > 3:
        grid = halved(grid[0]), halved(grid[1])
        assert layout_of((2, 1000, *grid), images) == Layout("NCHW", grid)
        assert layout_of((2, *grid, 1000), images) == Layout("NHWC", grid)


class Plain(nn.Module):
    """A stem, a block that runs twice, tokens, and what has no places."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.same = self.again
        self.skip = nn.Sequential()
        self.norm = nn.LayerNorm(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        x = self.again(self.skip(self.again(self.stem(x))))
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return self.linear(self.pool(x).flatten(1) + tokens.mean(1))


def plain():
    return Plain().eval(), torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def test_list_layers_order():
    model, images = plain()
    assert list_layers(model, images) == (
        Layer("stem.0", "Conv2d", 4, (6, 8), False),
        Layer("stem.1", "ReLU", 4, (6, 8), False),
        Layer("stem", "Sequential", 4, (6, 8), False),
        Layer("skip", "Sequential", 4, (6, 8), False),
        Layer("again", "Conv2d", 4, (6, 8), False),
        Layer("norm", "LayerNorm", 4, (6, 8), True),
    )


def test_list_layers_of_other_inputs():
    model, images = plain()
    expected = list_layers(model, images)
    assert list_layers(model, images[:1]) == expected
    assert list_layers(model, (images * 255).to(torch.uint8)) == expected
    with torch.inference_mode():
        assert list_layers(model, images) == expected
    assert list_layers(nn.DataParallel(model).eval(), images) == expected


@pytest.mark.slow
def test_list_layers_names_compiled_part():
    model, images = plain()
    expected = list_layers(model, images)
    assert resolve_layers(model, images, torch.compile(model.stem, backend="eager")) == ["stem"]
    model.stem = torch.compile(model.stem, backend="eager")
    assert list_layers(model, images) == expected
    assert resolve_layers(model, images, [model.stem, "stem.0", "stem._orig_mod.0"]) == [
        "stem",
        "stem.0",
    ]


def test_resolve_layers():
    model, images = plain()
    assert resolve_layers(model, images, "stem.1") == ["stem.1"]
    assert resolve_layers(model, images, model.stem) == ["stem"]
    assert resolve_layers(model, images, (model.stem[0], "norm", "stem.0", model.norm)) == [
        "stem.0",
        "norm",
    ]
    assert resolve_layers(model, images, "same") == ["same"]
    assert resolve_layers(model, images, "skip") == ["skip"]
    assert resolve_layers(model, images, "unused") == ["unused"]  # whoever captures it will be told
    assert resolve_layers(model, images, "auto") == ["norm"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            "stem1",
            r"unknown layer 'stem1' \(did you mean 'stem.1'\?\); `seewhy layers MODEL` lists the l",
        ),
        ("Norm", "did you mean 'norm'"),
        (["stem", "stem.2"], "unknown layer 'stem.2'"),
        ("stem.0.weight", "unknown layer 'stem.0.weight'"),
        ("", "unknown layer ''"),
        ([3], "unknown layer 3"),
        ([0], "unknown layer 0"),
        ([None], "unknown layer None"),
        (nn.Conv2d(1, 1, 1), "the module Conv2d is not part of the model"),
        ([], "no layers given; name at least one, or 'auto'"),
    ],
)
def test_resolve_layers_errors(layers, message):
    with pytest.raises(SeewhyError, match=message):
        resolve_layers(*plain(), layers)


def test_resolve_layers_rejects_model():
    model, images = plain()
    with pytest.raises(SeewhyError, match="the module Plain is not part of the model"):
        resolve_layers(model, images, model)


def test_resolve_layers_without_spatial_output():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    images = torch.rand(2, 3, 8, 8)
    assert list_layers(model, images) == ()
    with pytest.raises(
        SeewhyError,
        match="no layer of this model has spatial output; gradients, rise and occlusion",
    ):
        resolve_layers(model, images, "auto")
    assert resolve_layers(model, images, "2") == ["2"]


def test_list_layers_errors():
    model, images = plain()
    with pytest.raises(SeewhyError, match=r"found \(3, 12, 16\)"):
        list_layers(model, images[0])
    with pytest.raises(SeewhyError, match="found NoneType"):
        list_layers(model, None)
    with pytest.raises(SeewhyError, match="cannot take images of 1x12x16"):
        list_layers(model, images[:, :1])
    model.pool.train()
    with pytest.raises(SeewhyError, match="its layer 'pool' is in training mode"):
        list_layers(model, images)


def test_forward_hooks_are_removed():
    model, _ = plain()
    with pytest.raises(AttributeError), forward_hooks({"stem": model.stem, "none": None}, print):
        pass
    with (
        pytest.raises(ZeroDivisionError),
        forward_hooks({"stem": model.stem, "norm": model.norm}, lambda *args: 1 / 0),
    ):
        model.stem(torch.rand(1, 3, 4, 4))
    assert not any(module._forward_hooks for module in model.modules())


def test_main_tensor():
    numbers, tensor = torch.arange(3), torch.rand(3)
    assert main_tensor(tensor, 3) is tensor
    assert main_tensor((None, numbers, tensor, tensor * 2), 3) is tensor
    assert main_tensor({"index": numbers, "values": tensor}, 3) is tensor
    pixels, patches = torch.rand(3 * 4, 2), torch.rand(3, 5)
    assert main_tensor((pixels, patches), 3) is patches
    assert main_tensor((pixels, patches), 2) is pixels
    for output in (numbers, (numbers,), {}, None, "text", [[tensor]]):
        assert main_tensor(output, 3) is None
