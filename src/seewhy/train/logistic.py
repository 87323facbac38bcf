"""Logistic regression on features, with its regularization chosen by cross-validation."""

from dataclasses import dataclass

import numpy as np

from seewhy.data.dataset import stratified_folds, stratified_sample
from seewhy.errors import SeewhyError

CANDIDATES = tuple(10.0 ** (step / 2) for step in range(-8, 5))  # of C, for scaled features
MAX_SAMPLE = 5000  # images that C is chosen on: its choice needs fewer than the final fit
MAX_ITERATIONS = 300
ENOUGH_TO_COMPARE = 1e-7  # relative change of the loss
PATIENCE = 2  # larger candidates that are worse than the best, after which no more are tried


@dataclass(frozen=True)
class CrossValidation:
    """Candidates for C with their results on images that were held out."""

    folds: int
    images: int
    candidates: tuple[float, ...]  # of C, ascending
    losses: tuple[float, ...]  # mean negative log-likelihood of each, in nats
    accuracies: tuple[float, ...]  # of each, in [0, 1]

    @property
    def best(self) -> int:
        """Index of the candidate with the lowest loss."""
        return int(np.argmin(self.losses))


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """A fitted logistic regression: logits are `features @ weight.T + bias`."""

    weight: np.ndarray  # (K, D) float64
    bias: np.ndarray  # (K,) float64
    c: float
    validation: CrossValidation | None  # None if C was given


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Logits by models that were fitted without the fold of an image."""

    logits: np.ndarray  # (N, K) float64; those of classes without images are far below the others
    fold_of: np.ndarray  # (N,) int64; -1, with logits of 0, for the only image of a class
    c: float


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    class_weights: np.ndarray | None = None,
    c: float | None = None,
    folds: int = 5,
    seed: int = 0,
    intercept: bool = True,
) -> LogisticRegression:
    """Fit a multinomial logistic regression with an L2 penalty.

    C, the inverse of the penalty, is that with the lowest negative log-likelihood in stratified
    cross-validation. It is for centered features with a mean variance of 1, so that it does not
    depend on the scale of a network's features; the result is for the features as they are. All
    are divided by the same number: features that hardly vary are not blown up. A class without
    images gets logits far below the others.

    Args:
        features: (V, N, D) float, V views of each image.
        labels: (N,) int64 in [0, K).
        num_classes: Number of classes, K.
        class_weights: (K,) weights of the loss; all 1 by default.
        c: C; by default it is chosen by cross-validation.
        folds: Number of folds, at least 2.
        seed: Seed of the folds.
        intercept: Whether there is a bias; without one it is 0, and features are not centered.

    Raises:
        SeewhyError: If C is to be chosen, and no class has two images.
    """
    count = features.shape[1]
    rows, mean, scale, basis = _standardized(features, intercept)
    weights = np.ones(count) if class_weights is None else class_weights[labels].astype(np.float64)
    validation = None
    if c is None:
        validation = _cross_validate(rows, labels, weights, folds, seed, intercept)
        c = validation.candidates[validation.best]
    coefficients = _minimize(rows, labels, weights, num_classes, c, intercept)
    weight = coefficients[:, :-1] @ basis / scale
    bias = coefficients[:, -1] - weight @ mean
    absent = np.bincount(labels, minlength=num_classes) == 0
    if intercept:
        bias[absent] = bias.min() - NEVER
    return LogisticRegression(weight, bias, c, validation)


def fit_one_vs_rest(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    pos_weight: np.ndarray | None = None,
    c: float | None = None,
    folds: int = 5,
    seed: int = 0,
    intercept: bool = True,
) -> LogisticRegression:
    """Fit a binary logistic regression for each of K labels, each with its own C.

    Args:
        features: (V, N, D) float, V views of each image.
        labels: (N, K) bool.
        num_classes: Number of labels, K.
        pos_weight: (K,) weights of the images that have a label; all 1 by default.
        c: C of all labels; by default each is chosen by cross-validation.
        folds: As for `fit_logistic`, like `seed` and `intercept`.
        seed: Seed of the folds.
        intercept: Whether there are biases.

    Returns:
        Logits of the labels, whose sigmoid is the probability. C is the median over the labels.

    Raises:
        SeewhyError: If C is to be chosen, and no label has two images.
    """
    weights = np.ones(num_classes) if pos_weight is None else pos_weight
    fits = [
        fit_logistic(
            features,
            labels[:, label].astype(np.int64),
            2,
            np.array([1.0, weights[label]]),
            c,
            folds,
            seed,
            intercept,
        )
        for label in range(num_classes)
    ]
    return LogisticRegression(
        np.stack([fit.weight[1] - fit.weight[0] for fit in fits]),
        np.array([fit.bias[1] - fit.bias[0] for fit in fits]),
        float(np.median([fit.c for fit in fits])),
        None,
    )


def out_of_fold_logits(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    class_weights: np.ndarray | None = None,
    c: float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> OutOfFold:
    """Logits of each image by a logistic regression that was fitted without its fold.

    Args:
        features: (N, D) float.
        labels: (N,) int64 in [0, K).
        num_classes: Number of classes, K.
        class_weights: (K,) weights of the loss; all 1 by default.
        c: As for `fit_logistic`; by default it is chosen on the same folds.
        folds: Number of folds, at least 2.
        seed: Seed of the folds.

    Raises:
        SeewhyError: If no class has two images.
    """
    rows = _standardized(features[None], intercept=True)[0]
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    if c is None:
        validation = _cross_validate(rows, labels, weights, folds, seed, intercept=True)
        c = validation.candidates[validation.best]
    fold_of = stratified_folds(labels, folds, seed)
    classes, indices = np.unique(labels, return_inverse=True)
    logits = np.zeros((len(labels), num_classes))
    start: np.ndarray | None = None
    for fold in range(folds):
        test = fold_of == fold
        if not test.any():
            continue
        start = _minimize(
            rows[:, ~test],
            indices[~test],
            weights[~test],
            len(classes),
            c,
            True,
            start,
            ENOUGH_TO_COMPARE,
        )
        held_out = _logits(rows[0, test], start)
        logits[test] = held_out.min(1, keepdims=True) - NEVER
        logits[np.ix_(test, classes)] = held_out
    return OutOfFold(logits, fold_of, c)


def _standardized(
    features: np.ndarray, intercept: bool
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Features (V, N, D) as rows (V, N, R) along orthonormal axes, with a mean variance of 1.

    Returns the rows, and the mean (D,), the scale and the axes (R, D) that make them.
    """
    views, count, dimensions = features.shape
    flat = features.reshape(-1, dimensions).astype(np.float64)
    mean = flat.mean(0) if intercept else np.zeros(dimensions)
    scale = float(np.sqrt(flat.var(0).mean())) or 1.0  # 0: all images have the same features
    flat = (flat - mean) / scale
    basis = _principal_axes(flat)
    return (flat @ basis.T).reshape(views, count, -1), mean, scale, basis


def _principal_axes(rows: np.ndarray) -> np.ndarray:
    """Orthonormal axes (R, D) that span rows (N, D), along which they are uncorrelated.

    The penalty is the same along any axes. Along these, few iterations suffice, and of more
    features than images, as many as images are left.
    """
    count, dimensions = rows.shape
    wide = count < dimensions
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = values > values[-1] * 1e-12
    axes: np.ndarray = vectors[:, kept].T
    if wide:
        axes = (axes @ rows) / np.sqrt(values[kept, None])
    return axes


def _cross_validate(
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    folds: int,
    seed: int,
    intercept: bool,
) -> CrossValidation:
    """Mean loss and accuracy of the candidates for C, over held-out images without other views.

    Args:
        rows: (V, N, D) float64, V views of each image; the first one is the image itself.
        labels: (N,) int64.
        weights: (N,) of the images in the loss.
        folds: Number of folds.
        seed: Seed of the folds, and of the sample of many images.
        intercept: Whether there is a bias.
    """
    if len(labels) > MAX_SAMPLE:
        sample = stratified_sample(labels, MAX_SAMPLE, seed)
        rows, labels, weights = rows[:, sample], labels[sample], weights[sample]
    fold_of = stratified_folds(labels, folds, seed)
    held_out = fold_of >= 0
    if not held_out.any():
        raise SeewhyError(
            "the probe's C cannot be chosen by cross-validation: no class has two training "
            "images; add some, or set it, as in logistic:c=0.01"
        )
    classes, indices = np.unique(labels, return_inverse=True)
    total = weights[held_out].sum()
    losses: list[float] = []
    accuracies: list[float] = []
    tests = [fold_of == fold for fold in range(folds) if (fold_of == fold).any()]
    starts: list[np.ndarray | None] = [None] * len(tests)
    for c in CANDIDATES:
        loss = correct = 0.0
        for number, test in enumerate(tests):
            coefficients = _minimize(
                rows[:, ~test],
                indices[~test],
                weights[~test],
                max(2, len(classes)),  # also of a label that all images have, or none
                c,
                intercept,
                starts[number],
                ENOUGH_TO_COMPARE,
            )
            starts[number] = coefficients
            logits = _logits(rows[0, test], coefficients)
            true = indices[test]
            loss += (weights[test] * _negative_log_likelihood(logits, true)).sum()
            correct += (weights[test] * (logits.argmax(1) == true)).sum()
        losses.append(float(loss / total))
        accuracies.append(float(correct / total))
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return CrossValidation(
        folds, int(held_out.sum()), CANDIDATES[: len(losses)], tuple(losses), tuple(accuracies)
    )


def _minimize(
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
    c: float,
    intercept: bool,
    start: np.ndarray | None = None,
    tolerance: float = 1e-10,
) -> np.ndarray:
    """Coefficients (K, D + 1), the last column for the biases, which have no penalty.

    They minimize the sum of the weighted losses plus their squares over 2 C, by L-BFGS in
    coordinates in which the curvature at 0 is about 1: that of a loss is (1 - 1 / K) / K times the
    square of a feature.

    Args:
        rows: (V, N, D) float64, V views of each image; a view has the V-th part of its weight.
        labels: (N,) int64.
        weights: (N,).
        num_classes: K.
        c: Inverse of the penalty.
        intercept: Whether there are biases; otherwise they stay 0.
        start: Coefficients to start from; 0 by default.
        tolerance: Relative change of the loss at which an iteration is the last one.
    """
    from scipy.optimize import minimize

    views, count, dimensions = rows.shape
    flat, true = rows.reshape(views * count, dimensions), np.tile(labels, views)
    share = np.tile(weights, views) / views
    curvature = (1 - 1 / num_classes) / num_classes
    ones = np.ones((len(flat), 1))
    squares = share @ np.concatenate([flat**2, ones], 1)  # (D + 1,)
    penalty = np.append(np.full(dimensions, 1 / c), 0.0)
    unit = 1 / np.sqrt(curvature * squares + penalty)
    unit[-1] *= intercept
    each = np.arange(len(true))

    def loss_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = values.reshape(num_classes, -1) * unit
        logits = _logits(flat, coefficients)
        logits -= logits.max(1, keepdims=True)
        exponentials = np.exp(logits)
        sums = exponentials.sum(1)
        losses = np.log(sums) - logits[each, true]
        errors = exponentials / sums[:, None]
        errors[each, true] -= 1
        errors *= share[:, None]
        gradient = np.concatenate([errors.T @ flat, errors.sum(0)[:, None]], 1)
        gradient += penalty * coefficients
        loss = share @ losses + (penalty * coefficients**2).sum() / 2
        return loss, (gradient * unit).ravel()

    initial = np.zeros((num_classes, dimensions + 1))
    if start is not None:
        np.divide(start, unit, out=initial, where=unit > 0)
    options = {"maxiter": MAX_ITERATIONS, "ftol": tolerance, "gtol": 1e-5 * np.sqrt(share.sum())}
    found = minimize(
        loss_and_gradient, initial.ravel(), jac=True, method="L-BFGS-B", options=options
    )
    result: np.ndarray = found.x.reshape(num_classes, -1) * unit
    return result


def _logits(rows: np.ndarray, coefficients: np.ndarray) -> np.ndarray:  # (N, K)
    result: np.ndarray = rows @ coefficients[:, :-1].T + coefficients[:, -1]
    return result


NEVER = 20.0  # logits of a class without images are lower than the others by about this


def _negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) in nats, for logits (N, K)."""
    highest = logits.max(1, keepdims=True)
    log_sums = np.log(np.exp(logits - highest).sum(1)) + highest[:, 0]
    result: np.ndarray = log_sums - logits[np.arange(len(labels)), labels]
    return result
