"""`raise-linear`: a product with a matrix becomes `conv.general`, with a window of no axes.

    %f = mlx.primitive "Reshape"(%x) [array<i64: -1, 16>]                       (1, 8, 8, 16) -> (64, 16)
    %t = mlx.primitive "Transpose"(%w) [array<i64: 1, 0>]                       (32, 16) -> (16, 32)
    %b = mlx.primitive "Broadcast"(%bias) [array<i64: 64, 32>]
    %m = mlx.primitive "AddMM"(%f, %t, %b) [1.0 : f64, 1.0 : f64]
    %y = mlx.primitive "Reshape"(%m) [array<i64: 1, 8, 8, 32>]
->
    %s = conv.general %x, %w window <strides = [], ...> layer "linear"          (1, 8, 8, 16) -> (1, 8, 8, 32)
    %b = mlx.primitive "Broadcast"(%bias) [array<i64: 1, 8, 8, 32>]
    %y = mlx.primitive "Add"(%s, %b)

It is a pointwise convolution, and takes an epilogue like one. MLX's own products run at 2 GFLOP/s on a CPU. A product
whose first matrix is transposed sums over rows, as the gradient of a matrix does, and becomes `conv.weight_gradient`:

    %t = mlx.primitive "Transpose"(%dy) [array<i64: 1, 0>]                      (64, 32) -> (32, 64)
    %dw = mlx.primitive "Matmul"(%t, %x)                                        (32, 64), (64, 16) -> (32, 16)
->
    %dw = conv.weight_gradient %x, %dy window <strides = [], ...> layer "linear.weight.grad"

So does a sum over rows by itself, as the gradient of a bias is, read the array that has all its axes, for
`fuse-elementwise`.

Products of several matrices, as those of attention, become one convolution in which each image has its own weight:

    %t = mlx.primitive "Transpose"(%k) [array<i64: 0, 1, 3, 2>]                 (2, 8, 99, 64) -> (2, 8, 64, 99)
    %s = mlx.primitive "Matmul"(%q, %t)                                         (2, 8, 99, 64) -> (2, 8, 99, 99)
->
    %x = mlx.primitive "Reshape"(%q) [array<i64: 16, 99, 64>]
    %w = mlx.primitive "Reshape"(%k) [array<i64: 16, 99, 64>]
    %y = conv.general %x, %w window <strides = [], ...> layer "matmul"
    %s = mlx.primitive "Reshape"(%y) [array<i64: 2, 8, 99, 99>]

What stays: products of many tiny matrices, of few rows with a matrix that changes in every call, scaled ones, other
dtypes than f32, f16 and bf16, and those that a backend refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeGuard

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.geometry import plain_window, product_in_words
from convjit.ir.conv import GeneralOp, WeightGradientOp
from convjit.ir.mlx import SUM, PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of, element_type, shape_of, tensor_type
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.raise_conv import layer_behind
from convjit.passes.values import (
    erase_dead_ops,
    forward_of,
    insert_before,
    numbered,
    source_of_broadcast,
    static_values,
    users,
)

_VIEWS = ("Reshape", "Flatten", "Unflatten")
"""What gives the same elements in the same order other axes."""

_MOST_AXES = 5
"""Of the input of a convolution."""

_LEAST_FLOPS = 1_000
"""Of each of several products: to pack a matrix takes longer than fewer."""

_LEAST_ROWS = 4
"""Of what is multiplied by a matrix that is packed in every call: for fewer, MLX's own product takes no longer."""


def named_products(module: ModuleOp) -> Iterator[tuple[str, PrimitiveOp]]:
    """Every product with a matrix with its layer's name, unique among them, in program order."""
    counts: dict[str, int] = {}
    layers: dict[SSAValue, str] = {}
    for function in forward_of(module):
        static = static_values(function)
        for op in function.body.block.ops:
            if not _is_product(op) or not _pays(op, static):
                continue
            x, matrix = op.operands[:2]
            rows = _rows_summed(op)
            if _is_of_several(op):
                name = "matmul"
            elif rows is None:
                name = layers[x] = layer_behind(matrix, "linear")
            else:
                name = f"{layers.get(matrix, layers.get(rows, 'linear'))}.weight.grad"
            counts[name] = counts.get(name, 0) + 1
            yield numbered(name, counts[name]), op


def _is_product(op: Operation) -> TypeGuard[PrimitiveOp]:
    """Is this a product of two matrices of floats, with something added perhaps, or of several?"""
    if not is_primitive(op, "Matmul", "AddMM") or any(scale != 1 for scale in op.python_arguments):
        return False
    types = {element_type(v) for v in (*op.operands, *op.results)}
    if len(types) > 1 or types.pop() not in FLOAT_TYPES:
        return False
    if is_primitive(rows := op.operands[1].owner, "Reshape") and is_primitive(rows.operands[0].owner, "AsStrided"):
        return False  # patches: `raise-weight-gradient` left it
    first, second = (shape_of(v.type) for v in op.operands[:2])
    if 0 in first + second:
        return False
    if _is_of_several(op):
        is_large = 2 * prod(first[-2:]) * second[-1] >= _LEAST_FLOPS
        return op.primitive.data == "Matmul" and is_large and first[:-2] == second[:-2]
    return len(first) == len(second) == 2


def _pays(product: PrimitiveOp, static: set[SSAValue]) -> bool:
    rows = shape_of(product.operands[0].type)[-2]
    return rows >= _LEAST_ROWS or product.operands[1] in static or _rows_summed(product) is not None


def _is_of_several(product: PrimitiveOp) -> bool:
    return len(shape_of(product.operands[1].type)) > 2


def _is_transpose(op: Operation | Block) -> TypeGuard[PrimitiveOp]:
    """Does it exchange the last two axes?"""
    if not is_primitive(op, "Transpose"):
        return False
    (axes,) = op.python_arguments
    return len(axes) > 1 and tuple(axes) == (*range(len(axes) - 2), len(axes) - 1, len(axes) - 2)


def _rows_summed(product: PrimitiveOp) -> SSAValue | None:
    """The first matrix before it was transposed, if a product sums over rows."""
    op = product.operands[0].owner
    if not _is_transpose(op) or not is_primitive(product, "Matmul") or _is_of_several(product):
        return None
    return op.operands[0]


def _unflattened(value: SSAValue) -> SSAValue:
    """What is behind a matrix that has all axes but the last of an array as one."""
    op = value.owner
    if not is_primitive(op, *_VIEWS):
        return value
    shape = shape_of(op.operands[0].type)
    fits = 2 < len(shape) <= _MOST_AXES and shape[-1] == shape_of(value.type)[-1]
    return op.operands[0] if fits else value


class _Writer:
    """Inserts ops ahead of a product, with its location and dtype."""

    def __init__(self, product: PrimitiveOp, layer: str):
        self._product = product
        self._layer = StringAttr(layer)
        self._dtype = dtype_of(product.results[0].type)

    def _insert(self, op: Operation) -> SSAValue:
        return insert_before(op, self._product)

    def primitive(self, name: str, value: SSAValue, shape: tuple[int, ...], *arguments: object) -> SSAValue:
        return self._insert(PrimitiveOp(name, [value], [tensor_type(shape, self._dtype)], arguments))

    def viewed(self, value: SSAValue, shape: tuple[int, ...]) -> SSAValue:
        return value if shape_of(value.type) == shape else self.primitive("Reshape", value, shape, shape)

    def transposed(self, matrix: SSAValue) -> SSAValue:
        """`matrix`, or each of several, (C, O) as (O, C)."""
        op = matrix.owner
        if _is_transpose(op):
            return op.operands[0]
        *several, channels, outputs = shape_of(matrix.type)
        axes = (*range(len(several)), len(several) + 1, len(several))
        return self.primitive("Transpose", matrix, (*several, outputs, channels), axes)

    def linear(self, x: SSAValue, weight: SSAValue, addend: SSAValue | None = None) -> SSAValue:
        """The product of `x` (..., C) with `weight` (O, C), and `addend`, which broadcasts to it."""
        shape = (*shape_of(x.type)[:-1], shape_of(weight.type)[-2])
        type_ = tensor_type(shape, self._dtype)
        result = self._insert(GeneralOp(x, weight, plain_window(0), type_, self._layer))
        if addend is None:
            return result
        wide = addend if shape_of(addend.type) == shape else self.primitive("Broadcast", addend, shape, shape)
        return self._insert(PrimitiveOp("Add", [result, wide], [type_]))

    def sum_over_rows(self, first: SSAValue, second: SSAValue) -> SSAValue:
        """The product of `first` (..., O), transposed, with `second` (..., C): (O, C)."""
        type_ = tensor_type((shape_of(first.type)[-1], shape_of(second.type)[-1]), self._dtype)
        return self._insert(WeightGradientOp(second, first, plain_window(0), type_, self._layer))


def _raise_linear(write: _Writer, product: PrimitiveOp) -> None:
    result, weight = product.results[0], write.transposed(product.operands[1])
    x = _unflattened(product.operands[0])
    addend = product.operands[2] if product.operands[2:] else None
    narrow = None if addend is None else source_of_broadcast(addend)
    full = (*shape_of(x.type)[:-1], shape_of(result.type)[-1])
    readers = users(result)
    if (
        x is product.operands[0]
        or (narrow is not None and len(shape_of(narrow.type)) > 1)
        or not all(is_primitive(op, *_VIEWS) and shape_of(op.results[0].type) == full for op in readers)
    ):
        _replace(result, write.linear(product.operands[0], weight, addend))
        return
    new = write.linear(x, weight, narrow)
    for op in readers:
        _replace(op.results[0], new)


def _raise_sum_over_rows(write: _Writer, product: PrimitiveOp, rows: SSAValue) -> None:
    result, second = product.results[0], product.operands[1]
    readers = users(result)
    wide = _unflattened(rows), _unflattened(second)
    fits = shape_of(wide[0].type)[:-1] == shape_of(wide[1].type)[:-1]
    first, second = wide if fits else (rows, second)
    if not all(map(_is_transpose, readers)):
        _replace(result, write.sum_over_rows(first, second))
        return
    new = write.sum_over_rows(second, first)
    for op in readers:
        _replace(op.results[0], new)


def _raise_several(write: _Writer, product: PrimitiveOp) -> None:
    result, x, weights = product.results[0], product.operands[0], write.transposed(product.operands[1])
    *several, rows, channels = shape_of(x.type)
    outputs, count = shape_of(result.type)[-1], prod(several)
    x = write.viewed(x, (count, rows, channels))
    weights = write.viewed(weights, (count, outputs, channels))
    _replace(result, write.viewed(write.linear(x, weights), shape_of(result.type)))


def _is_sum_of_flattened(op: Operation) -> TypeGuard[PrimitiveOp]:
    """Is this a sum over the first of two axes, which was several?"""
    return (
        is_primitive(op, "Reduce")
        and op.python_arguments == (SUM, (0,))
        and len(shape_of(op.operands[0].type)) == 2
        and _unflattened(op.operands[0]) is not op.operands[0]
    )


def _sum_unflattened(op: PrimitiveOp) -> None:
    x, shape = _unflattened(op.operands[0]), shape_of(op.results[0].type)
    *axes, last = range(len(shape_of(x.type)))
    ones = tensor_type((1,) * last + shape[-1:], dtype_of(x.type))
    total = PrimitiveOp("Reduce", [x], [ones], [SUM, axes])
    view = PrimitiveOp("Reshape", [total.results[0]], [op.results[0].type], [shape])
    Rewriter.insert_op([total, view], InsertPoint.before(op))
    _replace(op.results[0], view.results[0])


def _replace(old: SSAValue, new: SSAValue) -> None:
    new.name_hint = old.name_hint
    old.replace_all_uses_with(new)


def _mark_refused(layer: str, product: PrimitiveOp, rows: SSAValue | None) -> None:
    """What `explain` tells of a product that stays."""
    first, second = (shape_of(v.type) for v in product.operands[:2])
    words = product_in_words(first, second[-1]) if rows is None else product_in_words(second, first[0])
    product.attributes["layer"] = StringAttr(layer)
    product.attributes["convolution"] = StringAttr(words)


@dataclass(frozen=True)
class RaiseLinearPass(ModulePass):
    """See the module's docstring."""

    name = "raise-linear"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for layer, product in list(named_products(op)):
            write, rows = _Writer(product, layer), _rows_summed(product)
            if "refused" in product.attributes:
                _mark_refused(layer, product, rows)
            elif _is_of_several(product):
                _raise_several(write, product)
            elif rows is None:
                _raise_linear(write, product)
            else:
                _raise_sum_over_rows(write, product, rows)
        for function in forward_of(op):
            for reduce in filter(_is_sum_of_flattened, list(function.body.block.ops)):
                _sum_unflattened(reduce)
            erase_dead_ops(function.body.block)
