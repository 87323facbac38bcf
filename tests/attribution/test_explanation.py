"""`explain`: many methods against each alone, batches, smoothing, heat on the object."""

import re
import warnings
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seewhy.attribution.cams import CAMS, layer_cam
from seewhy.attribution.capture import capture_layers
from seewhy.attribution.explanation import Explanation, concatenate, explain
from seewhy.attribution.statuses import PIXELS, MapStatus
from seewhy.attribution.target import forward_pass
from seewhy.errors import SeewhyError
from seewhy.models import inspection
from seewhy.models.classifier import Classifier
from seewhy.models.registry import blank_sample, build_model

METHODS = [
    *(name for name in CAMS if name != "cam"),
    "grad-cam:eigen=true",
    "gradients",
    "guided-backpropagation",
    "smooth-grad:samples=3",
    "integrated-gradients:steps=3",
    "full-grad",
    "rise:masks=20",
    "occlusion",
]
LAYERS = ["low", "middle", "high.0"]
TARGET = torch.tensor([0, 1, 2, 2, 0])


def network(seed=0):
    """Three layers of three resolutions with a GELU, so that all methods differ."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        OrderedDict(
            low=nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            middle=nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.GELU()),
            high=nn.Sequential(nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU()), nn.Flatten()),
            head=nn.Linear(6 * 2 * 3, 3),
        )
    )
    return model.double().eval()


def images_of(count=5):
    return torch.rand(
        count, 2, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


def same(result: Explanation, expected: Explanation, tolerance=1e-6):
    assert list(result.maps) == list(expected.maps)
    for key, maps in expected.maps.items():
        torch.testing.assert_close(
            result.maps[key], maps, atol=tolerance * maps.abs().max().item(), rtol=0, msg=str(key)
        )
        assert result.statuses[key].kinds == expected.statuses[key].kinds, key
        torch.testing.assert_close(
            result.statuses[key].clipped, expected.statuses[key].clipped, atol=1e-5, rtol=0
        )
    for one, other in ((result.logits, expected.logits), (result.weights, expected.weights)):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def everything():
    return explain(network(), images_of(), METHODS, LAYERS, TARGET, warn=False)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", METHODS)
def test_explain_matches_each_method_alone(method, everything):
    for layer in LAYERS:
        alone = explain(network(), images_of(), method, layer, TARGET, warn=False)
        (key,) = alone.maps
        assert key == (layer if method.split(":")[0] in CAMS else PIXELS, method)
        torch.testing.assert_close(alone.maps[key], everything.maps[key], atol=1e-6, rtol=1e-5)
        assert alone.statuses[key].kinds == everything.statuses[key].kinds


def test_explain_has_map_for_each_method_and_layer(everything):
    of_layers = [method for method in METHODS if method.split(":")[0] in CAMS]
    of_pixels = [method for method in METHODS if method not in of_layers]
    assert set(everything.maps) == {(layer, method) for layer in LAYERS for method in of_layers} | {
        (PIXELS, method) for method in of_pixels
    }
    assert everything.layers == (PIXELS, *LAYERS)
    assert set(everything.methods) == set(METHODS)
    sizes = {"low": (8, 12), "middle": (4, 6), "high.0": (2, 3), PIXELS: (8, 12)}
    for (layer, method), maps in everything.maps.items():
        assert maps.shape == (5, *((8, 12) if method == "guided-grad-cam" else sizes[layer]))
        assert (maps.dtype, maps.device.type, maps.requires_grad) == (torch.float32, "cpu", False)
    assert torch.equal(everything.weights, F.one_hot(TARGET, 3).float())
    torch.testing.assert_close(everything.logits, network()(images_of()).detach().float())


@pytest.mark.slow
def test_explain_in_batches(everything, monkeypatch, images_per_batch):
    images_per_batch(2)
    labels = torch.tensor([1, 1, 0, 2, 2])
    result = explain(network(), images_of(), METHODS, LAYERS, TARGET, labels=labels, warn=False)
    same(result, everything)
    assert torch.equal(result.labels, labels)
    methods = ["grad-cam", "finer-cam", "ablation-cam", "smooth-grad:samples=3"]
    arguments = {"methods": methods, "layers": LAYERS, "smooth": "flip", "warn": False}
    mirrored = explain(network(), images_of(), target="true", labels=labels, **arguments)
    monkeypatch.undo()
    same(mirrored, explain(network(), images_of(), target=labels, **arguments))


def signed(model, images, target):
    return {
        name: CAMS[name](capture_layers(model, images, "middle", target)["middle"])
        for name in ("grad-cam", "layer-cam", "hires-cam")
    }


def test_smooth_flip_is_mean_of_two_views():
    """The class is that of the image as it is, and the ReLU comes last."""
    model, images = network(), images_of()
    model.head.bias.data -= model(images).detach().mean(0)
    predicted = model(images).argmax(1)
    assert (model(images.flip(3)).argmax(1) != predicted).any()
    straight, mirrored = signed(model, images, predicted), signed(model, images.flip(3), predicted)
    result = explain(model, images, list(straight), "middle", smooth="flip", warn=False)
    for name, maps in straight.items():
        mean = (maps + mirrored[name].flip(2)) / 2
        assert (maps * mirrored[name].flip(2) < 0).any()  # the order of mean and ReLU matters
        expected = mean if name == "hires-cam" else mean.clamp(min=0)
        torch.testing.assert_close(result.at("middle", name), expected.float())
        share = mean.clamp(max=0).abs().sum((1, 2)) / mean.abs().sum((1, 2)) * (name != "hires-cam")
        torch.testing.assert_close(result.statuses["middle", name].clipped, share.float())


@pytest.mark.slow
def test_smooth_flip_scale_is_mean_of_six_views():
    model, images = network(), images_of()
    total = dict.fromkeys(signed(model, images, TARGET), 0)
    for factor in (1, 0.9, 1.1):
        bright = (images * factor).clamp(max=1)
        for name, maps in signed(model, bright, TARGET).items():
            total[name] = total[name] + maps + signed(model, bright.flip(3), TARGET)[name].flip(2)
    result = explain(model, images, list(total), "middle", TARGET, smooth="flip-scale", warn=False)
    torch.testing.assert_close(result.at("middle", "hires-cam"), (total["hires-cam"] / 6).float())
    torch.testing.assert_close(
        result.at("middle", "grad-cam"), (total["grad-cam"] / 6).clamp(min=0).float()
    )


def test_smooth_flip_of_symmetric_model():
    """A 1x1 convolution: the mirrored map of the mirrored image is the map."""
    torch.manual_seed(0)
    model = (
        nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )
        .double()
        .eval()
    )
    methods = ["grad-cam", "cam", "eigen-cam", "gradients", "occlusion"]
    plain, smooth = (
        explain(model, images_of(), methods, "1", 0, smooth=how, warn=False)
        for how in ("none", "flip")
    )
    same(smooth, plain)


@pytest.mark.slow
def test_explain_of_uint8_images():
    stored = torch.randint(
        0, 256, (4, 2, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = network().float()
    result, expected = (
        explain(model, images, METHODS, "low", 1, warn=False) for images in (stored, stored / 255)
    )
    same(result, expected, 1e-4)


def test_explanation_fields():
    model, images, labels = network(), images_of(), torch.tensor([2, 1, 0, 1, 2])
    classifier = Classifier(model, ("cat", "dog", "zebra-fish"))
    result = explain(
        classifier, images, "hires-cam", "low", ("cat", "dog"), labels=labels, warn=False
    )
    assert result.weights.tolist() == [[1, -1, 0]] * 5
    assert result.classes == ("cat", "dog", "zebra-fish")
    probabilities = model(images).softmax(1).detach()
    assert torch.equal(result.predicted, probabilities.argmax(1))
    torch.testing.assert_close(result.confidence, probabilities.amax(1).float())
    assert repr(result) == "Explanation(5 images, hires-cam at low)"
    assert explain(model, images, "hires-cam", "low", warn=False).classes == ("0", "1", "2")
    part = result.take(slice(1, 3))
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.at("low"), result.at("low")[1:3])
    same(concatenate([result.take(slice(0, 2)), result.take(slice(2, 5))]), result)


def test_explanation_at(everything):
    assert torch.equal(everything.at("low", "grad-cam"), everything.maps["low", "grad-cam"])
    with pytest.raises(
        SeewhyError,
        match="layer 'low' has maps of several methods; choose one of grad-cam, grad-cam",
    ):
        everything.at("low")
    with pytest.raises(
        SeewhyError, match=r"unknown map 'low grad-cma' \(did you mean 'low grad-cam'\?\)"
    ):
        everything.at("low", "grad-cma")
    few = explain(network(), images_of(), ["grad-cam", "occlusion"], "low", warn=False)
    assert torch.equal(few.at("low"), few.maps["low", "grad-cam"])
    assert torch.equal(few.at(PIXELS), few.maps[PIXELS, "occlusion"])
    with pytest.raises(SeewhyError, match=r"unknown map 'lwo .*'.*possible: "):
        few.at("lwo")


def test_explain_with_function(monkeypatch):
    """As it is, or by name once it is in the table, with a setting; its maps keep their sign."""

    def mine(capture, power: int = 1):
        return -(capture.activation.abs().sum(1) ** power)

    model, images = network(), images_of()
    activation = model.low(images).detach()
    result = explain(model, images, [mine, "layer-cam"], "low", warn=False)
    torch.testing.assert_close(result.at("low", "mine"), -activation.sum(1).float())
    torch.testing.assert_close(
        result.at("low", "layer-cam"),
        layer_cam(capture_layers(model, images, "low")["low"]).clamp(min=0).float(),
    )
    monkeypatch.setitem(CAMS, "powerful", mine)
    result = explain(model, images, "powerful:power=2", "low", warn=False)
    torch.testing.assert_close(result.at("low"), -(activation.sum(1).float() ** 2))


@pytest.mark.parametrize(
    ("function", "description"),
    [
        (lambda capture: capture.activation, "(5, 4, 8, 12)"),
        (lambda capture: capture.activation[:2, 0], "(2, 8, 12)"),
        (lambda capture: capture.activation.sum(1).numpy(), "ndarray"),
        (lambda capture: None, "NoneType"),
    ],
)
def test_explain_rejects_result_of_function(function, description):
    def mine(capture):
        return function(capture)

    with pytest.raises(
        SeewhyError,
        match=re.escape(f"method 'mine' must return maps (5, h, w), found {description}"),
    ):
        explain(network(), images_of(), mine, "low")


def test_each_method_fails_for_itself(images_per_batch):
    """At one layer, in one batch, or everywhere: the others have their maps."""
    images_per_batch(2)
    batches = []

    def fussy(capture):
        batches.append(capture.layer)
        if len(batches) > 2:
            raise SeewhyError("the third batch is too much")
        return capture.activation.sum(1)

    tanh = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Tanh())
    model = nn.Sequential(tanh, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    methods = ["guided-backpropagation", "grad-cam", "cam", fussy, "gradients"]
    with pytest.warns(UserWarning, match="guided-backpropagation failed: .*has none") as caught:
        result = explain(model, images_of(), methods, "0.1", 0)
    assert list(result.maps) == [(PIXELS, "gradients"), ("0.1", "grad-cam")]
    expected = explain(model, images_of(), ["grad-cam", "gradients"], "0.1", 0)
    same(replace(result, failures={}), expected)
    assert set(result.failures) == {
        (PIXELS, "guided-backpropagation"),
        ("0.1", "cam"),
        ("0.1", "fussy"),
    }
    assert str(caught[0].message) == "; ".join(result.warnings)
    assert "fussy at 0.1 failed: the third batch is too much" in result.warnings
    with pytest.raises(
        SeewhyError, match=r"^cam needs a model .*; guided .* this model has none; use gradients$"
    ):
        explain(model, images_of(), ["guided-backpropagation", "cam"], ["0.1", "0.0"], 0)
    both = concatenate([explain(model, images_of(), methods[:2], "0.1", 0, warn=False)] * 2)
    assert list(both.maps) == [("0.1", "grad-cam")]
    assert list(both.failures) == [(PIXELS, "guided-backpropagation")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": "gradcam"}, r"unknown method 'gradcam' \(did you mean 'grad-cam'\?\)"),
        (
            {"methods": ["grad-cam", "grad-cam"]},
            "methods must be at least one and each only once, found grad-cam, grad-cam",
        ),
        ({"methods": []}, "found none"),
        ({"methods": "grad-cam:smooth=2"}, "grad-cam has no argument 'smooth'; it takes eigen"),
        ({"methods": "rise:masks=many"}, "masks must be int, found 'many'"),
        ({"smooth": "flop"}, r"unknown smoothing 'flop' \(did you mean 'flip'\?\)"),
        ({"layers": "lwo"}, r"unknown layer 'lwo' \(did you mean 'low'\?\)"),
        (
            {"labels": torch.zeros(4, dtype=torch.int64)},
            r"labels must have an entry for each of the 5 images, found shape \(4,\)",
        ),
        (
            {"classifier": Classifier(network(), ("cat", "dog"))},
            "the model has 3 classes, but the classifier has 2 class names",
        ),
        (
            {"target": torch.zeros(6, dtype=torch.int64)},
            r"target must have an entry for each of the 5 images, found shape \(6,\)",
        ),
        (
            {"target": torch.tensor(1)},
            r"target must have an entry for each of the 5 images, found shape \(\)",
        ),
        ({"target": "true"}, "needs the true classes, .*pass labels"),
    ],
)
def test_explain_errors(settings, message, images_per_batch):
    """Also where the batches are small, so that no slice of it happens to fit."""
    images_per_batch(2)
    with pytest.raises(SeewhyError, match=message) as error:
        explain(**{"classifier": network(), "images": images_of(), "layers": "low", **settings})
    assert "\n" not in str(error.value)


def test_explain_checks_class_names_first():
    def never(capture):
        raise AssertionError("it was called")

    with pytest.raises(
        SeewhyError, match="the model has 3 classes, but the classifier has 4 class names"
    ):
        explain(Classifier(network(), tuple("abcd")), images_of(), never, "low")


@pytest.mark.slow
@pytest.mark.parametrize("smooth", ["none", "flip-scale"])
def test_explain_prepares_images_once(smooth, monkeypatch, images_per_batch):
    """In several batches, of methods that run the model again, with layers that are chosen."""
    images_per_batch(2)
    calls = []
    check = inspection.check_images
    monkeypatch.setattr(
        inspection, "check_images", lambda images: calls.append(len(images)) or check(images)
    )
    explain(
        network(),
        images_of(),
        ["grad-cam", "finer-cam", "shapley-cam", "gradients"],
        smooth=smooth,
        warn=False,
    )
    assert calls == [5]


def test_explain_warns_about_empty_maps():
    model = network()
    model.high[0][0].bias.data.fill_(-100)
    with pytest.warns(
        UserWarning,
        match=r"^grad-cam at middle: no gradient for 5 of 5 images: .*; grad-cam at high.0: all",
    ) as caught:
        explain(model, images_of(), "grad-cam", ["middle", "high.0"])
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = explain(model, images_of(), "grad-cam", ["middle", "high.0"], warn=False)
    assert len(quiet.warnings) == 2
    assert isinstance(quiet.statuses["middle", "grad-cam"], MapStatus)


def stages():
    """Four resolutions, each a convolution, BatchNorm and ReLU, the last of 1x2."""
    blocks = [
        nn.Sequential(
            nn.Conv2d(before, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        for before in (3, 6, 6, 6)
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(12, 5))


def speednet():
    return build_model("speednet:width=0.125", 5, blank_sample(3, 16, 32))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "layers"), [(stages, 4), (speednet, 3)])
def test_explain_with_many_methods_is_finite(make, layers):
    """An untrained model, with a black and a white image: nothing is divided by zero."""
    torch.manual_seed(0)
    model = make().eval()
    images = torch.rand(5, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    images[0], images[1] = 0, 1
    methods = [
        name for name in CAMS if name not in ("cam", "guided-grad-cam")
    ]  # which are not for every network
    methods += [f"{name}:eigen=true" for name in ("grad-cam", "layer-cam", "hires-cam")] + [
        "finer-cam:classes=9"
    ]
    result = explain(model, images, methods, warn=False)
    maps = [single for each in result.maps.values() for single in each]
    assert len(maps) == 5 * layers * 16
    assert all(single.isfinite().all() for single in maps)
    methods = [
        "gradients",
        "smooth-grad:samples=2",
        "integrated-gradients:steps=2",
        "full-grad",
        "occlusion",
        "rise:masks=9",
    ]
    result = explain(model, images, methods, warn=False)
    assert all(each.isfinite().all() for each in result.maps.values())


SIDE, SQUARE = 16, 5


def planted(count, seed):
    """Dark noise with a bright square of upright (0) or level stripes (1), or without one (2)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    labels, masks = torch.arange(count) % 3, torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    level = torch.full((SQUARE, SQUARE), 0.9)
    level[1::2] = 0.4
    for n, (top, left) in enumerate(
        torch.randint(SIDE - SQUARE + 1, (count, 2), generator=generator).tolist()
    ):
        if labels[n] < 2:
            position = (slice(top, top + SQUARE), slice(left, left + SQUARE))
            masks[n][position] = True
            images[n, 0][position] = level if labels[n] else level.T
    return images, labels, masks


@pytest.fixture(scope="module")
def trained():
    """Knows upright from level stripes after a second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            OrderedDict(
                low=nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                layer=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
                head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
            )
        )
        images, labels, _ = planted(300, 0)
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(60):
            rows = torch.randint(300, (60,))
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_heat_is_on_object(trained):
    """The maximum lies on the square that makes the class, for nearly all images."""
    images, labels, masks = planted(60, 1)
    assert (trained(images).argmax(1) == labels).float().mean() > 0.95
    striped = labels < 2
    images, labels, masks = images[striped], labels[striped], masks[striped]
    methods = ["grad-cam", "hires-cam", "layer-cam", "score-cam", "ablation-cam", "guided-grad-cam"]
    result = explain(
        trained,
        images,
        [*methods, "occlusion", "rise:masks=300", "integrated-gradients"],
        "layer",
        labels,
    )
    for key, maps in result.maps.items():
        hottest = F.interpolate(maps[:, None], (SIDE, SIDE), mode="bilinear").flatten(1).argmax(1)
        hits = masks.flatten(1).gather(1, hottest[:, None]).float().mean()
        assert hits >= 0.95, key
        elsewhere = masks.roll(1, 0).flatten(1).gather(1, hottest[:, None]).float().mean()
        assert elsewhere < 0.5, key  # the square of another image is at another place


@pytest.mark.slow
def test_heat_of_other_class_is_not_on_object(trained):
    """At the stripes the map of why it is the other class, rather than this one, is negative."""
    images, labels, masks = planted(60, 1)
    images, labels, masks = images[labels < 2], labels[labels < 2], masks[labels < 2]
    contrast = (F.one_hot(1 - labels, 3) - F.one_hot(labels, 3)).float()
    result = explain(trained, images, "hires-cam", "layer", contrast).at("layer")
    inside = F.interpolate(result[:, None], (SIDE, SIDE))[:, 0].where(masks, 0).sum((1, 2))
    assert (inside < 0).float().mean() > 0.9


def test_confidence_of_a_model_that_returns_probabilities_is_what_it_returns():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4), nn.Softmax(1))
    model, images = nn.Sequential(body, head).eval(), torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        expected = model(images)
    found = explain(model, images, "grad-cam", ["0"], warn=False)
    torch.testing.assert_close(found.probabilities, expected)
    forward = forward_pass(model, images, 2)
    torch.testing.assert_close(forward.confidences(forward.logits), expected[:, 2])
    warm = forward_pass(Classifier(model, temperature=2.0), images, 2)
    cooled = (expected.log() / 2).softmax(1)
    torch.testing.assert_close(warm.confidences(warm.logits), cooled[:, 2])
