"""Attention of a transformer: its probabilities and their gradients, recorded in a forward pass."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy._torch_compat import undispatched
from seewhy.attribution.layouts import Layout, TokenOrder
from seewhy.attribution.target import ForwardPass
from seewhy.errors import SeewhyError

NO_ATTENTION = (
    "attention maps need a transformer, and no attention runs in this model: neither "
    "scaled_dot_product_attention nor a softmax over the last axis; use grad-cam or layer-cam"
)


@dataclass(frozen=True, eq=False)
class AttentionCapture:
    """Attention of all layers of a transformer, from which attention maps are made.

    Args:
        forward: The forward pass of the capture.
        layout: Layout of the T tokens on the image.
        probabilities: (N, heads, T, T) of each layer, the first layer first; the rows are those of
            the queries and sum to 1.
        derivatives: Of each layer, as in `gradients`; or the reason why there are none.
        readout: (N, T), weights of the tokens that the score reads after the last attention, with a
            sum of 1: the class token, or all that are pooled.
    """

    forward: ForwardPass
    layout: Layout
    probabilities: tuple[Tensor, ...]
    derivatives: tuple[Tensor, ...] | str
    readout: Tensor

    @property
    def gradients(self) -> tuple[Tensor, ...]:
        """Gradient (N, heads, T, T) of each image's score with respect to the probabilities.

        Raises:
            SeewhyError: If there are none, as in a quantized model.
        """
        if isinstance(self.derivatives, str):
            raise SeewhyError(self.derivatives)
        return self.derivatives

    def to_map(self, values: Tensor) -> Tensor:
        """Values of tokens (N, T) as maps (N, h, w), without the tokens before the grid."""
        return self.layout.to_grid(values[:, :, None])[:, 0]


@contextmanager
def record_attention(active: bool = True) -> Iterator[list[Tensor]]:
    """Probabilities of each attention of the forward pass inside the block, as graph nodes.

    None if not `active`. Fused attention is replaced by the same formula written out. The autograd
    graph begins at the first probabilities, if not earlier. Whoever reads the list takes a copy
    before the backward pass, which reruns checkpointed parts of the model.
    """
    mode = _RecordAttention()
    with mode if active else nullcontext():
        yield mode.recorded


class _RecordAttention(TorchFunctionMode):
    """Context in which fused attention is written out, and every softmax of scores is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        settings = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return scaled_dot_product_attention(*args, **settings, record=self._record)
        if func in WITH_CALLS_INSIDE:
            with self:
                return undispatched(func)(*args, **settings)
        output = func(*args, **settings)
        if func in _SOFTMAX and _is_of_scores(output, args, settings):
            self._record(output)
        return output

    def _record(self, probabilities: Tensor) -> None:
        if torch.is_grad_enabled() and not probabilities.requires_grad:
            probabilities.requires_grad_()
        self.recorded.append(probabilities)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    record: Callable[[Tensor], object] = lambda probabilities: None,
) -> Tensor:
    """The function of torch, written out; `record` is called with the probabilities."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.mT
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    hidden = None
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        else:
            scores = scores + attn_mask
        hidden = (scores == -torch.inf).all(-1, keepdim=True)  # queries that see no key get 0
        scores = scores.masked_fill(hidden, 0)
    probabilities = scores.softmax(-1)
    if hidden is not None:
        probabilities = probabilities.masked_fill(hidden, 0)
    record(probabilities)
    if dropout_p:
        probabilities = F.dropout(probabilities, dropout_p)
    return probabilities.to(value.dtype) @ value


# The backward pass reruns checkpointed parts of the model.
WITH_CALLS_INSIDE = {F.multi_head_attention_forward, torch.autograd.grad}
_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}


def _is_of_scores(output: Tensor, args: Sequence[Any], settings: Mapping[str, Any]) -> bool:
    """Whether a softmax is over the keys of an attention, not over classes or channels."""
    dim = settings["dim"] if "dim" in settings else args[1] if len(args) > 1 else None
    return output.ndim >= 3 and dim in (-1, output.ndim - 1)


def attention_capture(
    forward: ForwardPass,
    order: TokenOrder,
    recorded: Sequence[Tensor],
    gradients: Sequence[Tensor] | str,
) -> AttentionCapture | str:
    """The recorded attention of all layers, or the reason why the model has no attention maps.

    Args:
        forward: The forward pass in which it was recorded.
        order: Of the model's tokens.
        recorded: Probabilities of each attention.
        gradients: Of the last of them, or of more; or the reason why there are none.
    """
    layout = attention_layout(recorded, order, forward.images.shape)
    if isinstance(layout, str):
        return layout
    count = len(forward.images)
    probabilities = tuple(_by_head(each.detach(), count) for each in recorded)
    derivatives: tuple[Tensor, ...] | str = "the gradient of the attention was not computed"
    rows = torch.zeros_like(probabilities[0][:, 0, :, 0])
    if isinstance(gradients, str):
        derivatives = gradients
    else:
        derived = tuple(_by_head(each, count) for each in gradients)
        derivatives = derived if len(derived) == len(probabilities) else derivatives
        rows = derived[-1].abs().sum((1, 3)).sign()
    return AttentionCapture(forward, layout, probabilities, derivatives, _readout(rows, layout))


def attention_layout(
    recorded: Sequence[Tensor], order: TokenOrder, images: torch.Size
) -> Layout | str:
    """Layout of the tokens of all attention, or the reason why the model has no attention maps."""
    if not recorded:
        return NO_ATTENTION
    count, tokens = images[0], recorded[0].shape[-1]
    layout = order.layout("", (count, tokens, 2), images)
    shapes = list(dict.fromkeys(each.shape for each in recorded))
    if layout is not None and all(_is_whole(shape, count, tokens) for shape in shapes):
        return layout
    listed = ", ".join("x".join(map(str, shape)) for shape in shapes[:3])
    return (
        "attention maps need attention between all tokens of an image, the same in every layer; "
        f"this model has attention of {listed}{', …' * (len(shapes) > 3)} for {count} "
        f"image{'s' * (count != 1)}, as in windows, between channels, or after pooling; use "
        "grad-cam or layer-cam"
    )


def _is_whole(shape: Sequence[int], count: int, tokens: int) -> bool:
    """Whether an attention is that of all tokens, of each image or of each image and head."""
    per_image = shape[0] == count if len(shape) == 4 else len(shape) == 3 and not shape[0] % count
    return per_image and tuple(shape[-2:]) == (tokens, tokens)


def _by_head(values: Tensor, count: int) -> Tensor:  # (N, heads, T, T), at least float32
    """Attention (N, heads, T, T) or (N * heads, T, T) of a batch of `count` images."""
    values = values.reshape(count, -1, *values.shape[-2:])
    return values if values.dtype == torch.float64 else values.float()


def _readout(rows: Tensor, layout: Layout) -> Tensor:
    """Equal weights of the tokens with a 1 in `rows` (N, T).

    Where there are none, as without gradients: the class token, or all tokens if there is none.
    """
    usual = torch.zeros_like(rows)
    usual[:, : 1 if layout.prefix else None] = 1
    rows = torch.where(rows.any(1, keepdim=True), rows, usual)
    return rows / rows.sum(1, keepdim=True)
