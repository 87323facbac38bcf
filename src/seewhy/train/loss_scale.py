"""Loss scaling, which keeps the gradients of fp16 above its smallest numbers."""

from collections.abc import Callable

import torch
from torch.amp import GradScaler

from seewhy.errors import SeewhyError
from seewhy.notation import bind

# (device, whether the run is in fp16)
ScalerFactory = Callable[[torch.device, bool], GradScaler]


def bind_loss_scale(text: str) -> ScalerFactory:
    """The loss scaling of a text such as `dynamic:init_scale=1024`.

    Raises:
        SeewhyError: For an unknown name or setting, and if a setting is out of range.
    """
    factory: ScalerFactory = bind(LOSS_SCALES, text, "loss scale", n_supplied=2)
    factory(torch.device("cpu"), False)  # checks the settings
    return factory


def dynamic(
    device: torch.device,
    enabled: bool,
    init_scale: float = 2.0**16,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
) -> GradScaler:
    """Lower the scale after a gradient that overflows; raise it after many that do not.

    The arguments are those of torch's GradScaler: `growth_interval` is the number of updates in a
    row without an overflow (Micikevicius et al. 2018, section 3.2).
    """
    if not (
        init_scale > 0 and growth_factor > 1 and 0 < backoff_factor < 1 and growth_interval >= 1
    ):
        raise SeewhyError(
            "loss scale dynamic needs init_scale > 0, growth_factor > 1, 0 < backoff_factor < 1 "
            f"and growth_interval >= 1; found {init_scale:g}, {growth_factor:g}, "
            f"{backoff_factor:g}, {growth_interval}"
        )
    return GradScaler(
        device.type, init_scale, growth_factor, backoff_factor, growth_interval, enabled=enabled
    )


LOSS_SCALES: dict[str, Callable[..., GradScaler]] = {"dynamic": dynamic}
