"""Uses of undocumented parts of torch. Written for torch 2.11 to 2.13."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

# The common base of BatchNorm1d, 2d, 3d, SyncBatchNorm and the lazy variants has no public name.
BatchNorm = _BatchNorm

# Operations on lists of tensors have no public names, but torch.optim uses them. On a GPU one
# launch updates all tensors, while a loop needs one launch per tensor.


def foreach_add(
    tensors: Sequence[Tensor], others: Sequence[Tensor], alpha: float = 1.0
) -> list[Tensor]:
    """`tensors + alpha * others`."""
    return list(torch._foreach_add(list(tensors), list(others), alpha=alpha))


def foreach_add_(tensors: Sequence[Tensor], others: Sequence[Tensor], alpha: float = 1.0) -> None:
    """`tensors += alpha * others`."""
    torch._foreach_add_(list(tensors), list(others), alpha=alpha)


def foreach_mul_(tensors: Sequence[Tensor], factor: float | Tensor | Sequence[float]) -> None:
    """`tensors *= factor`, one factor for all or one for each."""
    torch._foreach_mul_(list(tensors), cast(Any, factor))


def foreach_div_(tensors: Sequence[Tensor], divisors: Sequence[Tensor]) -> None:
    """`tensors /= divisors`."""
    torch._foreach_div_(list(tensors), list(divisors))


def foreach_clamp_min_(tensors: Sequence[Tensor], minimum: float) -> None:
    """Raise all smaller elements to `minimum`."""
    torch._foreach_clamp_min_(list(tensors), minimum)


def foreach_lerp_(tensors: Sequence[Tensor], targets: Sequence[Tensor], weight: float) -> None:
    """`tensors += weight * (targets - tensors)`."""
    torch._foreach_lerp_(list(tensors), list(targets), weight)


def foreach_norm(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Euclidean norm of each tensor, as scalars ()."""
    return list(torch._foreach_norm(list(tensors)))


def foreach_clone(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy each tensor."""
    return list(torch._foreach_mul(list(tensors), 1))  # torch 2.11 has no _foreach_clone


def foreach_copy_(tensors: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its tensor. Empty lists are allowed."""
    if tensors:  # torch rejects empty lists
        torch._foreach_copy_(list(tensors), list(sources))


AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


def without_compiler(kind: type[AnyOptimizer]) -> type[AnyOptimizer]:
    """The same optimizer, which does not import the compiler. No step is compiled.

    torch.optim wraps these methods for torch.compile. The first call of one of them imports the
    compiler, which takes as long as torch itself.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods |= {"__module__": kind.__module__, "__doc__": kind.__doc__}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


def step_unless(optimizer: Optimizer, skip: Tensor) -> bool:
    """Take an optimizer step unless `skip` () is 1, without a device synchronization.

    Returns False, without a step, if the optimizer is not fused. GradScaler skips steps in the same
    way; the attributes are not documented.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    optimizer.grad_scale, optimizer.found_inf = None, skip  # type: ignore[attr-defined]
    optimizer.step()
    return True


@contextmanager
def recompile_limit(graphs: int) -> Iterator[None]:
    """Raise torch.compile's limit of 8 graphs per function to at least `graphs`.

    The documentation names the setting, but only in a private module.
    """
    config = torch._dynamo.config
    with config.patch(recompile_limit=max(config.recompile_limit, graphs)):
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled modules eagerly inside the block.

    The compiler takes seconds to import. If it has not been imported, nothing is compiled.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def compiled_module(module: nn.Module) -> nn.Module | None:
    """The module inside `torch.compile(module)`; None for other modules."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None


def undispatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch.nn.functional that runs itself where a TorchFunctionMode is active.

    Otherwise it would hand itself to the mode first, which would not see the calls inside.
    """
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    copied = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
