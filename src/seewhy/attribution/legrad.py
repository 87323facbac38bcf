"""LeGrad: gradients of attention, of the scores that the tokens of each block would give."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seewhy.attribution.attention import attention_layout, record_attention
from seewhy.attribution.capture import in_chunks
from seewhy.attribution.hooks import (
    forward_hooks,
    gradients_at,
    main_tensor,
    named_parts,
    no_gradient_to,
    replace_tensor,
)
from seewhy.attribution.layouts import Layout, token_order
from seewhy.attribution.target import ForwardPass, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batch_size
from seewhy.models.inference import autocasting
from seewhy.models.inspection import check_observable, inspecting, passes_gradient
from seewhy.wording import counted


def le_grad(forward: ForwardPass) -> Tensor:  # (N, h, w), not negative
    """Positive gradient of the attention, averaged over heads, queries and blocks.

    Bousselham et al. 2024, arXiv 2404.03214, section 3. The score of a block is that of the model
    if its end, after the last block, reads the tokens of this block. Each score is differentiated
    at the attention of its own block only, so one backward pass is enough. The minimum is
    subtracted from each map; the paper also divides by the maximum. Raises SeewhyError for a model
    without attention between all tokens, or without a module for each block.
    """
    check_observable(forward.model, parts=True)
    blocks, layout = _find_blocks(forward.take(slice(0, 1)))

    def run(rows: slice) -> Tensor:
        return _relevance(forward.take(rows), blocks)

    images = forward.images
    chunks = in_chunks(run, forward.model, images, batch_size(forward.model, images))
    maps = layout.to_grid(torch.cat(list(chunks))[:, :, None])[:, 0]
    return maps - maps.amin((1, 2), keepdim=True)


def _find_blocks(forward: ForwardPass) -> tuple[list[str], Layout]:
    """Names of the blocks in order, and the layout of their tokens, by a pass of one image.

    The block of an attention is the outermost module with this attention only whose output is the
    tokens.
    """
    model, images = forward.model, forward.images
    parts = named_parts(model)
    begun: dict[str, int] = {}
    blocks: dict[int, tuple[str, torch.Size]] = {}  # by the number of the attention

    def finish(name: str, module: object, output: object) -> None:
        tokens, first = main_tensor(output, 1), begun[name]
        if tokens is None or tokens.ndim != 3 or len(recorded) != first + 1:
            return
        if tokens.shape[1] == recorded[first].shape[-2]:
            blocks[first] = name, tokens.shape  # the outermost finishes last

    def begin(name: str) -> None:
        begun[name] = len(recorded)

    handles = [
        part.register_forward_pre_hook(lambda *_, name=name: begin(name))
        for name, part in parts.items()
    ]
    try:
        with (
            inspecting(model),
            torch.no_grad(),
            record_attention() as recorded,
            forward_hooks(parts, finish),
            autocasting(forward.precision, images.device),
        ):
            run_model(forward.classifier, images)
    finally:
        for handle in handles:
            handle.remove()
    layout = attention_layout(recorded, token_order(model), images.shape)
    if isinstance(layout, str):
        raise SeewhyError(layout)
    shapes = {shape for _, shape in blocks.values()}
    if len(blocks) < len(recorded) or len(shapes) > 1:
        raise SeewhyError(
            "le-grad needs a module for each block of the transformer, with tokens (N, T, C) as "
            f"output, found {len(blocks)} for {counted(len(recorded), 'layer')} of attention; use "
            "chefer-cam"
        )
    return [blocks[number][0] for number in sorted(blocks)], layout


def _relevance(forward: ForwardPass, blocks: Sequence[str]) -> Tensor:  # (N, T)
    """Mean positive gradient at each token as a key, for one chunk of images."""
    model, count = forward.model, len(forward.images)
    outputs: list[Tensor] = []

    def collect(name: str, module: object, output: object) -> object:
        """Detach the tokens after each block; after the last one, return those of all blocks."""
        tokens = main_tensor(output, count)
        assert tokens is not None  # as for one image
        outputs.append(tokens)
        last = len(outputs) == len(blocks)
        return replace_tensor(output, tokens, torch.cat(outputs) if last else tokens.detach())

    modules = {name: model.get_submodule(name) for name in dict.fromkeys(blocks)}
    with (
        inspecting(model),
        record_attention() as recorded,
        forward_hooks(modules, collect),
    ):
        try:
            with autocasting(forward.precision, forward.images.device):
                logits = run_model(forward.classifier, forward.images)
            logits = logits.reshape(len(blocks), count, -1)
        except (SeewhyError, RuntimeError) as error:
            raise SeewhyError(
                "le-grad runs the end of the model on the tokens of every block at once, which "
                f"this model does not allow ({error}); use chefer-cam"
            ) from error
        score = (logits * forward.weights).sum()
        if not passes_gradient(model, score):
            raise SeewhyError(no_gradient_to("the attention"))
        gradients = gradients_at(score, list(recorded))
    relevance = []
    for gradient in gradients:
        if gradient is None:
            raise SeewhyError(no_gradient_to("the attention"))
        by_head = gradient.reshape(count, -1, *gradient.shape[-2:])
        relevance.append(
            by_head.clamp(min=0).mean(
                (1, 2), dtype=torch.promote_types(by_head.dtype, torch.float32)
            )
        )
    return torch.stack(relevance).mean(0)
