"""Features of images, kept in the cache by the content of an image and the network.

So neither labels nor the choice of images matter: a subset, or other labels, need no new pass.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from seewhy.data.cache import cache_root, require_space
from seewhy.errors import SeewhyError
from seewhy.files import is_stream, make_directory, problem_of_file, write_atomically
from seewhy.models.classifier import Classifier
from seewhy.models.inspection import layer_path, named_layers
from seewhy.progress import note

FORMAT = 1  # increase it when the features of a network change
DIGEST_BYTES = 16
TOLERANCE = 1e-2  # of features and logits, relative to their norm; bf16 has 8 bits
BLOCK_SECONDS = 30.0  # of computing, at most about this is lost when a process is killed
_HASHED = 256  # images that are hashed at once


def feature_folder(classifier: Classifier, head: str) -> Path:
    """The directory of a network's features: its layers, weights, precision, and kind of device.

    The weights of the head, a module's name, do not matter.
    """
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    model = classifier.model
    # the settings of layers, such as strides and activations, without the number of classes
    layers = [
        f"{path}={type(module).__name__}({module.extra_repr()})"
        for path, module in named_layers(model).items()
        if path != layer_path(head, model)
    ]
    described = [FORMAT, classifier.precision, classifier.device.type, *layers]
    hasher.update("\n".join(map(str, described)).encode())
    for name, tensor in model.state_dict().items():
        if layer_path(name, model).rpartition(".")[0] != layer_path(head, model):
            values = tensor.detach().cpu().contiguous()
            hasher.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            hasher.update(values.flatten().view(torch.uint8).numpy().data)
    return cache_root() / "features" / f"{type(classifier.model).__name__}-{hasher.hexdigest()}"


def image_digests(images: Tensor, mirrored: bool = False) -> list[bytes]:
    """A digest of the content of each image, or mirror image; images are (N, C, H, W) uint8."""
    shape = str(tuple(images.shape[1:])).encode()
    digests = []
    for start in range(0, len(images), _HASHED):
        pixels = images[start : start + _HASHED].cpu()
        block = (pixels.flip(3) if mirrored else pixels).contiguous().numpy()
        digests += [
            hashlib.blake2b(image.data, digest_size=DIGEST_BYTES, key=shape).digest()
            for image in block
        ]
    return digests


def read_features(folder: Path, digests: list[bytes]) -> dict[bytes, Tensor]:
    """The features (D,) float32 of those of the images that are in the cache, by digest.

    Damaged files are removed: their features are then computed again.
    """
    wanted, found = set(digests), dict[bytes, Tensor]()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if is_stream(path):
                raise ValueError(problem_of_file(path))
            content = path.read_bytes()
            if _checksum(content) != path.stem:
                raise ValueError("its checksum does not match")
            tensors = load(content)
            rows = tensors["digests"].numpy()
            features = tensors["features"]
            if rows.shape != (len(features), DIGEST_BYTES):
                raise ValueError("digests and features differ in number")
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            note(f"seewhy: {path} is damaged ({error}); its features are computed again")
            path.unlink(missing_ok=True)
            continue
        for row, digest in enumerate(map(bytes, rows)):
            if digest in wanted:
                found[digest] = features[row].clone()
    return found


def verified_features(
    folder: Path, digests: list[bytes], compute: Callable[[list[int]], Tensor]
) -> dict[bytes, Tensor]:
    """Those of `read_features`, if two of them are what the network computes now.

    Otherwise the code of the network has changed, but not its layers: all are removed. `compute`
    takes the indices of images in `digests`, and returns their features (N, D).
    """
    found = read_features(folder, digests)
    known = [row for row, digest in enumerate(digests) if digest in found][:2]
    if known:
        stored = torch.stack([found[digests[row]] for row in known])
        if not agree(compute(known), stored):
            remove_features(folder)
            return {}
    return found


def blocks(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """Parts of `rows`, each to be computed and kept before the next one is taken.

    The first has `size` rows. The size doubles while a part takes less than half of BLOCK_SECONDS,
    so that a fast network writes few files and a slow one loses little when it is interrupted.
    """
    start = 0
    while start < len(rows):
        begin = time.perf_counter()
        yield list(rows[start : start + size])
        start += size
        if time.perf_counter() - begin < BLOCK_SECONDS / 2:
            size *= 2


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape are equal but for rounding."""
    return one.shape == other.shape and bool((one - other).norm() <= TOLERANCE * other.norm())


def write_features(folder: Path, digests: list[bytes], features: Tensor) -> None:
    """Keep the features (N, D) of images; without space or permission, one line says so."""
    rows = torch.from_numpy(np.frombuffer(b"".join(digests), np.uint8).copy())
    content = save({"digests": rows.view(-1, DIGEST_BYTES), "features": features.contiguous()})
    path = folder / f"{_checksum(content)}.safetensors"  # the name verifies the content
    try:
        make_directory(folder)
        with require_space(folder, len(content)):
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except SeewhyError as error:
        note(f"seewhy: the features are not kept: {error}")


def remove_features(folder: Path) -> None:
    """Remove all features of a network."""
    for path in folder.glob("*.safetensors"):
        path.unlink(missing_ok=True)


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
