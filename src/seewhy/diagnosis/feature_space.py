"""What a diagnosis finds in the features of images: slices, outliers, a map, and neighbors."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seewhy.data.dataset import Dataset, Split
from seewhy.data.thumbnails import Thumbnails, downscale, make_thumbnails
from seewhy.diagnosis.budget import affordable, images_within
from seewhy.diagnosis.folds import take_predictions
from seewhy.diagnosis.image_maps import FEWEST, MAX_IMAGES, SECONDS_PER_IMAGE, ImageMap, image_map
from seewhy.diagnosis.influence import Influence, influential_images
from seewhy.diagnosis.nearest import Neighbors, nearest_images
from seewhy.diagnosis.outliers import UnusualImage, unusual_images
from seewhy.diagnosis.predictions import Predictions
from seewhy.diagnosis.saliency import sample_order
from seewhy.diagnosis.slices import Slice, image_attributes, weak_slices
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features, linear_head
from seewhy.models.inspection import NoGradientsError

MAX_UNUSUAL = 8  # shown
MAX_NEIGHBOR_ERRORS = 100  # errors whose nearest training images are searched
MAX_TRAIN_IMAGES = 10_000  # among which they are searched
MAX_FEATURES = 4096  # for whose covariance there is time
MAP_SIDE = 16  # pixels of an image on the map
_FIRST, _BLOCK = 16, 1024  # images whose features tell the pace; that are held at once
_TESTED = 16  # images on which the head of a model is tested


@dataclass(frozen=True, eq=False)
class SampledFeatures:
    """Features and attributes of a sample of images of a split."""

    rows: Tensor  # (S,) int64, ascending
    features: Tensor | None  # (S, D) float32; None without a model that has layers
    attributes: dict[str, Tensor]  # (S,) float32 by name


@dataclass(frozen=True, eq=False)
class MappedImages:
    """A map of images of a split, with small thumbnails of them."""

    map: ImageMap
    thumbnails: Tensor  # (N, C, h, w) uint8, no side longer than 16 pixels


@dataclass(frozen=True, eq=False)
class MappedSplits:
    """Test and training images on one map: their positions are those of the same t-SNE."""

    test: MappedImages
    train: MappedImages
    train_labels: Tensor  # (R,) int64, of the training images on the map
    train_names: tuple[str, ...]  # of these
    train_images: int  # in all


@dataclass(frozen=True, eq=False)
class ErrorNeighbors:
    """The nearest and the most influential training images of the most confident errors."""

    neighbors: Neighbors  # one row for each of the first errors; indices into the training split
    labels: Tensor  # (T,) int64, of the thumbnails
    thumbnails: Thumbnails  # of these training images
    searched: int  # training images among which they are the nearest
    train_images: int  # in all
    influence: Influence | None = None  # on the predicted class; None without a linear head

    def take(self, rows: Tensor) -> "ErrorNeighbors":
        """Those of the errors `rows` (R,) int64, ascending; the last errors may have none."""
        kept = rows[rows < len(self.neighbors.nearest)]
        influence = None if self.influence is None else self.influence.take(kept)
        return replace(self, neighbors=self.neighbors.take(kept), influence=influence)


def sample_features(
    classifier: Classifier | None, split: Split, seconds: float, most: int | None = None
) -> SampledFeatures:
    """Features and attributes of as many images as fit in the seconds: from 16 to `most`."""
    order = sample_order(len(split))[:most]
    model = classifier if _has_features(classifier, split.images[:1]) else None
    drawn, features, columns = [], [], []
    for block in images_within(seconds, len(order), _BLOCK, first=_FIRST):
        rows = order[block].sort().values  # sorted, for images on disk
        part = split.images[rows]
        drawn.append(rows)
        if model is not None:
            features.append(extract_features(model, part))
        columns.append(image_attributes(part))
    rows, positions = torch.cat(drawn).sort()
    return SampledFeatures(
        rows,
        torch.cat(features)[positions] if features else None,
        {name: torch.cat([each[name] for each in columns])[positions] for name in columns[0]},
    )


def find_slices(sample: SampledFeatures, predictions: Predictions) -> tuple[Slice, ...]:
    """The weak slices among the sampled images."""
    predicted = take_predictions(predictions, sample.rows)
    found = weak_slices(predicted, sample.features, sample.attributes)
    return tuple(replace(each, members=sample.rows[each.members]) for each in found)


def find_unusual(sample: SampledFeatures) -> tuple[UnusualImage, ...]:
    """The sampled images that are least like the others."""
    if sample.features is None or len(sample.rows) < 2:
        return ()
    found = unusual_images(sample.features, MAX_UNUSUAL)
    return tuple(replace(each, index=int(sample.rows[each.index])) for each in found)


def map_images(sample: SampledFeatures, test: Split, seconds: float) -> MappedImages | None:
    """A map of as many of the sampled images as fit in the seconds; None for fewer than ten."""
    limit = min(len(sample.rows), MAX_IMAGES)
    count = affordable(seconds, SECONDS_PER_IMAGE, limit, least=min(limit, _FIRST))
    if sample.features is None or count < FEWEST:
        return None
    chosen = sample_order(len(sample.rows))[:count].sort().values
    rows = sample.rows[chosen]
    return MappedImages(image_map(sample.features[chosen], rows), _map_thumbnails(test, rows))


def map_splits(classifier: Classifier, data: Dataset, seconds: float) -> MappedSplits:
    """A map of test and training images by their features, equally many where there are enough.

    As many random images of both as fit in the seconds, at least 16 of each, at most 10,000 in all.

    Raises:
        SeewhyError: Without training images besides the test images, as for folds; without ten
            test images; and for a model without features.
    """
    test, train = data.test, data.splits.get("train")
    if data.folds is not None:
        raise SeewhyError(
            "map_train needs training images besides the test images; in a cross-validation, every "
            "image is a test image of one fold"
        )
    if train is None:
        raise SeewhyError(
            f"map_train needs training images besides those of the report; {data.name} has no "
            "others"
        )
    if len(test) < FEWEST:
        raise SeewhyError(f"map_train needs at least {FEWEST} test images, found {len(test)}")
    if not _has_features(classifier, test.images[:1]):
        raise SeewhyError(
            "map_train needs the features of a model that runs in torch; an exported file has none"
        )
    limit = min(len(test) + len(train), MAX_IMAGES)
    total = affordable(seconds / 2, SECONDS_PER_IMAGE, limit, least=2 * _FIRST)
    share = (seconds - total * SECONDS_PER_IMAGE) / 2  # for the features of each split
    most = min(len(test), max(total // 2, total - len(train)))
    tested = sample_features(classifier, test, share, most)
    trained = sample_features(classifier, train, share, total - most)
    assert tested.features is not None
    assert trained.features is not None
    both = image_map(torch.cat([tested.features, trained.features])).positions
    of_test, of_train = both[: len(tested.rows)], both[len(tested.rows) :]
    return MappedSplits(
        MappedImages(ImageMap(tested.rows, of_test), _map_thumbnails(test, tested.rows)),
        MappedImages(ImageMap(trained.rows, of_train), _map_thumbnails(train, trained.rows)),
        train.labels[trained.rows],
        tuple(train.names[row] for row in trained.rows.tolist()),
        len(train),
    )


def _map_thumbnails(split: Split, rows: Tensor) -> Tensor:  # (N, C, h, w) uint8
    blocks = torch.split(rows, _BLOCK)
    return torch.cat([downscale(split.images[block], MAP_SIDE) for block in blocks])


def error_neighbors(
    classifier: Classifier | None,
    data: Dataset,
    predictions: Predictions,
    errors: Tensor,
    seconds: float,
) -> ErrorNeighbors | None:
    """The nearest and the most influential training images of errors (M,) int64, at most 100.

    Among as many training images as fit in the seconds, at least 16 and at most 10,000, all classes
    alike. None without errors, training images, or features; and for the images of folds, on which
    the model was trained.
    """
    train = data.splits.get("train")
    if train is None or data.folds is not None or not len(errors) or classifier is None:
        return None
    errors = errors[:MAX_NEIGHBOR_ERRORS]
    if not _has_features(classifier, data.test.images[:1]):
        return None
    order = balanced_order(train.labels)[:MAX_TRAIN_IMAGES]
    searched = torch.cat(
        [
            extract_features(classifier, train.images[order[block]])
            for block in images_within(seconds, len(order), _BLOCK, first=_FIRST)
        ]
    )
    order = order[: len(searched)]
    features = extract_features(classifier, data.test.images[errors])
    labels = train.labels[order]
    found = nearest_images(features, data.test.labels[errors], searched, labels)
    head = linear_head(classifier, data.test.images[:_TESTED])
    influence: Influence | None = None
    if head is not None and features.shape[1] <= MAX_FEATURES:
        logits, train_logits = (rows @ head[0].T + head[1] for rows in (features, searched))
        influence = influential_images(
            features, logits, searched, train_logits, labels, predictions.predicted[errors]
        )

    def in_split(rows: Tensor) -> Tensor:
        return torch.where(rows < 0, -1, order[rows])

    found = replace(found, nearest=in_split(found.nearest), of_label=in_split(found.of_label))
    shown = [found.nearest, found.of_label]
    if influence is not None:
        proponents, opponents = in_split(influence.proponents), in_split(influence.opponents)
        influence = replace(influence, proponents=proponents, opponents=opponents)
        shown += [proponents, opponents]
    thumbnails = make_thumbnails(train, sorted(set(torch.cat(shown, 1).flatten().tolist()) - {-1}))
    return ErrorNeighbors(
        found,
        train.labels[thumbnails.indices],
        thumbnails,
        len(searched),
        len(train),
        influence,
    )


def balanced_order(labels: Tensor) -> Tensor:
    """A random order (N,) int64 with a fixed seed: one image of each class, then another of each.

    Args:
        labels: (N,) int64.
    """
    order = sample_order(len(labels)).numpy()
    drawn = labels.cpu().numpy()[order]
    rank = np.empty(len(drawn), np.int64)  # of an image within its class
    for label in np.unique(drawn):
        members = np.flatnonzero(drawn == label)
        rank[members] = np.arange(len(members))
    return torch.from_numpy(order[rank.argsort(kind="stable")])


def _has_features(classifier: Classifier | None, images: Tensor) -> bool:
    """Whether images have features: there is a model, and it has layers, unlike one in a file."""
    if classifier is None:
        return False
    try:
        extract_features(classifier, images)
    except NoGradientsError:
        return False
    return True
