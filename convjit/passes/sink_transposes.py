"""`sink-transposes`: transposes behind convolutions move down, through what does not mind, until they cancel.

    %y = conv.general %x, %w window <...>                                      (N, H, W, C)
    %t = Transpose(%y) [0, 3, 1, 2]                                            (N, C, H, W)
    %a = Add(%t, Broadcast(%b))                                                %b of shape (C, 1, 1)
    %u = Transpose(%a) [0, 2, 3, 1]
    %z = conv.general %u, %v window <...>
->
    %y = conv.general %x, %w window <...>
    %a = Add(%y, Broadcast(Reshape(%b)))                                       of shape (1, 1, 1, C)
    %z = conv.general %a, %v window <...>

Models ported from PyTorch keep activations in NCHW and transpose around every convolution. Elementwise ops,
concatenations, reductions, padding, slices and most reshapes change places with the transposes of what they read,
whatever the permutation, so that convolutions and what can be fused into them see NHWC only, and transposes remain
where a program begins and ends. Operands that are broadcast are reordered while they are narrow, parameters by a
transpose that `hoist-prepare` takes out of every call; any other operand is transposed only if an epilogue is won by
it. Operands keep their order, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass

from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.norm import NormOp
from convjit.ir.types import dtype_of, shape_of, tensor_type
from convjit.passes.axes import ELEMENTWISE, Axes, composed, inverse, num_ordered, sunk
from convjit.passes.transposes import Transposes, source_of_transpose
from convjit.passes.values import erase_dead_ops, forward_of, insert_before, static_values


class _Sinker:
    """A walk over one function in program order.

    Attributes:
        static: what depends on parameters and constants only.
        behind: what depends on a convolution; a transpose counts by what it transposes.
        epilogues: what a convolution's epilogue could compute.
        transposes: those met and written so far.
    """

    def __init__(self, function: FuncOp):
        self.static = static_values(function)
        self.behind: set[SSAValue] = set()
        self.epilogues: set[SSAValue] = set()
        self.transposes = Transposes()

    def visit(self, op: Operation) -> None:
        if is_primitive(op, "Transpose"):
            op.results[0].replace_all_uses_with(self.transposes.met(op))
            return
        if isinstance(op, PrimitiveOp):
            op = self._sunk(op) or op
        if isinstance(op, (GeneralOp, NormOp)) or (
            _is_elementwise(op) and any(v in self.epilogues for v in op.operands)
        ):
            self.epilogues.update(op.results)
        if isinstance(op, (GeneralOp, NormOp)) or any(source_of_transpose(v)[0] in self.behind for v in op.operands):
            self.behind.update(op.results)

    def _sunk(self, op: PrimitiveOp) -> PrimitiveOp | None:
        """The op on what its operands are transposes of, if that pays."""
        name = op.primitive.data
        count = num_ordered(name, len(op.operands))
        ordered, others = list(op.operands[:count]), op.operands[count:]
        axes = self._axes(ordered)
        if axes is None or not self._pays(name, ordered, axes):
            return None
        shapes = shape_of(ordered[0].type), shape_of(op.results[0].type)
        form = sunk(name, op.python_arguments, *shapes, axes)
        if form is None:
            return None
        operands = [*(self.transposes.reordered(v, inverse(axes), op) for v in ordered), *others]
        back = inverse(form.axes)
        types = [tensor_type(composed(shape_of(r.type), back), dtype_of(r.type)) for r in op.results]
        new = PrimitiveOp(form.name, operands, types, form.arguments)
        insert_before(new, op)
        for old, result in zip(op.results, new.results, strict=True):
            result.name_hint = old.name_hint
            old.replace_all_uses_with(self.transposes.transposed(result, form.axes, op))
        return new

    def _axes(self, operands: Sequence[SSAValue]) -> Axes | None:
        """How the first of the operands is transposed that is a transpose and depends on a convolution."""
        sources = (source_of_transpose(v) for v in operands if is_primitive(v.owner, "Transpose"))
        return next((axes for source, axes in sources if source in self.behind), None)

    def _pays(self, name: str, operands: Sequence[SSAValue], axes: Axes) -> bool:
        """Is an epilogue to be won, or does no operand need a transpose of its own?"""
        if name in ELEMENTWISE and any(
            source in self.epilogues and order == axes for source, order in map(source_of_transpose, operands)
        ):
            return True
        back = inverse(axes)
        return all(source_of_transpose(v)[0] in self.static or self.transposes.is_cheap(v, back) for v in operands)


def _is_elementwise(op: Operation) -> bool:
    return isinstance(op, PrimitiveOp) and op.primitive.data in ELEMENTWISE


@dataclass(frozen=True)
class SinkTransposesPass(ModulePass):
    """See the module's docstring."""

    name = "sink-transposes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            ops = list(function.body.block.ops)
            transposed = (inner.operands[0] for inner in ops if is_primitive(inner, "Transpose"))
            if all(isinstance(value, BlockArgument) for value in transposed):
                continue  # none stands behind a convolution
            sinker = _Sinker(function)
            for inner in ops:
                sinker.visit(inner)
            erase_dead_ops(function.body.block)
