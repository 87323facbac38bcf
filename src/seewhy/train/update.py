"""One update of the weights from the accumulated gradients."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from seewhy._torch_compat import (
    foreach_add_,
    foreach_clone,
    foreach_copy_,
    foreach_mul_,
    foreach_norm,
    step_unless,
)
from seewhy.train.averaging import look_ahead, update_ema
from seewhy.train.distributed import all_reduce_mean
from seewhy.train.plan import TrainingPlan
from seewhy.train.state import TrainState

# Scale of an fp16 loss below which the run has failed: gradients overflow at any scale.
MIN_LOSS_SCALE = 2.0**-10


def update(state: TrainState, plan: TrainingPlan) -> None:
    """Update weights and averages from the gradients, and clear the gradients.

    If a loss of the epoch or a gradient is not finite, no parameter changes, and `state.totals`
    marks the step. In fp16 an overflow of the gradient is not a failure: the update is skipped, and
    the loss scale is lowered.
    """
    optimizers = [optimizer for optimizer in state.optimizers if _with_gradient(optimizer)]
    gradients = [
        cast(Tensor, parameter.grad)
        for optimizer in optimizers
        for parameter in _with_gradient(optimizer)
    ]
    # the sum remains non-finite after the first non-finite loss
    loss_sum, weight = state.totals.device_sums[:1].float(), state.totals.take_update_weight()
    mean_weight = weight.float() * plan.world.size / plan.images_in(plan.update_steps(state.step))
    all_reduce_mean([*gradients, loss_sum, mean_weight], plan.world)
    for optimizer in optimizers:
        state.scaler.unscale_(optimizer)  # in fp16 only
    if plan.class_weights is not None:
        foreach_mul_(gradients, 1 / mean_weight)
    if plan.recipe.l1:
        _add_l1_gradient(optimizers, plan.recipe.l1)
    norm = torch.linalg.vector_norm(torch.stack(foreach_norm(gradients)))
    if plan.recipe.clip_grad_norm:
        factor = (plan.recipe.clip_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        foreach_mul_(gradients, torch.where(norm.isfinite(), factor, 1.0))
    overflow = ~norm.isfinite()
    finite = loss_sum.isfinite().all() & (~overflow | state.scaler.is_enabled())
    if state.scaler.is_enabled():
        state.totals.count_skipped(overflow)
    succeeded = state.totals.mark_failure(finite, state.step + 1) & ~overflow
    step_if_finite(succeeded, optimizers, on_host=succeeded.device.type == "cpu")
    state.scaler.update()
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    state.updates += 1
    if state.slow is not None and state.updates % plan.recipe.lookahead == 0:
        look_ahead(state.slow, state.model)
    if state.ema is not None:
        update_ema(state.ema, state.model, plan.recipe.ema, state.updates)


@torch.no_grad()
def _add_l1_gradient(optimizers: Sequence[Optimizer], l1: float) -> None:
    """Add the gradient of `l1` times the sum of absolute weights, without biases and norms."""
    parameters = [p for optimizer in optimizers for p in _with_gradient(optimizer) if p.ndim > 1]
    signs = [parameter.sign() for parameter in parameters]
    foreach_add_([cast(Tensor, parameter.grad) for parameter in parameters], signs, alpha=l1)


def _with_gradient(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that have a gradient."""
    return [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]


@torch.no_grad()
def step_if_finite(finite: Tensor, optimizers: Sequence[Optimizer], on_host: bool) -> None:
    """Take an optimizer step if `finite` () is True; otherwise keep every parameter.

    `finite` is read only if it is `on_host`, because reading it from a GPU would synchronize. On a
    GPU a fused optimizer skips its step itself. For other optimizers the gradients are set to zero,
    so that the state stays finite, and the parameters are restored after the step.
    """
    if on_host:
        for optimizer in optimizers if finite else ():
            optimizer.step()
        return
    skip = (~finite).float()
    for optimizer in optimizers:
        if step_unless(optimizer, skip):
            continue
        parameters = _with_gradient(optimizer)
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        foreach_copy_(gradients, [torch.where(finite, each, 0) for each in gradients])
        previous = foreach_clone(parameters)
        optimizer.step()
        restored = [
            torch.where(finite, new, old) for new, old in zip(parameters, previous, strict=True)
        ]
        foreach_copy_(parameters, restored)
