"""Networks trained by other libraries, reported as docs/report.md says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import seewhy
from seewhy.models import Normalize

pytestmark = pytest.mark.zoo
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALIZE = Normalize(MEAN, STD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of red and blue images, in train and valid."""
    directory = tmp_path_factory.mktemp("colors")
    generator = torch.Generator().manual_seed(0)
    for split, number in (("train", 24), ("valid", 12)):
        for name, channel in (("blue", 2), ("red", 0)):
            (directory / split / name).mkdir(parents=True)
            for index in range(number):
                noise = torch.randint(0, 120, (32, 32, 3), generator=generator)
                noise[..., channel] += 100
                image = Image.fromarray(noise.byte().numpy())
                image.save(directory / split / name / f"{index}.png")
    return directory


@pytest.fixture(scope="module")
def data(folder: Path) -> seewhy.Dataset:
    return seewhy.load(folder, quiet=True)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def check(classifier: seewhy.Classifier, data: Any, path: Path) -> None:
    """The report of a model that has learned the colors."""
    assert seewhy.evaluate(classifier, data).accuracy > 0.9
    page = seewhy.report(classifier, data, path, quiet=True, minutes=0.05).read_text()
    assert f"<h1>{classifier.name} on " in page
    assert "No heat maps" not in page


def test_report_of_a_fastai_learner(folder: Path, data: seewhy.Dataset, tmp_path: Path) -> None:
    vision = pytest.importorskip("fastai.vision.all")
    statistics = vision.Normalize.from_stats(MEAN, STD, cuda=False)
    loaders = vision.ImageDataLoaders.from_folder(
        folder, bs=16, batch_tfms=[statistics], num_workers=0, device=torch.device("cpu")
    )
    torch.manual_seed(0)
    loss = vision.CrossEntropyLossFlat()
    learner = vision.Learner(loaders, network(), loss, path=tmp_path)
    with learner.no_bar(), learner.no_logging():
        learner.fit(6, 0.03)
    classifier = seewhy.Classifier(
        learner.model.eval(), tuple(learner.dls.vocab), preprocess=NORMALIZE
    )
    check(classifier, data, tmp_path / "report.html")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its use of torch
def test_report_of_a_lightning_module(data: seewhy.Dataset, tmp_path: Path) -> None:
    lightning: Any = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.net(images)
            return logits

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.03)

    torch.manual_seed(0)
    module, train = Module(), data.train
    loader = DataLoader(
        TensorDataset(NORMALIZE(train.images.float() / 255), train.labels), 16, shuffle=True
    )
    trainer = lightning.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader)
    classifier = seewhy.Classifier(module.eval(), data.classes, preprocess=NORMALIZE)
    assert classifier.name == "Module"
    check(classifier, (data.test.images, data.test.labels), tmp_path / "report.html")


def test_report_of_a_hugging_face_trainer(data: seewhy.Dataset, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(data.classes)),
        label2id={name: index for index, name in enumerate(data.classes)},
    )
    torch.manual_seed(0)
    model = transformers.ResNetForImageClassification(config)
    train = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(
            NORMALIZE(data.train.images.float() / 255), data.train.labels, strict=True
        )
    ]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "trainer"),
        num_train_epochs=8,
        per_device_train_batch_size=16,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=train)
    trainer.train()
    classifier = seewhy.Classifier(
        trainer.model.eval(),
        tuple(trainer.model.config.id2label.values()),
        preprocess=NORMALIZE,
    )
    pixels = [
        {"pixel_values": image, "label": int(label)}
        for image, label in zip(data.test.images, data.test.labels, strict=True)
    ]
    check(classifier, pixels, tmp_path / "report.html")
