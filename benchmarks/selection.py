"""Are selected images worth more labels than random ones? `python -m benchmarks.selection WEIGHTS`.

A probe on features of EfficientNet-Lite0 is fitted on a few random images; then as many again are
selected from the others and labeled, and the probe is fitted anew. Test accuracy, mean over seeds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import seewhy
from seewhy.diagnosis.selection import select_images
from seewhy.models.features import extract_features
from seewhy.train.logistic import fit_logistic

SEEDS = 10
C = 0.1  # of the probe

# features (N, D) and probabilities (N, K) of the pool, features (L, D) of labeled images, count
Select = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


def random(features: Tensor, _: Tensor, __: Tensor, count: int, seed: int) -> Tensor:
    """Any images."""
    return torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:count]


def margin(_: Tensor, probabilities: Tensor, __: Tensor, count: int, ___: int) -> Tensor:
    """The smallest difference of the two largest probabilities."""
    best = probabilities.topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).argsort()[:count]


def core_set(features: Tensor, _: Tensor, labeled: Tensor, count: int, __: int) -> Tensor:
    """Greedy k-center (Sener & Savarese 2018)."""
    distances = torch.cdist(features, labeled).amin(1)
    chosen = []
    for _ in range(count):
        chosen.append(int(distances.argmax()))
        distances = torch.minimum(distances, torch.cdist(features, features[chosen[-1:]])[:, 0])
    return torch.tensor(chosen)


def selected(
    features: Tensor, probabilities: Tensor, labeled: Tensor, count: int, _: int
) -> Tensor:
    """What seewhy selects."""
    return select_images(probabilities, features, count, labeled).indices


SELECTIONS: dict[str, Select] = {
    "random": random,
    "margin": margin,
    "core-set": core_set,
    "select_images": selected,
}


def accuracy_gains(
    features: Tensor, labels: Tensor, test: tuple[Tensor, Tensor], first: int, count: int
) -> dict[str, list[float]]:
    """Test accuracy before labeling, under "before", and with `count` images of each selection."""
    found: dict[str, list[float]] = {"before": []} | {name: [] for name in SELECTIONS}
    classes = int(labels.max()) + 1

    def probabilities(rows: Tensor, images: Tensor) -> Tensor:
        fit = fit_logistic(features[None, rows].numpy(), labels[rows].numpy(), classes, c=C)
        logits = images.double() @ torch.from_numpy(fit.weight).T + torch.from_numpy(fit.bias)
        return logits.softmax(1).float()

    def accuracy(rows: Tensor) -> float:
        return (probabilities(rows, test[0]).argmax(1) == test[1]).float().mean().item()

    for seed in range(SEEDS):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 + seed))
        labeled, pool = order[:first], order[first:]
        found["before"].append(accuracy(labeled))
        for name, select in SELECTIONS.items():
            scores = probabilities(labeled, features[pool])
            rows = select(features[pool], scores, features[labeled], count, seed)
            found[name].append(accuracy(torch.cat([labeled, pool[rows]])))
    return found


def enlarged(images: Tensor) -> Tensor:
    """Small images at 64x64 pixels, others as they are."""
    if images.shape[2] >= 64:
        return images
    return F.interpolate(images.float(), (64, 64), mode="bilinear").round().byte()


def main() -> None:
    """Print a table for each dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="of EfficientNet-Lite0")
    parser.add_argument("photos", type=Path, help="folder of photographs, with train and test")
    parser.add_argument("cifar10", help="name or path of CIFAR-10")
    options = parser.parse_args()
    model = seewhy.models.pretrained_classifier(f"efficientnet-lite0:weights={options.weights}")
    for name, size, sizes in (
        (options.photos, 224, (10, 10)),
        (options.cifar10, None, (20, 20)),
        (options.cifar10, None, (100, 100)),
    ):
        data = seewhy.load(name, image_size=size, quiet=True)
        train = data.train.take(torch.arange(min(2000, len(data.train))))
        test = data.test.take(torch.arange(min(2000, len(data.test))))
        features = [extract_features(model, enlarged(split.images)) for split in (train, test)]
        found = accuracy_gains(features[0], train.labels, (features[1], test.labels), *sizes)
        print(f"{data.name}: {len(train)} images, {sizes[0]} labeled, {sizes[1]} more")
        baseline = np.array(found["random"])
        for each, values in found.items():
            gaps = np.array(values) - baseline
            error = gaps.std(ddof=1) / np.sqrt(SEEDS)
            print(f"  {each:14} {np.mean(values):.2%}  {gaps.mean():+.2%} ± {error:.2%}")


if __name__ == "__main__":
    main()
