"""`form-stretches`: kernels that can run back to back become one `conv.stretch`, the unit of execution.

    %a = conv.fused %x, %p ...
    %b = mlx.primitive "Reduce"(%a) ...
    %c = conv.fused %a, %q ...
->
    %a, %c = conv.stretch(%x, %p, %q) {
    ^bb0(%x1: ..., %p1: ..., %q1: ...):
      %a1 = conv.fused %x1, %p1 ...
      %c1 = conv.fused %a1, %q1 ...
      conv.yield %a1, %c1
    }
    %b = mlx.primitive "Reduce"(%a) ...

A stretch grows in program order for as long as no kernel needs what a plain op makes of the stretch's own results.
Plain ops that do not depend on it run before it, those that do run behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from convjit.ir.conv import FusedOp, StretchOp, YieldOp
from convjit.passes.values import forward_of


def _partition(function: FuncOp) -> list[Operation | list[Operation]]:
    """The new order of the ops: plain ones as they are, those of a stretch as a list."""
    order: list[Operation | list[Operation]] = []
    kernels: list[Operation] = []
    behind: list[Operation] = []
    made: set[SSAValue] = set()
    derived: set[SSAValue] = set()

    def close() -> None:
        if kernels:
            order.append(kernels.copy())
        order.extend(behind)
        kernels.clear()
        behind.clear()
        made.clear()
        derived.clear()

    for op in function.body.block.ops:
        if isinstance(op, ReturnOp):
            close()
            order.append(op)
        elif isinstance(op, FusedOp):
            if any(v in derived for v in op.operands):
                close()
            kernels.append(op)
            made.update(op.results)
        elif any(v in derived or v in made for v in op.operands):
            behind.append(op)
            derived.update(op.results)
        else:
            order.append(op)
    return order


def _stretch(kernels: list[Operation]) -> StretchOp:
    """Move `kernels` into a stretch; their results' uses outside become uses of the stretch's results."""
    made = {r for op in kernels for r in op.results}
    inputs = list(dict.fromkeys(v for op in kernels for v in op.operands if v not in made))
    inside = set(kernels)
    outputs = [r for op in kernels for r in op.results if any(use.operation not in inside for use in r.uses)]
    block = Block(arg_types=[v.type for v in inputs])
    stretch = StretchOp(inputs, Region(block), [r.type for r in outputs])
    for old, new in zip(outputs, stretch.outputs, strict=True):
        new.name_hint = old.name_hint
        old.replace_uses_with_if(new, lambda use: use.operation not in inside)
    inner = dict(zip(inputs, block.args, strict=True))
    for old, new in inner.items():
        new.name_hint = old.name_hint
    for op in kernels:
        for index, operand in enumerate(op.operands):
            op.operands[index] = inner.get(operand, operand)
        block.add_op(op)
    block.add_op(YieldOp(*outputs))
    return stretch


@dataclass(frozen=True)
class FormStretchesPass(ModulePass):
    """See the module's docstring."""

    name = "form-stretches"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            block = function.body.block
            order = _partition(function)
            for inner in list(block.ops):
                inner.detach()
            for item in order:
                block.add_op(_stretch(item) if isinstance(item, list) else item)
