import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.tta import TTA, bind_tta


class Weighted(nn.Module):
    """Two logits: a weighted sum of the pixels, and its negative; counts the images it sees."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(
            torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
        )
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        total = (pixels * self.weights).sum((1, 2, 3))
        return torch.stack([total, -total], 1)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(
        0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def score(model: Weighted, image: Tensor) -> float:
    return float((image.double() / 255 * model.weights.detach().double()).sum())


def shifted(image: Tensor, by: int) -> Tensor:
    """Shifted along the diagonal, reflected at the border, written with indices."""
    indices = [abs(i + by) if i + by <= 7 else 14 - (i + by) for i in range(8)]
    return image[:, indices][:, :, indices]


def test_flip(images: Tensor) -> None:
    model = Weighted(8)
    found = compute_logits(Classifier(model, tta="flip"), images, batch_size=5)
    for image, row in zip(images, found, strict=True):
        expected = (score(model, image) + score(model, image.flip(2))) / 2
        assert row.tolist() == pytest.approx([expected, -expected], abs=1e-3)


def test_flip_shift(images: Tensor) -> None:
    model = Weighted(8)
    found = compute_logits(Classifier(model, tta="flip-shift"), images)
    for image, row in zip(images, found, strict=True):
        views = [
            image,
            image.flip(2),
            *(
                turned(shifted(image, by))
                for by in (1, -1)
                for turned in (lambda x: x, lambda x: x.flip(2))
            ),
        ]
        one, two, *moved = (score(model, view) for view in views)
        assert row[0].item() == pytest.approx((one + two) / 4 + sum(moved) / 8, abs=1e-3)


@pytest.mark.parametrize("name", ["flip", "flip-shift"])
def test_tta_confidence_below(name: str, images: Tensor) -> None:
    model = Weighted(8)
    plain = compute_logits(model, images)
    full = compute_logits(Classifier(model, tta=name), images)
    confidence = plain.softmax(1).amax(1)
    between = confidence.sort().values[3:5].mean().item()
    model.seen = 0
    found = compute_logits(Classifier(model, tta=f"{name}:confidence_below={between}"), images)
    unsure = confidence < between
    assert unsure.sum() == 4
    torch.testing.assert_close(found[unsure], full[unsure])
    assert torch.equal(found[~unsure], plain[~unsure])
    assert model.seen == 12 + 4 * (1 if name == "flip" else 5)


def test_none(images: Tensor) -> None:
    model = Weighted(8)
    batch_size(model, images)  # takes a pass, the first time
    model.seen = 0
    assert torch.equal(
        compute_logits(Classifier(model, tta="none"), images), compute_logits(model, images)
    )
    assert model.seen == 24


@pytest.mark.parametrize(
    "text",
    [
        "flop",
        "flip:confidence_below=0",
        "flip:confidence_below=1.5",
        "flip-shift:pixels=8",
        "flip-shift:pixels=0",
    ],
)
def test_tta_errors(text: str, images: Tensor) -> None:
    with pytest.raises(SeewhyError):
        compute_logits(Classifier(Weighted(8), tta=text), images)


@pytest.mark.parametrize("name", TTA)
def test_tta_keeps_images(name: str, images: Tensor) -> None:
    before = images.clone()
    bind_tta(name)(lambda some: some.float().sum((2, 3)), images)
    assert torch.equal(images, before)
