"""A model's summary as text: its tree, its numbers, and that it fits."""

import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

from seewhy.models.registry import blank_sample, build_model
from seewhy.models.summary import model_summary
from seewhy.models.summary_table import count_text, format_summary

ALL_COLUMNS = ["layer", "type", "input", "output", "params", "%", "madds"]


@pytest.fixture(scope="module")
def summaries():
    return {text: model_summary(text) for text in ("resnet18", "davidnet")}


def label_of(layer):
    """The last part of a layer's name, as its row begins, without the lines of the tree."""
    return layer.name.rpartition(".")[2]


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
        tree = re.match(r"(?:[│ ] )*[├└]─", line)
        if tree or not rows:
            rows.append(re.split(r" {2,}", line[tree.end() if tree else 0 :].strip()))
        else:  # the rest of a folded cell
            for cell in re.finditer(r"\S+(?: \S+)*", line):
                rows[-1][columns.index(cell.start())] += cell[0]
    return table[0].split(), rows


@pytest.mark.slow
@pytest.mark.parametrize("text", ["resnet18", "davidnet"])
def test_format_summary_at_200_columns(text, summaries):
    summary = summaries[text]
    headers, rows = rows_of(format_summary(summary, 200))
    assert headers == ALL_COLUMNS
    for row, layer in zip(rows, summary.layers, strict=True):
        kernel = "x".join(map(str, layer.kernel))
        assert row == [
            label_of(layer),
            f"{layer.type} {kernel}" if kernel else layer.type,
            "x".join(map(str, layer.input_shape)),
            "x".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}" if layer.parameters else "-",
            (f"{100 * layer.share:.1f}" if layer.share < 1 else "100") if layer.parameters else "-",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "-",
        ]


@pytest.mark.sampled(5)
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
    assert [row[0] for row in rows] == list(map(label_of, summary.layers))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["resnet18", "davidnet", "speednet", "vgg16-bn", "vit"])
def test_format_summary_needs_80_columns(text):
    with torch.device("meta"):
        model = build_model(text, 10, blank_sample(3, 32, 32))
    formatted = format_summary(model_summary(model), 80)
    assert rows_of(formatted)[0] == ALL_COLUMNS
    assert "left out" not in formatted
    assert max(map(len, formatted.splitlines())) <= 80


def test_format_summary_rows(summaries):
    lines = format_summary(summaries["resnet18"], 80).splitlines()
    rows = {line[:14].strip(): line[14:].split() for line in lines}
    assert rows["(model)"] == [
        *("ResNet", "3x32x32", "10", "11,173,962", "100", "555,432,330"),
    ]
    assert rows["├─bn1"] == ["BatchNorm2d", "64x32x32", "64x32x32", "128", "0.0", "128"]
    assert rows["├─relu"] == ["ReLU", "64x32x32", "64x32x32", "-", "-", "-"]
    start = lines.index(next(line for line in lines if line.startswith("├─layer2")))
    assert lines[start].split()[1:] == [
        *("Sequential", "64x32x32", "128x16x16", "525,568", "4.7", "134,219,008"),
    ]
    block, conv = lines[start + 1 : start + 3]
    assert block.split()[:3] == ["│", "├─0", "BasicBlock"]
    assert conv.split() == [
        *("│", "│", "├─conv1", "Conv2d", "3x3", "64x32x32", "128x16x16", "73,728", "0.7"),
        "18,874,368",
    ]
    names = [line[:14].rstrip() for line in lines[start + 7 : start + 12]]
    assert names == ["│ │ ├─shortcut", "│ │ │ ├─0", "│ │ │ └─1", "│ │ └─relu2", "│ └─1"]


@pytest.mark.slow
def test_format_summary_of_a_batch():
    lines = format_summary(model_summary("resnet18", batch_size=32), 80).splitlines()
    assert lines[0] == "resnet18, image 3x32x32, batch size 32"
    assert "multiply-adds  17.77 G" in lines
    assert "               314.58 activations" in lines
    assert "               359.66 total" in lines
    assert "as in torchinfo: 1 MB is 10^6 bytes" in " ".join(lines)


@pytest.mark.parametrize(
    ("count", "text"),
    [(5_130, "0.01 M"), (555_432_330, "555.43 M"), (17_773_834_560, "17.77 G")],
)
def test_count_text(count, text):
    assert count_text(count) == text


def test_format_summary_folds_long_names():
    deep = nn.Sequential(nn.Conv2d(3, 4, kernel_size=2, stride=2))
    names = [f"a_rather_long_name_{level}" for level in range(5)]
    for name in names:
        deep = nn.Sequential(OrderedDict([(name, deep)]))
    summary = model_summary(deep, (3, 8, 8))
    for width in (200, 80, 40):
        formatted = format_summary(summary, width)
        _, rows = rows_of(formatted)
        assert [row[0] for row in rows] == ["(model)", *reversed(names), "0"]
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
