"""Arithmetic on one number an output channel, written as MLX primitives."""

from __future__ import annotations

import mlx.core as mx
from xdsl.ir import Operation, SSAValue

from convjit.ir.mlx import PrimitiveOp
from convjit.ir.types import shape_of, tensor_type
from convjit.passes.values import source_of_broadcast


class Vectors:
    """Inserts f32 primitives in front of `anchor`; a vector has the shape (channels,)."""

    def __init__(self, anchor: Operation, channels: int):
        self._anchor = anchor
        self._channels = channels

    def insert(self, op: Operation) -> SSAValue:
        block = self._anchor.parent_block()
        assert block is not None
        block.insert_op_before(op, self._anchor)
        return op.results[0]

    def primitive(self, name: str, operands: list[SSAValue], shape: tuple[int, ...], *arguments: object) -> SSAValue:
        return self.insert(PrimitiveOp(name, operands, [tensor_type(shape, mx.float32)], arguments))

    def of(self, value: SSAValue) -> SSAValue:
        """The vector, or the scalar repeated, behind a broadcast."""
        source = source_of_broadcast(value)
        size = (1, *shape_of(source.type))[-1]
        if len(shape_of(source.type)) != 1:
            source = self.primitive("Reshape", [source], (size,), (size,))
        return source if size == self._channels else self.repeated(source)

    def repeated(self, value: SSAValue) -> SSAValue:
        return self.primitive("Broadcast", [value], (self._channels,), (self._channels,))

    def combined(self, name: str, *vectors: SSAValue) -> SSAValue:
        return self.primitive(name, list(vectors), (self._channels,))

    def scaled_weight(self, weight: SSAValue, scale: SSAValue) -> SSAValue:
        """`weight` (O, *kernel, C / groups), multiplied along its output channels."""
        shape = shape_of(weight.type)
        column = (self._channels,) + (1,) * (len(shape) - 1)
        wide = self.primitive("Broadcast", [self.primitive("Reshape", [scale], column, column)], shape, shape)
        scaled = self.primitive("Multiply", [weight, wide], shape)
        scaled.name_hint = weight.name_hint
        return scaled
