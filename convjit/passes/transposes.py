"""Values with their axes in another order, written as MLX primitives: each once, and as cheaply as it can be."""

from __future__ import annotations

import mlx.core as mx
from xdsl.ir import Operation, SSAValue

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of, shape_of, tensor_type
from convjit.passes.axes import Axes, composed, is_identity


def source_of_transpose(value: SSAValue, axes: Axes | None = None) -> tuple[SSAValue, Axes]:
    """transpose(value, axes) as one transpose of something that is none itself; without `axes`, `value` alone."""
    axes = tuple(range(len(shape_of(value.type)))) if axes is None else axes
    while is_primitive(op := value.owner, "Transpose"):
        value, axes = op.operands[0], composed(op.python_arguments[0], axes)
    return value, axes


class Transposes:
    """Knows the transposes above the op that a pass has come to, and writes those that are missing."""

    def __init__(self) -> None:
        self._known: dict[tuple[SSAValue, Axes], SSAValue] = {}

    def find(self, value: SSAValue, axes: Axes) -> SSAValue | None:
        """transpose(value, axes), if that needs no new op."""
        source, axes = source_of_transpose(value, axes)
        return source if is_identity(axes) else self._known.get((source, axes))

    def is_cheap(self, value: SSAValue, axes: Axes) -> bool:
        """Does `reordered` leave the elements of `value` where they are?"""
        if self.find(value, axes) is not None or is_primitive(value.owner, "Broadcast", "Full"):
            return True
        return _moves_only_ones(shape_of(value.type), axes)

    def met(self, op: PrimitiveOp) -> SSAValue:
        """What stands for a transpose of the program: itself, an equal one above, or one op for several in a row."""
        value, axes = op.operands[0], op.python_arguments[0]
        if self.find(value, axes) is None and not is_primitive(value.owner, "Transpose"):
            self._known[value, axes] = op.results[0]
        return self.transposed(value, axes, op)

    def transposed(self, value: SSAValue, axes: Axes, anchor: Operation) -> SSAValue:
        """transpose(value, axes), for what stands behind `anchor`: by one op at most."""
        found = self.find(value, axes)
        if found is None:
            source, axes = source_of_transpose(value, axes)
            found = _insert("Transpose", source, composed(shape_of(source.type), axes), axes, anchor)
            self._known[source, axes] = found
        return found

    def reordered(self, value: SSAValue, axes: Axes, anchor: Operation) -> SSAValue:
        """transpose(value, axes), for `anchor` to read.

        What is broadcast is reordered while it is narrow; where only axes of extent 1 move, a reshape is enough.
        """
        found = self.find(value, axes)
        if found is not None:
            return found
        owner, shape = value.owner, composed(shape_of(value.type), axes)
        if is_primitive(owner, "Broadcast", "Full"):
            narrow = self._narrow(owner.operands[0], axes, anchor)
            found = _insert(owner.primitive.data, narrow, shape, shape, anchor, dtype_of(value.type))
        elif _moves_only_ones(shape_of(value.type), axes):
            found = _insert("Reshape", value, shape, shape, anchor)
        else:
            return self.transposed(value, axes, anchor)
        self._known[value, axes] = found
        return found

    def _narrow(self, value: SSAValue, axes: Axes, anchor: Operation) -> SSAValue:
        """What to broadcast in place of `value`, which may lack axes in front, for a result of this order."""
        shape = shape_of(value.type)
        if len(shape) == len(axes):
            return self.reordered(value, axes, anchor)
        wide = (1,) * (len(axes) - len(shape)) + shape
        if all(extent == 1 for extent in wide):
            return value
        if _moves_only_ones(wide, axes):
            wide = composed(wide, axes)
            return _insert("Reshape", value, wide, wide, anchor)
        return self.reordered(_insert("Reshape", value, wide, wide, anchor), axes, anchor)


def _moves_only_ones(shape: tuple[int, ...], axes: Axes) -> bool:
    longer = [axis for axis in axes if shape[axis] != 1]
    return longer == sorted(longer)


def _insert(
    name: str,
    operand: SSAValue,
    shape: tuple[int, ...],
    argument: tuple[int, ...],
    anchor: Operation,
    dtype: mx.Dtype | None = None,
) -> SSAValue:
    block = anchor.parent_block()
    assert block is not None
    arguments = () if name == "Full" else (argument,)
    op = PrimitiveOp(name, [operand], [tensor_type(shape, dtype or dtype_of(operand.type))], arguments)
    op.location = anchor.location
    op.results[0].name_hint = operand.name_hint
    block.insert_op_before(op, anchor)
    return op.results[0]
