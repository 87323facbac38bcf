"""Which maps a report shows: those that suit the model, the most trusted ones first."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.explanation import resolve_methods
from seewhy.attribution.sanity import SanityCheck
from seewhy.attribution.scores import STEPS, TrustScore
from seewhy.attribution.statuses import PIXELS
from seewhy.attribution.target import prepare
from seewhy.data.dataset import Split
from seewhy.diagnosis import saliency
from seewhy.diagnosis.predictions import predict_split
from seewhy.diagnosis.saliency import (
    first_shown,
    measure_saliency,
    plan_saliency,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.registry import build_model

CAMS = ("grad-cam", "hires-cam", "layer-cam")
WHOLE_MODEL = ("chefer-cam", "le-grad")


def image(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).byte()


def transformer() -> nn.Module:
    """Two blocks, 8x8 tokens of images of 32x32."""
    torch.manual_seed(0)
    return build_model("vit:width=16,depth=2", 4, split_of(8)).eval()


def split_of(count: int) -> Split:
    names = [str(index) for index in range(count)]
    return Split(image(count, 3, 32, 32), torch.arange(count) % 4, names)


def methods_of(model: nn.Module, layers: list[str]) -> tuple[str, ...]:
    inputs = prepare(model, image(1, 3, 32, 32))
    return tuple(method.text for method in resolve_methods("auto", inputs, layers))


def test_first_shown_is_of_the_last_layer() -> None:
    """The best one there, unless it is mostly empty or measured worse than random maps."""

    def score(layer: str, gain: float, non_empty: float = 1.0, width: float = 0.1) -> TrustScore:
        summary = BootstrapSummary(gain, (gain - width, gain + width))
        check = SanityCheck(("head",), torch.zeros(1, 2), True)
        return TrustScore(layer, f"{gain}", summary, summary, check, None, None, None, non_empty)

    early, weak, worse = score("early", 0.5), score("late", 0.2), score("late", -0.3)
    assert first_shown([early, weak, worse], "late") is weak
    assert first_shown([early, worse], "late") is early
    unclear = score("late", -0.05)
    assert first_shown([early, worse, unclear], "late") is unclear
    empty = score("late", 0.4, non_empty=0.2)
    assert first_shown([early, empty, weak], "late") is weak
    assert first_shown([early, empty], "late") is early


def test_first_shown_may_need_no_layer() -> None:
    """Maps of the whole model compete with those of the last layer."""
    summary = BootstrapSummary(0.3, (0.2, 0.4))
    check = SanityCheck(("head",), torch.zeros(1, 2), True)
    whole = TrustScore(PIXELS, "chefer-cam", summary, summary, check, None, None, None, 1.0)
    late = replace(whole, layer="late", method="grad-cam", gain=BootstrapSummary(0.2, (0.1, 0.3)))
    early = replace(whole, layer="early", method="grad-cam", gain=BootstrapSummary(0.5, (0.4, 0.6)))
    assert first_shown([early, whole, late], "late") is whole
    better = replace(late, gain=BootstrapSummary(0.4, (0.3, 0.5)))
    assert first_shown([early, better, whole], "late") is better
    refused = replace(better, sanity=SanityCheck(("head",), torch.ones(1, 2), False))
    assert first_shown([early, whole, refused], "late") is whole


@pytest.mark.slow
def test_methods_suit_the_model() -> None:
    """A transformer has maps of its attention too; a CNN has none, and no gradient means no map."""
    model = transformer()
    assert methods_of(model, ["blocks.0", "norm"]) == ("chefer-cam", "le-grad", *CAMS, "lrp")
    cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 4)).eval()
    assert methods_of(cnn, ["1"]) == (*CAMS, "lrp")
    grouped = nn.Sequential(cnn[0], nn.GroupNorm(2, 4), *cnn[2:]).eval()
    assert methods_of(grouped, ["1"]) == CAMS  # relevance propagation has no rule for GroupNorm

    class Detached(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = super().forward(images)
            return outputs.detach()

    with pytest.raises(SeewhyError, match="no gradient"):
        methods_of(Detached(*cnn).eval(), ["1"])


def with_pace(monkeypatch: pytest.MonkeyPatch, forward: float, cheap: float, costly: float) -> None:
    """Seconds per image of logits, of maps, and of maps with those of LRP."""

    def pace(
        classifier: Classifier,
        images: torch.Tensor,
        seconds: float,
        methods: tuple[str, ...],
        layers: tuple[str, ...],
    ) -> float:
        if not methods:
            return forward
        return costly if "lrp" in methods else cheap

    monkeypatch.setattr(saliency, "_pace", pace)


@pytest.mark.slow
@pytest.mark.parametrize("per_map", [0.01, 0.2])
def test_a_costly_method_is_left_out_if_few_errors_could_be_explained(
    per_map: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pace(monkeypatch, forward=1e-4, cheap=per_map / 4, costly=per_map)
    plan = plan_saliency(transformer(), split_of(12), 100, seconds=30)
    costly = per_map == 0.2  # 18 errors in a quarter of the time, and 75 without it
    assert ("lrp" in plan.methods) is not costly
    assert 60 < plan.errors < 75 if costly else plan.errors == 100


@pytest.mark.parametrize(
    ("forward", "methods", "steps"),
    [
        (1e-4, (*WHOLE_MODEL, *CAMS, "lrp"), STEPS),
        (0.01, (*WHOLE_MODEL, *CAMS), STEPS // 2),
        (0.03, (*WHOLE_MODEL, *CAMS), STEPS // 4),
        (0.4, ("chefer-cam",), STEPS // 4),
    ],
)
def test_with_less_time_fewer_points_and_then_fewer_methods_are_measured(
    monkeypatch: pytest.MonkeyPatch, forward: float, methods: tuple[str, ...], steps: int
) -> None:
    with_pace(monkeypatch, forward, cheap=0.02, costly=40 * forward)
    plan = plan_saliency(transformer(), split_of(12), 10, seconds=45)
    assert (plan.measured_methods, plan.steps) == (methods, steps)
    assert plan.with_road is (steps == STEPS)
    assert plan.trust_images >= (12 if len(methods) > 1 else 2)


@pytest.mark.slow
def test_a_transformer_is_measured_by_its_attention_too() -> None:
    model = transformer()
    split = split_of(12)
    classifier = Classifier(model, ("a", "b", "c", "d"))
    plan = replace(plan_saliency(classifier, split, 3), steps=2, noise_maps=1, class_images=4)
    found = measure_saliency(
        classifier, split, predict_split(classifier, split), torch.tensor([1, 5, 7]), plan=plan
    )
    measured = {(score.layer, score.method) for score in found.scores}
    whole = {(PIXELS, method) for method in ("chefer-cam", "le-grad", "lrp")}
    assert whole | {("norm", "layer-cam")} <= measured
    assert set(found.maps.methods) == {"chefer-cam", "le-grad", *CAMS, "lrp"}
    assert [len(found.maps.of(method)) for method in ("le-grad", "grad-cam")] == [
        1,
        len(found.maps.layers),
    ]
    little = plan_saliency(classifier, split, 3, seconds=1e-9)
    assert little.measured_methods == ("chefer-cam",)
