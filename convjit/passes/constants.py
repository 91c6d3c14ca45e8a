"""Arrays that constants tell, such as indices that `nn.Upsample` computes from nothing but extents."""

from __future__ import annotations

from math import prod

import mlx.core as mx
from xdsl.ir import SSAValue

from convjit.ir import replay
from convjit.ir.mlx import ConstantOp, PrimitiveOp
from convjit.ir.types import dtype_of, shape_of

_MOST_ELEMENTS = 1 << 22


class Constants:
    """What is known of the values of a function."""

    def __init__(self) -> None:
        self._known: dict[SSAValue, mx.array | None] = {}

    def of(self, value: SSAValue) -> mx.array | None:
        """The array that `value` is; None if it is not known, or large."""
        pending = [value]  # a stack: programs are longer than Python's own is deep
        while pending:
            last = pending[-1]
            if last in self._known:
                pending.pop()
            elif (operand := self._next_operand(last)) is not None:
                pending.append(operand)
            else:
                self._known[last] = self._made(last)
        return self._known[value]

    def _next_operand(self, value: SSAValue) -> SSAValue | None:
        """The next one that has to be asked for, None if `value` can be told: an unknown operand is enough."""
        operands = op.operands if (op := _maker(value)) else ()
        if any(v in self._known and self._known[v] is None for v in operands):
            return None
        return next((v for v in operands if v not in self._known), None)

    def _made(self, value: SSAValue) -> mx.array | None:
        if isinstance(value.owner, ConstantOp):
            return mx.array(value.owner.python_value, dtype_of(value.type))
        if (op := _maker(value)) is None:
            return None
        operands = [array for v in op.operands if (array := self._known.get(v)) is not None]
        if len(operands) < len(op.operands):
            return None
        outputs = [(shape_of(v.type), dtype_of(v.type)) for v in op.results]
        try:
            made = replay.call(op.primitive.data, op.python_arguments, operands, outputs)
        except replay.UnknownPrimitive:
            return None
        return made[op.results.index(value)]


def _maker(value: SSAValue) -> PrimitiveOp | None:
    """What makes `value`, if that is an op of MLX and does not make much."""
    op = value.owner
    return op if isinstance(op, PrimitiveOp) and prod(shape_of(value.type)) <= _MOST_ELEMENTS else None
