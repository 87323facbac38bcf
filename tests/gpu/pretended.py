"""A simulated GPU: tensors that report a CUDA device and are computed on the CPU.

It enforces a GPU's rules: tensors of two devices do not mix, NumPy cannot read a tensor, and the
host waits for the device when it reads a value; each wait is recorded. It does not simulate speed,
memory or rounding. The library of pretended.cpp must be preloaded into the process.
"""

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which looks for GPUs once, when it is imported
import torch._inductor.utils
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("cuda", 0)
SOURCE = str(Path(__file__).parents[2] / "src")
# The shape or value of their results depends on values on the device.
WAITING = frozenset(
    (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_dim",
        "bincount",
        "tolist",
    )
)
INDEXING = frozenset(
    ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
)

_waits: list[str] | None = None
_launches: list[str] | None = None


class OnGpu(Tensor):
    """A tensor that reports a GPU; `held` has its values, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _run(function, args, dict(kwargs or {}))

    def tolist(self) -> Any:
        _waited("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # a file holds the values
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> "OnGpu":
        return OnGpu(self.held.detach().clone()).requires_grad_(self.requires_grad)


class _Pretending(TorchDispatchMode):
    """Intercepts functions that create a tensor on the GPU."""

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if _means_gpu(named.get("device")) or any(
            isinstance(value, OnGpu) for value in tree_iter((args, named))
        ):
            return _run(function, args, named)
        return function(*args, **named)


def _run(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, if a GPU could, and wrap the results as tensors on the GPU."""
    name = function._schema.name.removeprefix("aten::")
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
    held = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, OnGpu)}
    if held and name not in ("_to_copy", "copy_", "_foreach_copy_"):
        _check_devices(name, args, tensors)
    _record(name, args, kwargs, bool(held))
    device = kwargs.get("device")
    result_on_gpu = bool(held) if device is None else _means_gpu(device)
    here = {
        key: value
        for key, value in kwargs.items()
        if key not in ("device", "pin_memory", "non_blocking")
    }
    if device is not None:
        here["device"] = torch.device("cpu")
    plain, here = tree_map(_values, (tuple(args), here))
    result = function(*plain, **here)
    if name == "_to_copy" and result is plain[0]:
        result = result.clone()  # another device's memory
    if not result_on_gpu:
        return result
    return tree_map(
        lambda value: held.get(id(value), OnGpu(value)) if isinstance(value, Tensor) else value,
        result,
    )


def _values(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _means_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _check_devices(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Raise RuntimeError for tensors on the host, except scalars and indices (a wait)."""
    for tensor in tensors:
        if isinstance(tensor, OnGpu):
            continue
        if name in INDEXING and tensor is not args[0] and (len(args) < 3 or tensor is not args[2]):
            _waited(f"{name} at places that the host knows")
        elif tensor.ndim or (tensor is args[0] and name.endswith("_")):
            raise RuntimeError(
                "Expected all tensors to be on the same device, "
                f"but found at least two devices in {name}"
            )


def _record(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], on_gpu: bool) -> None:
    if on_gpu and _launches is not None:
        _launches.extend([name] * _kernels(name, args))
    if on_gpu and name in WAITING:
        _waited(name)
    if (
        on_gpu
        and name in INDEXING
        and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    ):
        _waited(f"{name} where a mask is true")
    if _crosses(name, args, kwargs, on_gpu) and not (
        kwargs.get("non_blocking") or (name != "_to_copy" and any(args[2:]))
    ):
        _waited("a copy from one device to the other")


def _crosses(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], on_gpu: bool) -> bool:
    """Whether a tensor is copied from one device to the other."""
    if name == "_to_copy":
        return kwargs.get("device") is not None and _means_gpu(kwargs["device"]) != on_gpu
    pairs = (
        [args[:2]]
        if name == "copy_"
        else zip(*args[:2], strict=True)
        if name == "_foreach_copy_"
        else ()
    )
    return any(isinstance(target, OnGpu) != isinstance(source, OnGpu) for target, source in pairs)


def _kernels(name: str, args: Sequence[Any]) -> int:
    """Number of launches: one for lists of tensors of equal shape and strides, else one each."""
    lists = [
        arg for arg in args if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor)
    ]
    if not name.startswith("_foreach") or not lists:
        return 1
    alike = all(
        len({(tensor.shape, tensor.stride()) for tensor in same}) == 1
        for same in zip(*lists, strict=True)
    )
    return 1 if alike else len(lists[0])


def _waited(what: str) -> None:
    if _waits is not None:
        ours = [frame for frame in traceback.extract_stack() if frame.filename.startswith(SOURCE)]
        location = f" in {Path(ours[-1].filename).name}: {ours[-1].line}" if ours else ""
        _waits.append(what + location)


@contextmanager
def waits() -> Iterator[list[str]]:
    """The waits of the host for the device inside the block, with their locations."""
    global _waits
    _waits = []
    try:
        yield _waits
    finally:
        _waits = None


@contextmanager
def launches() -> Iterator[list[str]]:
    """The operations on the device inside the block, by their names in torch."""
    global _launches
    _launches = []
    try:
        yield _launches
    finally:
        _launches = None


def install() -> None:
    """Give this process one simulated GPU, called cuda."""
    os.environ.pop("LD_PRELOAD", None)  # its child processes need no torch
    answers: dict[str, Callable[..., Any]] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "pretended GPU",
        "is_bf16_supported": lambda including_emulation=True: True,
        "mem_get_info": lambda device=None: (2**36, 2**36),
        "synchronize": lambda device=None: None,
        "get_rng_state": lambda device=0: torch.get_rng_state(),
        "set_rng_state": lambda state, device=0: None,
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state_all": lambda states: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch._C._cuda_getDeviceCount = lambda: 1
    torch.__future__.set_swap_module_params_on_conversion(
        True
    )  # a parameter's `data` cannot become another class
    _Pretending().__enter__()
