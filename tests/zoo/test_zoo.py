"""Every architecture of the zoo has layers to explain, where they seem, and finite maps."""

import math

import pytest
import timm
import torch
import transformers
from torch import nn

from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import explain
from seewhy.figures.model import model_figure
from seewhy.figures.model_layout import layout_model
from seewhy.models.graph import model_graph
from seewhy.models.inspection import named_layers
from seewhy.models.registry import blank_sample, build_model
from seewhy.models.summary import model_summary

pytestmark = pytest.mark.zoo

TIMM = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "seresnet50",
    "res2net50_26w_4s",
    "wide_resnet50_2",
    "densenet121",
    "vgg11_bn",
    "regnety_004",
    "dla34",
    "dpn68",
    "hrnet_w18_small",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "efficientnet_lite0",
    "mnasnet_small",
    "ghostnet_100",
    "rexnet_100",
    "fbnetc_100",
    "mobileone_s0",
    "repvgg_a0",
    "fastvit_t8",
    "convnext_atto",
    "convnextv2_atto",
    "convmixer_768_32",
    "inception_v3",
    "xception41",
    "nf_resnet50",
    "eca_nfnet_l0",
    "darknet53",
    "cspresnet50",
    "focalnet_tiny_srf",
    "poolformer_s12",
    "mixer_s16_224",
    "gmlp_ti16_224",
    "resmlp_12_224",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "crossvit_9_240",
    "levit_conv_128s",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "maxvit_tiny_tf_224",
    "coatnet_0_rw_224",
    "tnt_s_patch16_224",
    "hiera_tiny_224",
    "twins_pcpvt_small",
    "pvt_v2_b0",
    "efficientformer_l1",
    "efficientvit_m0",
    "efficientvit_b0",
    "sequencer2d_s",
]
TORCHVISION = ("resnet18", "googlenet", "mobilenet_v3_small", "squeezenet1_1", "vit_b_16", "swin_t")
# A change of one pixel grows to the whole grid in 32 blocks with random weights, not in eight.
DEPTHS = {"convmixer_768_32": 8}
SIDES = {"crossvit_9_240": 240, "swinv2_tiny_window8_256": 256}


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64}
TRANSFORMERS = {
    "ViT": {**SMALL, "patch_size": 8},
    "DeiT": {**SMALL, "patch_size": 8},
    "Beit": {**SMALL, "patch_size": 8},
    "Dinov2": {**SMALL, "patch_size": 8},
    "Swin": {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]},
    "Swinv2": {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]},
    "ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 64},
    "ConvNextV2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 64},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "groups_width": 8},
    "Pvt": {"image_size": 64},
    "Levit": {"hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 2], "depths": [1, 1, 1]},
    "Hiera": {
        "image_size": [112, 112],
        "embed_dim": 16,
        "depths": [1, 1, 1],
        "num_heads": [1, 1, 2],
        "patch_stride": [4, 4],
        "masked_unit_attention": [True, False, False],
        "num_query_pool": 2,
        "masked_unit_size": [4, 4],
    },
    "CLIP": {
        "vision_config": {**SMALL, "image_size": 112, "patch_size": 8, "intermediate_size": 64}
    },
}
TRANSFORMERS_SIDES = {"Hiera": 112, "CLIP": 112, "Levit": 224, "RegNet": 224}  # 64 is too small

PLACES = ((0.18, 0.18), (0.5, 0.72), (0.8, 0.3))  # centers, as fractions of height and width
HALF = 1 / 14  # of a patch's side


# Networks whose random weights spread a change over the whole grid, see `local`.
SPREADING = {
    *("efficientnet_b0", "efficientvit_b0", "levit_conv_128s", "mobilenetv2_100", "mobileone_s0"),
    *("repvgg_a0", "RegNet", "Levit"),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    torch.manual_seed(0)
    side = SIDES.get(name) or timm.get_pretrained_cfg(name).input_size[-1]
    model = build_model(f"timm:{name}", 5, blank_sample(3, side, side))
    if name in DEPTHS:
        del named_layers(model)["blocks"][DEPTHS[name] :]  # type: ignore[index]
    assert_explained(model, side, name in SPREADING)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(f"torchvision:{name}", 5, blank_sample(3, 224, 224))
    assert_explained(model, 224)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**TRANSFORMERS[name], num_labels=5)
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    assert_explained(model, TRANSFORMERS_SIDES.get(name, 64), name in SPREADING)


def assert_explained(model: nn.Module, side: int, spreads: bool = False) -> None:
    """There are automatic layers, where they seem, and their maps are finite.

    Where a patch is planted, the activation of every automatic layer changes most.
    """
    model = normalized(local(model) if spreads else model, side)
    half = int(HALF * side)
    images = torch.full((1 + len(PLACES), 3, side, side), 0.5)
    noise = torch.rand(3, 2 * half, 2 * half, generator=torch.Generator().manual_seed(0))
    for image, (y, x) in zip(images[1:], PLACES, strict=True):
        top, left = int(y * side) - half, int(x * side) - half
        image[:, top : top + 2 * half, left : left + 2 * half] = noise
    explanation = explain(model, images, ["hires-cam"], target=1, warn=False)
    for maps in explanation.maps.values():
        assert maps.isfinite().all()
        assert min(maps.shape[1:]) > 1
    wrong = []
    for name, capture in capture_layers(model, images, explanation.layers).items():
        changes = (capture.activation[1:] - capture.activation[:1]).square().sum(1)
        height, width = changes.shape[1:]
        for change, (y, x) in zip(changes, PLACES, strict=True):
            row, column = divmod(int(change.argmax()), width)
            apart = max(abs((row + 0.5) / height - y), abs((column + 0.5) / width - x))
            if apart > HALF + 1 / min(height, width):
                wrong.append(f"{name}: {apart:.2f} from ({y}, {x})")
    assert not wrong


@torch.no_grad()
def local(model: nn.Module) -> nn.Module:
    """The model with the center of each kernel, and attention to near positions, emphasized.

    Random weights spread a change over the whole grid in some networks: the attention of LeViT and
    EfficientViT is nearly uniform, and dozens of convolutions in a row, as in RepVGG, RegNet and
    MobileNetV2, diffuse it. Where a position lies in the image does not depend on the weights.
    """
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and min(part.kernel_size) > 1:
            middle = tuple(side // 2 for side in part.kernel_size)
            center = part.weight[:, :, *middle].clone()
            part.weight *= 0.3
            part.weight[:, :, *middle] = center
        biases = getattr(part, "attention_biases", None)  # of LeViT: (heads, rows * columns)
        if isinstance(biases, nn.Parameter):
            distance = torch.arange(math.isqrt(biases.shape[1]))
            biases.copy_(-(distance[:, None] + distance).flatten().expand_as(biases))
        if type(part).__name__ == "LiteMLA":  # the linear attention of EfficientViT
            part.proj.norm.weight *= 0.1  # type: ignore[union-attr, operator]
    return model


def normalized(model: nn.Module, side: int) -> nn.Module:
    """The model with BatchNorm statistics of its own activations, as a trained model has."""
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if norms:
        for norm in norms:
            norm.momentum = None  # a plain mean
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            model(torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1)))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("timm:vit_tiny_patch16_224", {"blocks.0–11": 12}),
        ("timm:resnet50", {"layer1.1–2": 2, "layer3.1–5": 5}),
        ("timm:convnext_atto", {"stages.2.blocks.0–5": 6}),
        ("torchvision:vit_b_16", {}),
    ],
)
def test_drawing(name: str, folded: dict[str, int]) -> None:
    torch.manual_seed(0)
    model = build_model(name, 5, blank_sample(3, 224, 224)).eval()
    graph = model_graph(model, (3, 224, 224))
    summary = model_summary(model, (3, 224, 224))
    assert graph.multiply_adds == pytest.approx(summary.multiply_adds, rel=0.001)
    assert sum(step.parameters for step in graph.steps) == summary.parameters
    frames = {frame.name: frame.count for frame in layout_model(graph).frames}
    assert frames.items() >= folded.items()
    assert len(model_figure(graph).axes[0].texts) > 30
