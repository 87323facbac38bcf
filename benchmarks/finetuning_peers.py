"""Fine-tuning as torch's tutorial and fastai do it, with the same weights and images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import peers
from seewhy.data.dataset import Dataset
from seewhy.models.registry import blank_sample, build_model


@dataclass(frozen=True)
class Trained:
    """A training of a peer."""

    accuracy: float  # in [0, 1], after the best epoch for torch, after the last one for fastai
    images: int  # of the test
    how: str


Late = Callable[[], bool]  # whether the time is over


def torch_tutorial(frozen: bool, model: str, folder: Path, side: int, late: Late) -> Trained:
    """The loop of torch's transfer learning tutorial, until it is late.

    SGD with a learning rate of 0.001 and momentum of 0.9, a tenth of it every 7 epochs, batches of
    4, random resized crops and flips, 25 epochs. Its accuracy is that of the best epoch on the test
    images, which the tutorial keeps. With `frozen` only a new head is trained.
    """
    peers.bring(peers.FINETUNING)
    loaders = {
        split: torch.utils.data.DataLoader(
            _image_folder(folder / split, side, split == "train"), 4, shuffle=split == "train"
        )
        for split in ("train", "test")
    }
    torch.manual_seed(0)
    network = _network(model, len(loaders["train"].dataset.classes), side)  # type: ignore[attr-defined]
    head = list(network.parameters())[-2:]
    if frozen:
        network.requires_grad_(False)
        for parameter in head:
            parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(head if frozen else network.parameters(), lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, epochs = 0.0, 0
    while epochs < 25 and not (epochs and late()):
        network.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
        scheduler.step()
        network.eval()
        with torch.no_grad():
            correct = sum(
                int((network(images).argmax(1) == labels).sum())
                for images, labels in loaders["test"]
            )
        best, epochs = max(best, correct / len(loaders["test"].dataset)), epochs + 1  # type: ignore[arg-type]
    return Trained(
        best,
        len(loaders["test"].dataset),  # type: ignore[arg-type]
        f"best of {epochs} of 25 epochs on the test images; {side} pixels, seed 0",
    )


def fastai(model: str, folder: Path, side: int, late: Late, epochs: int = 4) -> Trained:
    """fastai's `fine_tune` with its defaults: one epoch of the head, then all, then the test."""
    versions = peers.bring(peers.FINETUNING)
    vision: Any = import_module("fastai.vision.all")
    torch.manual_seed(0)
    data = vision.ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="test",
        item_tfms=vision.Resize(side * 8 // 7),
        batch_tfms=vision.aug_transforms(size=side),
        num_workers=0,
    )
    network = _network(model, data.c, side)

    def groups(module: nn.Module) -> list[list[nn.Parameter]]:
        parameters = list(module.parameters())
        return [parameters[:-2], parameters[-2:]]

    class StopWhenLate(vision.Callback):  # type: ignore[misc]
        def after_batch(self) -> None:
            if late():
                raise vision.CancelFitException

    learner = vision.Learner(data, network, splitter=groups, metrics=vision.accuracy)
    learner.add_cb(StopWhenLate())
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
    stopped = ", stopped by the limit of time" if late() else ""
    learner.remove_cbs(learner.cbs.filter(lambda each: isinstance(each, StopWhenLate)))
    with learner.no_bar():
        _, accuracy = learner.validate()
    how = f"`fine_tune({epochs})`{stopped}; {side} pixels, seed 0; {versions}"
    return Trained(float(accuracy), len(data.valid_ds), how)


def write_folders(data: Dataset, folder: Path) -> None:
    """Write the images of a dataset as PNG files in class folders."""
    image = import_module("PIL.Image")
    for name, split in data.splits.items():
        for index, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = folder / name / data.classes[int(label)] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, compress_level=1)


def _image_folder(folder: Path, side: int, train: bool) -> Any:
    datasets: Any = import_module("torchvision.datasets")
    transforms: Any = import_module("torchvision.transforms")
    steps = (
        [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip()]
        if train
        else [transforms.Resize(side * 8 // 7), transforms.CenterCrop(side)]
    )
    return datasets.ImageFolder(folder, transforms.Compose([*steps, transforms.ToTensor()]))


def _network(model: str, classes: int, side: int) -> nn.Module:
    """The model with published weights and a new head; it normalizes its pixels itself."""
    return build_model(model, classes, blank_sample(3, side, side))


PEERS: dict[str, Callable[[str, Path, int, Late], Trained]] = {
    "torch": partial(torch_tutorial, False),
    "torch-frozen": partial(torch_tutorial, True),
    "fastai": fastai,
}
