"""One update of the weights from the gradients that have come together."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from seewhy.train.averaging import look_ahead, update_ema
from seewhy.train.distributed import all_reduce_mean
from seewhy.train.state import TrainState
from seewhy.train.world import World

LOST_SCALE = (
    2.0**-10
)  # of a loss in fp16: a gradient that overflows even so is no longer about overflow


def update(state: TrainState, world: World) -> None:
    """Let the optimizers use the gradients, and clear them; averages follow.

    Where a loss of this epoch or a gradient is not finite, no parameter changes, and `state.totals` remembers the step. In fp16
    a gradient that overflows is no failure: the scaler skips the update and lowers its scale.
    """
    optimizers = [optimizer for optimizer in state.optimizers if _with_gradient(optimizer)]
    moving = [parameter for optimizer in optimizers for parameter in _with_gradient(optimizer)]
    gradients = [parameter.grad for parameter in moving if parameter.grad is not None]
    shared = state.totals.device_sums[:1].to(
        torch.float32, copy=True
    )  # losses: not finite from the first on that is not
    all_reduce_mean([*gradients, shared], world)
    for optimizer in optimizers:
        state.scaler.unscale_(optimizer)  # does nothing but in fp16
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if state.recipe.clip:
        factor = (state.recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, torch.where(norm.isfinite(), factor, 1.0))
    overflowed = ~norm.isfinite()
    finite = shared.isfinite().all() & (~overflowed | state.scaler.is_enabled())
    sound = state.totals.fail(finite, state.step + 1) & ~overflowed
    step_if_finite(sound, optimizers, on_host=sound.device.type == "cpu")
    state.scaler.update()
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    state.updates += 1
    if state.slow is not None and state.updates % state.recipe.lookahead == 0:
        look_ahead(state.slow, state.model)
    if state.ema is not None:
        update_ema(state.ema, state.model, state.recipe.ema, state.updates)


def _with_gradient(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that have a gradient."""
    return [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]


@torch.no_grad()
def step_if_finite(sound: Tensor, optimizers: Sequence[Optimizer], on_host: bool) -> None:
    """Let the optimizers step where `sound` () is True, and no parameter move where not; only `on_host` may it be read.

    A fused optimizer is told, and skips the step itself. Of another one the parameters are put back, and it sees gradients of
    zero, so that what it remembers stays finite.
    """
    if on_host:
        for optimizer in optimizers if sound else ():
            optimizer.step()
        return
    skipped = (~sound).float()
    for optimizer in optimizers:
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale, optimizer.found_inf = None, skipped  # type: ignore[attr-defined]
            optimizer.step()
            continue
        parameters = _with_gradient(optimizer)
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        torch._foreach_copy_(gradients, [torch.where(sound, gradient, 0) for gradient in gradients])
        before = torch._foreach_clone(parameters)
        optimizer.step()
        torch._foreach_copy_(
            parameters,
            [torch.where(sound, new, old) for new, old in zip(parameters, before, strict=True)],
        )
