"""Every kind of pass through a model takes its batches from `seewhy.models.batching`."""

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.attribution.explanation import explain
from seewhy.attribution.scores import trust
from seewhy.data.dataset import Split
from seewhy.diagnosis.attacks import attack
from seewhy.diagnosis.predictions import predict_split
from seewhy.diagnosis.robustness import corruption_curves
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features
from seewhy.runs.prediction import predict

COUNT, SIDE = 7, 12
LABELS = torch.arange(COUNT) % 2
PASSES: dict[str, Callable[[Classifier, Tensor], object]] = {
    "evaluation": lambda classifier, images: predict_split(
        classifier, Split(images, LABELS, [str(number) for number in range(COUNT)])
    ),
    "prediction": lambda classifier, images: predict(
        classifier, [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in images]
    ),
    "features": extract_features,
    "explaining": lambda classifier, images: explain(
        classifier, images, ["grad-cam", "score-cam", "integrated-gradients:steps=4", "occlusion"]
    ),
    "trust": lambda classifier, images: trust(classifier, images, ["grad-cam"], steps=2),
    "attacks": lambda classifier, images: attack(classifier, images, LABELS, "pgd:steps=2"),
    "corruptions": lambda classifier, images: corruption_curves(
        classifier, images, LABELS, ["noise"]
    ),
}


SLOW = ("attacks", "explaining", "trust")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in PASSES]
)
@pytest.mark.filterwarnings("ignore")
def test_passes_have_batches_of_the_chosen_size(
    kind: str, images_per_batch: Callable[[int], None]
) -> None:
    images_per_batch(3)
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model = nn.Sequential(*layers).eval()
    sizes: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    images = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    PASSES[kind](Classifier(model, ("a", "b"), image_shape=(3, SIDE, SIDE)), images)
    assert sizes.count(3) >= 2
    assert max(sizes) == 3
