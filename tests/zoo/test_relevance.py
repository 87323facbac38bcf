"""Layer-wise relevance propagation: equal to zennit's on CNNs, and in models of the libraries."""

import pytest
import timm
import torch
import torchvision
import transformers
import zennit
import zennit.composites
import zennit.rules
import zennit.torchvision
from torch import Tensor, nn

from seewhy.attribution.lrp import lrp
from seewhy.attribution.target import forward_pass

pytestmark = pytest.mark.zoo

SIDE, CLASSES = 64, 4
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE}


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)


def of_zennit(model: nn.Module, canonizer: zennit.canonizers.Canonizer, gamma: float) -> Tensor:
    """(N, H, W) of class 1: gamma, epsilon, and z^B for pixels in [0, 1]."""
    (first,) = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)][:1]
    rules = [
        (nn.Conv2d, zennit.rules.Gamma(gamma)),
        (nn.Linear, zennit.rules.Epsilon(1e-6)),
        *zennit.composites.layer_map_base(),
    ]
    pixels = images().requires_grad_()
    composite = zennit.composites.MixedComposite(
        [
            zennit.composites.NameMapComposite(
                [([first], zennit.rules.ZBox(0.0, 1.0, zero_params="bias"))]
            ),
            zennit.composites.LayerMapComposite(rules, canonizers=[canonizer]),
        ]
    )
    with composite.context(model) as modified:
        logits = modified(pixels)
        relevance = logits.detach() * torch.eye(CLASSES, dtype=torch.float64)[1]
        (found,) = torch.autograd.grad(logits, pixels, relevance)
    return found.sum(1)


@pytest.mark.parametrize("gamma", [0.05, 0.25])
@pytest.mark.parametrize(
    ("name", "canonizer"),
    [
        ("vgg11_bn", zennit.torchvision.VGGCanonizer()),
        ("resnet18", zennit.torchvision.ResNetCanonizer()),
    ],
)
def test_relevance_in_a_cnn_equals_that_of_zennit(
    name: str, canonizer: zennit.canonizers.Canonizer, gamma: float
) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=CLASSES).double().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
            part.running_mean.normal_(0, 0.2)
    ours = lrp(forward_pass(model, images(), target=1), gamma)
    theirs = of_zennit(model, canonizer, gamma)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


# Transformers with attention of all kinds, layer normalization in other places, and gates.
TIMM: dict[str, dict[str, object]] = {
    "vit_tiny_patch16_224": {"img_size": SIDE, "depth": 2},
    "deit_tiny_distilled_patch16_224": {"img_size": SIDE, "depth": 2},
    "eva02_tiny_patch14_224": {"img_size": SIDE, "depth": 2, "patch_size": 16},
    "swin_tiny_patch4_window7_224": {"img_size": SIDE, "depths": (1, 1, 1, 1)},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "efficientnet_b0": {},
    "mobilenetv3_small_050": {},
}
TRANSFORMERS = ("ViT", "Dinov2WithRegisters", "CLIP")


def transformer(name: str) -> nn.Module:
    """A small model of transformers."""
    settings = {**SMALL, "patch_size": 16}
    if name == "CLIP":
        vision = {**settings, "intermediate_size": 64}
        config = transformers.CLIPConfig(vision_config=vision, num_labels=CLASSES)
    else:
        config = getattr(transformers, f"{name}Config")(**settings, num_labels=CLASSES)
    net: nn.Module = getattr(transformers, f"{name}ForImageClassification")(config)
    return net


@pytest.mark.parametrize("name", [*TIMM, *TRANSFORMERS])
def test_relevance_in_models_of_the_libraries(name: str) -> None:
    """An image alone has the map that it has beside others; no pixel is without relevance."""
    torch.manual_seed(0)
    if name in TIMM:
        model = timm.create_model(name, num_classes=CLASSES, **TIMM[name])
    else:
        model = transformer(name)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model = model.double().eval()
    maps = lrp(forward_pass(model, images(), target=1))
    assert maps.shape == (2, SIDE, SIDE)
    assert (maps != 0).all()
    alone = lrp(forward_pass(model, images()[1:], target=1))[0]
    torch.testing.assert_close(alone, maps[1], rtol=1e-6, atol=1e-9 * float(maps.abs().max()))
