"""Questions about values that several passes ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod

import mlx.core as mx
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.ir.conv import GeneralOp, WeightGradientOp, weight_type
from convjit.ir.mlx import ConstantOp, PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of


def forward_of(module: ModuleOp) -> list[FuncOp]:
    """The functions that a pass works on: all but `@prepare`."""
    return [op for op in module.body.block.ops if isinstance(op, FuncOp) and op.sym_name.data != "prepare"]


def has_convolutions(block: Block | None) -> bool:
    """Is there a convolution that was raised?"""
    return block is not None and any(isinstance(op, (GeneralOp, WeightGradientOp)) for op in block.ops)


def argument_attribute(argument: BlockArgument, name: str) -> str | None:
    """A string among the attributes of a function's argument, such as "mlx.kind"."""
    function = argument.owner.parent_op()
    if not isinstance(function, FuncOp) or function.arg_attrs is None:
        return None
    attribute = function.arg_attrs.data[argument.index].data.get(name)
    return attribute.data if isinstance(attribute, StringAttr) else None


def static_values(function: FuncOp) -> set[SSAValue]:
    """The values that depend on parameters and constants only: they change when the weights do, not in every call."""
    static: set[SSAValue] = {
        argument
        for argument in function.body.block.args
        if argument_attribute(argument, "mlx.kind") in ("parameter", "constant")
    }
    for op in function.body.block.ops:
        if op.results and static.issuperset(op.operands):
            static.update(op.results)
    return static


_SLACK = 4096
"""Elements that a prepared value may have beyond those of the parameters it comes from."""


def prepared_values(function: FuncOp, static: set[SSAValue]) -> set[SSAValue]:
    """Those of the static values that are worth storing, as `hoist-prepare` does: no constants, no broadcasts, and
    nothing much larger than the parameters it comes from."""
    sources: dict[SSAValue, int] = {}
    prepared: set[SSAValue] = set()
    for op in function.body.block.ops:
        read = sum(sources.get(v, _elements(v) if isinstance(v, BlockArgument) else 0) for v in op.operands)
        results = static.intersection(op.results)
        sources.update(dict.fromkeys(results, read))
        if not isinstance(op, ConstantOp) and not is_primitive(op, "Broadcast"):
            prepared.update(v for v in results if _elements(v) <= read + _SLACK)
    return prepared


def _elements(value: SSAValue) -> int:
    return prod(weight_type(value.type).get_shape())


def made_by(value: SSAValue, name: str) -> PrimitiveOp | None:
    """The op whose result `value` is, if it is this primitive."""
    return value.owner if is_primitive(value.owner, name) else None


def source_of_broadcast(value: SSAValue) -> SSAValue:
    """The narrow value behind `Broadcast` (and `Full`, which fills with one)."""
    while is_primitive(op := value.owner, "Broadcast", "Full"):
        value = op.operands[0]
    return value


def constant_of(value: SSAValue) -> float | bool | None:
    """The number that fills `value`, if it is one captured scalar, possibly broadcast or cast; never a complex one."""
    casts: list[mx.Dtype] = []
    while is_primitive(op := value.owner, "Broadcast", "Full", "AsType"):
        if op.primitive.data != "Broadcast":
            casts.append(dtype_of(value.type))
        value = op.operands[0]
    if not isinstance(value.owner, ConstantOp) or mx.complex64 in casts:
        return None
    number = value.owner.python_value
    if casts:
        array = mx.array(number, dtype_of(value.type))
        for dtype in reversed(casts):
            array = array.astype(dtype, stream=mx.cpu)
        number = array.item()
        assert isinstance(number, (bool, int, float))
    return number if isinstance(number, bool) else float(number)


def numbered(name: str, count: int) -> str:
    """A name that is unique: that of the `count`-th which has this name, counted from 1."""
    return name if count == 1 else f"{name}#{count}"


def insert_before(op: Operation, other: Operation) -> SSAValue:
    """Insert `op` ahead of another one, with its location. Returns the first result."""
    op.location = other.location
    Rewriter.insert_op(op, InsertPoint.before(other))
    return op.results[0]


def users(value: SSAValue) -> set[Operation]:
    """The ops that read `value`."""
    return {use.operation for use in value.uses}


def phases_of(
    read: Mapping[Operation, Iterable[SSAValue]], is_kernel: Callable[[Operation], bool]
) -> dict[Operation, int]:
    """How many stretches of kernels must be over before each op can run.

    Args:
        read: what each op reads, in program order.
        is_kernel: does an op join a stretch?
    """
    phases: dict[Operation, int] = {}
    for op, values in read.items():
        waits = not is_kernel(op)
        makers = [v.owner for v in values if isinstance(v.owner, Operation)]
        phases[op] = max((phases[maker] + (waits and is_kernel(maker)) for maker in makers), default=0)
    return phases


def erase_dead_ops(block: Block) -> None:
    """Erase the ops of `block` whose results nothing needs."""
    for op in reversed(list(block.ops)):
        if op.results and not any(r.uses for r in op.results):
            Rewriter.erase_op(op)
