"""Features of images: what enters the head of a model."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.models.batching import batches
from seewhy.models.classifier import Classifier, ClassifierLike, as_classifier
from seewhy.models.head import Layer, find_heads
from seewhy.models.inference import (
    autocasting,
    check_finite_logits,
    compute_logits,
    for_outputs,
)
from seewhy.models.inspection import (
    NoGradientsError,
    evaluating,
    is_program,
    memory_format_of,
    naming_images,
    prepare_images,
    unwrap_model,
)
from seewhy.models.outputs import logits_of, other_images, returns_probabilities
from seewhy.models.tta import bind_tta

ROUNDING = 0.05  # of a probability, by bf16


def extract_features(
    classifier: ClassifierLike,
    images: Tensor,
    batch_size: int | None = None,
    *,
    reproducible: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Compute what enters the head of a model (see `find_head`), averaged over positions.

    For a model without such a layer: its last spatial output, or else its logits. The model's modes
    are restored afterwards.

    Args:
        classifier: A run, a Classifier, or a module; computes in its precision.
        images: (N, C, H, W) uint8, or float in [0, 1].
        batch_size: Images per forward pass; by default found as in `compute_logits`.
        reproducible: As in `compute_logits`.
        progress: Called with the number of images after each batch.

    Returns:
        Features (N, D) float32 on the CPU.

    Raises:
        SeewhyError: If the model cannot take the images, and if a feature is not finite.
    """
    classifier = replace(as_classifier(classifier), tta="none")
    _, features = _predict(classifier, images, batch_size, not reproducible, progress)
    check_finite_features(features)
    return features


def check_finite_features(features: Tensor) -> None:
    """Raise SeewhyError if a feature is not finite."""
    if not features.isfinite().all():
        raise SeewhyError("features are not finite; check the model, and use precision 'fp32'")


def predict_with_features(classifier: ClassifierLike, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as from `compute_logits`, and features as from `extract_features`, in one pass.

    Args:
        classifier: A run, a Classifier, or a module; computes in its precision.
        images: (N, C, H, W) uint8, N of at least 1.

    Returns:
        Logits (N, K), with the classifier's test-time augmentation, and the features (N, D) of the
        images themselves; float32 on the CPU.

    Raises:
        SeewhyError: If the model cannot take the images, and if a logit is not finite.
    """
    logits, features = _predict(as_classifier(classifier), images, None, measured=True)
    check_finite_logits(logits)
    return logits, features


def linear_head(classifier: ClassifierLike, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """The weight (K, D) and bias (K,) that make the features of images their logits.

    None if there are none: no layer or several compute the logits, or more than a factor lies
    between them and the layer. This is tested on the images.

    Args:
        classifier: A run, a Classifier, or a module.
        images: (N, C, H, W) uint8, N of at least 1; as many as are to be tested.
    """
    classifier = replace(as_classifier(classifier), tta="none", temperature=1.0)
    model = unwrap_model(classifier.model)
    names = find_heads(model, images, classifier.extract_logits)
    if len(names) != 1:
        return None
    head = model.get_submodule(names[0])
    assert isinstance(head, Layer)
    weight = head.weight.detach().float().cpu().flatten(1)
    features = extract_features(classifier, images, reproducible=True)
    if weight.shape[1] != features.shape[1]:  # a convolution over several positions
        return None
    logits = compute_logits(classifier, images, reproducible=True, check_finite=False)
    bias = torch.zeros(len(weight)) if head.bias is None else head.bias.detach().float().cpu()
    outputs = features @ weight.T + bias
    centered = outputs - outputs.mean(1, keepdim=True)
    factor = (centered * logits).sum() / (centered**2).sum()
    difference = (factor * outputs).softmax(1) - logits.softmax(1)
    if not (factor > 0 and difference.abs().max() < ROUNDING):
        return None
    return factor * weight, factor * bias


def _predict(
    classifier: Classifier,
    images: Tensor,
    batch_size: int | None,
    measured: bool,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D), float32 on the CPU."""
    model, temperature = unwrap_model(classifier.model), classifier.temperature
    classifier = replace(classifier, temperature=1.0)  # divided last, as in `compute_logits`
    try:
        heads = find_heads(model, images, classifier.extract_logits)
    except NoGradientsError:
        raise NoGradientsError(
            "a model in an exported file has no layers, so images have no features; use the run "
            "or the weights that it was made from, or do without features"
        ) from None
    augmented = bind_tta(classifier.tta)
    with evaluating(model):
        fast = for_outputs(replace(classifier, model=model), images)
    seen: list[Tensor] = []  # candidates of a batch; the last one is the best

    def record_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].movedim(-1, 1) if isinstance(module, nn.Linear) else inputs[0])

    def record_output(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            seen.append(output)

    def predict(batch: Tensor) -> Tensor:
        seen.clear()
        pixels = prepare_images(batch, model)
        pixels = pixels.contiguous(memory_format=memory_format_of(model))
        with naming_images(pixels):
            logits = classifier.extract_logits(fast(pixels)).float()
        if batch is plain:
            fitting = [each for each in seen if len(each) == len(logits)] or [logits]
            features = fitting[-1].float()
            rows.append((features.flatten(2).mean(2) if features.ndim > 2 else features).cpu())
        return logits

    if heads:
        parts = [fast.get_submodule(heads[-1])]
        handles = [part.register_forward_pre_hook(record_input) for part in parts]
    else:
        parts = [part for part in fast.modules() if not is_program(part)]  # programs take no hooks
        handles = [part.register_forward_hook(record_output) for part in parts]
    logits, rows = list[Tensor](), list[Tensor]()
    try:
        with (
            evaluating(model),
            torch.inference_mode(),
            autocasting(classifier.precision, classifier.device),
        ):
            for chosen in batches(model, images, batch_size, measured=measured):
                plain, count = images[chosen], len(rows)
                logits.append(augmented(predict, plain).cpu())
                if len(rows) == count:  # an augmentation without the image itself
                    predict(plain)
                if progress is not None:
                    progress(len(plain))
            probabilities = returns_probabilities(
                torch.cat(logits),
                classifier.activation,
                classifier.returns,
                lambda: predict(other_images(images)),
            )
    finally:
        for handle in handles:
            handle.remove()
    # outside inference_mode, so that they may enter a graph
    outputs = torch.cat(logits)
    if probabilities:
        outputs = logits_of(outputs, classifier.activation)
    return outputs / temperature, torch.cat(rows).clone()
