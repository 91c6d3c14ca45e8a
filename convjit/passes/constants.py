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
        if value not in self._known:
            self._known[value] = self._made(value)
        return self._known[value]

    def _made(self, value: SSAValue) -> mx.array | None:
        op = value.owner
        if isinstance(op, ConstantOp):
            return mx.array(op.python_value, dtype_of(value.type))
        if not isinstance(op, PrimitiveOp) or prod(shape_of(value.type)) > _MOST_ELEMENTS:
            return None
        operands = [array for v in op.operands if (array := self.of(v)) is not None]
        if len(operands) < len(op.operands):
            return None
        outputs = [(shape_of(v.type), dtype_of(v.type)) for v in op.results]
        try:
            made = replay.call(op.primitive.data, op.python_arguments, operands, outputs)
        except replay.UnknownPrimitive:
            return None
        return made[op.results.index(value)]
