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

Every op runs as early as its operands allow, kernels in the first stretch they can join: no order has fewer stretches.
Views go where they are read first; weights that kernels make are packed between them, where the backend can do that. A
stretch ends where a kernel needs what a plain op makes of the stretch's own results. `@prepare` has stretches, too,
where a convolution reads parameters only.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, Region
from xdsl.passes import ModulePass

from convjit.ir.bodies import YieldOp
from convjit.ir.conv import KernelOp, PackOp, StretchOp
from convjit.ir.rearrange import ViewOp
from convjit.ir.types import element_type
from convjit.passes.values import phases_of, users


def _partition(block: Block) -> list[Operation | list[Operation]]:
    """The new order of the ops, each as early as it can run: plain ones as they are, those of a stretch as a list."""
    plain: dict[int, list[Operation]] = {}
    kernels: dict[int, list[Operation]] = {}
    terminator = block.last_op
    read = {op: op.operands for op in block.ops if op is not terminator}
    phases = phases_of(read, _joins)
    for op in read:
        if isinstance(op, ViewOp):
            phases[op] = min(phases[user] - (not _joins(user)) for user in users(op.result))
    for op, phase in phases.items():
        (kernels if _joins(op) else plain).setdefault(phase, []).append(op)
    order: list[Operation | list[Operation]] = []
    for number in sorted({*plain, *kernels}):
        order += plain.get(number, [])
        order += [kernels[number]] if number in kernels else []
    assert terminator is not None
    return [*order, terminator]


def _joins(op: Operation) -> bool:
    if isinstance(op, PackOp):
        is_made_here = isinstance(op.weight.owner, (KernelOp, ViewOp))
        return is_made_here and op.schedule.data.template.startswith("cpu/") and element_type(op.weight) == f32
    return isinstance(op, (KernelOp, ViewOp))


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
        for function in [o for o in op.body.block.ops if isinstance(o, FuncOp)]:
            block = function.body.block
            order = _partition(block)
            for inner in list(block.ops):
                inner.detach()
            for item in order:
                block.add_op(_stretch(item) if isinstance(item, list) else item)
