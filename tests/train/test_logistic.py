"""The oracle is scikit-learn with its own pipeline, or the condition of a minimum."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from seewhy.data.dataset import stratified_folds
from seewhy.errors import SeewhyError
from seewhy.train.logistic import (
    CANDIDATES,
    fit_logistic,
    fit_one_vs_rest,
    out_of_fold_logits,
)


def blobs(
    per_class: int, dimensions: int, classes: int = 3, spread: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Features (1, N, D) around a center for each class, not centered and of various scales."""
    generator = np.random.default_rng(0)
    labels = np.arange(per_class * classes) % classes
    centers = generator.normal(size=(classes, dimensions))
    features = centers[labels] + spread * generator.normal(size=(len(labels), dimensions))
    return (features * np.linspace(0.1, 3, dimensions) + 5)[None], labels


def scaled(features: np.ndarray) -> np.ndarray:
    result: np.ndarray = (features - features.mean(0)) / np.sqrt(features.var(0).mean())
    return result


@pytest.mark.parametrize(
    ("per_class", "dimensions", "classes"), [(40, 5, 3), (10, 60, 3), (15, 40, 2)]
)
def test_probabilities_are_those_of_scikit_learn(
    per_class: int, dimensions: int, classes: int
) -> None:
    features, labels = blobs(per_class, dimensions, classes)
    fit = fit_logistic(features, labels, classes, c=0.1)
    inputs = scaled(features[0])
    # of two classes scikit-learn penalizes the difference, which has twice the sum of their squares
    c = 0.2 if classes == 2 else 0.1
    oracle = LogisticRegression(C=c, tol=1e-8, max_iter=1000).fit(inputs, labels)
    logits = features[0] @ fit.weight.T + fit.bias
    expected = oracle.predict_log_proba(inputs)
    found = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert fit.validation is None


@pytest.mark.slow
def test_c_has_the_lowest_loss_in_cross_validation() -> None:
    features, labels = blobs(20, 30)
    fit = fit_logistic(features, labels, 3, folds=5, seed=1)
    assert fit.validation is not None
    inputs, fold_of = scaled(features[0]), stratified_folds(labels, 5, 1)
    splits = [(np.flatnonzero(fold_of != f), np.flatnonzero(fold_of == f)) for f in range(5)]
    chosen = fit.validation.best
    assert 0 < chosen < len(CANDIDATES) - 1
    assert fit.c == CANDIDATES[chosen]
    losses = [
        -cross_val_score(
            LogisticRegression(C=c), inputs, labels, cv=splits, scoring="neg_log_loss"
        ).mean()
        for c in CANDIDATES[chosen - 1 : chosen + 2]
    ]
    np.testing.assert_allclose(
        fit.validation.losses[chosen - 1 : chosen + 2], losses, rtol=0, atol=2e-3
    )
    assert losses[1] < min(losses[0], losses[2])


def test_class_weights_are_as_if_the_images_were_repeated() -> None:
    features, labels = blobs(20, 5)
    repeated = np.concatenate([np.arange(60), np.flatnonzero(labels == 1)])
    weights = np.array([1.0, 2.0, 1.0])
    # the same scale for both: all classes have the same images twice, or the scale differs
    doubled = fit_logistic(features, labels, 3, weights, c=1e6)
    by_hand = fit_logistic(features[:, repeated], labels[repeated], 3, c=1e6)
    logits = [features[0] @ fit.weight.T + fit.bias for fit in (doubled, by_hand)]
    probabilities = [np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in logits]
    np.testing.assert_allclose(*probabilities, atol=5e-3)


def test_views_weigh_as_much_as_one_image() -> None:
    features, labels = blobs(20, 5)
    once = fit_logistic(features, labels, 3, c=0.1)
    twice = fit_logistic(np.concatenate([features, features]), labels, 3, c=0.1)
    np.testing.assert_allclose(once.weight, twice.weight, atol=1e-3)


def test_a_class_without_images_is_never_predicted() -> None:
    features, labels = blobs(20, 5)
    fit = fit_logistic(features, np.where(labels == 1, 3, labels), 4)
    logits = features[0] @ fit.weight.T + fit.bias
    assert set(logits.argmax(1)) == {0, 2, 3}
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("intercept", [True, False])
def test_a_label_of_all_images_or_of_none_is_predicted_so(intercept: bool) -> None:
    features, classes = blobs(20, 5)
    labels = np.stack([classes == 0, classes >= 0, classes < 0], axis=1)
    fit = fit_one_vs_rest(features + 3, labels, 3, intercept=intercept)
    logits = (features[0] + 3) @ fit.weight.T + fit.bias
    assert (logits[:, 1] > 3).all()
    assert (logits[:, 2] < -3).all()


def test_classes_of_one_and_two_images() -> None:
    features, labels = blobs(20, 5)
    labels[:3] = 3, 4, 4
    fit = fit_logistic(features, labels, 5)
    assert fit.validation is not None
    assert fit.validation.images == 59  # the only image of a class is not held out
    assert np.isfinite(fit.validation.losses).all()


def test_classes_of_one_image_alone_are_refused_unless_c_is_given() -> None:
    features, labels = blobs(1, 5)
    with pytest.raises(SeewhyError, match=r"no class has two training images.*logistic:c=0\.01"):
        fit_logistic(features, labels, 3)
    assert np.isfinite(fit_logistic(features, labels, 3, c=0.01).weight).all()


def test_constant_features_give_equal_probabilities() -> None:
    _, labels = blobs(20, 5)
    fit = fit_logistic(np.ones((1, 60, 5)), labels, 3)
    np.testing.assert_allclose(np.ones(5) @ fit.weight.T + fit.bias, fit.bias.mean(), atol=1e-6)


def test_folds_are_as_even_as_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2, 3], [23, 11, 2, 1])
    fold_of = stratified_folds(labels, 5, 0)
    assert fold_of[labels == 3].tolist() == [-1]
    for label, count in ((0, 23), (1, 11)):
        sizes = np.bincount(fold_of[labels == label], minlength=5)
        assert set(sizes) <= {count // 5, -(-count // 5)}
    sizes = np.bincount(fold_of[fold_of >= 0], minlength=5)
    assert sizes.max() - sizes.min() <= 1
    oracle = StratifiedKFold(5, shuffle=True, random_state=0).split(labels[:34], labels[:34])
    assert {len(test) for _, test in oracle} == set(np.bincount(fold_of[:34], minlength=5))
    assert not np.array_equal(fold_of, stratified_folds(labels, 5, 1))


def test_out_of_fold_logits_are_those_of_models_without_the_fold() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 3] * 30 + [5])  # class 4 has no image, and 5 a single one
    features = rng.normal(size=(121, 6)) + np.eye(6)[labels]
    out_of_fold = out_of_fold_logits(features, labels, 6, c=0.5, folds=3, seed=1)
    logits, fold_of = out_of_fold.logits, out_of_fold.fold_of
    assert fold_of.tolist() == stratified_folds(labels, 3, 1).tolist()
    assert fold_of[-1] == -1
    assert not logits[-1].any()
    scale = np.sqrt(features.var(0).mean())
    for fold in range(3):
        test = fold_of == fold
        oracle = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000)
        oracle.fit(((features - features.mean(0)) / scale)[~test], labels[~test])
        expected = oracle.predict_proba(((features - features.mean(0)) / scale)[test])
        found = np.exp(logits[test] - logits[test].max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        assert np.allclose(found[:, [0, 1, 2, 3, 5]], expected, atol=2e-3)
        assert found[:, 4].max() < 1e-8
    chosen = out_of_fold_logits(features, labels, 6, folds=3, seed=1)
    accuracy = (chosen.logits[:-1].argmax(1) == labels[:-1]).mean()
    validation = fit_logistic(features[None], labels, 6, folds=3, seed=1).validation
    assert validation is not None
    assert accuracy == pytest.approx(validation.accuracies[validation.best], abs=0.02)
    assert chosen.c == validation.candidates[validation.best]
