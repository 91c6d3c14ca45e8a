"""`raise-gather`: elements at places that are known become `conv.rearrange`.

    %i = mlx.primitive "AsType"(Floor(%f)) [ui32]                           0, 0, 0, 1, 1, 2, 2, 3, from constants alone
    %g = mlx.primitive "Gather"(%x, %i) [array<i64: 1>, array<i64: 2, 1, 4, 8>]       (2, 4, 4, 8) -> (8, 2, 1, 4, 8)
->
    %r = conv.rearrange(%x, %x, %x) parts <[2, 3, 32] from 0 [128, 0, 1] to 0 [256, 32, 1], ...>    (2, 8, 1, 4, 8)
    %g = mlx.primitive "Transpose"(%r) [array<i64: 1, 0, 2, 3, 4>]

Such are the neighbours of each new row and column in `nn.Upsample`, and `x[:, indices]`; MLX takes 5 ns an element for
them. The result has its axes in the order of the array's, so that what follows can be computed so. What stays: indices
that depend on inputs or parameters, or of which an axis does not tell its part; those of more than `MOST_PARTS` runs;
other dtypes than f32, f16 and bf16; functions without a convolution; and what depends on parameters alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, prod
from typing import NamedTuple

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.rearrange import RearrangeOp
from convjit.ir.types import dtype_of, element_type, shape_of, tensor_type
from convjit.kernel import Part
from convjit.kernel.rearrange import MOST_AXES, MOST_PARTS
from convjit.passes.axes import composed, inverse
from convjit.passes.constants import Constants
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.moves import dense
from convjit.passes.runs import Run, runs_of
from convjit.passes.values import erase_dead_ops, forward_of, has_convolutions, insert_before, numbered, static_values

NAME = "gather"


class _Axis(NamedTuple):
    """An axis of a result: its extent, and how far from its first element the others are taken."""

    extent: int
    runs: Sequence[Run]

    @property
    def stride(self) -> float:
        """About how far an element is from the one before; an axis that repeats all others comes first."""
        return min((abs(run.step) for run in self.runs if run.step), default=inf)


def _gathered(op: PrimitiveOp, constants: Constants) -> tuple[int, list[_Axis]] | None:
    """Where the first element is taken, and the axes of the result: those of the indices, then those of a slice."""
    shape = shape_of(op.operands[0].type)
    gathered, sizes = op.python_arguments
    strides, indices = dense(shape), [constants.of(v) for v in op.operands[1:]]
    if not indices or element_type(op.results[0]) not in FLOAT_TYPES or 0 in shape_of(op.results[0].type):
        return None
    places = np.zeros(shape_of(op.operands[1].type), np.int64)
    for axis, known in zip(gathered, indices, strict=True):
        index = np.array(-1 if known is None else known, np.int64)
        if index.min() < 0 or index.max() + sizes[axis] > shape[axis]:
            return None
        places = places + index * strides[axis]
    first = places[(0,) * places.ndim]
    lines = [
        places[tuple(slice(None if n == axis else 1) for n in range(places.ndim))] - first
        for axis in range(places.ndim)
    ]
    if not np.array_equal(places, np.broadcast_to(sum(lines, start=first), places.shape)):
        return None
    axes = [_Axis(line.size, runs_of(line.ravel().tolist())) for line in lines]
    axes += [_Axis(size, [Run(0, 1, 0, stride, size, 1)]) for size, stride in zip(sizes, strides, strict=True)]
    return int(first), axes


def _parts(first: int, axes: Sequence[_Axis]) -> list[Part]:
    """The parts of a result with these axes."""
    strides = dense([axis.extent for axis in axes])
    parts: list[Part] = []
    for runs in product(*(axis.runs for axis in axes)):
        source, target = first, 0
        shape, sources, targets = list[int](), list[int](), list[int]()
        for run, stride in zip(runs, strides, strict=True):
            source, target = source + run.first, target + run.at * stride
            shape += [run.length, run.repeat]
            sources += [run.step, 0]
            targets += [run.period * run.repeat * stride, run.period * stride]
        parts.append(Part(tuple(shape), source, tuple(sources), target, tuple(targets)).collapsed())
    return parts


def _replace(op: PrimitiveOp, first: int, axes: Sequence[_Axis], layer: str) -> bool:
    """Replace `op`, unless its parts are too many, or too complicated."""
    order = sorted(range(len(axes)), key=lambda n: -axes[n].stride)
    if prod(len(axis.runs) for axis in axes) > MOST_PARTS:
        return False
    parts = _parts(first, [axes[n] for n in order])
    if max(len(part.shape) for part in parts) > MOST_AXES:
        return False
    x, old = op.operands[0], op.results[0]
    type_ = tensor_type(composed(shape_of(old.type), order), dtype_of(x.type))
    moved = RearrangeOp([x] * len(parts), parts, type_, StringAttr(layer))
    insert_before(moved, op)
    new = insert_before(PrimitiveOp("Transpose", [moved.result], [old.type], (inverse(order),)), op)
    new.name_hint = old.name_hint
    old.replace_all_uses_with(new)
    return True


@dataclass(frozen=True)
class RaiseGatherPass(ModulePass):
    """See the module's docstring."""

    name = "raise-gather"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            block = function.body.block
            if not has_convolutions(block):
                continue
            static, constants, count = static_values(function), Constants(), 0
            for gather in [o for o in block.ops if is_primitive(o, "Gather") and o.results[0] not in static]:
                if found := _gathered(gather, constants):
                    count += _replace(gather, *found, numbered(NAME, count + 1))
            erase_dead_ops(block)
