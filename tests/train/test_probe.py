"""A probe sets the head; the oracle is the fit on features that the test computes itself."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.data.dataset import Dataset
from seewhy.errors import SeewhyError
from seewhy.models import feature_cache
from seewhy.models.classifier import Classifier
from seewhy.train import probe as probe_module
from seewhy.train.logistic import fit_logistic
from seewhy.train.loop import EpochStats, StepStats, train
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.probe import FeatureStats, ProbeStats, head_logits
from seewhy.train.recipe import Recipe
from seewhy.train.state import TrainState, load_state_dict, new_state, state_dict

PROBE = Recipe(model="speednet:width=0.125", epochs=0, probe="logistic:c=0.5", precision="fp32")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))


class Net(nn.Module):
    """A random convolution, a pool, and a head, whose outputs are multiplied by a scale."""

    def __init__(self, head: nn.Module | None = None, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = head or nn.Linear(64, 3)
        self.scale = scale

    def features(self, images: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(self.conv(images), 2).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.features(images))) * self.scale
        return logits


def probed(
    recipe: Recipe, data: Dataset, model: nn.Module | None = None
) -> tuple[TrainState, TrainingPlan, list[object]]:
    plan = make_plan(recipe, data, "cpu")
    state = new_state(plan, model)
    return state, plan, list(train(state, plan))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of images in each call of extract_features."""
    calls: list[int] = []

    def counting(classifier: Classifier, images: Tensor, reproducible: bool) -> Tensor:
        calls.append(len(images))
        result: Tensor = extract(classifier, images, reproducible=reproducible)
        return result

    extract = probe_module.extract_features
    monkeypatch.setattr(probe_module, "extract_features", counting)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_head_is_the_logistic_regression_of_the_features(data: Dataset, scale: float) -> None:
    state, plan, events = probed(replace(PROBE, probe="logistic"), data, Net(scale=scale))
    net = state.model.eval()
    assert isinstance(net, Net)
    pixels = data.train.images.float() / 255
    with torch.no_grad():
        features, logits = net.features(pixels), net(pixels)
    fit = fit_logistic(features[None].numpy(), data.train.labels.numpy(), 3)
    expected = features @ torch.from_numpy(fit.weight.T).float() + torch.from_numpy(fit.bias)
    torch.testing.assert_close(logits, expected.float(), rtol=0, atol=2e-3)
    *progress, stats, row = events
    assert [event.images for event in progress if isinstance(event, FeatureStats)][-1] == 240
    assert isinstance(stats, ProbeStats)
    assert (stats.c, stats.images, stats.features) == (fit.c, 240, 64)
    assert (stats.head, stats.scale) == ("head", pytest.approx(scale, rel=1e-3))
    assert isinstance(row, EpochStats)
    assert (row.epoch, row.step, state.probe) == (0, 0, stats)
    accuracy = (logits.argmax(1) == data.train.labels).float().mean().item()
    assert row.train_accuracy == pytest.approx(accuracy)
    assert row.train_loss == pytest.approx(
        F.cross_entropy(logits, data.train.labels).item(), rel=1e-3
    )
    test = head_logits(net, plan, stats, data.test.images)
    with torch.no_grad():
        torch.testing.assert_close(test, net(data.test.images.float() / 255), rtol=0, atol=1e-4)
    assert row.eval_accuracy == pytest.approx(
        (test.argmax(1) == data.test.labels).float().mean().item()
    )


def test_a_head_without_bias_behind_a_scale(data: Dataset) -> None:
    state, _, events = probed(PROBE, data)
    row = events[-1]
    assert isinstance(row, EpochStats)
    assert row.train_accuracy > 0.9  # features of speednet's whitening alone
    assert row.eval_accuracy is not None
    assert row.eval_accuracy > 0.8
    assert state.step == 0


def test_a_convolution_as_head(data: Dataset) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2),
        nn.ReLU(),
        nn.Conv2d(32, 3, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    _, _, events = probed(PROBE, data, net)
    row = events[-1]
    assert isinstance(row, EpochStats)
    assert row.train_loss < 1.0986  # nats of chance


def test_training_continues_from_the_probe(data: Dataset) -> None:
    recipe = replace(PROBE, epochs=1, lr=1e-4, ema=0.9, batch_size=120, augment=())
    _, _, events = probed(recipe, data, Net())
    rows = [event for event in events if isinstance(event, EpochStats)]
    steps = [event for event in events if isinstance(event, StepStats)]
    assert [row.epoch for row in rows] == [0, 1]
    assert len(steps) == 2
    assert rows[1].eval_accuracy == pytest.approx(rows[0].eval_accuracy or 0.0, abs=0.1)
    assert rows[1].eval_accuracy is not None
    assert rows[1].eval_accuracy > 0.6  # the average began at the probe, not at the random head
    assert rows[1].seconds > rows[0].seconds > 0


def test_state_keeps_the_probe(data: Dataset) -> None:
    recipe = replace(PROBE, epochs=1, batch_size=120, augment=())
    state, plan, _ = probed(recipe, data, Net())
    restored = new_state(plan, Net())
    load_state_dict(restored, state_dict(state))
    assert restored.probe == state.probe is not None
    assert not list(train(restored, plan))


def test_features_are_computed_once_for_all_labels_and_subsets(
    data: Dataset, passes: list[int]
) -> None:
    probed(PROBE, data, Net())
    first = sum(passes)
    assert first == 240 + 60
    passes.clear()
    relabeled = replace(data, train=replace(data.train, labels=2 - data.train.labels))
    for other in (relabeled, replace(data, train=data.train.take(torch.arange(0, 240, 2)))):
        probed(replace(PROBE, probe="logistic:c=0.1"), other, Net())
    assert max(passes) == 2  # computed anew to verify the cache


def test_interruption_keeps_the_features_of_finished_blocks(
    data: Dataset, passes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = probe_module.extract_features

    def interrupted(*args: Any, **options: Any) -> Tensor:
        if len(passes) == 2:
            raise KeyboardInterrupt
        return counting(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(probe_module, "extract_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            probed(PROBE, data, Net())
    assert passes == [64, 64]  # one block, and half of the next one
    passes.clear()
    state, _, events = probed(PROBE, data, Net())
    assert sum(passes) == 2 + (240 - 64) + 60  # two verify the cache; 60 are the test images
    progress = [event.images for event in events if isinstance(event, FeatureStats)]
    assert progress == [128, 192, 240]
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "other"))
    whole, _, _ = probed(PROBE, data, Net())
    torch.testing.assert_close(state.model.state_dict(), whole.model.state_dict())


def test_blocks_of_a_slow_network_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(feature_cache.blocks(range(7), 2)) == [[0, 1], [2, 3, 4, 5], [6]]
    monkeypatch.setattr(feature_cache, "BLOCK_SECONDS", 0)
    assert list(feature_cache.blocks(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_views_are_mirror_images(data: Dataset, passes: list[int]) -> None:
    state, _, events = probed(replace(PROBE, probe="logistic:views=flip,c=0.5"), data, Net())
    assert sum(passes) == 2 * 240 + 60
    assert state.probe is not None
    assert state.probe.views == 2
    net = state.model.eval()
    assert isinstance(net, Net)
    with torch.no_grad():
        views = [
            net.features(x.float() / 255) for x in (data.train.images, data.train.images.flip(3))
        ]
    fit = fit_logistic(torch.stack(views).numpy(), data.train.labels.numpy(), 3, c=0.5)
    torch.testing.assert_close(
        net.head.weight.detach(), torch.from_numpy(fit.weight).float(), rtol=0, atol=2e-3
    )
    totals = {event.total for event in events if isinstance(event, FeatureStats)}
    assert totals == {480}


@pytest.mark.slow
def test_other_weights_or_layers_have_other_features(data: Dataset, passes: list[int]) -> None:
    probed(PROBE, data, Net())
    passes.clear()
    other = Net()
    with torch.no_grad():
        other.conv.weight[0, 0, 0, 0] += 1
    strided = Net()
    strided.conv.stride = (2, 2)
    for net in (other, strided):
        probed(PROBE, data, net)
        assert sum(passes) == 300
        passes.clear()


def test_changed_code_of_a_network_is_noticed(data: Dataset, passes: list[int]) -> None:
    class Changed(Net):
        def features(self, images: Tensor) -> Tensor:
            return super().features(images).relu()

    Changed.__name__ = "Net"
    Changed.__qualname__ = "Net"
    probed(PROBE, data, Net())
    passes.clear()
    probed(PROBE, data, Changed())
    assert sum(passes) >= 300


def test_damaged_features_are_computed_again(
    data: Dataset, passes: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probed(PROBE, data, Net())
    passes.clear()
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    probed(PROBE, data, Net())
    assert sum(passes) == 300
    assert "is damaged (its checksum does not match); its features are" in capsys.readouterr().err


def test_no_room_for_features_is_said_and_nothing_is_lost(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("seewhy.data.cache.shutil.disk_usage", lambda path: Usage)
    state, _, _ = probed(PROBE, data, Net())
    assert state.probe is not None
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("seewhy: the features are not kept: no space in ")
    assert "SEEWHY_CACHE" in lines[0]


def test_logits_that_are_not_linear_in_the_head_are_refused(data: Dataset) -> None:
    class Squashed(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).tanh()

    with pytest.raises(SeewhyError, match=r"not linear in what enters its head \(head\)"):
        probed(PROBE, data, Squashed())


def test_a_model_without_a_head_is_refused(data: Dataset) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SeewhyError, match=r"a probe needs a head that is a linear layer or a 1x1"):
        probed(PROBE, data, net)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "find"}, r"lr is 'find', but epochs 0 trains only the head, by a probe"),
        ({"probe": "logistic:folds=1"}, r"folds must be at least 2, found 1"),
        ({"probe": "logistic:c=-1"}, r"c must be 0 .* or more, found -1"),
        ({"probe": "lda"}, r"unknown probe 'lda'"),
    ],
)
def test_probe_that_cannot_run_is_refused(
    data: Dataset, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SeewhyError, match=message):
        make_plan(replace(PROBE, **changes), data, "cpu")


def test_digests_are_those_of_the_mirror_images(data: Dataset) -> None:
    images = data.test.images
    assert feature_cache.image_digests(images, mirrored=True) == feature_cache.image_digests(
        images.flip(3)
    )
    assert len(set(feature_cache.image_digests(images[:2].expand(2, 3, 8, 8)))) == 2
    assert feature_cache.image_digests(images[:1]) != feature_cache.image_digests(
        images[:1].reshape(1, 3, 4, 16)
    )
