"""Counts against arithmetic, and text that fits."""

import gc
import re
import weakref
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS, blank_sample, build_model
from seewhy.models.summary import LayerSummary, ModelSummary, format_summary, model_summary


def test_model_summary_of_resnet18_by_hand():
    summary = model_summary("resnet18")
    stem = 3 * 64 * 9 * 32 * 32
    stage1 = 4 * 64 * 64 * 9 * 32 * 32
    later = (
        64 * 128 * 9 * 16 * 16 + 3 * 128 * 128 * 9 * 16 * 16 + 64 * 128 * 16 * 16
    )  # each of the three stages costs the same
    norms = 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
    assert summary.multiply_adds == stem + stage1 + 3 * later + norms + 5120 + 10
    assert round(summary.multiply_adds / 1e6, 2) == 555.43
    assert (summary.parameters, summary.trainable) == (11_173_962, 11_173_962)
    assert summary.parameters_mb == pytest.approx(11_173_962 * 4 / 1e6)
    assert summary.input_mb == pytest.approx(3 * 32 * 32 * 4 / 1e6)


def test_model_summary_of_a_small_model():
    net = nn.Sequential(
        nn.Conv2d(2, 4, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    net[3].weight.requires_grad_(False)
    summary = model_summary(net, image_shape=(2, 8, 8))
    conv, relu, flatten, linear = summary.layers
    assert (conv.name, conv.type, conv.kernel, conv.input_shape, conv.output_shape) == (
        "0",
        "Conv2d",
        (3, 3),
        (2, 8, 8),
        (4, 4, 4),
    )
    assert (conv.parameters, conv.multiply_adds) == (76, 76 * 16)
    assert (relu.kernel, relu.parameters, relu.multiply_adds) == ((), 0, 0)
    assert flatten.output_shape == (64,)
    assert (linear.parameters, linear.multiply_adds) == (325, 325)
    assert (summary.parameters, summary.trainable) == (401, 81)
    assert sum(layer.share for layer in summary.layers) == pytest.approx(1)
    assert summary.activations_mb == pytest.approx((64 + 5) * 4 * 2 / 1e6)


def test_model_summary_of_a_layer_used_twice():
    shared = nn.Linear(4, 4)
    summary = model_summary(
        nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared), image_shape=(1, 2, 2)
    )
    assert [layer.parameters for layer in summary.layers] == [0, 20, 0, 0]
    assert (summary.parameters, summary.multiply_adds) == (20, 40)


def test_model_summary_of_parameters_outside_layers():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(x.flatten(1)) * self.factor.sum()

    summary = model_summary(Scaled(), image_shape=(1, 2, 2))
    assert [(layer.name, layer.parameters) for layer in summary.layers] == [
        ("(model)", 3),
        ("linear", 10),
    ]
    assert summary.parameters == 13


@pytest.mark.parametrize("text", ["davidnet", "resnet34", "speednet:depth=3"])
def test_model_summary_rows_add_up(text):
    summary = model_summary(text, image_shape=(1, 28, 28), num_classes=4)
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    assert sum(layer.multiply_adds for layer in summary.layers) == summary.multiply_adds
    assert summary.layers[-1].output_shape == (4,)


def test_model_summary_leaves_no_trace():
    model = build_model("davidnet:dropout=0.5", 10, blank_sample(3, 8, 8)).train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    model_summary(model, image_shape=(3, 8, 8))
    model_summary("resnet18", image_shape=(3, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_model_summary_on_meta():
    with torch.device("meta"):
        model = build_model("vgg16", 1000, blank_sample(3, 224, 224))
    summary = model_summary(model, image_shape=(3, 224, 224))
    assert next(model.parameters()).device.type == "meta"
    assert summary.parameters == 138_357_544


def test_model_summary_keeps_no_reference():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model_summary(model, image_shape=(1, 2, 2))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_model_summary_of_a_wrong_shape():
    model = build_model("resnet18", 10, blank_sample(1, 8, 8))
    with pytest.raises(SeewhyError, match="ResNet cannot take an image of 3x8x8: ") as error:
        model_summary(model, image_shape=(3, 8, 8))
    assert "\n" not in str(error.value)
    with pytest.raises(SeewhyError, match="each at least 1"):
        model_summary("resnet18", image_shape=(3, 0, 8))


ALL_COLUMNS = ["layer", "type", "input", "output", "params", "%", "madds"]


@pytest.fixture(scope="module")
def summaries():
    return {text: model_summary(text) for text in ("resnet18", "davidnet")}


def rows_of(text):
    """Header and rows of the table; a folded row is put together again."""
    lines = text.splitlines()
    table = lines[2 : lines.index("", 3)]
    starts = [match.start() for match in re.finditer(r"\S+", table[0])]
    right = {"input", "output", "params", "%", "madds"}
    columns = []
    for start, header in zip(starts, table[0].split(), strict=True):
        columns.append(start + len(header) if header in right else start)
    rows = []
    for line in table[2:]:
        cells = re.split(r" {2,}", line.strip())
        if len(cells) == len(columns):
            rows.append(cells)
        else:  # the rest of a folded cell
            for cell in re.finditer(r"\S+(?: \S+)*", line):
                rows[-1][columns.index(cell.start())] += cell[0]
    return table[0].split(), rows


@pytest.mark.parametrize("text", ["resnet18", "davidnet"])
def test_format_summary_at_200_columns(text, summaries):
    summary = summaries[text]
    headers, rows = rows_of(format_summary(summary, 200))
    assert headers == ALL_COLUMNS
    for row, layer in zip(rows, summary.layers, strict=True):
        kernel = "x".join(map(str, layer.kernel))
        assert row[:6] == [
            layer.name,
            f"{layer.type} {kernel}" if kernel else layer.type,
            "x".join(map(str, layer.input_shape)),
            "x".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}" if layer.parameters else "-",
            f"{100 * layer.share:.1f}" if layer.parameters else "-",
        ]


@pytest.mark.parametrize("width", [200, 100, 80, 60, 50, 40])
@pytest.mark.parametrize("text", ["resnet18", "davidnet"])
def test_format_summary_fits_and_names_every_layer(text, width, summaries):
    summary = summaries[text]
    lines = format_summary(summary, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == f"{text}, image 3x32x32"
    assert f"parameters     {summary.parameters:,}" in lines
    assert f"  trainable    {summary.trainable:,}" in lines
    assert f"multiply-adds  {summary.multiply_adds / 1e6:,.2f} M" in lines
    _, rows = rows_of("\n".join(lines))
    assert [row[0] for row in rows] == [layer.name for layer in summary.layers]


@pytest.mark.parametrize("text", ["resnet18", "davidnet", "speednet", "vgg16-bn"])
def test_format_summary_needs_80_columns(text):
    with torch.device("meta"):
        model = build_model(text, 10, blank_sample(3, 32, 32))
    formatted = format_summary(model_summary(model), 80)
    assert rows_of(formatted)[0] == ALL_COLUMNS
    assert "left out" not in formatted
    assert max(map(len, formatted.splitlines())) <= 80


def test_format_summary_rows(summaries):
    _, table = rows_of(format_summary(summaries["resnet18"], 80))
    rows = {name: cells for name, *cells in table}
    conv = ["Conv2d 3x3", "64x32x32", "128x16x16", "73,728", "0.7", "18.9M"]
    assert rows["layer2.0.conv1"] == conv
    assert rows["bn1"] == ["BatchNorm2d", "64x32x32", "64x32x32", "128", "0.0", "128"]
    assert rows["relu"] == ["ReLU", "64x32x32", "64x32x32", "-", "-", "-"]
    assert rows["pool"] == ["AdaptiveAvgPool2d", "512x4x4", "512x1x1", "-", "-", "-"]


def test_format_summary_folds_long_names():
    deep = nn.Sequential(nn.Conv2d(3, 4, kernel_size=2, stride=2))
    names = [f"a_rather_long_name_{level}" for level in range(5)]
    for name in names:
        deep = nn.Sequential(OrderedDict([(name, deep)]))
    summary = model_summary(deep, (3, 8, 8))
    for width in (200, 80, 40):
        formatted = format_summary(summary, width)
        _, rows = rows_of(formatted)
        assert rows[0][0] == ".".join([*reversed(names), "0"])
        assert max(map(len, formatted.splitlines())) <= width


def test_format_summary_is_plain_text(summaries, monkeypatch):
    expected = format_summary(summaries["davidnet"])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    assert format_summary(summaries["davidnet"]) == expected
    assert "\x1b" not in expected


@pytest.mark.parametrize(
    ("width", "left_out"), [(60, "input, type"), (40, "input, type, %, madds")]
)
def test_format_summary_names_what_it_leaves_out(width, left_out, summaries):
    summary = summaries["davidnet"]
    formatted = format_summary(summary, width)
    assert rows_of(formatted)[0] == [
        header for header in ALL_COLUMNS if header not in left_out.split(", ")
    ]
    note = " ".join(formatted.splitlines()[-2:]).strip()
    pattern = rf"left out to fit {width} columns: {left_out}; (\d+) columns show everything"
    needed = int(re.fullmatch(pattern, note)[1])
    assert rows_of(format_summary(summary, needed))[0] == ALL_COLUMNS
    assert rows_of(format_summary(summary, needed - 1))[0] != ALL_COLUMNS


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "-"),
        (999, "999"),
        (1000, "1.00k"),
        (9_994, "9.99k"),
        (9_996, "10.0k"),
        (99_960, "100k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (37_748_736, "37.7M"),
        (1_160_000_000, "1.16G"),
        (2_000_000_000_000, "2.00T"),
    ],
)
def test_format_summary_multiply_adds_have_three_digits(count, text):
    layer = LayerSummary("a", "B", (), (1,), (1,), 0, 0.0, count)
    summary = ModelSummary("net", (1, 1, 1), (layer,), 0, 0, count, 0, 0, 0)
    assert format_summary(summary).splitlines()[4].split()[-1] == text


class Huge(nn.Module):
    """Asks for an exabyte, when it is made or when it is used."""

    def __init__(self, at_once):
        super().__init__()
        self.held = torch.empty(2**60) if at_once else None

    def forward(self, x):
        return torch.empty(2**60)


@pytest.mark.parametrize("at_once", [False, True])
def test_model_summary_out_of_memory(at_once, monkeypatch):
    monkeypatch.setitem(MODELS, "huge", lambda num_classes, sample: Huge(at_once))
    with pytest.raises(SeewhyError) as error:
        model_summary("huge", image_shape=(3, 8, 8))
    assert (
        str(error.value)
        == "huge and an image of 3x8x8 do not fit into memory; choose a smaller image or model"
    )


def test_model_summary_of_an_image_beyond_memory():
    with pytest.raises(
        SeewhyError, match="resnet18 and an image of 3x100000x100000 do not fit into memory"
    ):
        model_summary("resnet18", (3, 100_000, 100_000))


def test_model_summary_passes_on_bugs(monkeypatch):
    def broken(num_classes, sample):
        raise RuntimeError("a bug")

    monkeypatch.setitem(MODELS, "broken", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        model_summary("broken")


@pytest.mark.slow
def test_numbers_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    assert rows[0][:3] == ["name", "parameters, 10 classes", "multiply-adds at 32x32"]
    documented = {name: row[1:3] for row in rows[2:] for name in re.findall("`([^`]+)`", row[0])}
    counts = {name: numbers for name, numbers in documented.items() if any(numbers)}
    assert counts.keys() == MODELS.keys() - {"timm", "torchvision"}
    for name, numbers in counts.items():
        with torch.device("meta"):
            summary = model_summary(build_model(name, 10, blank_sample(3, 32, 32)))
        assert [f"{summary.parameters:,}", f"{summary.multiply_adds / 1e6:,.2f} M"] == numbers, name
