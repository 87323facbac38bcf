"""Counts against arithmetic, and text that fits."""

import gc
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS, blank_sample, build_model
from seewhy.models.summary import LayerSummary, ModelSummary, format_summary, model_summary


def test_resnet18_by_hand():
    found = model_summary("resnet18")
    stem = 3 * 64 * 9 * 32 * 32
    stage1 = 4 * 64 * 64 * 9 * 32 * 32
    later = (
        64 * 128 * 9 * 16 * 16 + 3 * 128 * 128 * 9 * 16 * 16 + 64 * 128 * 16 * 16
    )  # each of the three stages costs the same
    norms = 2 * (64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
    assert found.multiply_adds == stem + stage1 + 3 * later + norms + 5120 + 10
    assert round(found.multiply_adds / 1e6, 2) == 555.43
    assert (found.parameters, found.trainable) == (11_173_962, 11_173_962)
    assert found.parameters_mb == pytest.approx(11_173_962 * 4 / 1e6)
    assert found.input_mb == pytest.approx(3 * 32 * 32 * 4 / 1e6)


def test_rows_of_a_small_net():
    net = nn.Sequential(
        nn.Conv2d(2, 4, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    net[3].weight.requires_grad_(False)
    found = model_summary(net, image_shape=(2, 8, 8))
    conv, relu, flatten, linear = found.layers
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
    assert (found.parameters, found.trainable) == (401, 81)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.activations_mb == pytest.approx((64 + 5) * 4 * 2 / 1e6)


def test_a_layer_used_twice_counts_its_parameters_once_and_its_work_twice():
    shared = nn.Linear(4, 4)
    found = model_summary(
        nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared), image_shape=(1, 2, 2)
    )
    assert [layer.parameters for layer in found.layers] == [0, 20, 0, 0]
    assert (found.parameters, found.multiply_adds) == (20, 40)


def test_parameters_outside_of_layers_have_a_row():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(x.flatten(1)) * self.factor.sum()

    found = model_summary(Scaled(), image_shape=(1, 2, 2))
    assert [(layer.name, layer.parameters) for layer in found.layers] == [
        ("(model)", 3),
        ("linear", 10),
    ]
    assert found.parameters == 13


@pytest.mark.parametrize("text", ["davidnet", "resnet34", "speednet:depth=3"])
def test_rows_add_up_to_the_totals(text):
    found = model_summary(text, image_shape=(1, 28, 28), num_classes=4)
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds
    assert found.layers[-1].output_shape == (4,)


def test_everything_is_left_as_it_was():
    model = build_model("davidnet:dropout=0.5", 10, blank_sample(3, 8, 8)).train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    model_summary(model, image_shape=(3, 8, 8))
    model_summary("resnet18", image_shape=(3, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_device_stays_and_no_memory_is_needed():
    with torch.device("meta"):
        model = build_model("vgg16", 1000, blank_sample(3, 224, 224))
    found = model_summary(model, image_shape=(3, 224, 224))
    assert next(model.parameters()).device.type == "meta"
    assert found.parameters == 138_357_544


def test_the_model_is_not_kept_in_memory():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model_summary(model, image_shape=(1, 2, 2))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_shape_that_does_not_fit_is_refused_in_one_line():
    model = build_model("resnet18", 10, blank_sample(1, 8, 8))
    with pytest.raises(SeewhyError, match="ResNet cannot take an image of 3x8x8: ") as error:
        model_summary(model, image_shape=(3, 8, 8))
    assert "\n" not in str(error.value)
    with pytest.raises(SeewhyError, match="each at least 1"):
        model_summary("resnet18", image_shape=(3, 0, 8))


@pytest.mark.parametrize("width", [200, 100, 80, 60, 50, 40])
@pytest.mark.parametrize("text", ["resnet18", "davidnet"])
def test_text_fits_and_names_every_layer(text, width):
    found = model_summary(text)
    lines = format_summary(found, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == f"{text}, image 3x32x32"
    table = lines[4 : 4 + len(found.layers)]
    for line, layer in zip(table, found.layers, strict=True):
        name = line.split()[0]
        assert layer.name.endswith(name.removeprefix("…"))
    assert f"parameters     {found.parameters:,}" in lines
    assert f"multiply-adds  {found.multiply_adds / 1e6:,.2f} M" in lines


ALL_COLUMNS = ["layer", "type", "input", "output", "params", "%", "madds"]


@pytest.mark.parametrize("text", ["resnet18", "davidnet", "speednet", "vgg16-bn"])
def test_80_columns_hold_everything(text):
    with torch.device("meta"):
        model = build_model(text, 10, blank_sample(3, 32, 32))
    lines = format_summary(model_summary(model), 80).splitlines()
    assert lines[2].split() == ALL_COLUMNS
    assert lines[-1].endswith("input")  # no note
    assert max(map(len, lines)) <= 80


def test_a_row_says_what_it_counts():
    found = format_summary(model_summary("resnet18"), 80).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in found[4:] if line}
    assert rows["layer2.0.conv1"] == [
        "Conv2d",
        "3x3",
        "64x32x32",
        "128x16x16",
        "73,728",
        "0.7",
        "18.9M",
    ]
    assert rows["bn1"] == ["BatchNorm2d", "64x32x32", "64x32x32", "128", "0.0", "128"]
    assert rows["relu"] == ["ReLU", "64x32x32", "64x32x32", "-", "-", "-"]
    assert rows["pool"][0] == "AdaptiveAvgP…"


def test_a_kernel_stays_when_its_type_is_cut():
    found = model_summary(
        nn.Sequential(nn.ConvTranspose2d(3, 4, kernel_size=2, stride=2)), (3, 8, 8)
    )
    wide = format_summary(found, 200).splitlines()
    narrow = format_summary(found, len(wide[3]) - 6).splitlines()
    assert wide[4].split()[1:3] == ["ConvTranspose2d", "2x2"]
    assert narrow[4].split()[1:3] == ["ConvTran…", "2x2"]


@pytest.mark.parametrize(
    ("width", "left_out"), [(60, "input, type"), (40, "input, type, %, madds")]
)
def test_columns_that_are_left_out_are_named_with_the_remedy(width, left_out):
    found = model_summary("davidnet")
    lines = format_summary(found, width).splitlines()
    headers = lines[2].split()
    assert headers == [header for header in ALL_COLUMNS if header not in left_out.split(", ")]
    note = " ".join(lines[lines.index("", 3) :]).strip()
    needed = int(
        re.fullmatch(
            rf"left out to fit {width} columns: {left_out}; a terminal of (\d+) columns shows them",
            note,
        )[1]
    )
    assert format_summary(found, needed).splitlines()[2].split() == ALL_COLUMNS
    assert format_summary(found, needed - 1).splitlines()[2].split() != ALL_COLUMNS


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
def test_multiply_adds_have_three_digits(count, text):
    layer = LayerSummary("a", "B", (), (1,), (1,), 0, 0.0, count)
    found = ModelSummary("net", (1, 1, 1), (layer,), 0, 0, count, 0, 0, 0)
    assert format_summary(found).splitlines()[4].split()[-1] == text


class Huge(nn.Module):
    """Asks for an exabyte, when it is made or when it is used."""

    def __init__(self, at_once):
        super().__init__()
        self.held = torch.empty(2**60) if at_once else None

    def forward(self, x):
        return torch.empty(2**60)


@pytest.mark.parametrize("at_once", [False, True])
def test_what_does_not_fit_into_memory_is_refused_in_one_line(at_once, monkeypatch):
    monkeypatch.setitem(MODELS, "huge", lambda num_classes, sample: Huge(at_once))
    with pytest.raises(SeewhyError) as error:
        model_summary("huge", image_shape=(3, 8, 8))
    assert (
        str(error.value)
        == "huge and an image of 3x8x8 do not fit into memory; choose a smaller image or network"
    )


def test_an_image_beyond_all_memory_is_refused_before_it_is_made():
    with pytest.raises(
        SeewhyError, match="resnet18 and an image of 3x100000x100000 do not fit into memory"
    ):
        model_summary("resnet18", (3, 100_000, 100_000))


def test_other_bugs_of_a_model_stay_tracebacks(monkeypatch):
    def broken(num_classes, sample):
        raise RuntimeError("a bug")

    monkeypatch.setitem(MODELS, "broken", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        model_summary("broken")


def test_every_number_of_the_documentation():
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
            found = model_summary(build_model(name, 10, blank_sample(3, 32, 32)))
        assert [f"{found.parameters:,}", f"{found.multiply_adds / 1e6:,.2f} M"] == numbers, name
