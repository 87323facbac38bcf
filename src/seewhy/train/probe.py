"""A linear probe: before the first step the head becomes a logistic regression on the features."""

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.feature_cache import (
    TOLERANCE,
    agree,
    blocks,
    feature_folder,
    image_digests,
    read_features,
    verified_features,
    write_features,
)
from seewhy.models.features import extract_features
from seewhy.models.head import find_head
from seewhy.models.inference import compute_logits
from seewhy.models.inspection import layer_path, unwrap_model
from seewhy.train.distributed import all_reduce_sum, broadcast_from_rank0
from seewhy.train.logistic import CrossValidation, fit_logistic, fit_one_vs_rest
from seewhy.train.plan import TrainingPlan

CHUNK = 64  # images between two reports of progress


@dataclass(frozen=True)
class FeatureStats:
    """Progress of computing the features of the training images."""

    images: int  # done, with their views
    total: int
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class ProbeStats:
    """The result of a probe."""

    c: float  # inverse of the penalty, see `fit_logistic`; of any number of labels, the median
    validation: CrossValidation | None  # None if C was given, and of any number of labels
    images: int
    views: int  # of each image
    features: int  # numbers per image
    seconds: float
    head: str = ""  # name of the layer that was set
    scale: float = 1.0  # of its outputs in the logits


def set_head(model: nn.Module, plan: TrainingPlan) -> Generator[FeatureStats, None, ProbeStats]:
    """Set the head of `model` to a logistic regression on the features of the training images.

    If an image has any number of labels, each has a logistic regression of its own.

    With several processes each computes a share of the features, and the first one fits.

    Args:
        model: The model on the device of the plan; its head changes in place.
        plan: A plan with a probe.

    Yields:
        Progress of the features.

    Returns:
        The result.

    Raises:
        SeewhyError: If the logits of the model are not linear in the inputs of its head, or C
            cannot be chosen.
    """
    probe, split = plan.probe, plan.train_center
    assert probe is not None
    start = time.perf_counter()
    head = _find_linear_head(model, split.images)
    features = []
    for view in range(probe.num_views):
        rows = yield from _features(model, head, plan, split.images, view, probe.num_views)
        features.append(rows)
    stacked, labels = torch.stack(features).numpy(), split.labels.cpu().numpy()
    weights = None if plan.class_weights is None else plan.class_weights.cpu().numpy()
    layer = unwrap_model(model).get_submodule(head)
    fit_head = fit_logistic if labels.ndim == 1 else fit_one_vs_rest
    fit = broadcast_from_rank0(
        lambda: fit_head(
            stacked,
            labels,
            plan.num_classes,
            weights,
            probe.c or None,
            probe.folds,
            plan.recipe.seed,
            intercept=layer.bias is not None,
        ),
        plan.world,
    )
    _write_head(layer, torch.from_numpy(fit.weight), torch.from_numpy(fit.bias))
    scale = _scale_after_head(model, head, plan, split.images[:4], features[0][:4])
    _write_head(layer, torch.from_numpy(fit.weight / scale), torch.from_numpy(fit.bias / scale))
    return ProbeStats(
        fit.c,
        fit.validation,
        len(split),
        probe.num_views,
        stacked.shape[2],
        time.perf_counter() - start,
        layer_path(head, model),
        scale,
    )


def head_logits(model: nn.Module, plan: TrainingPlan, probe: ProbeStats, images: Tensor) -> Tensor:
    """Logits (N, K) of images (N, C, H, W) uint8 of a model of which only the head was trained.

    Their features are kept too, so that another probe needs no pass through the model.
    """
    progress = _features(model, probe.head, plan, images, verify=False)
    while True:
        try:
            next(progress)
        except StopIteration as end:
            features: Tensor = end.value
            break
    return probe.scale * _linear(unwrap_model(model).get_submodule(probe.head), features)


def _find_linear_head(model: nn.Module, images: Tensor) -> str:
    """The name of the head. Raises SeewhyError if it is more than a matrix."""
    head = find_head(model, images)
    layer = unwrap_model(model).get_submodule(head)
    if isinstance(layer, nn.Conv2d) and (layer.kernel_size != (1, 1) or layer.groups > 1):
        raise SeewhyError(
            f"a probe needs a head that is a linear layer or a 1x1 convolution, found {layer} "
            f"({layer_path(head, model)}); set probe none, or choose another model"
        )
    return head


def _features(
    model: nn.Module,
    head: str,
    plan: TrainingPlan,
    images: Tensor,
    view: int = 0,
    views: int = 1,
    verify: bool = True,
) -> Generator[FeatureStats, None, Tensor]:
    """The features (N, D) of images, from the cache or computed, in evaluation mode.

    Yields progress, for the view with this index: 0 is the image, 1 its mirror image.
    To `verify` the cache, two of its images are computed again.
    """
    classifier = Classifier(unwrap_model(model), precision=plan.precision)

    def read() -> tuple[list[bytes], dict[bytes, Tensor]]:
        digests = image_digests(images, mirrored=view == 1)
        if not verify:
            return digests, read_features(folder, digests)
        return digests, verified_features(
            folder, digests, lambda rows: _extract(classifier, _view(images[rows], view))
        )

    folder = feature_folder(classifier, head)
    digests, found = broadcast_from_rank0(read, plan.world)
    missing = [row for row, digest in enumerate(digests) if digest not in found]
    queue, start, done = blocks(missing, CHUNK * plan.world.size), time.perf_counter(), 0
    # the first process measures the time of a block, and names the next one to all
    while block := broadcast_from_rank0(lambda: next(queue, None), plan.world):
        parts = list[Tensor]()
        mine = torch.tensor(block)[plan.world.shard(len(block))]
        for rows in torch.split(mine, CHUNK) if len(mine) else ():
            parts.append(_extract(classifier, _view(images[rows.to(images.device)], view)))
            computed = done + len(block) * sum(map(len, parts)) // len(mine)
            pace = computed / (time.perf_counter() - start)
            yield FeatureStats(
                view * len(images) + len(images) - len(missing) + computed,
                views * len(images),
                pace,
                (len(missing) - computed + (views - view - 1) * len(images)) / pace,
            )
        features, new = _gather(parts, len(block), plan), [digests[row] for row in block]
        if plan.world.is_first:
            write_features(folder, new, features)
        found |= dict(zip(new, features, strict=True))
        done += len(block)
    return torch.stack([found[digest] for digest in digests])


def _extract(classifier: Classifier, images: Tensor) -> Tensor:  # (N, D)
    return extract_features(classifier, images, reproducible=True)


def _view(images: Tensor, view: int) -> Tensor:
    return images.flip(3) if view == 1 else images


def _gather(parts: list[Tensor], count: int, plan: TrainingPlan) -> Tensor:
    """The features (M, D) of `count` images, of which this process computed its shard."""
    if plan.world.size == 1:
        return torch.cat(parts)
    size = torch.tensor([float(parts[0].shape[1] if parts else 0)], device=plan.device)
    counted = torch.tensor([float(bool(parts))], device=plan.device)
    total, processes = (
        all_reduce_sum(size, plan.world).item(),
        all_reduce_sum(counted, plan.world).item(),
    )
    computed = torch.zeros(count, round(total / processes), device=plan.device)
    if parts:
        computed[plan.world.shard(count)] = torch.cat(parts).to(plan.device)
    return all_reduce_sum(computed, plan.world).cpu()


def _scale_after_head(
    model: nn.Module, head: str, plan: TrainingPlan, images: Tensor, features: Tensor
) -> float:
    """The factor between the outputs of the head for `features` and the logits of `images`.

    Raises SeewhyError if the logits are anything else than a multiple.
    """
    layer = unwrap_model(model).get_submodule(head)
    outputs = _linear(layer, features)
    logits = compute_logits(Classifier(model, precision=plan.precision), images)
    scale = float((outputs * logits).sum() / outputs.square().sum().clamp(min=1e-30))
    if scale <= 0 or not agree(scale * outputs, logits):
        raise SeewhyError(
            f"the logits of {plan.recipe.model} are not linear in what enters its head "
            f"({layer_path(head, model)}), "
            "so a probe cannot set it; set probe none, or choose another model"
        )
    return 1.0 if abs(scale - 1) < TOLERANCE else scale


def _linear(layer: nn.Module, features: Tensor) -> Tensor:  # (N, K)
    weight, bias = (getattr(layer, name) for name in ("weight", "bias"))
    weight = weight.detach().float().cpu().flatten(1)
    return F.linear(features, weight, None if bias is None else bias.detach().float().cpu())


@torch.no_grad()
def _write_head(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Set a linear layer or a 1x1 convolution to `weight` (K, D) and `bias` (K,)."""
    parameters = dict(layer.named_parameters())
    parameters["weight"].copy_(weight.view(parameters["weight"].shape))
    if "bias" in parameters:
        parameters["bias"].copy_(bias)
