"""Questions about values that several passes ask."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from convjit.ir.mlx import ConstantOp, is_primitive


def forward_of(module: ModuleOp) -> list[FuncOp]:
    """The functions that a pass works on: all but `@prepare`."""
    return [op for op in module.body.block.ops if isinstance(op, FuncOp) and op.sym_name.data != "prepare"]


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
        if op.results and all(operand in static for operand in op.operands):
            static.update(op.results)
    return static


def source_of_broadcast(value: SSAValue) -> SSAValue:
    """The narrow value behind `Broadcast` (and `Full`, which fills with one)."""
    while is_primitive(value.owner, "Broadcast", "Full"):
        assert isinstance(value.owner, Operation)
        value = value.owner.operands[0]
    return value


def constant_of(value: SSAValue) -> float | None:
    """The number that fills `value`, if it is one captured scalar, possibly broadcast or cast."""
    while is_primitive(value.owner, "Broadcast", "Full", "AsType"):
        assert isinstance(value.owner, Operation)
        value = value.owner.operands[0]
    return float(value.owner.python_value) if isinstance(value.owner, ConstantOp) else None
