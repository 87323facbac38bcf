"""Do influential training images matter? `python -m benchmarks.influence [WEIGHTS PHOTOS CIFAR10]`.

A logistic regression is fitted on features of training images, and explained errors are those it
makes on others. Truth is measured by fitting it again without some training images: on random
halves (linear datamodeling score, Park et al. 2023), and without the most influential ones. For the
digits, also a small CNN is trained again on each half, in which all layers change. WEIGHTS are of
EfficientNet-Lite0, PHOTOS a folder of photographs, CIFAR10 its name or path.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

import seewhy
from benchmarks.results import Row, keep
from benchmarks.selection import enlarged
from seewhy.diagnosis.influence import influence_scores
from seewhy.models.classifier import pretrained_classifier
from seewhy.models.features import extract_features
from seewhy.train.logistic import fit_logistic

ERRORS = 20  # explained
HALVES = 60  # random ones
TRAIN = 500  # digits to train on
FEW = 700  # training images at most of the other datasets
SEEDS = 2  # CNNs trained on each half, whose log-probabilities are averaged
EPOCHS = 15  # of the CNN


@dataclass(frozen=True, eq=False)
class Case:
    """What a last layer sees of errors and of training images."""

    name: str
    features: Tensor  # (M, D) of the errors
    logits: Tensor  # (M, K)
    train_features: Tensor  # (N, D)
    train_logits: Tensor  # (N, K)
    train_labels: Tensor  # (N,)

    @property
    def classes(self) -> Tensor:  # (M,)
        """The predicted classes."""
        return self.logits.argmax(1)


# a case -> (M, N): how much each training image speaks for the prediction
Score = Callable[[Case], Tensor]


def random(case: Case) -> Tensor:
    """Any order."""
    shape = len(case.features), len(case.train_labels)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def nearest(case: Case) -> Tensor:
    """Cosine similarity of the features."""
    return F.normalize(case.features) @ F.normalize(case.train_features).T


def nearest_of_class(case: Case) -> Tensor:
    """The same among the training images of the predicted class."""
    return nearest(case) - 2 * (case.train_labels != case.classes[:, None]).float()


def tracin(case: Case) -> Tensor:
    """TracIn of the last layer: the product of the gradients with respect to weight and bias."""
    gradients = F.one_hot(case.classes, case.logits.shape[1]) - case.logits.softmax(1)
    own = F.one_hot(case.train_labels, case.logits.shape[1]) - case.train_logits.softmax(1)
    return (gradients @ own.T) * (case.features @ case.train_features.T + 1)


def influence(case: Case) -> Tensor:
    """What seewhy shows."""
    train = case.train_features, case.train_logits, case.train_labels
    return torch.cat(list(influence_scores(case.features, case.logits, *train, case.classes)))


SCORES: dict[str, Score] = {
    "random": random,
    "nearest": nearest,
    "nearest of the predicted class": nearest_of_class,
    "TracIn of the last layer": tracin,
    "influential_images": influence,
}


@dataclass(frozen=True, eq=False)
class Refit:
    """Logistic regression on training features."""

    features: Tensor  # (N, D)
    labels: Tensor  # (N,)
    classes: int
    c: float

    def logits(self, rows: Tensor, images: Tensor) -> Tensor:
        """Of images (M, D) after fitting on the rows, (M, K) float32."""
        chosen = self.features[rows].double()[None].numpy()
        fit = fit_logistic(chosen, self.labels[rows].numpy(), self.classes, c=self.c)
        return (
            images.double() @ torch.from_numpy(fit.weight).T + torch.from_numpy(fit.bias)
        ).float()


def of_probe(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[Row]:
    """Refitting a logistic regression; train and test are features (N, D) and labels (N,)."""
    (train_features, labels), (features, true) = train, test
    classes = int(labels.max()) + 1
    c = fit_logistic(train_features.double()[None].numpy(), labels.numpy(), classes).c
    refit, everything = Refit(train_features, labels, classes, c), torch.arange(len(labels))
    logits = refit.logits(everything, features)
    wrong = (logits.argmax(1) != true).nonzero()[:, 0]
    chosen = wrong[torch.randperm(len(wrong), generator=torch.Generator().manual_seed(0))][:ERRORS]
    case = Case(
        name,
        features[chosen],
        logits[chosen],
        train_features,
        refit.logits(everything, train_features),
        labels,
    )
    halves = random_halves(len(labels))
    outcomes = torch.stack(
        [
            log_probability(refit.logits(half.nonzero()[:, 0], case.features), case)
            for half in halves
        ]
    )
    count = max(1, len(labels) // 100)
    how = f"{len(chosen)} errors, {len(labels)} training images, {HALVES} halves, {count} left out"
    rows = []
    for method, score in SCORES.items():
        scores = score(case)
        datamodeling = linear_datamodeling_score(scores, halves, outcomes)
        drops, changed = without_the_first(case, refit, scores, count)
        value = f"LDS {datamodeling:.2f}; log-probability {-drops:+.2f}; {changed:.0%} change"
        rows.append(Row(f"{name}: {method}", value, how))
        print(rows[-1], flush=True)
    return rows


def without_the_first(case: Case, refit: Refit, scores: Tensor, count: int) -> tuple[float, float]:
    """Mean drop of the log-probability without the highest scores; share of new predictions."""
    before = log_probability(case.logits, case)
    drops, changed = [], []
    for row, highest in enumerate(scores.topk(count, dim=1).indices):
        kept = torch.ones(len(case.train_labels), dtype=torch.bool)
        kept[highest] = False
        logits = refit.logits(kept.nonzero()[:, 0], case.features[row : row + 1])
        label = int(case.classes[row])
        drops.append(float(before[row] - logits.log_softmax(1)[0, label]))
        changed.append(int(logits.argmax()) != label)
    return float(np.mean(drops)), float(np.mean(changed))


def random_halves(count: int) -> Tensor:  # (HALVES, count) bool
    """Random halves of the training images."""
    return torch.rand(HALVES, count, generator=torch.Generator().manual_seed(1)) < 0.5


def log_probability(logits: Tensor, case: Case) -> Tensor:  # (M,)
    """Of the class that each error was predicted as."""
    return logits.log_softmax(1).gather(1, case.classes[:, None])[:, 0]


def linear_datamodeling_score(scores: Tensor, halves: Tensor, outcomes: Tensor) -> float:
    """Mean rank correlation of an outcome (HALVES, M) with the scores (M, N) of a half's images."""
    predicted = halves.float() @ scores.T
    pairs = zip(predicted.T.numpy(), outcomes.T.numpy(), strict=True)
    return float(np.mean([spearmanr(*pair).statistic for pair in pairs]))


def of_network(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[Row]:
    """Training all layers of a small CNN again on each half; train and test are images, labels."""
    (images, labels), (others, true) = train, test
    model = trained_network(images, labels, seed=0)
    with torch.no_grad():
        logits = model(others)
        wrong = (logits.argmax(1) != true).nonzero()[:, 0]
        case = Case(
            "CNN",
            model[:-1](others[wrong]),
            logits[wrong],
            model[:-1](images),
            model(images),
            labels,
        )
        halves = random_halves(len(labels))
    outcomes = []
    for number, half in enumerate(halves):
        models = [
            trained_network(images[half], labels[half], seed=SEEDS * number + seed)
            for seed in range(SEEDS)
        ]
        with torch.no_grad():
            found = [log_probability(each(others[wrong]), case) for each in models]
        outcomes.append(torch.stack(found).mean(0))
    how = f"{len(wrong)} errors, {TRAIN} training images, {SEEDS} CNNs on each of {HALVES} halves"
    rows = []
    for method, score in SCORES.items():
        value = linear_datamodeling_score(score(case), halves, torch.stack(outcomes))
        rows.append(Row(f"digits, CNN: {method}", f"LDS {value:.2f}", how))
        print(rows[-1], flush=True)
    return rows


def trained_network(images: Tensor, labels: Tensor, seed: int) -> nn.Sequential:
    """A CNN of two convolutions and two linear layers, trained with AdamW."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = EPOCHS * TRAIN // 50
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps)
    for _ in range(steps):
        batch = torch.randint(len(labels), (50,))
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main(argv: Sequence[str] = ()) -> None:
    """Measure and keep."""
    data = seewhy.load("digits", quiet=True)
    images = torch.cat([data.train.images, data.test.images]).float() / 255
    labels = torch.cat([data.train.labels, data.test.labels])
    pixels = images.flatten(1)
    first, rest = slice(TRAIN), slice(TRAIN, None)
    rows = of_probe("digits, pixels", (pixels[first], labels[first]), (pixels[rest], labels[rest]))
    if argv:
        weights, photos, cifar10 = argv
        model = pretrained_classifier(f"efficientnet-lite0:weights={weights}")
        for name, source, size in (("photographs", photos, 224), ("CIFAR-10", cifar10, None)):
            data = seewhy.load(source, image_size=size, quiet=True)
            train, test = (
                (extract_features(model, enlarged(split.images[:count])), split.labels[:count])
                for split, count in ((data.train, FEW), (data.test, 2 * FEW))
            )
            rows += of_probe(f"{name}, EfficientNet-Lite0", train, test)
    rows += of_network((images[first], labels[first]), (images[rest], labels[rest]))
    note = (
        "A logistic regression is fitted again without some training images. LDS: rank correlation "
        "of the log-probability of the predicted class after training on random halves with the "
        "sum of the scores of their images. Then: its change without the 1% of highest scores, "
        "and how many predictions change."
    )
    keep("influence", "Influential training images", rows, note=note)


if __name__ == "__main__":
    main(sys.argv[1:])
