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

What stays: products of more than two axes in both operands, scaled ones, other dtypes than f32, f16 and bf16, and those
that a backend refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.geometry import plain_window, product_in_words
from convjit.ir.conv import GeneralOp, WeightGradientOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of, element_type, shape_of, tensor_type
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.raise_conv import layer_behind
from convjit.passes.values import erase_dead_ops, forward_of, source_of_broadcast, users

_VIEWS = ("Reshape", "Flatten", "Unflatten")
"""What gives the same elements in the same order other axes."""

_MOST_AXES = 5
"""Of the input of a convolution."""


def named_products(module: ModuleOp) -> Iterator[tuple[str, PrimitiveOp]]:
    """Every product with a matrix with its layer's name, unique among them, in program order."""
    counts: dict[str, int] = {}
    layers: dict[SSAValue, str] = {}
    for function in forward_of(module):
        for op in function.body.block.ops:
            if not _is_product(op):
                continue
            x, matrix = op.operands[:2]
            rows = _rows_summed(op)
            if rows is None:
                name = layers[x] = layer_behind(matrix, "linear")
            else:
                name = f"{layers.get(matrix, layers.get(rows, 'linear'))}.weight.grad"
            counts[name] = counts.get(name, 0) + 1
            yield (name if counts[name] == 1 else f"{name}#{counts[name]}"), op


def _is_product(op: Operation) -> TypeGuard[PrimitiveOp]:
    """Is this a product of two matrices of floats, with something added perhaps?"""
    if is_primitive(op, "AddMM"):
        scales = op.python_arguments
    elif is_primitive(op, "Matmul"):
        scales = ()
    else:
        return False
    if is_primitive(rows := op.operands[1].owner, "Reshape") and is_primitive(rows.operands[0].owner, "AsStrided"):
        return False  # patches: `raise-weight-gradient` left it
    types = {element_type(v) for v in (*op.operands, *op.results)}
    shapes = [shape_of(v.type) for v in op.operands[:2]]
    return (
        len(types) == 1
        and types.pop() in FLOAT_TYPES
        and all(scale == 1 for scale in scales)
        and all(len(shape) == 2 and 0 not in shape for shape in shapes)
    )


def _is_transpose(op: Operation | Block) -> TypeGuard[PrimitiveOp]:
    return is_primitive(op, "Transpose") and op.python_arguments == ((1, 0),)


def _rows_summed(product: PrimitiveOp) -> SSAValue | None:
    """The first matrix before it was transposed, if a product sums over rows."""
    op = product.operands[0].owner
    return op.operands[0] if _is_transpose(op) and is_primitive(product, "Matmul") else None


def _unflattened(value: SSAValue) -> SSAValue:
    """What is behind a matrix that has all axes but the last of an array as one."""
    op = value.owner
    if not is_primitive(op, *_VIEWS):
        return value
    shape = shape_of(op.operands[0].type)
    fits = 2 < len(shape) <= _MOST_AXES and shape[-1] == shape_of(value.type)[-1]
    return op.operands[0] if fits else value


class _Raised:
    """Inserts ops ahead of a product, with its location."""

    def __init__(self, product: PrimitiveOp, layer: str):
        self._product = product
        self._layer = StringAttr(layer)
        self._dtype = dtype_of(product.results[0].type)

    def _insert(self, op: Operation) -> SSAValue:
        op.location = self._product.location
        Rewriter.insert_op(op, InsertPoint.before(self._product))
        return op.results[0]

    def _primitive(self, name: str, operands: list[SSAValue], shape: tuple[int, ...], *arguments: object) -> SSAValue:
        return self._insert(PrimitiveOp(name, operands, [tensor_type(shape, self._dtype)], arguments))

    def linear(self, x: SSAValue, addend: SSAValue | None) -> SSAValue:
        """The product of `x` (..., C) with the second operand (C, O), and `addend`, which broadcasts to it."""
        matrix = self._product.operands[1]
        channels, outputs = shape_of(matrix.type)
        if _is_transpose(op := matrix.owner):
            weight = op.operands[0]
        else:
            weight = self._primitive("Transpose", [matrix], (outputs, channels), (1, 0))
        shape = (*shape_of(x.type)[:-1], outputs)
        result = self._insert(GeneralOp(x, weight, plain_window(0), tensor_type(shape, self._dtype), self._layer))
        if addend is None:
            return result
        wide = addend if shape_of(addend.type) == shape else self._primitive("Broadcast", [addend], shape, shape)
        return self._primitive("Add", [result, wide], shape)

    def sum_over_rows(self, first: SSAValue, second: SSAValue) -> SSAValue:
        """The product of `first` (..., O), transposed, with `second` (..., C): (O, C)."""
        shape = (shape_of(first.type)[-1], shape_of(second.type)[-1])
        return self._insert(
            WeightGradientOp(second, first, plain_window(0), tensor_type(shape, self._dtype), self._layer)
        )


def _raise_linear(raised: _Raised, product: PrimitiveOp) -> None:
    result = product.results[0]
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
        _replace(result, raised.linear(product.operands[0], addend))
        return
    new = raised.linear(x, narrow)
    for op in readers:
        _replace(op.results[0], new)


def _raise_sum_over_rows(raised: _Raised, product: PrimitiveOp, rows: SSAValue) -> None:
    result, second = product.results[0], product.operands[1]
    readers = users(result)
    wide = _unflattened(rows), _unflattened(second)
    fits = shape_of(wide[0].type)[:-1] == shape_of(wide[1].type)[:-1]
    first, second = wide if fits else (rows, second)
    if not all(map(_is_transpose, readers)):
        _replace(result, raised.sum_over_rows(first, second))
        return
    new = raised.sum_over_rows(second, first)
    for op in readers:
        _replace(op.results[0], new)


def _replace(old: SSAValue, new: SSAValue) -> None:
    new.name_hint = old.name_hint
    old.replace_all_uses_with(new)


def _mark_refused(layer: str, product: PrimitiveOp, rows: SSAValue | None) -> None:
    """What `explain` tells of a product that stays."""
    first, second = (shape_of(v.type) for v in product.operands[:2])
    words = product_in_words(first, second[1]) if rows is None else product_in_words(second, first[0])
    product.attributes["layer"] = StringAttr(layer)
    product.attributes["convolution"] = StringAttr(words)


@dataclass(frozen=True)
class RaiseLinearPass(ModulePass):
    """See the module's docstring."""

    name = "raise-linear"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for layer, product in list(named_products(op)):
            raised, rows = _Raised(product, layer), _rows_summed(product)
            if "refused" in product.attributes:
                _mark_refused(layer, product, rows)
            elif rows is None:
                _raise_linear(raised, product)
            else:
                _raise_sum_over_rows(raised, product, rows)
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
