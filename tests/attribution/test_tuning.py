"""`tune_method`, on a model of which one layer has the evidence in place, and another elsewhere."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn

from seewhy.attribution import settings as settings_module
from seewhy.attribution import tuning as tuning_module
from seewhy.attribution.cams import CAMS, grad_cam
from seewhy.attribution.explanation import explain
from seewhy.attribution.faithfulness import deletion_auc, insertion_auc
from seewhy.attribution.methods import TABLES, bind_method
from seewhy.attribution.settings import RANDOM_MAPS, STEPS, Setting, candidate_settings
from seewhy.attribution.target import forward_pass, prepare
from seewhy.attribution.tuning import FIRST_IMAGES, tune_method
from seewhy.errors import SeewhyError

SIDE = 8
generator = torch.Generator().manual_seed(0)


class Scrambled(nn.Module):
    """The positions of its input in another order."""

    def __init__(self):
        super().__init__()
        self.order = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(1))

    def forward(self, x):
        return x.flatten(2)[:, :, self.order].reshape(x.shape)


class Spots(nn.Module):
    """Class 1 according to bright red, wherever it is; maps of `scrambled` point elsewhere."""

    def __init__(self):
        super().__init__()
        self.red = nn.Conv2d(3, 1, 1, bias=False)
        self.red.weight.data = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
        self.scrambled = Scrambled()

    def forward(self, x):
        bright = torch.relu(self.scrambled(self.red(x)) - 0.5)
        score = 60 * bright.mean((1, 2, 3)) - 2
        return torch.stack([-score, score], 1)


def spots(count):
    """Images of a bright red square anywhere, with noise in green and blue."""
    images = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    images[:, 0] = 0.3 + 0.05 * images[:, 0]
    for image, (top, left) in zip(
        images, torch.randint(0, SIDE - 2, (count, 2), generator=generator).tolist(), strict=True
    ):
        image[0, top : top + 3, left : left + 3] = 0.95
    return images


MODEL, IMAGES, LAYERS = Spots().eval(), spots(32), ["red", "scrambled"]


@pytest.fixture(scope="module")
def tuning():
    return tune_method(MODEL, IMAGES, "grad-cam", LAYERS, target=1)


def test_the_layer_with_the_evidence_in_place_is_proposed(tuning):
    assert tuning.default == Setting("grad-cam", "scrambled")
    assert tuning.proposed is not None
    assert tuning.proposed.layer == "red"
    assert tuning.proposed == tuning.chosen.setting
    assert {each.setting.layer for each in tuning.candidates[:4]} == {"red"}
    elsewhere = [each for each in tuning.candidates if each.setting.layer == "scrambled"]
    assert all(each.difference.significant for each in elsewhere)


def test_the_gain_is_reported_on_other_images(tuning):
    """As `explain` and FAITHFULNESS give it, for the half that was not used for the choice."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    held_out = IMAGES[order[16:]]
    chosen = gains_of(tuning.proposed, held_out, seed=16)
    default = gains_of(tuning.default, held_out, seed=16)
    score = tuning.held_out
    assert score.images == 16
    assert score.gain.mean == pytest.approx(chosen.mean().item(), abs=1e-5)
    assert score.default_gain.mean == pytest.approx(default.mean().item(), abs=1e-5)
    expected = ttest_rel(chosen, default)
    assert score.improvement.p_value == pytest.approx(expected.pvalue, rel=1e-3)
    assert score.improvement.interval == pytest.approx(
        tuple(expected.confidence_interval(0.95)), abs=1e-5
    )
    assert score.improvement.significant
    assert not score.failed_checks


def test_differences_are_paired_and_corrected_for_their_number(tuning):
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    rounds = [slice(0, 4), slice(4, 8), slice(8, 16)]  # which are doubled
    gains = {
        each.setting: torch.cat(
            [gains_of(each.setting, IMAGES[order[rows]], rows.start) for rows in rounds]
        )
        for each in tuning.candidates
    }
    assert tuning.images == 16
    assert len(tuning.finalists) == len(gains) == 8
    best = gains[tuning.best.setting]
    assert best.mean() == max(each.mean() for each in gains.values())
    for each in tuning.finalists:
        assert each.gain.mean == pytest.approx(gains[each.setting].mean().item(), abs=1e-5)
        if each is tuning.best:
            assert math.isnan(each.difference.p_value)
            assert not each.difference.significant
            continue
        expected = ttest_rel(gains[each.setting], best)
        assert each.difference.mean == pytest.approx(
            (gains[each.setting] - best).mean().item(), abs=1e-5
        )
        assert each.difference.p_value == pytest.approx(min(1, 7 * expected.pvalue), rel=1e-2)
        assert each.difference.significant == (7 * expected.pvalue < 0.05)


def gains_of(setting, images, seed):
    """The definition of the gain, with random maps of a seed."""
    forward = forward_pass(MODEL, images, target=1)
    maps = explain(MODEL, images, target=1, warn=False, **setting.arguments).at(setting.layer)
    random = torch.Generator().manual_seed(seed)
    noises = [torch.rand(maps.shape, generator=random) for _ in range(RANDOM_MAPS)]
    area, *chance = [
        insertion_auc(forward, each, STEPS) - deletion_auc(forward, each, STEPS)
        for each in (maps, *noises)
    ]
    return (area - sum(chance) / len(chance)).double()


class Clock:
    """Time that passes when the model runs: some for each image, and more for a slow method."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for module in (settings_module, tuning_module):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.model = Spots().eval()
        self.model.register_forward_hook(self.tick)

    def tick(self, module, inputs, output):
        self.now += 0.01 * len(inputs[0])

    def slow(self, capture, samples: int = 4):
        """Grad-CAM, whatever the number of samples."""
        self.now += 0.05 * samples * len(capture.activation)
        return grad_cam(capture)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setitem(CAMS, "slow", clock.slow)
    return clock


def test_the_time_is_kept_and_more_time_measures_more(clock):
    amounts = []
    for seconds in (20, 50, math.inf):
        began = clock.now
        result = tune_method(clock.model, IMAGES, "slow", LAYERS, target=1, seconds=seconds)
        assert result.seconds == pytest.approx(clock.now - began)
        assert result.seconds <= 1.1 * seconds
        assert len(result.candidates) + len(result.left_out) == 12  # layers, samples, smoothing
        images = [each.images for each in result.candidates]
        assert images == sorted(images, reverse=True)
        amounts.append((len(images), sum(images)))
    assert amounts == sorted(amounts)
    assert amounts[0][0] < 12
    assert amounts[-1] == (12, 12 * 16)


def test_the_default_is_measured_in_any_case(clock):
    result = tune_method(clock.model, IMAGES, "slow", LAYERS, target=1, seconds=1)
    assert [each.setting for each in result.candidates] == [result.default]
    assert result.images == FIRST_IMAGES
    assert len(result.left_out) == 11


def test_the_worse_half_is_left_out_where_time_is_short(clock):
    result = tune_method(clock.model, IMAGES, "slow", LAYERS, target=1, seconds=190)
    left_out = [each for each in result.candidates if each not in result.finalists]
    assert {each.setting.layer for each in left_out} == {"scrambled"}
    assert {each.setting.layer for each in result.finalists} == {"red"}
    assert all(math.isnan(each.difference.p_value) for each in left_out)  # no claim
    assert all(each.images < result.images for each in left_out)


def test_of_equally_good_settings_the_cheapest_is_proposed(clock):
    result = tune_method(clock.model, IMAGES, "slow", "red", target=1, seconds=math.inf)
    assert result.proposed == Setting("slow:samples=1", "red")
    costs = {each.setting.method: each.seconds for each in result.candidates}
    assert costs["slow:samples=1"] < costs["slow"] < costs["slow:samples=8"]
    assert not any(each.difference.significant for each in result.candidates[:3])


def test_nothing_is_proposed_if_maps_ignore_the_weights(monkeypatch):
    def bright(capture):
        return capture.forward.images[:, 0]

    monkeypatch.setitem(CAMS, "bright", bright)
    result = tune_method(MODEL, IMAGES[:16], "bright", "red", target=1)
    assert all("random" in each.failed_checks for each in result.candidates)
    assert all(each.gain.mean > 0.1 for each in result.candidates)
    assert (result.chosen, result.held_out, result.proposed) == (None, None, None)
    assert {each.images for each in result.candidates} == {FIRST_IMAGES}


def test_nothing_is_proposed_if_gains_do_not_hold_on_other_images(monkeypatch):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    images = IMAGES[:16].clone()
    images[order[8:], 2] = 0  # a mark

    def misled(capture):
        marked = (capture.forward.images[:, 2] == 0).all(2).all(1)
        return torch.where(marked[:, None, None], -1, 1) * grad_cam(capture)

    monkeypatch.setitem(CAMS, "misled", misled)
    result = tune_method(MODEL, images, "misled", "red", target=1)
    assert result.chosen is not None
    assert "gain" in result.held_out.failed_checks
    assert result.proposed is None


def test_mosaics_that_point_elsewhere_refuse_a_setting(monkeypatch):
    monkeypatch.setattr(
        settings_module.SettingMeter,
        "points_right",
        lambda self, setting, *rest: setting.smooth == "flip",
    )
    result = tune_method(MODEL, IMAGES[:16], "hires-cam", "red", target=1)
    refused = [each for each in result.candidates if each.failed_checks == ("mosaic",)]
    assert refused
    assert all(each.setting.smooth == "none" for each in refused)
    assert result.proposed.smooth == "flip"


def test_settings_that_fail_are_named(monkeypatch):
    def fussy(capture, samples: int = 4):
        if samples == 1:
            raise SeewhyError("one sample is too few")
        return grad_cam(capture)

    monkeypatch.setitem(CAMS, "fussy", fussy)
    result = tune_method(MODEL, IMAGES[:8], "fussy", "red", target=1)
    assert {each.method for each in result.failures} == {"fussy:samples=1"}
    assert set(result.failures.values()) == {"one sample is too few"}
    with pytest.raises(SeewhyError, match="one sample is too few"):
        tune_method(MODEL, IMAGES[:8], "fussy:samples=1", "red", target=1)


def test_candidates_of_a_method():
    inputs = prepare(MODEL, IMAGES[:1])
    found = candidate_settings(inputs, "grad-cam", LAYERS)
    assert found[0] == Setting("grad-cam", "scrambled")
    assert set(found) == {
        Setting(f"grad-cam{eigen}", layer, smooth)
        for eigen in ("", ":eigen=true")
        for layer in LAYERS
        for smooth in ("none", "flip")
    }
    given = candidate_settings(inputs, "smooth-grad:noise=0.1", "auto")
    assert {each.method for each in given} == {
        "smooth-grad:noise=0.1",
        "smooth-grad:noise=0.1,samples=6",
        "smooth-grad:noise=0.1,samples=50",
    }
    assert {each.layer for each in given} == {"pixels"}
    assert {each.method for each in candidate_settings(inputs, "occlusion:stride=1", "auto")} == {
        "occlusion:stride=1",
        "occlusion:stride=1,size=1",
        "occlusion:stride=1,size=4",
    }


@pytest.mark.parametrize("name", [name for table in TABLES.values() for name in table])
def test_candidates_of_every_method_can_be_bound(name):
    found = candidate_settings(prepare(MODEL, torch.zeros(1, 3, 32, 32)), name, "red")
    assert found[0].method == name
    assert len(set(found)) == len(found)
    for each in found:
        bind_method(each.method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": IMAGES[:7]}, "tuning needs at least 8 images.*found 7"),
        ({"seconds": 0}, "seconds must be above 0, found 0"),
        ({"method": "grad-can"}, "unknown method 'grad-can'"),
        ({"layers": "blue"}, "unknown layer 'blue'"),
    ],
)
def test_errors(options, message):
    arguments = {"images": IMAGES, "method": "grad-cam", "layers": "red"} | options
    with pytest.raises(SeewhyError, match=message):
        tune_method(MODEL, **arguments)
