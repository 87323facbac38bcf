"""The status of maps that show nothing, by hand and for models made to give them."""

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from seewhy.attribution.cams import CAMS
from seewhy.attribution.capture import Capture
from seewhy.attribution.explanation import explain
from seewhy.attribution.layouts import Layout
from seewhy.attribution.methods import METHODS, BoundMethod, bind_method
from seewhy.attribution.statuses import MapStatus, map_status, status_warnings
from seewhy.attribution.target import ForwardPass
from seewhy.models.classifier import Classifier

NAN, INF = float("nan"), float("inf")
RECTIFIED = BoundMethod("mine", len, "layer", rectified=True)
SIGNED = BoundMethod("mine", len, "layer")


def forward_of(count, logits=(3.0, -1.0), target=0):
    weights = torch.zeros(count, len(logits))
    weights[:, target] = 1
    return ForwardPass(
        Classifier(nn.Identity()),
        torch.zeros(count, 1, 2, 2),
        weights,
        torch.tensor([logits] * count),
    )


def capture_of(gradient, activation=None):
    activation = torch.ones_like(gradient) if activation is None else activation
    return Capture(None, "made up", Layout("NCHW", (2, 2)), activation, gradient)


def images_of(count=3):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(weight=1.0, bias=0.1):
    """A ReLU of pixels and a head that is for class 0 wherever `weight` is positive."""
    model = nn.Sequential(
        OrderedDict(
            layer=nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()),
            flat=nn.Flatten(),
            head=nn.Linear(64, 2),
        )
    )
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (1.0, bias, weight, 0.0), strict=True):
            parameter.fill_(value)
        model.head.weight[1] = 0
    return model.eval()


class ClassToken(nn.Module):
    """Only the first place is read behind the last layer."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.token, self.head = nn.Parameter(torch.ones(1, 1, 2)), nn.Linear(2, 2)
        self.block, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        tokens = self.late(self.early(x)).flatten(2).transpose(1, 2)
        tokens = torch.cat(
            [self.token.expand(len(x), -1, -1) + tokens.mean(1, keepdim=True), tokens], 1
        )
        return self.head(self.last(self.block(tokens))[:, 0])


def test_kinds_and_clipped():
    signed = torch.tensor(
        [
            [[1.0, 2.0], [0.0, 1.0]],
            [[3.0, -1.0], [0.0, 0.0]],
            [[-1.0, -3.0], [0.0, -2.0]],
            [[0.0, 0.0], [0.0, 0.0]],
            [[1.0, NAN], [0.0, 1.0]],
            [[1.0, -INF], [0.0, 1.0]],
            [
                [1e-30, -1e9],
                [-1e9, -1e9],
            ],  # one place speaks for it, whatever the rounding of a sum
            [[-1e-44, 0.0], [0.0, 0.0]],  # the smallest there is
        ]
    )
    fine = (
        "ok",
        "ok",
        "all negative",
        "all zero",
        "not finite",
        "not finite",
        "ok",
        "all negative",
    )
    result = map_status(signed, forward_of(8), RECTIFIED)
    assert result.kinds == fine
    assert result.clipped.tolist() == pytest.approx([0, 1 / 4, 1, 0, 0, 0, 1, 1])
    assert result.clipped.dtype == torch.float32
    result = map_status(signed, forward_of(8), SIGNED)
    assert result.kinds == tuple(kind.replace("all negative", "ok") for kind in fine)
    assert result.clipped.tolist() == [0] * 8


def test_kinds_precedence():
    """The cause comes first: no gradient before all zero, saturated before both."""
    signed, gradient = torch.zeros(2, 2, 2), torch.zeros(2, 3, 2, 2)
    gradient[1, 2, 1, 1] = 1e-30
    assert map_status(signed, forward_of(2), RECTIFIED, capture_of(gradient)).kinds == (
        "no gradient",
        "all zero",
    )
    assert map_status(signed, forward_of(2), RECTIFIED).kinds == ("all zero", "all zero")
    assert map_status(signed, forward_of(2, (1.0, 0.0)), RECTIFIED, capture_of(gradient)).kinds == (
        "saturated",
        "saturated",
    )
    assert map_status(
        signed - 1, forward_of(2, (1.0, 0.0)), RECTIFIED, capture_of(gradient)
    ).kinds == (
        "saturated",
        "saturated",
    )
    assert map_status(
        signed * NAN, forward_of(2, (1.0, 0.0)), RECTIFIED, capture_of(gradient)
    ).kinds == (
        "not finite",
        "not finite",
    )


@pytest.mark.parametrize(
    ("logits", "target", "kind"),
    [
        ((0.9999, 0.0001), 0, "saturated"),
        ((0.9999, 0.0001), 1, "saturated"),
        ((0.99, 0.01), 0, "ok"),
        ((0.9999, 0.0001, 0.0), 2, "saturated"),
        ((0.5, 0.4999, 0.0001), 0, "ok"),
        ((9.0, -8.0), 0, "ok"),  # logits, of which the sum is 1 by chance
        ((0.9999, 0.8), 0, "ok"),
        ((1.0, 0.0, 0.0), 0, "saturated"),
    ],
)
def test_saturated(logits, target, kind):
    signed, gradient = torch.ones(1, 2, 2), torch.ones(1, 3, 2, 2)
    assert map_status(
        signed, forward_of(1, logits, target), RECTIFIED, capture_of(gradient)
    ).kinds == (kind,)


class RMSNorm(nn.Module):
    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()


class Normed(nn.Module):
    """Blocks with a residual sum, and a LayerNorm that reads it, as in ConvNeXt and ViT."""

    def __init__(self, norm=None):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 2, 2)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU())
        self.block, self.norm = nn.Identity(), norm or nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        x = self.block(x + self.branch(x)).permute(0, 2, 3, 1)
        return self.head(torch.tanh(self.norm(x)).mean((1, 2)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", [nn.LayerNorm(8), RMSNorm()], ids=["LayerNorm", "RMSNorm"])
def test_residue_where_normalization_reads_layer(norm, precision):
    """Scaling a position changes nothing, so that its gradient is orthogonal to its activation."""
    torch.manual_seed(0)
    classifier = Classifier(Normed(norm).eval(), precision=precision)
    methods = ["hires-cam", "eigen-grad-cam", "grad-cam", "layer-cam", "eigen-cam"]
    result = explain(classifier, images_of(), methods, ["block", "branch", "norm"], 0, warn=False)
    kinds = {key: set(status.kinds) for key, status in result.statuses.items()}
    for method in ("hires-cam", "eigen-grad-cam"):
        assert kinds["block", method] == {"residue"}
        assert kinds["branch", method] == kinds["norm", method] == {"ok"}
    assert not any("residue" in kinds["block", method] for method in methods[2:])
    (warning,) = (each for each in result.warnings if each.startswith("hires-cam at block"))
    assert "before the residual sum or behind the normalization" in warning
    assert warning.endswith("; use norm instead")


def test_residue_by_hand():
    """The remainder counts relative to the largest sum, in at least one position."""
    gradient = torch.tensor([1.0, -1.0, 2.0]).view(1, 3, 1, 1).expand(3, 3, 2, 2).clone()
    gradient[1, 2] = 0
    gradient[2, 2] = 0
    gradient[2, 0, 0, 0] = 1.01
    signed = gradient.sum(1)
    method = bind_method("hires-cam")
    assert map_status(signed, forward_of(3), method, capture_of(gradient)).kinds == (
        "ok",
        "all zero",
        "ok",
    )
    gradient[1:, 0, 0, 0] = 1.001
    kinds = map_status(gradient.sum(1), forward_of(3), method, capture_of(gradient)).kinds
    assert kinds == ("ok", "residue", "residue")
    assert map_status(signed, forward_of(3), RECTIFIED, capture_of(gradient)).kinds[1] != "residue"


def test_no_gradient_of_zero_head():
    """It is not blamed on a class token, which another model has."""
    torch.manual_seed(0)
    model = ClassToken().eval()
    nn.init.zeros_(model.head.weight)
    result = explain(model, images_of(), "grad-cam", ["early", "last"], 0, warn=False)
    assert result.statuses["last", "grad-cam"].kinds == ("no gradient",) * 3
    assert all("weights behind it are zero" in warning for warning in result.warnings)
    assert not any("class token" in warning for warning in result.warnings)
    result = explain(ClassToken().eval(), images_of(), "grad-cam", ["early", "last"], 0, warn=False)
    assert "only on its class token; use early instead" in result.warnings[-1]


def test_kinds_of_methods_without_gradient():
    """Eigen-CAM and Score-CAM are unaffected by a missing gradient and by probabilities."""
    empty, signed, gradient = torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.zeros(1, 3, 2, 2)
    for name, facts in METHODS.items():
        method = bind_method(name)
        at_layer = map_status(
            empty, forward_of(1), method, capture_of(gradient) if name in CAMS else None
        )
        probabilities = map_status(signed, forward_of(1, (1.0, 0.0)), method)
        expected = (
            ("no gradient" if name in CAMS else "all zero", "saturated")
            if facts.differentiates
            else ("all zero", "ok")
        )
        assert (*at_layer.kinds, *probabilities.kinds) == expected, name
    without = {name for name, facts in METHODS.items() if not facts.differentiates}
    assert without == {
        "eigen-cam",
        "cam",
        "score-cam",
        "ablation-cam",
        "attention-rollout",
        "rise",
        "lime",
        "occlusion",
        "integrated-gradients",
    }


@pytest.mark.parametrize(
    ("model", "kind", "clipped"),
    [
        (network(), "ok", 0),
        (network(weight=-1.0), "all negative", 1),
        (network(bias=-5.0), "all zero", 0),
        (network(weight=0.0), "no gradient", 0),
        (
            nn.Sequential(
                OrderedDict([*network(weight=0.5).named_children(), ("softmax", nn.Softmax(1))])
            ).eval(),
            "saturated",
            0,
        ),
        (
            nn.Sequential(
                OrderedDict([*network(weight=9.0).named_children(), ("softmax", nn.Softmax(1))])
            ).eval(),
            "saturated",
            0,
        ),
        (network(weight=NAN), "not finite", 0),
    ],
    ids=[
        "ok",
        "against",
        "dead",
        "blind",
        "saturated",
        "so much that no gradient is left",
        "not a number",
    ],
)
def test_kinds_of_constructed_models(model, kind, clipped):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = explain(model, images_of(), "grad-cam", "layer", 0)
    status = result.statuses["layer", "grad-cam"]
    assert status.kinds == (kind,) * 3
    assert status.clipped.tolist() == pytest.approx([clipped] * 3)
    messages = [str(each.message) for each in caught]
    if kind == "ok":
        assert result.warnings == ()
        assert not messages
    else:
        assert messages == [result.warnings[0]]
        assert messages[0].startswith(f"grad-cam at layer: {kind} for 3 of 3 images: ")
    assert kind == "not finite" or not result.at("layer").isnan().any()


def test_no_gradient_after_class_token():
    torch.manual_seed(0)
    with pytest.warns(
        UserWarning,
        match="grad-cam at last: no gradient for 3 of 3 images: .*; use early instead",
    ):
        result = explain(
            ClassToken().eval(), images_of(), ["grad-cam", "eigen-cam"], ["early", "last"], 0
        )
    assert result.statuses["last", "grad-cam"].kinds == ("no gradient",) * 3
    assert (result.at("last", "grad-cam") == 0).all()
    assert result.statuses["early", "grad-cam"].kinds.count("ok") > 0
    assert result.statuses["last", "eigen-cam"].kinds == ("ok",) * 3


def statuses_of(**kinds):
    return {
        (layer, "grad-cam"): MapStatus(tuple(each), torch.zeros(len(each)))
        for layer, each in kinds.items()
    }


def test_warnings_name_better_layer():
    fine, against = "ok", "all negative"
    statuses = statuses_of(
        early=[fine, fine, against], middle=[fine, fine, fine], late=[against, "all zero", fine]
    )
    statuses["other", "hires-cam"] = MapStatus((fine,) * 3, torch.zeros(3))
    result = status_warnings(statuses)
    assert len(result) == 3
    assert result[0].startswith(
        "grad-cam at early: all negative for 1 of 3 images: every position is evidence against"
    )
    assert all(each.endswith("; use middle instead") for each in result)
    assert [each.split(" for ")[0] for each in result[1:]] == [
        "grad-cam at late: all negative",
        "grad-cam at late: all zero",
    ]


def test_warnings_of_equal_layers():
    fine, zero = "ok", "all zero"
    (result,) = status_warnings(
        statuses_of(early=[fine, fine], middle=[fine, fine], late=[zero, fine])
    )
    assert result.endswith("; use middle instead")
    result = status_warnings(statuses_of(early=[zero, fine], late=[fine, zero]))
    assert len(result) == 2
    assert not any("instead" in each for each in result)


def test_warnings_of_saturation():
    result = status_warnings(statuses_of(early=["ok", "ok"], late=["saturated", "ok"]))
    assert result == (
        "grad-cam at late: saturated for 1 of 2 images: the model returns probabilities near 0 or "
        "1, with a gradient of rounding noise; use a model that returns logits",
    )


def test_map_status_add_and_take():
    one = MapStatus(("ok", "all zero"), torch.tensor([0.5, 0.0]))
    both = one + MapStatus(("saturated",), torch.tensor([0.25]))
    assert both.kinds == ("ok", "all zero", "saturated")
    assert both.clipped.tolist() == [0.5, 0, 0.25]
    assert both.take(slice(1, None)).kinds == ("all zero", "saturated")
    assert both.take(slice(1, None)).clipped.tolist() == [0, 0.25]


def test_pair_of_the_same_class_is_named_as_the_reason():
    """The prediction of the first images is class 0, so the score is the difference of 0 and 0."""
    model, images = network(), images_of()
    predicted = model(images).argmax(1).tolist()
    assert set(predicted) == {0}
    with pytest.warns(
        UserWarning, match="same class for 3 of 3 images: both classes of the target"
    ):
        result = explain(model, images, ["grad-cam", "eigen-cam"], "layer", ("predicted", 0))
    assert result.statuses["layer", "grad-cam"].kinds == ("same class",) * 3
    assert result.statuses["layer", "eigen-cam"].kinds == ("ok",) * 3
    assert len(result.warnings) == 1
