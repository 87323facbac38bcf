"""Features of images that a model of another image size makes, kept in the cache."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.feature_cache import (
    blocks,
    feature_folder,
    image_digests,
    verified_features,
    write_features,
)
from seewhy.models.features import extract_features
from seewhy.models.head import find_heads
from seewhy.progress import progress

MOST_ENLARGED = 4  # times: to enlarge an image further costs time and shows no more
_CHUNK = 256  # images between two reports of progress


def cached_features(classifier: ClassifierLike, images: Tensor, *, quiet: bool = False) -> Tensor:
    """Features as from `extract_features`, of images of any size; those in the cache are read.

    Images of another size than the model's are resized to it, but enlarged at most fourfold. Gray
    images become RGB for a model that takes RGB.

    Args:
        classifier: A run, a Classifier, or a module; computes in its precision.
        images: (N, C, H, W) uint8.
        quiet: Show no progress.

    Returns:
        Features (N, D) float32 on the CPU.

    Raises:
        SeewhyError: If the model takes gray images and these are in color, if it cannot take the
            images, and if a feature is not finite.
    """
    classifier = replace(as_classifier(classifier), tta="none")
    if not len(images):
        raise SeewhyError("there are no images to compute features of; pass at least one")
    first = _fitted(images[:1], classifier)
    heads = find_heads(classifier.model, first, classifier.extract_logits)
    if not heads:  # a program, such as an ONNX file, whose layers and weights are not known
        with progress(f"computing features with {classifier.name}", len(images), quiet) as advance:
            parts = []
            for chunk in torch.split(images, _CHUNK):
                parts.append(_extract(chunk, classifier))
                advance(len(chunk))
        return torch.cat(parts)
    folder = feature_folder(classifier, heads[-1])
    chunks = torch.split(images, _CHUNK)
    digests = [each for chunk in chunks for each in image_digests(_fitted(chunk, classifier))]

    found = verified_features(folder, digests, lambda rows: _extract(images[rows], classifier))
    missing = [row for row, digest in enumerate(digests) if digest not in found]
    if missing:
        with progress(f"computing features with {classifier.name}", len(missing), quiet) as advance:
            for block in blocks(missing, _CHUNK):
                parts = []
                for rows in torch.split(torch.tensor(block), _CHUNK):
                    parts.append(_extract(images[rows], classifier))
                    advance(len(rows))
                features, new = torch.cat(parts), [digests[row] for row in block]
                write_features(folder, new, features)
                found |= dict(zip(new, features, strict=True))
    return torch.stack([found[digest] for digest in digests])


def _extract(images: Tensor, classifier: Classifier) -> Tensor:  # (N, D)
    """The features of images of any size."""
    return extract_features(classifier, _fitted(images, classifier), reproducible=True)


def _fitted(images: Tensor, classifier: Classifier) -> Tensor:  # (N, C, h, w) uint8
    """The images in a size and with the channels that the model takes."""
    if classifier.image_shape is None:
        return images
    channels, *size = classifier.image_shape
    if images.shape[1] == 1 and channels == 3:
        images = images.expand(-1, 3, -1, -1)
    elif images.shape[1] != channels:
        raise SeewhyError(
            f"{classifier.name} takes images with {channels} channel, found {images.shape[1]}; "
            f"load the data with channels={channels}"
        )
    size = [
        min(side, MOST_ENLARGED * have) for side, have in zip(size, images.shape[2:], strict=True)
    ]
    if size == list(images.shape[2:]):
        return images
    resized = F.interpolate(
        images.float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized.round_().clamp_(0, 255).byte()
