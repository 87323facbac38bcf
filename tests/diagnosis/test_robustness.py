"""Robust accuracy against closed forms and counting; adversarial examples as stored pixels."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binomtest
from torch import Tensor, nn

from seewhy.diagnosis import robustness
from seewhy.diagnosis.attacks import ATTACKS, Attack
from seewhy.diagnosis.corruptions import CORRUPTIONS, corrupt
from seewhy.diagnosis.robustness import (
    AdversarialExamples,
    RobustnessCurve,
    adversarial_examples,
    attack_curves,
    corruption_curves,
)
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier

SHAPE = (3, 4, 4)
LEVELS = (0.01, 0.03, 0.1)


class Linear(nn.Module):
    """Logits are `weight` (K, 48) times the pixels less a half; records their dtypes."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        logits = nn.functional.linear(x.flatten(1) - 0.5, self.weight)
        self.dtypes.add(logits.dtype)
        return logits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int, seed: int = 0) -> Linear:
    return Linear(torch.randn(classes, 48, generator=seeded(seed))).eval()


def stored(count: int, low: int = 0, high: int = 256, seed: int = 1) -> Tensor:
    return torch.randint(low, high, (count, *SHAPE), generator=seeded(seed), dtype=torch.uint8)


def margins(
    model: Linear, images: Tensor, labels: Tensor
) -> np.ndarray:  # of a model of two classes, float64
    weight = model.weight.detach().double().numpy()
    return (
        (images.double().numpy().reshape(-1, 48) / 255 - 0.5)
        * (weight[labels] - weight[1 - labels])
    ).sum(1)


def mostly_right(model: nn.Module, images: Tensor) -> Tensor:
    """What the model says, but for every seventh image."""
    with torch.no_grad():
        logits = model(images / 255)
    wrong = torch.arange(len(images)) % 7 == 0
    return torch.where(wrong, (logits.argmax(1) + 1) % logits.shape[1], logits.argmax(1))


def table_of(
    fools: Callable[[int, float], bool], seen: list[tuple[float, list[int]]]
) -> Callable[..., Attack]:
    """An attack that fools image i, the value of its first pixel, if `fools(i, epsilon)`."""

    def mine(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Attack:
        index = images[:, 0, 0, 0].tolist()
        seen.append((round(255 * epsilon, 3), index))
        fooled = torch.tensor([fools(i, round(255 * epsilon, 3)) for i in index])
        logits = nn.functional.one_hot(torch.where(fooled, 1 - labels, labels), 2).float()
        return Attack(images / 255, logits, logits, fooled, labels)

    return mine


def numbered(count: int) -> tuple[Linear, Tensor, Tensor]:
    """Numbered images, and a model of two classes that is right on all but the first two."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, *SHAPE)
    weight = torch.zeros(2, 48)
    weight[1] = 1.0
    labels = torch.zeros(count, dtype=torch.int64)
    labels[:2] = 1
    return Linear(weight).eval(), images, labels


# --- attacks


@pytest.mark.parametrize("attacks", [("fgsm",), ("pgd",), ("fgsm", "pgd")])
def test_attack_curves_of_a_linear_model_follow_its_margins(
    attacks: tuple[str, ...],
) -> None:
    model, images = linear(2), stored(60, 90, 166)
    labels = mostly_right(model, images)
    weight = model.weight.detach().double()
    reach = margins(model, images, labels) / (weight[0] - weight[1]).abs().sum().item()
    assert np.abs(reach[:, None] - np.array(LEVELS)).min() > 1e-5  # none is on the edge
    curves = attack_curves(model, images, labels, attacks, LEVELS)
    expected = [(reach > epsilon).mean() for epsilon in (0.0, *LEVELS)]
    assert expected[0] > expected[1] > expected[2] > expected[3]
    assert [curve.name for curve in curves] == list(attacks)
    for curve in curves:
        np.testing.assert_allclose(curve.accuracy.numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(curve.levels.numpy(), (0.0, *LEVELS), atol=1e-7)
        assert curve.images == 60


def test_attack_curves_respect_the_range_of_pixels() -> None:
    model, images = linear(2), stored(60)
    images[:, :, ::2] = torch.where(images[:, :, ::2] < 128, 0, 255).byte()
    labels = mostly_right(model, images)
    weight = model.weight.detach().double().numpy()
    away, clean = weight[1 - labels] - weight[labels], images.double().numpy().reshape(60, 48) / 255
    expected = []
    for epsilon in (0.0, *LEVELS):
        room = np.where(away > 0, np.minimum(1 - clean, epsilon), np.minimum(clean, epsilon))
        left = margins(model, images, labels) - (np.abs(away) * room).sum(1)
        assert np.abs(left).min() > 1e-5
        expected.append((left > 0).mean())
    assert expected[1] > expected[3]
    for curve in attack_curves(model, images, labels, epsilons=LEVELS):
        np.testing.assert_allclose(curve.accuracy.numpy(), expected, atol=1e-6)


def test_attack_curve_intervals_are_wilsons() -> None:
    model, images = linear(2), stored(60, 90, 166)
    (curve,) = attack_curves(model, images, mostly_right(model, images), ("fgsm",), LEVELS)
    for accuracy, low, high in zip(
        curve.accuracy.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True
    ):
        interval = binomtest(round(60 * accuracy), 60).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_attack_curves_attack_correct_images_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, images, labels = numbered(12)
    first: list[tuple[float, list[int]]] = []
    then: list[tuple[float, list[int]]] = []
    monkeypatch.setitem(
        ATTACKS,
        "first",
        table_of(lambda i, epsilon: (i, epsilon) in {(3, 2), (4, 8), (5, 8)}, first),
    )
    monkeypatch.setitem(
        ATTACKS, "then", table_of(lambda i, epsilon: (i, epsilon) in {(4, 2), (6, 2), (3, 2)}, then)
    )
    curves = attack_curves(
        model, images, labels, ("first", "then"), (8 / 255, 2 / 255, 4 / 255)
    )  # in any order
    everything = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]  # 0 and 1 are wrong as they are
    assert first == [(2, everything), (4, [2, *everything[2:]]), (8, [2, *everything[2:]])]
    assert then == [(2, [2, *everything[2:]]), (4, [2, 5, *range(7, 12)]), (8, [2, *range(7, 12)])]
    assert (12 * curves[0].accuracy).round().tolist() == [10, 9, 9, 7]
    assert (12 * curves[1].accuracy).round().tolist() == [10, 7, 7, 6]


def test_attack_curves_without_correct_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels = numbered(6)
    seen: list[tuple[float, list[int]]] = []
    monkeypatch.setitem(ATTACKS, "mine", table_of(lambda i, epsilon: True, seen))
    done: list[int] = []
    (curve,) = attack_curves(model, images, labels, ("mine",), LEVELS, progress=done.append)
    assert len(seen) == 1
    assert curve.accuracy.tolist() == [pytest.approx(4 / 6), 0, 0, 0]
    assert done == [1, 1, 1]


def test_attack_curves_do_not_rise() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 5)
        ).eval()
    for parameter in model.parameters():
        parameter.data.mul_(10)  # so that its gradient turns within these distances
    images = stored(40)
    labels = mostly_right(model, images)
    fgsm, pgd = attack_curves(model, images, labels, epsilons=(0.02, 0.05, 0.1, 0.3))
    assert (fgsm.accuracy.diff() <= 0).all()
    assert (pgd.accuracy.diff() <= 0).all()
    assert (pgd.accuracy <= fgsm.accuracy).all()
    assert (pgd.accuracy < fgsm.accuracy).any()


def test_attack_curves_pass_steps_to_iterative_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels = numbered(6)
    taken: list[int] = []

    def steady(
        model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int = 10
    ) -> Attack:
        taken.append(steps)
        return table_of(lambda i, epsilon: False, [])(model, images, labels, epsilon)

    monkeypatch.setitem(ATTACKS, "steady", steady)
    attack_curves(model, images, labels, ("steady", "fgsm"), LEVELS[:1], steps=7)
    assert taken == [7]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_curves_run_in_the_precision_of_the_classifier(precision: str, dtype: torch.dtype) -> None:
    model, images = linear(2), stored(20, 90, 166)
    classifier = Classifier(model, precision=precision)
    labels = mostly_right(model, images)
    model.dtypes.clear()
    attack_curves(classifier, images, labels, epsilons=LEVELS)
    assert model.dtypes == {dtype}
    model.dtypes.clear()
    corruption_curves(classifier, images, labels, ("blur",))
    assert model.dtypes == {dtype}
    model.dtypes.clear()
    adversarial_examples(classifier, images, labels, epsilon=0.1)
    assert model.dtypes == {dtype}


def test_curves_restore_the_model() -> None:
    model, images = linear(3), stored(20)
    labels, before = mostly_right(model, images), model.weight.detach().clone()
    with torch.inference_mode():
        attack_curves(model, images, labels, epsilons=LEVELS)
        adversarial_examples(model, images, labels, epsilon=0.1)
        corruption_curves(model, images, labels, ("blur",))
    assert torch.equal(model.weight, before)
    assert model.weight.requires_grad
    assert model.weight.grad is None
    assert not model.training
    with pytest.raises(SeewhyError, match="evaluation mode"):
        attack_curves(model.train(), images, labels)
    assert model.training


# --- corruptions


@pytest.mark.slow
def test_corruption_curves_by_brute_force() -> None:
    model, images = linear(3), stored(30)
    labels, done = mostly_right(model, images), list[int]()
    curves = corruption_curves(model, images, labels, seed=4, progress=done.append)
    weight = model.weight.detach().double().numpy()
    assert [curve.name for curve in curves] == list(CORRUPTIONS)
    for curve in curves:
        worse = [
            images,
            *(corrupt(images, curve.name, strength, seed=4) for strength in (1, 2, 3, 4, 5)),
        ]
        said = [
            ((image.double().numpy().reshape(30, 48) / 255 - 0.5) @ weight.T).argmax(1)
            for image in worse
        ]
        np.testing.assert_allclose(
            curve.accuracy.numpy(), [(each == labels.numpy()).mean() for each in said], atol=1e-6
        )
        assert curve.levels.tolist() == [0, 1, 2, 3, 4, 5]
        assert curve.images == 30
        assert (curve.low <= curve.accuracy).all()
        assert (curve.accuracy <= curve.high).all()
    assert sum(done) == 5 * len(CORRUPTIONS)
    assert len({tuple(curve.accuracy.tolist()) for curve in curves}) > 3


def test_corruption_curves_of_chosen_corruptions() -> None:
    model, images = linear(3), stored(10)
    curves = corruption_curves(model, images, mostly_right(model, images), ["fog", "jpeg"])
    assert [curve.name for curve in curves] == ["fog", "jpeg"]


# --- adversarial examples


def check(
    examples: AdversarialExamples, model: Linear, images: Tensor, labels: Tensor, change: int
) -> None:
    weight = model.weight.detach().double().numpy()
    before, after = (
        softmax((x.double().numpy().reshape(-1, 48) / 255 - 0.5) @ weight.T, 1)
        for x in (examples.clean, examples.adversarial)
    )
    assert torch.equal(examples.clean, images[examples.index])
    assert examples.clean.dtype == examples.adversarial.dtype == torch.uint8
    assert (examples.clean.int() - examples.adversarial).abs().max() == change
    assert torch.equal(examples.labels, labels[examples.index])
    assert (examples.labels != examples.predicted).all()
    assert np.array_equal(before.argmax(1), examples.labels)
    assert np.array_equal(after.argmax(1), examples.predicted)
    np.testing.assert_allclose(examples.clean_confidence.numpy(), before.max(1), atol=1e-5)
    np.testing.assert_allclose(examples.adversarial_confidence.numpy(), after.max(1), atol=1e-5)
    assert len(set(examples.index.tolist())) == len(examples.index)


@pytest.mark.parametrize(("epsilon", "change"), [(8 / 255, 8), (8.7 / 255, 8), (1 / 255, 1)])
def test_adversarial_examples_fool_as_stored_pixels(epsilon: float, change: int) -> None:
    model, images = linear(4), stored(200, 60, 196)
    labels = mostly_right(model, images)
    examples = adversarial_examples(model, images, labels, count=6, epsilon=epsilon)
    assert len(examples.index) == 6
    assert examples.epsilon == epsilon
    check(examples, model, images, labels, change)


def test_adversarial_examples_of_different_confusions_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, images = linear(3), stored(60, 60, 196)
    labels = mostly_right(model, images)
    every = adversarial_examples(model, images, labels, count=1000, epsilon=20 / 255)
    pairs = list(zip(every.labels.tolist(), every.predicted.tolist(), strict=True))
    different = len(set(pairs))
    assert 3 <= different < len(pairs)
    assert len(set(pairs[:different])) == different
    for pair in set(pairs):  # among equals, in the order of the images
        indices = [
            index for index, each in zip(every.index.tolist(), pairs, strict=True) if each == pair
        ]
        assert indices == sorted(indices)
    assert every.index[:different].tolist() == sorted(every.index[:different].tolist())
    few = adversarial_examples(model, images, labels, count=different + 2, epsilon=20 / 255)
    assert few.index.tolist() == every.index[: different + 2].tolist()
    check(every, model, images, labels, 20)
    monkeypatch.setattr(robustness, "_TRIED", 7)
    seen: list[int] = []
    model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    assert len(adversarial_examples(model, images, labels, count=1, epsilon=20 / 255).index) == 1
    assert max(seen) == 7
    assert seen.count(7) < 20  # one batch was enough


def test_adversarial_examples_of_a_robust_model_are_none() -> None:
    model, images, _ = numbered(5)
    model.weight.data.zero_()
    model.weight.data[0, 0] = 1e-3
    images[:] = 255
    examples = adversarial_examples(model, images, torch.zeros(5, dtype=torch.int64))
    assert (
        examples.index.shape
        == examples.labels.shape
        == examples.adversarial_confidence.shape
        == (0,)
    )
    assert examples.clean.shape == examples.adversarial.shape == (0, *SHAPE)


# --- what is refused


@pytest.mark.parametrize(
    ("attacks", "epsilons", "message"),
    [
        (("fgms",), LEVELS, "unknown attack 'fgms'.*did you mean 'fgsm'"),
        (
            ("minimal-fgsm",),
            LEVELS,
            "attack 'minimal-fgsm' has no epsilon, so it has no curve; possible: fgsm, pgd",
        ),
        (
            ("fgsm",),
            (0.1, 2.0),
            "epsilons must be above 0 and at most 1, because pixels are in .0, 1., found .0.1, 2.0",
        ),
        (("fgsm",), (0.0,), "epsilons must be above 0"),
    ],
)
def test_attack_curves_refuse_wrong_settings(
    attacks: Sequence[str], epsilons: Sequence[float], message: str
) -> None:
    with pytest.raises(SeewhyError, match=message):
        attack_curves(linear(2), stored(4), torch.zeros(4, dtype=torch.int64), attacks, epsilons)


@pytest.mark.parametrize("function", [attack_curves, corruption_curves, adversarial_examples])
def test_robustness_refuses_wrong_labels(
    function: Callable[..., tuple[RobustnessCurve, ...]],
) -> None:
    with pytest.raises(
        SeewhyError,
        match=r"labels must be a tensor \(4,\) int64, one class index per image, found \(3,\)",
    ):
        function(linear(2), stored(4), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("function", [attack_curves, corruption_curves, adversarial_examples])
def test_robustness_refuses_float_images(
    function: Callable[..., tuple[RobustnessCurve, ...]],
) -> None:
    with pytest.raises(SeewhyError, match=r"images \(N, C, H, W\) uint8"):
        function(linear(2), stored(4) / 255, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(SeewhyError, match=r"images \(N, C, H, W\) uint8"):
        function(linear(2), stored(4)[:0], torch.zeros(0, dtype=torch.int64))


def test_robustness_refuses_other_values() -> None:
    model, images, labels = numbered(3)
    with pytest.raises(SeewhyError, match="unknown corruption 'rain'"):
        corruption_curves(model, images, labels, ("rain",))
    with pytest.raises(
        SeewhyError,
        match=r"epsilon must be from 1/255, .* of a stored pixel, to 1, found 0.001",
    ):
        adversarial_examples(model, images, labels, epsilon=0.001)
    with pytest.raises(SeewhyError, match="count must be at least 1, found 0"):
        adversarial_examples(model, images, labels, count=0)
