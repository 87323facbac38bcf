import numpy as np
import pytest
import torch

from seewhy.errors import SeewhyError, describe_value, lookup


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet81",
            "unknown model 'resnet81' (did you mean 'resnet18'?); possible: resnet18, vgg16",
        ),
        ("VGG16", "unknown model 'VGG16' (did you mean 'vgg16'?); possible: resnet18, vgg16"),
        ("zzz", "unknown model 'zzz'; possible: resnet18, vgg16"),
    ],
)
def test_lookup_suggests_the_nearest_name_and_lists_all(name: str, message: str) -> None:
    table = {"resnet18": 1, "vgg16": 2}
    assert lookup(table, "vgg16", "model") == 2
    with pytest.raises(SeewhyError) as caught:
        lookup(table, name, "model")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(3, 4), "(3, 4) float32"),
        (torch.zeros(2, dtype=torch.uint8), "(2,) uint8"),
        (torch.tensor(True), "() bool"),
        (np.zeros((1, 2), np.int64), "(1, 2) int64"),
        ([1, 2], "list"),
        (None, "NoneType"),
        (torch.Tensor, type(torch.Tensor).__name__),
    ],
)
def test_describe_value(value: object, text: str) -> None:
    assert describe_value(value) == text
