"""TCAV on models whose use of a color is known."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from seewhy.attribution import tcav, tcav_table
from seewhy.attribution.concept_vectors import concept_classifier
from seewhy.errors import SeewhyError


def model_with(weights: list[float]) -> nn.Module:
    """The first logit is a weighted sum of mean red, green and blue; the second one is 0."""
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3)[:, :, None, None])
        model[0].bias.zero_()
        model[3].weight.copy_(torch.tensor([weights, [0.0, 0, 0]]))
        model[3].bias.zero_()
    return model.eval()


def noise(count: int, seed: int) -> Tensor:
    return 0.5 * torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def red(count: int, seed: int) -> Tensor:
    images = noise(count, seed)
    images[:, 0] += 0.3
    return images


@pytest.mark.parametrize(("weight", "expected"), [(2.0, 1.0), (-2.0, 0.0)])
def test_a_color_that_counts_for_or_against_the_class(weight: float, expected: float) -> None:
    result = tcav(model_with([weight, 0, 0]), noise(8, 0), red(20, 1), noise(40, 2), "0", 0)
    assert result.score == expected  # every derivative along red has the sign of its weight
    assert result.accuracy > 0.95
    assert result.layer == "0"
    # directions along random images are random, and few are as close to red
    assert result.p_value < 0.1
    assert result.sensitivity * weight > 1


def test_a_color_that_does_not_count_is_not_significant() -> None:
    result = tcav(model_with([0, 1.0, 0]), noise(8, 0), red(20, 1), noise(40, 2), "0", 0)
    assert result.accuracy > 0.95
    assert result.p_value > 0.2
    assert abs(result.sensitivity) < 1


def test_a_channel_that_only_helps_to_recognize_the_concept_does_not_count() -> None:
    """Red and green share their noise, so that red minus green tells the concept best."""

    def shared(count: int, seed: int, added: float) -> Tensor:
        images = 0.1 * noise(count, seed)
        generator = torch.Generator().manual_seed(100 + seed)
        images[:, :2] += 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
        images[:, 0] += added
        return images

    model = model_with([0, 1.0, 0])
    result = tcav(model, noise(8, 0), shared(60, 1, 0.2), shared(120, 2, 0), "0", 0)
    assert result.accuracy > 0.95
    assert abs(result.sensitivity) < 0.7  # along red minus green it would be about -1


def test_p_values_of_noise_are_not_below_their_level() -> None:
    model = model_with([1.0, -1.0, 0.5])
    p_values = torch.tensor(
        [
            tcav(
                model, noise(4, 0), noise(16, seed), noise(40, 50 + seed), "0", 0, repeats=40
            ).p_value
            for seed in range(40)
        ]
    )
    for level in (0.1, 0.3):  # 40 of them: the standard error is 0.05 and 0.07
        assert (p_values <= level).float().mean() < level + 0.1


def test_a_table_has_the_scores_of_each_concept_and_class() -> None:
    model, images, others = model_with([1.0, -1.0, 0.5]), noise(8, 0), noise(40, 2)
    concepts, done = {"red": red(20, 1), "noise": noise(12, 3)}, list[int]()
    table = tcav_table(
        model, {1: images[:5], 0: images}, concepts, others, "0", repeats=20, progress=done.append
    )
    assert list(table) == [("red", 1), ("noise", 1), ("red", 0), ("noise", 0)]
    assert done == [1] * 4
    for (concept, label), score in table.items():
        shown = images[:5] if label else images
        alone = tcav(model, shown, concepts[concept], others, "0", label, repeats=20)
        assert torch.equal(score.random_scores, alone.random_scores)
        assert (score.score, score.p_value) == (alone.score, alone.p_value)
        assert (score.sensitivity, score.accuracy) == (alone.sensitivity, alone.accuracy)


def test_noise_is_no_concept() -> None:
    """Images without a concept are separated by chance, and their score is one of many."""
    model = model_with([1.0, -1.0, 0.5])
    result = tcav(model, noise(8, 0), noise(20, 1), noise(40, 2), "0", 0, repeats=30)
    assert 0.3 < result.accuracy < 0.7
    assert result.p_value > 0.2
    assert result.random_scores.shape == (30,)


@pytest.mark.parametrize("channels", [5, 90])  # fewer, and more, than images
def test_the_classifier_is_that_of_ridge_regression(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    concept = torch.randn(12, channels, generator=generator, dtype=torch.float64) + 0.5
    others = torch.randn(30, channels, generator=generator, dtype=torch.float64)
    found, offset = concept_classifier(concept, others)
    middle = (concept.mean(0) + others.mean(0)) / 2
    rows = (torch.cat([concept, others]) - middle).numpy()
    weights = [1 / 12] * 12 + [1 / 30] * 30
    gram = (rows.T * weights) @ rows
    ridge = Ridge(alpha=0.01 * gram.diagonal().mean(), fit_intercept=False, solver="cholesky")
    ridge.fit(rows, [1.0] * 12 + [-1.0] * 30, sample_weight=weights)
    torch.testing.assert_close(found, torch.from_numpy(ridge.coef_))
    assert offset == pytest.approx(float(middle @ found))


def test_arguments_that_do_not_fit() -> None:
    model = model_with([1.0, 0, 0])
    with pytest.raises(SeewhyError, match="at least 10 images with the concept, found 9; add"):
        tcav(model, noise(2, 0), red(9, 1), noise(20, 2), "0")
    with pytest.raises(SeewhyError, match="at least 10 images without the concept, found 8; add"):
        tcav(model, noise(2, 0), red(10, 1), noise(8, 2), "0")
    with pytest.raises(SeewhyError, match="repeats must be at least 1, found 0"):
        tcav(model, noise(2, 0), red(10, 1), noise(20, 2), "0", repeats=0)
    with pytest.raises(SeewhyError, match="tcav explains one layer, found 2"):
        tcav(model, noise(2, 0), red(10, 1), noise(20, 2), ["0", "1"])
