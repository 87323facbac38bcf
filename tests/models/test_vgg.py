"""VGG-16 against the table of its paper and the names of published weights, mostly on "meta"."""

import pytest
import torch

from seewhy.errors import SeewhyError
from seewhy.models.registry import blank_sample, build_model

# Simonyan & Zisserman 2015, table 1
CONFIGURATION_D = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"


def on_meta(text, num_classes, shape):
    with torch.device("meta"):
        return build_model(text, num_classes, blank_sample(*shape))


def published_shapes(batch_norm, num_classes):
    """Names and shapes from the paper's table, with the numbering of a flat sequence of layers."""
    shapes, index, inputs = {}, 0, 3
    for entry in CONFIGURATION_D.split():
        if entry == "M":
            index += 1
            continue
        outputs = int(entry)
        shapes[f"features.{index}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{index}.bias"] = (outputs,)
        if batch_norm:
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"features.{index + 1}.{name}"] = (outputs,)
            shapes[f"features.{index + 1}.num_batches_tracked"] = ()
        index += 3 if batch_norm else 2
        inputs = outputs
    for layer, (outputs, inputs) in {
        0: (4096, 25088),
        3: (4096, 4096),
        6: (num_classes, 4096),
    }.items():
        shapes[f"classifier.{layer}.weight"] = (outputs, inputs)
        shapes[f"classifier.{layer}.bias"] = (outputs,)
    return shapes


@pytest.mark.parametrize(
    ("text", "batch_norm", "count"),
    [("vgg16", False, 138_357_544), ("vgg16-bn", True, 138_365_992)],
)
def test_vgg_loads_published_weights(text, batch_norm, count):
    model = on_meta(text, 1000, (3, 224, 224))
    shapes = published_shapes(batch_norm, 1000)
    found = {
        key: tuple(value.shape)
        for key, value in model.state_dict().items()
        if not key.startswith("normalize.")
    }
    assert found == shapes
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    published = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    model.load_state_dict(published, strict=True)


@pytest.mark.parametrize("side", [32, 48, 224])
def test_vgg_image_sizes(side):
    model = on_meta("vgg16", 10, (3, side, side))
    assert model(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 10)
    assert model.features(torch.zeros(2, 3, side, side, device="meta")).shape == (
        2,
        512,
        side // 32,
        side // 32,
    )


@pytest.mark.slow
def test_vgg_grayscale():
    torch.manual_seed(0)
    model = build_model("vgg16-bn:dropout=0.25", 3, blank_sample(1, 32, 32)).eval()
    assert [model.classifier[2].p, model.classifier[5].p] == [0.25, 0.25]
    with torch.inference_mode():
        logits = model(torch.rand(2, 1, 32, 32))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    assert logits[0].ne(logits[1]).any()


@pytest.mark.parametrize("text", ["vgg16", "vgg16-bn"])
def test_vgg_needs_32x32(text):
    with pytest.raises(
        SeewhyError,
        match=f"{text} downsamples five times, so it needs at least 32x32 pixels, found 28x40",
    ):
        build_model(text, 10, blank_sample(1, 28, 40))
