"""The graph of a model: which layers feed which, from torch.export."""

import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from seewhy.errors import SeewhyError, first_line
from seewhy.models.inspection import layer_path, layer_types
from seewhy.models.operations import (
    FUNCTIONS,
    JOINS,
    SIGNS,
    STARTERS,
    function_name,
    label_kind,
    module_label,
    multiply_adds,
)
from seewhy.models.summary import first_tensor, prepared

IMAGE = -1  # in `Step.inputs`: the model's input
LARGEST_BLOCK = 24  # operations of a block that has other blocks inside
WHOLE_MODEL = 0.6  # a module with a larger share of the operations is no block, but the model


@dataclass(frozen=True)
class Step:
    """Operations in a row without a branch between them, such as Conv, BatchNorm, and ReLU."""

    operations: tuple[str, ...]  # such as ("Conv 3×3", "BatchNorm", "ReLU")
    module: str  # path of the module in which it begins
    layer: str  # path of its first layer, if possible one with parameters; may be empty
    block: str  # path of the block that it belongs to; empty outside blocks
    inputs: tuple[int, ...]  # indices of earlier steps, or IMAGE
    shape: tuple[int, ...]  # of the output for one image
    parameters: int  # that no earlier step uses
    multiply_adds: int


@dataclass(frozen=True)
class ModelGraph:
    """Steps of a model in the order of the forward pass, for one image."""

    title: str
    image_shape: tuple[int, int, int]  # (C, H, W)
    steps: tuple[Step, ...]
    blocks: tuple[str, ...]  # their paths
    types: Mapping[str, str]  # class name of each module, by path
    parameters: int  # of the model
    multiply_adds: int  # of all steps


@dataclass
class _Operation:
    """A layer, or a function outside of layers."""

    label: str
    path: str  # of the innermost module that it runs in
    is_layer: bool
    sources: dict[int, None] = field(default_factory=dict)  # in order, without duplicates
    shape: tuple[int, ...] = ()
    parameters: dict[str, None] = field(default_factory=dict)
    multiply_adds: int = 0

    @property
    def joins(self) -> bool:
        return len(self.sources) > 1

    @property
    def starts_step(self) -> bool:
        return self.joins or label_kind(self.label) in STARTERS


def model_graph(
    model: str | nn.Module,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
) -> ModelGraph:
    """Trace a model with torch.export, in evaluation mode, and summarize it as a graph of steps.

    Operations that only move values (reshaping, slicing, padding) are left out. A block is a module
    that joins branches, such as a residual block, or that runs several layers with weights.

    Args:
        model: A module, or the name of a model such as "resnet18".
        image_shape: (C, H, W) of the image.
        num_classes: Number of classes of a model given by name.

    Raises:
        SeewhyError: If the model does not accept the image, or torch.export cannot trace it, for
            example because its control flow depends on the values of the image.
    """
    title = model if isinstance(model, str) else type(model).__name__
    with prepared(model, image_shape, num_classes) as (module, image):
        program = _exported(title, module, image)
    operations = _operations(module, program)
    blocks = _blocks(module, operations)
    sizes = {
        name: parameter.numel()
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    steps = _steps(operations, blocks, sizes)
    return ModelGraph(
        title=title,
        image_shape=image_shape,
        steps=steps,
        blocks=tuple(blocks),
        types=layer_types(module),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=sum(step.multiply_adds for step in steps),
    )


def _exported(title: str, model: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    try:
        with _quiet():
            return torch.export.export(model, (image,), strict=False)
    except Exception as error:
        reason = first_line(error)
        if "data-dependent" in reason:
            reason = "its control flow depends on the values of the image"
        raise SeewhyError(
            f"{title} cannot be drawn, because torch.export cannot trace it: {reason}; "
            "only its layer table is available"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch warns about, logs, and prints; it raises what matters."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _operations(model: nn.Module, program: torch.export.ExportedProgram) -> list[_Operation]:
    """The layers and functions of a trace, each with the operations that it reads from."""
    signature = program.graph_signature
    operations: list[_Operation] = []
    of_call: dict[str, int] = {}  # index of a layer's operation by its call, such as relu@1
    origins: dict[Node, dict[int, None]] = {}  # operations that a node's value comes from
    weights: dict[Node, dict[str, None]] = {}  # parameters that a node without origins comes from
    for node in program.graph.nodes:
        if node.op == "placeholder":
            origins[node] = {IMAGE: None} if node.name in signature.user_inputs else {}
            name = signature.inputs_to_parameters.get(node.name)
            weights[node] = {} if name is None else {name: None}
        if node.op != "call_function":
            continue
        inputs = node.all_input_nodes
        sources = dict.fromkeys(chain.from_iterable(origins.get(each, {}) for each in inputs))
        read = dict.fromkeys(chain.from_iterable(weights.get(each, {}) for each in inputs))
        origins[node] = sources
        if not sources:  # computed from parameters alone
            weights[node] = read
            continue
        call, path = _innermost_module(node)
        path = layer_path(path, model)
        module = model.get_submodule(path)
        is_layer = bool(path) and (
            isinstance(module, nn.MultiheadAttention) or not any(True for _ in module.children())
        )
        index = of_call.get(call) if is_layer else None
        if index is None:
            label = module_label(module) if is_layer else _function_label(node, sources, read)
            if not label:
                continue
            index = len(operations)
            operations.append(_Operation(label, path, is_layer, sources))
            if is_layer:
                of_call[call] = index
        operation = operations[index]
        operation.sources |= {each: None for each in sources if each != index}
        operation.parameters |= read
        operation.multiply_adds += multiply_adds(node, _named_weights(model, read))
        value = first_tensor(node.meta["val"])
        if value is not None:
            operation.shape = tuple(value.shape[1:] if value.shape[:1] == (1,) else value.shape)
        origins[node] = {index: None}
    return operations


def _innermost_module(node: Node) -> tuple[str, str]:
    """The call of the module that a node runs in, such as relu@1, and the module's path."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {"": ("", None)}
    key, (path, _) = list(stack.items())[-1]
    return f"{path}@{key.rpartition('@')[2]}" if "@" in key else path, path.partition("@")[0]


def _function_label(node: Node, sources: Mapping[int, None], read: Mapping[str, None]) -> str:
    """Name of a function; empty for one that only moves or scales values."""
    name = function_name(node)
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if len(sources) > 1:
        return JOINS.get(name, name.replace("_", " "))
    if read and name in JOINS:  # as in `+ pos_embed`
        label = JOINS[name]
        return " ".join([SIGNS.get(label, label), *(each.rpartition(".")[2] for each in read)])
    return ""


def _named_weights(model: nn.Module, names: Mapping[str, None]) -> int:
    """Number of weights and biases among parameters."""
    kept = [name for name in names if name.rpartition(".")[2] in ("weight", "bias")]
    return sum(model.get_parameter(name).numel() for name in kept)


def _blocks(model: nn.Module, operations: Sequence[_Operation]) -> list[str]:
    """Paths of the blocks: none is inside another one."""
    inside: Counter[str] = Counter()  # operations in a module, by path
    starts: Counter[str] = Counter()  # those with which a step begins
    for operation in operations:
        for path in _path_and_parents(operation.path)[operation.is_layer :]:
            inside[path] += 1
            starts[path] += operation.starts_step
    limit = WHOLE_MODEL * len(operations)
    joins = [operation for operation in operations if operation.joins and not operation.is_layer]
    joining = {operation.path for operation in joins}
    # a gate, as in squeeze-and-excitation, does not make the module around it a row of blocks
    branching = {operation.path for operation in joins if operation.label != "multiply"}
    around_blocks = set(chain.from_iterable(map(_path_and_parents, branching)))
    candidates = []
    for path in inside:
        is_container = type(model.get_submodule(path)) in (nn.Sequential, nn.ModuleList)
        several = starts[path] > 1 and not is_container and path not in around_blocks
        if (path in joining or several) and inside[path] <= limit:
            candidates.append(path)
    blocks: list[str] = []
    for path in sorted(candidates, key=lambda path: path.count(".")):
        nested = any(other.startswith(f"{path}.") for other in candidates)
        if nested and inside[path] > LARGEST_BLOCK:
            continue
        if not any(path.startswith(f"{block}.") for block in blocks):
            blocks.append(path)
    return blocks


def _path_and_parents(path: str) -> list[str]:
    """`a.b.c`, `a.b` and `a`."""
    parents = [path[:end] for end, sign in enumerate(path) if sign == "."]
    return [path, *reversed(parents)] if path else []


def _steps(
    operations: Sequence[_Operation], blocks: Sequence[str], sizes: Mapping[str, int]
) -> tuple[Step, ...]:
    """Join operations that follow one another without a branch."""
    consumers = Counter(source for operation in operations for source in operation.sources)
    block_of = [
        next((path for path in _path_and_parents(operation.path) if path in blocks), "")
        for operation in operations
    ]
    groups: list[list[int]] = []  # operations of each step
    group_of: dict[int, int] = {IMAGE: IMAGE}
    for index, operation in enumerate(operations):
        source = next(iter(operation.sources))
        follows = (
            source != IMAGE
            and not operation.starts_step
            and not (operations[groups[group_of[source]][0]].joins and operation.parameters)
            and consumers[source] == 1
            and block_of[source] == block_of[index]
        )
        if follows:
            group_of[index] = group_of[source]
            groups[group_of[index]].append(index)
        else:
            group_of[index] = len(groups)
            groups.append([index])
    steps, used = [], set[str]()
    for group in groups:
        members = [operations[index] for index in group]
        names = dict.fromkeys(chain.from_iterable(each.parameters for each in members))
        layers = [each for each in members if each.is_layer]
        named = next((each for each in layers if each.parameters), layers[0] if layers else None)
        steps.append(
            Step(
                operations=tuple(each.label for each in members),
                module=members[0].path,
                layer="" if named is None else named.path,
                block=block_of[group[0]],
                inputs=tuple(dict.fromkeys(group_of[each] for each in members[0].sources)),
                shape=members[-1].shape,
                parameters=sum(sizes[name] for name in names if name not in used),
                multiply_adds=sum(each.multiply_adds for each in members),
            )
        )
        used |= names.keys()
    return tuple(steps)
