"""Features of images: what enters the head of a model."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from seewhy.models.batching import batches
from seewhy.models.classifier import ClassifierLike, as_classifier
from seewhy.models.head import find_heads
from seewhy.models.inference import autocasting, for_outputs
from seewhy.models.inspection import (
    evaluating,
    is_program,
    memory_format_of,
    naming_images,
    prepare_images,
    unwrap_model,
)


def extract_features(
    classifier: ClassifierLike,
    images: Tensor,
    batch_size: int | None = None,
    *,
    reproducible: bool = False,
) -> Tensor:
    """Compute what enters the head of a model (see `find_head`), averaged over positions.

    For a model without such a layer: its last spatial output, or else its logits. The model's modes
    are restored afterwards.

    Args:
        classifier: A run, a Classifier, or a module; computes in its precision.
        images: (N, C, H, W) uint8, or float in [0, 1].
        batch_size: Images per forward pass; by default found as in `compute_logits`.
        reproducible: As in `compute_logits`.

    Returns:
        Features (N, D) float32 on the CPU.
    """
    classifier = as_classifier(classifier)
    model = unwrap_model(classifier.model)
    heads = find_heads(model, images, classifier.extract_logits)
    with evaluating(model):
        fast = for_outputs(replace(classifier, model=model), images)
    seen: list[Tensor] = []  # candidates of a batch; the last one is the best

    def record_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].movedim(-1, 1) if isinstance(module, nn.Linear) else inputs[0])

    def record_output(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            seen.append(output)

    if heads:
        parts = [fast.get_submodule(heads[-1])]
        handles = [part.register_forward_pre_hook(record_input) for part in parts]
    else:
        parts = [part for part in fast.modules() if not is_program(part)]  # programs take no hooks
        handles = [part.register_forward_hook(record_output) for part in parts]
    rows: list[Tensor] = []
    try:
        with (
            evaluating(model),
            torch.inference_mode(),
            autocasting(classifier.precision, classifier.device),
        ):
            for chosen in batches(model, images, batch_size, measured=not reproducible):
                pixels = prepare_images(images[chosen], model)
                pixels = pixels.contiguous(memory_format=memory_format_of(model))
                with naming_images(pixels):
                    logits = classifier.extract_logits(fast(pixels))
                fitting = [each for each in seen if len(each) == len(logits)] or [logits]
                features = fitting[-1].float()
                rows.append((features.flatten(2).mean(2) if features.ndim > 2 else features).cpu())
                seen.clear()
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(rows).clone()  # outside inference_mode, so that they may enter a graph
