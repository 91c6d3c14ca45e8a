"""`raise-pool-gradient`: what MLX makes of the gradient of a pool of maxima becomes `conv.pool_gradient`.

    %v = mlx.primitive "AsStrided"(%f) ...                                 // windows of x, as `raise-pool` finds them
    %y = mlx.primitive "Reduce"(%v) [5 : i64, array<i64: 3, 4>]            // their maxima
    %e = mlx.primitive "Equal"(%v, %yb) ...                                // which elements are maxima: %yb is %y
    %n = mlx.primitive "Reduce"(%e) [2 : i64, array<i64: 3, 4>]            // how many each window has
    %q = mlx.primitive "Divide"(%dy, %n)                                   // what each of them gets
    %p = mlx.primitive "Multiply"(%qb, %e)                                 // %qb is %q for all elements of the windows
    %s = mlx.primitive "Scatter"(%zeros, %places, %p) [2 : i64, ...]       // added up where windows overlap
    %dx = mlx.primitive "Slice"(%s) ...                                    // without the padding
->
    %dx = conv.pool_gradient %x, %y, %dy kernel <[3, 3]> window <...> layer "pool.grad"

Windows side by side do not overlap: their elements are put where they belong by a transpose and a reshape. MLX takes
longer for the sums of windows that do overlap than all convolutions of a network take.

What stays: dtypes other than f32, f16 and bf16, functions without a convolution, and what a backend refused, whose last
op has an attribute `refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.geometry import Geometry
from convjit.ir.mlx import SUM, PrimitiveOp, is_primitive
from convjit.ir.pool import PoolGradientOp, PoolOp
from convjit.ir.types import element_type, shape_of
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.raise_pool import read_by, windows_in
from convjit.passes.values import (
    constant_of,
    erase_dead_ops,
    forward_of,
    has_convolutions,
    made_by,
    numbered,
    source_of_broadcast,
)

_SCATTER_SUM = 2
"""The kind of a `Scatter` that adds up."""


@dataclass(frozen=True, slots=True)
class FoundGradient:
    """The gradient of a pool that MLX's primitives compute.

    Attributes:
        root: the last of them, whose result is the gradient.
        input: of the pool.
        pooled: its result, which may be an argument of the function: one program may be for results, another for
            gradients.
        gradient: with respect to that.
        geometry: of the pool.
    """

    root: PrimitiveOp
    input: SSAValue
    pooled: SSAValue
    gradient: SSAValue
    geometry: Geometry


def named_pool_gradients(module: ModuleOp) -> Iterator[tuple[str, FoundGradient]]:
    """Every gradient of a pool with a name, unique in the module, in program order."""
    count = 0
    for function in forward_of(module):
        for op in function.body.block.ops:
            if is_primitive(op, "Slice", "Unflatten", "Reshape") and (found := _gradient(op)):
                count += 1
                yield numbered("pool.grad", count), found


def _gradient(root: Operation) -> FoundGradient | None:
    cut = root if is_primitive(root, "Slice") else None
    whole = cut.operands[0].owner if cut else root
    shares = _shares_of(whole)
    shared = _shared(shares) if shares else None
    if shared is None or element_type(shared.windows) not in FLOAT_TYPES:
        return None
    rank = len(shared.axes)
    seen = windows_in(shared.windows, rank) if shared.axes == tuple(range(rank + 1, 2 * rank + 1)) else None
    found = seen and read_by(seen, "max")
    if found is None:
        return None
    x, geometry = found
    if root.results[0].type != x.type or (cut and not _cuts_padding(cut, geometry)):
        return None
    assert isinstance(root, PrimitiveOp) and isinstance(whole, PrimitiveOp)
    if not _undoes(whole, shared.windows):
        return None
    return FoundGradient(root, x, shared.pooled, shared.gradient, geometry)


def _shares_of(whole: Operation | Block) -> SSAValue | None:
    """What the elements of all windows get, which `whole` gives the shape of the padded input."""
    if is_primitive(whole, "Unflatten"):
        scatter = made_by(whole.operands[0], "Scatter")
        if scatter is None or scatter.python_arguments != (_SCATTER_SUM, (0,)) or constant_of(scatter.operands[0]) != 0:
            return None
        updates = made_by(scatter.operands[2], "Reshape")
        return updates and updates.operands[0]
    transposed = made_by(whole.operands[0], "Transpose") if is_primitive(whole, "Reshape") else None
    return transposed and transposed.operands[0]


class _Shared(NamedTuple):
    """What the elements of windows get that are equal to a number of each: in equal parts, what comes for it."""

    windows: SSAValue
    axes: tuple[int, ...]
    pooled: SSAValue
    gradient: SSAValue


def _shared(shares: SSAValue) -> _Shared | None:
    multiply = made_by(shares, "Multiply")
    mask = multiply and made_by(multiply.operands[1], "AsType")
    equal = mask and made_by(mask.operands[0], "Equal")
    divide = multiply and made_by(source_of_broadcast(multiply.operands[0]), "Divide")
    cast = divide and made_by(divide.operands[1], "AsType")
    ties = cast and made_by(cast.operands[0], "Reduce")
    if equal is None or divide is None or ties is None or equal.python_arguments != (False,):
        return None
    kind, axes = ties.python_arguments
    windows, wide, pooled = equal.operands[0], divide.operands[0], source_of_broadcast(equal.operands[1])
    if kind != SUM or ties.operands[0] is not equal.results[0] or pooled.type != wide.type:
        return None
    expanded = made_by(wide, "ExpandDims")
    gradient = expanded.operands[0] if expanded and expanded.python_arguments == (axes,) else wide
    wider = made_by(pooled, "Reshape")  # by the axes of the windows, of what `raise-pool` made
    narrow = wider.operands[0] if wider and isinstance(wider.operands[0].owner, PoolOp) else pooled
    return _Shared(windows, axes, narrow, gradient)


def _undoes(whole: PrimitiveOp, windows: SSAValue) -> bool:
    """Does each element go back where `windows` were read?"""
    shape = shape_of(whole.results[0].type)
    if is_primitive(whole, "Unflatten"):
        read = made_by(windows, "AsStrided")
        scatter = made_by(whole.operands[0], "Scatter")
        flat = scatter and made_by(scatter.operands[1], "Reshape")
        places = flat and made_by(flat.operands[0], "AsStrided")
        numbers = places and made_by(places.operands[0], "Arange")
        if read is None or places is None or numbers is None or numbers.python_arguments != (0, prod(shape), 1):
            return False
        return places.python_arguments == read.python_arguments and _flattened(read.operands[0]) == shape
    read, back = made_by(windows, "Transpose"), made_by(whole.operands[0], "Transpose")
    split = read and made_by(read.operands[0], "Reshape")
    if read is None or back is None or split is None or shape_of(split.operands[0].type) != shape:
        return False
    (there,), (again,) = read.python_arguments, back.python_arguments
    return all(there[axis] == number for number, axis in enumerate(again))


def _flattened(value: SSAValue) -> tuple[int, ...] | None:
    flat = made_by(value, "Flatten")
    return shape_of(flat.operands[0].type) if flat else None


def _cuts_padding(cut: PrimitiveOp, geometry: Geometry) -> bool:
    starts = (0, *geometry.window.pad_lo, 0)
    ends = tuple(start + n for start, n in zip(starts, geometry.in_shape, strict=True))
    return cut.python_arguments == (starts, ends, (1,) * len(starts))


@dataclass(frozen=True)
class RaisePoolGradientPass(ModulePass):
    """See the module's docstring."""

    name = "raise-pool-gradient"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for name, root in [(name, found.root) for name, found in named_pool_gradients(op)]:
            found = _gradient(root)  # anew: it may read another one, which has been replaced
            if found and "refused" not in root.attributes and has_convolutions(root.parent_block()):
                operands = found.input, found.pooled, found.gradient
                new = PoolGradientOp(*operands, found.geometry, StringAttr(name))
                new.location = root.location
                Rewriter.replace_op(root, new)
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
