"""Attention maps: the attention of all layers of a transformer, multiplied up to the output.

Each function takes an AttentionCapture and returns maps (N, h, w) in the grid of the tokens. A
product of matrices (T, T) is needed only in the rows that the score reads, so the layers are
multiplied from the last to the first, each with a vector.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from seewhy.attribution.attention import AttentionCapture


def attention_rollout(attention: AttentionCapture) -> Tensor:  # (N, h, w), not negative
    """Attention of all layers, averaged over heads and multiplied.

    Abnar & Zuidema 2020, arXiv 2005.00928, eq. 1 and section 3: half of each layer is the identity,
    for the skip connection. The row of the token that the score reads, or the mean over those that
    are pooled, minus the minimum of each map. The same for every class.
    """
    rollout = attention.readout
    for probabilities in reversed(attention.probabilities):
        seen = torch.einsum("nt,nhts->ns", rollout, probabilities)
        rollout = (rollout + seen / probabilities.shape[1]) / 2
    maps = attention.to_map(rollout)
    return maps - maps.amin((1, 2), keepdim=True)


def chefer_cam(attention: AttentionCapture) -> Tensor:  # (N, h, w), not negative
    """Positive gradient times attention, averaged over heads and multiplied over the layers.

    Chefer et al. 2021, arXiv 2103.15679, eqs. 5 and 6. The relevance R begins as the identity I,
    and the map is R - I in the row of the token that the score reads, or the mean over those that
    are pooled.
    """
    relevance = attention.readout
    layers = zip(attention.probabilities, attention.gradients, strict=True)
    for probabilities, gradient in reversed(list(layers)):
        weighted = (gradient * probabilities).clamp_(min=0)
        seen = torch.einsum("nt,nhts->ns", relevance, weighted)
        relevance = relevance + seen / probabilities.shape[1]
    return attention.to_map(relevance - attention.readout)


ATTENTION_MAPS: dict[str, Callable[..., Tensor]] = {
    "attention-rollout": attention_rollout,
    "chefer-cam": chefer_cam,
}
