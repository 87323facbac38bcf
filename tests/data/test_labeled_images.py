"""`as_dataset`: labeled images of other libraries."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset

from seewhy.data.labeled_images import as_dataset
from seewhy.errors import SeewhyError

PIXELS = torch.randint(0, 256, (6, 3, 5, 4), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.tensor([2, 0, 1, 1, 0, 2])
FLOATS = PIXELS.float() / 255
PILLOW = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in PIXELS]


class Indexed(torch.utils.data.Dataset[Any]):
    """A torch Dataset: it has a length and an index, and cannot be iterated over to its end."""

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return PILLOW[index], int(LABELS[index])


class WithoutLength:
    """It has an index only, and raises IndexError after the last."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return PIXELS[index], LABELS.tolist()[index]


def dicts() -> Iterator[dict[str, Any]]:
    for image, label in zip(PILLOW, LABELS.tolist(), strict=True):
        yield {"image": image, "label": label, "id": 7}


@pytest.mark.parametrize(
    "data",
    [
        (PIXELS, LABELS),
        (FLOATS, LABELS),
        (FLOATS.double().numpy(), LABELS.numpy()),
        (PIXELS.permute(0, 2, 3, 1).numpy(), LABELS.int()),
        (PIXELS, LABELS.tolist()),
        (list(PIXELS), LABELS[:, None]),
        (PIXELS, torch.nn.functional.one_hot(LABELS).float().numpy()),
        {"image": PIXELS, "label": LABELS},
        list(zip(PIXELS, LABELS, strict=True)),
        WithoutLength(),
        Indexed(),
        Subset(Indexed(), range(6)),
        DataLoader(TensorDataset(FLOATS, LABELS), batch_size=4),
        list(dicts()),
        dicts(),
        [
            {"pixel_values": FLOATS[:4], "labels": LABELS[:4]},
            {"img": FLOATS[4:], "target": LABELS[4:]},
        ],
    ],
)
def test_as_dataset_reads_images_and_labels(data: Any) -> None:
    found = as_dataset(data)
    assert torch.equal(found.test.images, PIXELS)
    assert torch.equal(found.test.labels, LABELS)
    assert found.classes == ("0", "1", "2")
    assert (len(found.train), found.image_shape, list(found.splits)) == (0, (3, 5, 4), ["test"])
    assert found.fingerprint == as_dataset((PIXELS, LABELS)).fingerprint


def test_as_dataset_reads_gray_images() -> None:
    gray = PIXELS[:, 0]
    assert torch.equal(as_dataset((gray, LABELS)).test.images, gray[:, None])
    images = [(Image.fromarray(image.numpy()), 0) for image in gray]
    assert torch.equal(as_dataset(images).test.images, gray[:, None])
    for mode in ("LA", "1"):
        assert as_dataset([(images[0][0].convert(mode), 0)]).image_shape == (1, 5, 4)
    assert as_dataset([(image.convert("RGBA"), 0) for image in PILLOW]).image_shape == (3, 5, 4)


def test_as_dataset_puts_transparent_images_on_white() -> None:
    """As files of such images, and as `predict` does."""
    for mode in ("RGBA", "LA", "P"):
        image = Image.new(mode, (4, 4), 0)
        if mode == "P":
            image.info["transparency"] = 0
        assert bool((as_dataset([(image, 0)]).test.images == 255).all())


def test_as_dataset_takes_names_from_the_data() -> None:
    class Folder(Indexed):
        classes: ClassVar = ["a", "b", "c"]
        samples: ClassVar = [(f"photos/{index}.jpg", 0) for index in range(6)]
        root = Path("/data/photos")

    found = as_dataset(DataLoader(Subset(Folder(), [4, 1]), collate_fn=lambda items: items[0]))
    assert (found.name, found.classes) == ("photos", ("a", "b", "c"))
    assert (list(found.test.names), found.test.labels.tolist()) == (
        ["photos/4.jpg", "photos/1.jpg"],
        [0, 0],
    )
    shuffled = DataLoader(Folder(), shuffle=True, collate_fn=lambda items: items[0])
    assert list(as_dataset(shuffled).test.names) == list("012345")  # their order is unknown
    assert as_dataset((PIXELS, LABELS), ["x", "y", "z", "w"]).classes == ("x", "y", "z", "w")

    class Hub(list[Any]):
        features: ClassVar = {"label": SimpleNamespace(names=["cat", "dog", "eel"])}

    assert as_dataset(Hub(dicts())).classes == ("cat", "dog", "eel")


def test_as_dataset_reads_no_more_than_the_limit() -> None:
    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield FLOATS, LABELS

    assert len(as_dataset(endless(), limit=8).test) == 8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data must be a Dataset, a pair .* found int"),
        ([], "list has no images"),
        (
            [PIXELS[0]],
            r"item 0 of the data must be a pair \(image, label\).*found \(3, 5, 4\) uint8",
        ),
        ([{"a": 1, "b": 2}], "found a dict with a, b"),
        ([([1, 2], 0)], "images must be tensors or arrays .* found list"),
        (
            (FLOATS - 0.5, LABELS),
            r"values from -0.5 to 0.5; if they are normalized, .*prepro",
        ),
        ((FLOATS.index_fill(0, torch.tensor(0), torch.nan), LABELS), "values from nan"),
        ((PIXELS.int(), LABELS), r"images must be uint8, or float in \[0, 1\], found .* int32"),
        ((PIXELS, LABELS.float()), "labels must be whole numbers"),
        ((PIXELS, LABELS - 1), r"2 of 6 labels of the test split are out of range .*\(found -1\)"),
        ((PIXELS[:3], LABELS), "has 3 images and 6 labels"),
        (
            [(PILLOW[0], 0), (PILLOW[1].resize((9, 9)), 1)],
            "differ in size: 3x5x4 and 3x9x9; resize",
        ),
        ((PIXELS, torch.ones(6, 2)), "labels must be whole numbers, one per image, found .*float"),
        ((FLOATS * 255, LABELS), "values from 0 to 255; if they are from 0 to 255, convert them"),
        ((PIXELS, list("abcabc")), r"one per image, found 'a'; number the classes, as in labels ="),
        ([(PILLOW[0], "cat")], "one per image, found 'cat'; number"),
        ((PIXELS, LABELS * 10**9), "labels must be class indices from 0, found 2,000,000,000"),
        (
            {"train": [], "test": []},
            r"a dict with train, test; pass one split .*\['train'\]",
        ),
        (
            [(PIXELS[0], 0, 2), (PIXELS[1], 1, 0)],  # an index before the label
            "item 0 of the data has after its image int, int, of which 2 could be the label; pass",
        ),
        (
            DataLoader(TensorDataset(FLOATS, torch.arange(6), LABELS), batch_size=3),
            r"has after its image \(3,\) int64, \(3,\) int64, of which 2 could be the label",
        ),
        ([(PIXELS[0], "a", 0.5)], "after its image str, float, of which none could be the label"),
        ([(PIXELS[0], 0), (PIXELS[1, :1], 1)], "differ in channels: 1x5x4 and 3x5x4; convert"),
        (
            [(Image.fromarray(np.full((2, 2), 999, np.uint16)), 0)],
            "int32 with values from 999 to 999; scale them to 0 to 255",
        ),
    ],
)
def test_as_dataset_says_what_does_not_fit(data: Any, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        as_dataset(data)


def test_as_dataset_keeps_a_dataset() -> None:
    found = as_dataset((PIXELS, LABELS))
    assert as_dataset(found) is found


def test_as_dataset_numbers_arrays_in_one_call() -> None:
    assert as_dataset((np.zeros((2, 8, 8), np.uint8), np.array([0, 1]))).image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    "data",
    [
        [
            (image, label, f"{label}.png")
            for image, label in zip(PILLOW, LABELS.tolist(), strict=True)
        ],
        [
            (image, f"{label}.png", label)
            for image, label in zip(PIXELS, LABELS.tolist(), strict=True)
        ],
        [(FLOATS, LABELS, {"weight": torch.rand(6)}, torch.zeros(6, 4))],
        DataLoader(TensorDataset(FLOATS, torch.rand(6), LABELS), batch_size=4),
    ],
)
def test_the_label_of_a_longer_item_is_its_only_whole_number(data: Any) -> None:
    assert torch.equal(as_dataset(data).test.labels, LABELS)
