"""`raise-pool`: reductions of sliding windows become `conv.pool`.

    %p = mlx.primitive "Pad"(%x, %-inf) ...
    %f = mlx.primitive "Flatten"(%p) ...
    %w = mlx.primitive "AsStrided"(%f) ...                                 // (N, *outputs, *kernel, C)
    %r = mlx.primitive "Reduce"(%w) [5 : i64, array<i64: 3, 4>]            // a maximum; 2 is a sum
    %y = mlx.primitive "Squeeze"(%r) [array<i64: 3, 4>]
->
    %y = conv.pool "max" of %x kernel <[3, 3]> window <strides = [2, 2], pad = [1, 1] : [1, 1], ...> layer "pool"

So do windows side by side, which are a reshape:

    %s = mlx.primitive "Reshape"(%p) ...                                   // (N, H / 2, 2, W / 2, 2, C)
    %w = mlx.primitive "Transpose"(%s) [array<i64: 0, 1, 3, 2, 4, 5>]

and reductions over all spatial axes, whose window is the whole image. Of a single image their sums are left to
`fuse-elementwise`: what else is elementwise joins them there.

Padding is folded if it does not count: -inf in a maximum, 0 in a sum. What stays a primitive: dtypes other than f32,
f16 and bf16, functions without a convolution, and what a backend refused, whose `Reduce` has an attribute `refused`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.geometry import Geometry, GeometryError, Window
from convjit.ir.mlx import SUM, PrimitiveOp, is_primitive
from convjit.ir.pool import PoolOp
from convjit.ir.types import element_type, shape_of
from convjit.kernel import PoolKind
from convjit.passes.clusters import is_sum_of_channels
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.fold_pad import padding_of
from convjit.passes.raise_weight_gradient import strides_of_patches
from convjit.passes.values import constant_of, erase_dead_ops, forward_of, has_convolutions, made_by, numbered

_KINDS: dict[int, PoolKind] = {SUM: "sum", 5: "max"}
"""The kinds of a `Reduce`."""

_NOTHING: dict[PoolKind, float] = {"sum": 0, "max": -math.inf}
"""What does not count."""


@dataclass(frozen=True, slots=True)
class FoundPool:
    """A pool that MLX's primitives compute.

    Attributes:
        root: the `Reduce`.
        kind: what it makes of a window.
        input: what the windows are of.
        geometry: of these.
    """

    root: PrimitiveOp
    kind: PoolKind
    input: SSAValue
    geometry: Geometry


class Windows(NamedTuple):
    """Windows of `padded`."""

    padded: SSAValue
    kernel: tuple[int, ...]
    strides: tuple[int, ...]


def named_pools(module: ModuleOp) -> Iterator[tuple[str, FoundPool]]:
    """Every pool with a name, unique in the module, in program order."""
    count = 0
    for function in forward_of(module):
        for op in function.body.block.ops:
            if found := _pool(op):
                count += 1
                yield numbered("pool", count), found


def _pool(op: Operation) -> FoundPool | None:
    if not is_primitive(op, "Reduce") or op.python_arguments[0] not in _KINDS:
        return None
    types = {element_type(op.operands[0]), element_type(op.results[0])}
    windows, kind = _windows(op), _KINDS[op.python_arguments[0]]
    if len(types) > 1 or types.pop() not in FLOAT_TYPES or windows is None:
        return None
    found = read_by(windows, kind)
    if found is None:
        return None
    x, geometry = found
    narrow = tuple(n for axis, n in enumerate(shape_of(op.results[0].type)) if axis not in op.python_arguments[1])
    outputs = geometry.out_shape if len(narrow) > 2 else (geometry.batch, geometry.in_channels)
    return FoundPool(op, kind, x, geometry) if narrow == outputs else None


def read_by(windows: Windows, kind: PoolKind) -> tuple[SSAValue, Geometry] | None:
    """What the windows of a pool are of, without padding that does not count, and their geometry."""
    x, lo, hi = _unpadded(windows.padded, kind)
    one, shape = (1,) * len(windows.kernel), shape_of(x.type)
    window = Window(windows.strides, lo, hi, one, one, groups=shape[-1])
    try:
        geometry = Geometry.of_shapes(shape, (shape[-1], *windows.kernel, 1), window)
    except GeometryError:
        return None
    return (x, geometry) if 0 not in shape else None


def _windows(reduce: PrimitiveOp) -> Windows | None:
    """What is reduced, if that is all of each window."""
    value, axes = reduce.operands[0], tuple(reduce.python_arguments[1])
    shape, rank = shape_of(value.type), len(axes)
    if rank > 3:
        return None
    if len(shape) == rank + 2 and axes == tuple(range(1, rank + 1)):
        return None if is_sum_of_channels(reduce) else Windows(value, shape[1:-1], (1,) * rank)
    if len(shape) == 2 * rank + 2 and axes == tuple(range(rank + 1, 2 * rank + 1)):
        return windows_in(value, rank)
    return None


def windows_in(value: SSAValue, rank: int) -> Windows | None:
    """The windows of which this is an array: (N, *outputs, *kernel, C)."""
    return _sliding(value, rank) or _side_by_side(value, rank)


def _sliding(value: SSAValue, rank: int) -> Windows | None:
    patches = made_by(value, "AsStrided")
    flat = patches and made_by(patches.operands[0], "Flatten")
    if patches is None or flat is None or len(shape_of(flat.results[0].type)) != 1:
        return None
    padded, shape = flat.operands[0], shape_of(value.type)
    strides = strides_of_patches(patches, shape_of(padded.type), shape, rank)
    return Windows(padded, shape[rank + 1 : -1], strides) if strides else None


def _side_by_side(value: SSAValue, rank: int) -> Windows | None:
    transposed = made_by(value, "Transpose")
    split = transposed and made_by(transposed.operands[0], "Reshape")
    if transposed is None or split is None:
        return None
    padded, shape, last = split.operands[0], shape_of(value.type), 2 * rank + 1
    kernel = shape[rank + 1 : -1]
    in_order = (0, *range(1, last, 2), *range(2, last, 2), last)
    extents = tuple(n * k for n, k in zip(shape[1 : rank + 1], kernel, strict=True))
    fits = shape_of(padded.type) == (shape[0], *extents, shape[-1]) and transposed.python_arguments == (in_order,)
    return Windows(padded, kernel, kernel) if fits else None


def _unpadded(padded: SSAValue, kind: PoolKind) -> tuple[SSAValue, tuple[int, ...], tuple[int, ...]]:
    """What is padded with nothing along its spatial axes, and by how much; any other value as it is."""
    pad = made_by(padded, "Pad")
    if pad and constant_of(pad.operands[1]) == _NOTHING[kind] and (amounts := padding_of(pad)):
        return pad.operands[0], *amounts
    nothing = (0,) * (len(shape_of(padded.type)) - 2)
    return padded, nothing, nothing


def _replace(name: str, pool: FoundPool) -> None:
    root, reduced = pool.root, pool.root.results[0]
    axes = root.python_arguments[1]
    readers = (use.operation for use in reduced.uses)
    squeezed = [op.results[0] for op in readers if is_primitive(op, "Squeeze") and op.python_arguments == (axes,)]
    narrow = squeezed[0] if squeezed else reduced
    new = PoolOp(pool.kind, pool.input, pool.geometry, narrow.type, StringAttr(name))
    new.location = root.location
    new.result.name_hint = narrow.name_hint
    Rewriter.insert_op(new, InsertPoint.before(root))
    for value in squeezed:
        value.replace_all_uses_with(new.result)
    wide = PrimitiveOp("Reshape", [new.result], [reduced.type], (shape_of(reduced.type),))
    Rewriter.insert_op(wide, InsertPoint.before(root))
    reduced.replace_all_uses_with(wide.results[0] if squeezed else new.result)


@dataclass(frozen=True)
class RaisePoolPass(ModulePass):
    """See the module's docstring."""

    name = "raise-pool"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for name, pool in list(named_pools(op)):
            if "refused" not in pool.root.attributes and has_convolutions(pool.root.parent_block()):
                _replace(name, pool)
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
