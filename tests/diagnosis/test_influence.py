"""The training images that support and oppose a prediction most."""

import math

import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Dataset, Split
from seewhy.diagnosis import influence
from seewhy.diagnosis.feature_space import error_neighbors
from seewhy.diagnosis.influence import influential_images
from seewhy.diagnosis.predictions import predict_split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.train.logistic import fit_logistic


def random_case(images: int = 30, mean: float = 2.0) -> tuple[Tensor, ...]:
    """Features, weight, bias and labels: 4 images, then the training images."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4 + images, 5, generator=generator) + mean
    weight, bias = (torch.randn(3, n, generator=generator) for n in (5, 1))
    labels = torch.randint(3, (4 + images,), generator=generator)
    return features, weight, bias[:, 0], labels


def gradients(features: Tensor, weight: Tensor, bias: Tensor, classes: Tensor) -> list[Tensor]:
    """Of the log-probability of each image's class, with respect to weight and bias, (K, D + 1)."""
    layer = nn.Linear(features.shape[1], len(bias)).double()
    layer.load_state_dict({"weight": weight, "bias": bias})
    found = []
    for row, label in zip(features, classes, strict=True):
        layer.zero_grad()
        layer(row).log_softmax(0)[label].backward()
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        found.append(torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1).clone())
    return found


def assert_ranked(found: influence.Influence, scores: Tensor, count: int) -> None:
    for row, values in enumerate(scores):
        order = values.argsort(descending=True)
        assert found.proponents[row].tolist() == order[:count].tolist()
        assert found.opponents[row].tolist() == order.flip(0)[:count].tolist()
        shares = values / values.clamp(min=0).sum(), values / values.clamp(max=0).sum()
        for name, share in zip(("proponent", "opponent"), shares, strict=True):
            actual = getattr(found, f"{name}_shares")[row]
            expected = share[getattr(found, f"{name}s")[row]].float()
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_influence_is_the_product_of_gradients_by_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influence, "_ROWS", 3)
    monkeypatch.setattr(influence, "_BLOCK", 7)
    features, weight, bias, labels = random_case()
    logits = features @ weight.T + bias
    found = influential_images(
        features[:4], logits[:4], features[4:], logits[4:], labels[4:], labels[:4], count=3
    )
    rows, weight = features.double(), weight.double()
    mean = rows[4:].mean(0)  # the same logits, as a function of the centered features
    own = gradients(rows - mean, weight, bias + weight @ mean, labels)
    covariance = torch.cov(rows[4:].T, correction=0)
    inverse = torch.eye(6, dtype=torch.float64)
    damping = torch.trace(covariance) / 5 * torch.eye(5, dtype=torch.float64)
    inverse[:5, :5] = torch.linalg.inv(covariance + damping)
    scores = torch.tensor([[float((g @ inverse * t).sum()) for t in own[4:]] for g in own[:4]])
    assert_ranked(found, scores, 3)


def test_without_damping_it_is_the_influence_function_of_an_untrained_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where all probabilities are equal, the approximation of the Hessian is exact."""
    monkeypatch.setattr(influence, "_DAMPING", 1e-9)
    features, _, _, labels = random_case()
    logits = torch.zeros(34, 3)
    found = influential_images(
        features[:4], logits[:4], features[4:], logits[4:], labels[4:], labels[:4], count=5
    )
    rows = torch.cat([features, torch.ones(34, 1)], 1).double()

    def loss(weight: Tensor) -> Tensor:
        return nn.functional.cross_entropy(rows[4:] @ weight.view(3, 6).T, labels[4:])

    start = torch.zeros(18, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(loss, start)
    zeros = torch.zeros(3, 5).double(), torch.zeros(3).double()
    own = torch.stack(gradients(features.double(), *zeros, labels)).flatten(1)
    assert_ranked(found, own[:4] @ torch.linalg.pinv(hessian, hermitian=True) @ own[4:].T, 5)


def test_predicted_classes_are_explained_by_default() -> None:
    features, weight, bias, labels = random_case()
    logits = features @ weight.T + bias
    train = features[4:], logits[4:], labels[4:]
    default = influential_images(features[:4], logits[:4], *train)
    given = influential_images(features[:4], logits[:4], *train, logits[:4].argmax(1))
    assert torch.equal(default.proponents, given.proponents)
    some = default.take(torch.tensor([2]))
    assert torch.equal(some.opponents, default.opponents[2:3])
    assert torch.equal(some.proponent_shares, default.proponent_shares[2:3])


def test_missing_images_are_marked_and_confident_predictions_have_influences() -> None:
    features = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.1]])
    logits = torch.tensor([[30.0, 0.0], [2.0, 0.0], [1.0, 0.0]])  # 1 - p is about 1e-13
    found = influential_images(
        features[:1], logits[:1], features[1:], logits[1:], torch.tensor([1, 0])
    )
    assert found.proponents.tolist() == [[1, -1, -1]]
    assert found.opponents.tolist() == [[-1, -1, -1]] or found.opponents[0, 0] == 0
    assert found.proponent_shares.tolist() == [[1, 0, 0]]
    equal = influential_images(*(torch.ones(2, 2) for _ in range(4)), torch.tensor([0, 1]))
    assert equal.proponents.tolist() == [[0, -1, -1]] * 2  # images with the same features


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.ones(3, 2)}, "features must be .N, D. with logits"),
        ({"train_labels": torch.ones(3)}, "train_features must be .N, D. with logits"),
        ({"features": torch.ones(4, 7)}, "found 7 and 5 features, 2 and 2 logits"),
        ({"count": 0}, "count must be at least 1, found 0"),
    ],
)
def test_influential_images_reject_what_does_not_fit(change, message) -> None:
    fitting = {
        "features": torch.ones(4, 5),
        "logits": torch.ones(4, 2),
        "train_features": torch.ones(6, 5),
        "train_logits": torch.ones(6, 2),
        "train_labels": torch.zeros(6).long(),
    }
    with pytest.raises(SeewhyError, match=message):
        influential_images(**(fitting | change))


def linear_model(images: Tensor, labels: Tensor) -> nn.Module:
    """A logistic regression on the pixels."""
    fit = fit_logistic(images.flatten(1).double().div(255)[None].numpy(), labels.numpy(), 2, c=1)
    layer = nn.Linear(images[0].numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fit.weight))
        layer.bias.copy_(torch.from_numpy(fit.bias))
    return nn.Sequential(nn.Flatten(), layer).eval()


def test_a_mislabeled_copy_is_the_first_proponent_of_an_error() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (60, 1, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.arange(60) % 2
    images[labels == 1, :, :2] += 40
    names = [str(index) for index in range(60)]
    labels[7] = 0  # mislabeled, and its copy is a test image
    train = Split(images, labels, names)
    test = Split(images[[7, 8]], torch.tensor([1, 0]), names[:2])
    data = Dataset("planted", ("a", "b"), train, test, None, "1" * 32)
    classifier = Classifier(linear_model(images, labels))
    predictions = predict_split(classifier, test)
    assert predictions.predicted[0] == 0
    error = torch.tensor([0])
    found = error_neighbors(classifier, data, predictions, error, math.inf)
    assert found is not None
    assert found.influence is not None
    assert found.influence.proponents[0, 0] == 7
    assert 0.05 < found.influence.proponent_shares[0, 0] < 1
    assert labels[found.influence.opponents[0]].tolist() == [1, 1, 1]
    shown = torch.cat([found.influence.proponents, found.influence.opponents], 1).flatten()
    assert set(shown.tolist()) <= set(found.thumbnails.indices.tolist())
    assert found.take(torch.tensor([], dtype=torch.int64)).influence is not None
    curved = nn.Sequential(classifier.model, nn.Tanh()).eval()
    without = error_neighbors(Classifier(curved), data, predictions, error, math.inf)
    assert without is not None
    assert without.influence is None
