"""`raise-norm`: LayerNorm, RMSNorm, GroupNorm and InstanceNorm become `conv.norm`.

    %s = mlx.primitive "Reduce"(%v) [2 : i64, array<i64: 2>]                    (2, 4, 256) -> (2, 4, 1), a sum
    %m = mlx.primitive "Multiply"(%s, %n)                                       %n is 1 / 256
    %d = mlx.primitive "Subtract"(%v, Broadcast(%m))
    %t = mlx.primitive "Reduce"(Square(%d)) [2 : i64, array<i64: 2>]
    %w = mlx.primitive "Multiply"(%t, %n)
    %r = mlx.primitive "Sqrt"(Add(%w, %eps)) [true]
    %y = mlx.primitive "Multiply"(%d, Broadcast(%r))
->
    %y = conv.norm %v as <[8, 1, 1, 256]> eps 1.0e-05 : f64 centered {...}

`mx.fast.layer_norm` is traced like this, `mx.fast.rms_norm` without the mean. Around a GroupNorm the pixels of each
group are brought together, and back:

    %a = mlx.primitive "Reshape"(%x) [array<i64: 2, -1, 4, 4>]                  (2, 8, 8, 16) -> (2, 64, 4, 4)
    %b = mlx.primitive "Transpose"(%a) [array<i64: 0, 2, 1, 3>]
    %v = mlx.primitive "Reshape"(%b) [array<i64: 2, 4, -1>]
    ... %y, and the same three backwards: %z
->
    %z = conv.norm %x as <[2, 64, 4, 4]> eps 1.0e-05 : f64 centered {...}

An InstanceNorm has its channels transposed to the front instead. Half types are read as they are; MLX casts them to
float32. What stays: norms of which something else is read, as gradients do; other axes; functions without a
convolution; and what a backend refused, whose last op has an attribute `refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose, isfinite, prod
from typing import NamedTuple

import mlx.core as mx
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, f32
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.ir.bodies import YieldOp
from convjit.ir.mlx import SUM, PrimitiveOp, is_primitive
from convjit.ir.norm import NormOp
from convjit.ir.types import dtype_of, element_type, shape_of, tensor_type
from convjit.passes.axes import inverse
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.values import constant_of, erase_dead_ops, forward_of, has_convolutions, made_by, users

_ROUNDING = 2.0**-23
"""Of 1 / n, relative to it."""

View = tuple[int, int, int, int]
"""Images, pixels, groups, channels of a group."""


@dataclass(frozen=True, slots=True)
class FoundNorm:
    """A norm that MLX's primitives compute.

    Attributes:
        root: the last of them.
        input: what is normalised.
        steps: what brings the input into the order in which it is normalised.
        view: the input's shape.
        eps: what is added to the variance.
        centered: whether the mean is subtracted.
    """

    root: PrimitiveOp
    input: SSAValue
    steps: tuple[PrimitiveOp, ...]
    view: View
    eps: float
    centered: bool


def named_norms(module: ModuleOp) -> Iterator[tuple[str, FoundNorm]]:
    """Every norm with a name, unique in the module, in program order."""
    count = 0
    for function in forward_of(module):
        for op in function.body.block.ops:
            if found := _norm(op):
                count += 1
                yield ("norm" if count == 1 else f"norm#{count}"), found


class _Mean(NamedTuple):
    """A mean along the last axis: of what, and the ops that take it."""

    of: SSAValue
    ops: tuple[PrimitiveOp, PrimitiveOp]


def _mean(value: SSAValue) -> _Mean | None:
    """What makes `value`, if that is a mean which keeps its axis."""
    product = made_by(value, "Multiply")
    total = product and made_by(product.operands[0], "Reduce")
    if product is None or total is None:
        return None
    *rows, count = shape_of(total.operands[0].type)
    factor = constant_of(product.operands[1])
    along_last = total.python_arguments == (SUM, (len(rows),)) and shape_of(value.type) == (*rows, 1)
    is_mean = along_last and factor is not None and isclose(factor * count, 1, rel_tol=_ROUNDING)
    return _Mean(total.operands[0], (product, total)) if is_mean else None


class _Scale(NamedTuple):
    """1 / sqrt(mean of squares + eps), broadcast: of what, and the ops that take it."""

    of: SSAValue
    eps: float
    ops: tuple[PrimitiveOp, ...]


def _scale(value: SSAValue) -> _Scale | None:
    wide = made_by(value, "Broadcast")
    reciprocal = wide and made_by(wide.operands[0], "Sqrt")
    total = reciprocal and made_by(reciprocal.operands[0], "Add")
    mean = total and _mean(total.operands[0])
    square = mean and made_by(mean.of, "Square")
    if wide is None or reciprocal is None or total is None or mean is None or square is None:
        return None
    eps = constant_of(total.operands[1])
    if eps is None or not isfinite(eps) or reciprocal.python_arguments != (True,):
        return None
    return _Scale(square.operands[0], float(eps), (wide, reciprocal, total, *mean.ops, square))


def _norm(root: Operation) -> FoundNorm | None:
    if not is_primitive(root, "Multiply") or element_type(root.results[0]) != f32:
        return None
    value, scale = root.operands[0], _scale(root.operands[1])
    if scale is None or scale.of != value or 0 in shape_of(value.type):
        return None
    inner: set[Operation] = {*scale.ops}
    difference = made_by(value, "Subtract")
    subtracted = difference and made_by(difference.operands[1], "Broadcast")
    mean = subtracted and _mean(subtracted.operands[0])
    centered = False
    if difference and subtracted and mean and mean.of == difference.operands[0]:
        inner |= {difference, subtracted, *mean.ops}
        value, centered = mean.of, True
    if any(not users(op.results[0]) <= {*inner, root} for op in inner):
        return None
    cast = made_by(value, "AsType")
    value = cast.operands[0] if cast and element_type(cast.operands[0]) in FLOAT_TYPES else value
    together = _together(value) if centered else None
    *rows, channels = shape_of(value.type)
    return FoundNorm(root, *(together or _Together(value, (), (prod(rows), 1, 1, channels))), scale.eps, centered)


class _Together(NamedTuple):
    """An array, the steps that bring pixels of a group together, and what it is seen as."""

    input: SSAValue
    steps: tuple[PrimitiveOp, ...]
    view: View


def _together(value: SSAValue) -> _Together | None:
    """What is behind `value`, if that is (images, groups, pixels and channels of a group, in any order)."""
    join = made_by(value, "Reshape")
    swap = join and made_by(join.operands[0], "Transpose")
    if join is None or swap is None or len(shape_of(value.type)) != 3:
        return None
    images, groups, elements = shape_of(value.type)
    axes = swap.python_arguments[0]
    split = made_by(swap.operands[0], "Reshape")
    steps = (split, swap, join) if split and axes == (0, 2, 1, 3) else (swap, join)
    x = steps[0].operands[0]
    *outer, channels = shape_of(x.type)
    if outer[0] != images or channels % groups:
        return None
    view = (images, prod(outer[1:]), groups, channels // groups)
    to_front = (0, len(axes) - 1, *range(1, len(axes) - 1))
    fits = shape_of(swap.operands[0].type) == view if len(steps) == 3 else axes == to_front
    return _Together(x, steps, view) if fits and elements == view[1] * view[3] else None


def _replace(name: str, norm: FoundNorm) -> None:
    block = Block(arg_types=[f32])
    block.args[0].name_hint = "normalised"
    block.add_op(YieldOp(block.args[0]))
    type_ = tensor_type(shape_of(norm.input.type), mx.float32)
    new = NormOp(
        norm.input,
        (),
        norm.view,
        norm.eps,
        Region(block),
        [type_],
        centered=norm.centered,
        layer=StringAttr(name),
    )
    _insert(new, norm.root)
    old: SSAValue = norm.root.results[0]
    values: list[SSAValue] = [new.outputs[0]]
    readers = users(old)
    if norm.steps and len(readers) == 1 and is_primitive(cast := readers.pop(), "AsType"):
        old = cast.results[0]
        type_ = tensor_type(shape_of(type_), dtype_of(old.type))
        values = [_insert(PrimitiveOp("AsType", values, [type_], cast.python_arguments), norm.root)]
    for step in norm.steps:
        type_ = tensor_type(shape_of(step.results[0].type), dtype_of(old.type))
        again = PrimitiveOp(step.primitive.data, values[-1:], [type_], step.python_arguments)
        values.append(_insert(again, norm.root))
    _let_read(old, values)


def _insert(op: Operation, before: Operation) -> SSAValue:
    op.location = before.location
    Rewriter.insert_op(op, InsertPoint.before(before))
    return op.results[0]


def _let_read(old: SSAValue, values: list[SSAValue]) -> None:
    """What reads `old` now reads the last of `values`, each a step behind the one before; what undoes a step, that."""
    last = values[-1]
    for reader in users(old):
        if values[:-1] and _undoes(reader, last.owner):
            _let_read(reader.results[0], values[:-1])
    last.name_hint = old.name_hint
    old.replace_all_uses_with(last)


def _undoes(op: Operation, step: Operation | Block) -> bool:
    if is_primitive(op, "Transpose") and is_primitive(step, "Transpose"):
        return op.python_arguments == (inverse(step.python_arguments[0]),)
    if is_primitive(op, "Reshape") and is_primitive(step, "Reshape"):
        return shape_of(op.results[0].type) == shape_of(step.operands[0].type)
    return False


@dataclass(frozen=True)
class RaiseNormPass(ModulePass):
    """See the module's docstring."""

    name = "raise-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for name, norm in list(named_norms(op)):
            if "refused" not in norm.root.attributes and has_convolutions(norm.root.parent_block()):
                _replace(name, norm)
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
