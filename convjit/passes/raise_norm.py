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

`mx.fast.layer_norm` is traced like this, `mx.fast.rms_norm` without the mean. What users write by hand may divide by
the root, take a power of 2 for a square, reduce other axes, and add up squares, or divide them by n - 1, which a factor
makes up for. Around a GroupNorm the pixels of each group are brought together, and back:

    %a = mlx.primitive "Reshape"(%x) [array<i64: 2, -1, 4, 4>]                  (2, 8, 8, 16) -> (2, 64, 4, 4)
    %b = mlx.primitive "Transpose"(%a) [array<i64: 0, 2, 1, 3>]
    %v = mlx.primitive "Reshape"(%b) [array<i64: 2, 4, -1>]
    ... %y, and the same three backwards: %z
->
    %z = conv.norm %x as <[2, 64, 4, 4]> eps 1.0e-05 : f64 centered {...}

An InstanceNorm has its channels transposed to the front instead. A GroupNorm as MLX has it by default, unlike PyTorch,
is `interleaved`: every 4th channel is in a group. Half types are read as they are; MLX casts them to float32. What
stays: norms of which something else is read, as gradients do; axes that are not those of pixels and channels; functions
without a convolution; and what a backend refused, whose last op has an attribute `refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isclose, isfinite, prod
from typing import NamedTuple

import mlx.core as mx
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, bf16, f16, f32
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from convjit.ir.bodies import YieldOp
from convjit.ir.mlx import SUM, ConstantOp, PrimitiveOp, is_primitive
from convjit.ir.norm import NormOp
from convjit.ir.pool import PoolOp
from convjit.ir.types import dtype_of, element_type, shape_of, tensor_type
from convjit.passes.axes import inverse
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.grouping import Grouping, grouping
from convjit.passes.values import (
    constant_of,
    erase_dead_ops,
    forward_of,
    has_convolutions,
    insert_before,
    made_by,
    numbered,
    users,
)

_ROUNDING: dict[Attribute, float] = {f32: 2.0**-23, f16: 2.0**-11, bf16: 2.0**-8}
"""Of 1 / n, relative to it."""


@dataclass(frozen=True, slots=True)
class FoundNorm:
    """A norm that MLX's primitives compute.

    Attributes:
        root: the last of them.
        of: what is normalised, and what shares statistics in it.
        eps: what is added to the variance.
        centered: whether the mean is subtracted.
        factor: what the result is multiplied by: not 1 where squares were added up and not averaged.
    """

    root: PrimitiveOp
    of: Grouping
    eps: float
    centered: bool
    factor: float


def named_norms(module: ModuleOp) -> Iterator[tuple[str, FoundNorm]]:
    """Every norm with a name, unique in the module, in program order."""
    count = 0
    for function in forward_of(module):
        for op in function.body.block.ops:
            if found := _norm(op):
                count += 1
                yield numbered("norm", count), found


class _Mean(NamedTuple):
    """A mean that keeps its axes, or a multiple of one: of what, of which axes, how many times, and the ops."""

    of: SSAValue
    axes: tuple[int, ...]
    times: float
    ops: tuple[Operation, ...]


def _mean(value: SSAValue) -> _Mean | None:
    """What makes `value`, if that is a sum, perhaps multiplied or divided by a number."""
    op, rounding = value.owner, _ROUNDING.get(element_type(value))
    total, factor, ops = op, 1.0, list[Operation]()
    if is_primitive(op, "Multiply", "Divide"):
        number = constant_of(op.operands[1])
        if not number:
            return None
        total, factor, ops = op.operands[0].owner, number if op.primitive.data == "Multiply" else 1 / number, [op]
    if isinstance(total, PoolOp) and total.is_of_whole_images and total.kind.data == "sum":
        x, axes = total.input, tuple(range(1, len(shape_of(total.input.type)) - 1))
    elif is_primitive(total, "Reduce") and total.python_arguments[0] == SUM:
        x, axes = total.operands[0], tuple(total.python_arguments[1])
    else:
        return None
    shape = shape_of(x.type)
    if rounding is None or shape_of(value.type) != tuple(1 if axis in axes else n for axis, n in enumerate(shape)):
        return None
    times = factor * prod(shape[axis] for axis in axes)
    return _Mean(x, axes, 1.0 if isclose(times, 1, rel_tol=rounding) else times, (*ops, total))


class _Scale(NamedTuple):
    """1 / sqrt(mean of squares, so many times, + eps), broadcast: of what, of which axes, and the ops that take it."""

    of: SSAValue
    axes: tuple[int, ...]
    times: float
    eps: float
    ops: tuple[Operation, ...]


def _scale(value: SSAValue, *, is_inverse: bool) -> _Scale | None:
    """What makes `value`, if that is such a scale, or the inverse of one."""
    wide = made_by(value, "Broadcast")
    root = wide and made_by(wide.operands[0], "Sqrt")
    total = root and made_by(root.operands[0], "Add")
    if wide is None or root is None or total is None or root.python_arguments != (not is_inverse,):
        return None
    for mean, eps in ((_mean(a), constant_of(b)) for a, b in (total.operands, reversed(total.operands))):
        square = mean and _square(mean.of)
        if mean and square and 0 < mean.times < inf and eps is not None and isfinite(eps):
            ops = (wide, root, total, *mean.ops, square)
            return _Scale(square.operands[0], mean.axes, mean.times, float(eps), ops)
    return None


def _square(value: SSAValue) -> PrimitiveOp | None:
    """What makes `value`, if that is a square."""
    op = value.owner
    if not is_primitive(op, "Square", "Multiply", "Power"):
        return None
    match op.primitive.data:
        case "Multiply":
            is_square = op.operands[0] == op.operands[1]
        case "Power":
            is_square = constant_of(op.operands[1]) == 2
        case _:
            is_square = True
    return op if is_square else None


def _norm(root: Operation) -> FoundNorm | None:
    if not is_primitive(root, "Multiply", "Divide") or element_type(root.results[0]) not in FLOAT_TYPES:
        return None
    is_quotient = root.primitive.data == "Divide"
    orders = [tuple(root.operands)] if is_quotient else [tuple(root.operands), tuple(reversed(root.operands))]
    for value, factor in orders:
        scale = _scale(factor, is_inverse=is_quotient)
        if scale is not None and scale.of == value and 0 not in shape_of(value.type):
            return _of_scale(root, value, scale)
    return None


def _of_scale(root: PrimitiveOp, value: SSAValue, scale: _Scale) -> FoundNorm | None:
    inner: set[Operation] = {*scale.ops}
    difference = made_by(value, "Subtract")
    subtracted = difference and made_by(difference.operands[1], "Broadcast")
    mean = subtracted and _mean(subtracted.operands[0])
    centered = False
    if difference and subtracted and mean and mean[:3] == (difference.operands[0], scale.axes, 1):
        inner |= {difference, subtracted, *mean.ops}
        value, centered = mean.of, True
    if any(not users(op.results[0]) <= {*inner, root} for op in inner):
        return None
    cast = made_by(value, "AsType")
    if cast and element_type(value) == f32 and element_type(cast.operands[0]) in FLOAT_TYPES:
        value = cast.operands[0]  # which the kernel widens itself
    of = grouping(value, scale.axes, by_row=not centered)
    return of and FoundNorm(root, of, scale.eps / scale.times, centered, scale.times**-0.5)


def _replace(name: str, norm: FoundNorm) -> None:
    block = Block(arg_types=[f32])
    block.args[0].name_hint = "normalised"
    block.add_op(YieldOp(block.args[0]))
    old: SSAValue = norm.root.results[0]
    shape = shape_of(norm.of.input.type)
    new = NormOp(
        norm.of.input,
        (),
        norm.of.view[:4],
        norm.eps,
        Region(block),
        [tensor_type(shape, mx.float32)],
        centered=norm.centered,
        interleaved=norm.of.view.interleaved,
        layer=StringAttr(name),
    )
    values = [insert_before(new, norm.root)]
    if norm.factor != 1:
        factor = insert_before(ConstantOp(norm.factor, tensor_type((), mx.float32)), norm.root)
        wide = insert_before(PrimitiveOp("Broadcast", [factor], [tensor_type(shape, mx.float32)], (shape,)), norm.root)
        values = [insert_before(PrimitiveOp("Multiply", [values[0], wide], [wide.type], ()), norm.root)]
    readers = users(old) if norm.of.steps and element_type(old) == f32 else set[Operation]()
    if len(readers) == 1 and is_primitive(cast := readers.pop(), "AsType"):
        old = cast.results[0]
    dtype = dtype_of(old.type)
    if dtype != mx.float32:
        values = [insert_before(PrimitiveOp("AsType", values, [tensor_type(shape, dtype)], (dtype,)), norm.root)]
    for step in norm.of.steps:
        type_ = tensor_type(shape_of(step.results[0].type), dtype)
        again = PrimitiveOp(step.primitive.data, values[-1:], [type_], step.python_arguments)
        values.append(insert_before(again, norm.root))
    _let_read(old, values)


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
        for name, root in [(name, norm.root) for name, norm in named_norms(op)]:
            norm = _norm(root)  # anew: it may be of another one, which has been replaced
            if norm and "refused" not in root.attributes and has_convolutions(root.parent_block()):
                _replace(name, norm)
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
