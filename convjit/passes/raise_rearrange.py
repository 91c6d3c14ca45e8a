"""`raise-rearrange`: concatenations, slices and transposes between kernels become `conv.rearrange`.

    %a = conv.fused %x, %w ...                                                  (1, 8, 8, 32)
    %h, %g = mlx.primitive "Split"(%a) [array<i64: 16>, -1]                     (1, 8, 8, 16) each
    %c = mlx.primitive "Concatenate"(%h, %b) [-1]                               (1, 8, 8, 24)
    %t = mlx.primitive "Reshape"(%c) [array<i64: 64, 24>]
    %y = conv.fused %t, %v ...
->
    %a = conv.fused %x, %w ...
    %c = conv.rearrange(%a, %b) parts <[64, 16] from 0 [32, 1] to 0 [24, 1], [64, 8] from 0 [8, 1] to 16 [24, 1]>
    %t = conv.view %c
    %y = conv.fused %t, %v ...

What a kernel reads is followed back through ops that only move elements (`convjit.passes.moves`): all of them together
are one kernel, or none where other axes are all that changes. So the kernels around them are one stretch. Padding is a
frame of one element, repeated; an array of which slices are assigned is a frame around these. A concatenation is a
kernel of its own, whoever reads it, if a kernel writes a part of it. What stays: other moves whose results only MLX's
ops or the user read, other dtypes than f32, f16 and bf16, what depends on parameters alone, and everything if a
rearrangement failed its proof, as all share a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from convjit.ir.conv import KernelOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.rearrange import RearrangeOp, ViewOp
from convjit.ir.replay import ASSIGN
from convjit.ir.types import element_type, shape_of
from convjit.kernel import Part
from convjit.kernel.rearrange import MOST_AXES, MOST_PARTS
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.moves import MOVES, Piece, Strided, dense, framed
from convjit.passes.values import erase_dead_ops, forward_of, insert_before, numbered, static_values

NAME = "rearrange"


class _Function:
    """Where the elements of a function's values come from."""

    def __init__(self, function: FuncOp):
        self._static = static_values(function)
        self._found: dict[SSAValue, Strided] = {}
        self._pieces: dict[SSAValue, list[Piece]] = {}
        self._count = 0

    def is_of_kernels(self, concatenation: PrimitiveOp) -> bool:
        """Does it hold what kernels write?"""
        return element_type(concatenation.results[0]) in FLOAT_TYPES and any(
            isinstance(self._origin(v).base.owner, KernelOp) for v in concatenation.operands
        )

    def let_read(self, value: SSAValue) -> None:
        """Let kernels read what `value` comes from."""
        at = self._origin(value)
        if at.base is value:
            return
        if not at.is_whole:
            self._rearranged(value, [at.part(0, dense(at.shape))], [at.base])
            return
        view = ViewOp(at.base, value.type)
        _insert(view, value)
        view.result.name_hint = value.name_hint
        value.replace_uses_with_if(view.result, lambda use: isinstance(use.operation, KernelOp))

    def _origin(self, value: SSAValue) -> Strided:
        pending = [value]  # a stack: programs are longer than Python's own is deep
        while pending:
            last = pending[-1]
            if last in self._found:
                pending.pop()
            elif unknown := [v for v in self._sources(last) if v not in self._found]:
                pending += unknown
            else:
                self._found[last] = self._followed(last)
        return self._found[value]

    def _sources(self, value: SSAValue) -> Sequence[SSAValue]:
        """What the elements of `value` come from; nothing if no move that kernels know makes it."""
        op = value.owner
        if not is_primitive(op, *MOVES) or value in self._static or 0 in shape_of(value.type):
            return ()
        if op.primitive.data == "SliceUpdate" and not _assigns(op):
            return ()
        return op.operands

    def _followed(self, value: SSAValue) -> Strided:
        if not self._sources(value):
            return Strided.whole(value)
        op, shape = value.owner, shape_of(value.type)
        assert isinstance(op, PrimitiveOp)
        name, arguments = op.primitive.data, op.python_arguments
        at = self._origin(op.operands[0])
        if name == "Concatenate":
            return self._concatenated(op, arguments[0] % len(shape))
        if name == "Pad":
            lows = dict(zip(*arguments[:2], strict=True))
            fill = self._origin(op.operands[1])  # its first element, whatever its shape
            around = Strided(fill.base, fill.offset, shape, (0,) * len(shape))
            return self._framed(value, at, around, [lows.get(axis, 0) for axis in range(len(shape))])
        if name == "SliceUpdate":
            return self._framed(value, self._origin(op.operands[1]), at, arguments[1])
        if name == "Transpose":
            (axes,) = arguments
            return Strided(at.base, at.offset, shape, tuple(at.strides[axis] for axis in axes))
        if name == "Broadcast":
            return at.broadcast(shape)
        if name == "Slice":
            starts, _, steps = arguments
            return at.box(starts, steps, shape)
        if name == "Split":
            indices, axis = arguments
            starts = [0] * len(shape)
            starts[axis % len(shape)] = (0, *indices)[op.results.index(value)]
            return at.box(starts, (1,) * len(shape), shape)
        return at.reshaped(shape) or self._rearranged(value, [at.part(0, dense(at.shape))], [at.base])

    def _concatenated(self, op: PrimitiveOp, axis: int) -> Strided:
        (value,) = op.results
        strides, start = dense(shape_of(value.type)), 0
        parts: list[Part] = []
        origins = [self._origin(v) for v in op.operands if 0 not in shape_of(v.type)]
        for at in origins:
            parts.append(at.part(start * strides[axis], strides))
            start += at.shape[axis]
        return self._rearranged(value, parts, [at.base for at in origins])

    def _framed(self, value: SSAValue, inner: Strided, around: Strided, starts: Sequence[int]) -> Strided:
        """`value`, which is `inner`, its first element at `starts`, and elsewhere `around`."""
        if 0 in inner.shape or len(inner.shape) != len(around.shape):
            return Strided.whole(value)
        alone = [Piece((0,) * len(starts), around)]
        before = self._pieces.get(around.base, alone) if around.is_whole else alone
        pieces = framed(before, Piece(tuple(starts), inner))
        if len(pieces) > MOST_PARTS:
            pieces = framed(alone, Piece(tuple(starts), inner))
        strides = dense(around.shape)
        parts = [piece.elements.part(sum(map(mul, piece.starts, strides)), strides) for piece in pieces]
        made = self._rearranged(value, parts, [piece.elements.base for piece in pieces])
        self._pieces[made.base] = pieces
        return made

    def _rearranged(self, value: SSAValue, parts: Sequence[Part], bases: Sequence[SSAValue]) -> Strided:
        """`value`, made by a kernel if it can be."""
        parts = [part.collapsed() for part in parts]
        if max(len(part.shape) for part in parts) > MOST_AXES:
            return Strided.whole(value)
        self._count += 1
        new = RearrangeOp(bases, parts, value.type, StringAttr(numbered(NAME, self._count)))
        _insert(new, value)
        new.result.name_hint = value.name_hint
        value.replace_all_uses_with(new.result)
        return Strided.whole(new.result)


def _assigns(update: PrimitiveOp) -> bool:
    """Does a `SliceUpdate` put an array, as it is, in the place of a box?"""
    mode, starts, _, steps = update.python_arguments
    return mode == ASSIGN and set(steps) == {1} and min(starts) >= 0


def _insert(op: Operation, value: SSAValue) -> None:
    assert isinstance(value.owner, Operation)
    insert_before(op, value.owner)


@dataclass(frozen=True)
class RaiseRearrangePass(ModulePass):
    """See the module's docstring."""

    name = "raise-rearrange"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            block = function.body.block
            if not any(isinstance(o, KernelOp) for o in block.ops):
                continue
            values = _Function(function)
            for kernel in [o for o in block.ops if isinstance(o, KernelOp)]:
                for value in dict.fromkeys(kernel.operands):
                    if element_type(value) in FLOAT_TYPES:
                        values.let_read(value)
            for concatenation in [o for o in block.ops if is_primitive(o, "Concatenate")]:
                if values.is_of_kernels(concatenation):
                    values.let_read(concatenation.results[0])
            erase_dead_ops(block)
