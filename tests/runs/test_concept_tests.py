"""TCAV of each concept for each class."""

import pytest
import torch
from torch import Tensor, nn

from seewhy.data.dataset import Split
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.runs.concept_tests import concept_test_values, run_concept_tests
from seewhy.significance import holm

CLASSES = ("corner", "center", "neither")
CONCEPTS = {"corner": 0, "center": 5}  # a pixel of each 4x4 patch


def patch_model() -> nn.Module:
    """The first logits are the mean brightness of a pixel of all patches, the last one is 0."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(16).view(16, 1, 4, 4))
        model[0].bias.zero_()
        model[3].weight.zero_()
        for label, pixel in enumerate(CONCEPTS.values()):
            model[3].weight[label, pixel] = 1
        model[3].bias.zero_()
    return model.eval()


def noise(count: int, seed: int, pixel: int | None = None) -> Tensor:
    """Noise (N, 1, 8, 8) uint8; brighter at a pixel of each patch."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 130, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    if pixel is not None:
        images[..., pixel // 4 :: 4, pixel % 4 :: 4] += 80
    return images


@pytest.fixture(scope="module")
def test_split() -> Split:
    labels = torch.arange(60) % 2  # none of the last class
    return Split(noise(60, 0), labels, [str(index) for index in range(60)])


def test_a_class_depends_on_its_own_concept_alone(test_split: Split) -> None:
    classifier = Classifier(patch_model(), CLASSES)
    concepts = {name: noise(30, pixel, pixel) for name, pixel in CONCEPTS.items()}
    tests = run_concept_tests(
        classifier, test_split, concepts | {"nothing": noise(20, 3)}, noise(80, 4), "0"
    )
    found = {(test.concept, test.class_name): test for test in tests}
    assert len(found) == len(tests) == 6  # one class has no images
    for own, other in (("corner", "center"), ("center", "corner")):
        test = found[own, own]
        assert test.score.score == 1
        assert test.adjusted_p_value < 0.05 < found[own, other].adjusted_p_value
        assert test.score.sensitivity > 2 > abs(found[own, other].score.sensitivity)
        assert test.score.accuracy > 0.9
        assert test.images == 30
        assert test.random_interval == (0, 1)  # the derivatives of all images are equal
    assert found["nothing", "corner"].score.accuracy < 0.7
    assert [test.adjusted_p_value for test in tests] == holm([test.score.p_value for test in tests])
    values = concept_test_values(tests[0])
    assert (values["concept"], values["class"], values["layer"]) == ("corner", "corner", "0")


def test_images_without_concepts_are_test_images_of_all_classes(test_split: Split) -> None:
    classifier, steps = Classifier(patch_model(), CLASSES), list[int]()
    several = Split(test_split.images, torch.eye(3)[test_split.labels].bool(), test_split.names)
    found = [
        run_concept_tests(
            classifier, split, {"corner": noise(20, 1, 0)}, layer="0", classes=[1], progress=added
        )
        for split, added in ((test_split, steps.append), (several, steps.append))
    ]
    assert [test[0].score.p_value for test in found] == [found[0][0].score.p_value] * 2
    assert found[0][0].class_name == "center"
    assert steps == [1] * 4


def test_a_class_without_images_is_named(test_split: Split) -> None:
    with pytest.raises(SeewhyError, match="no test images of neither to explain"):
        run_concept_tests(
            Classifier(patch_model(), CLASSES), test_split, {"corner": noise(20, 1)}, classes=[2]
        )
