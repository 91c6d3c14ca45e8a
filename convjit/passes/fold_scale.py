"""`fold-scale`: BatchNorm, and any per-channel arithmetic behind a convolution, moves into weight and bias.

    %y = conv.general %x, %w window <...>                       (N, ..., O)
    %a = Subtract(%y, Broadcast(%mean))
    %b = Multiply(%a, Broadcast(%scale))
    %c = Add(%b, Broadcast(%beta))
->
    %w2 = Multiply(%w, Broadcast(Reshape(%scale)))              (O, *kernel, C / groups)
    %y = conv.general %x, %w2 window <...>
    %c = Add(%y, Broadcast(%beta - %mean * %scale))

The arithmetic on %w depends on parameters alone, so `hoist-prepare` takes it out of every call. f32 only: with half
storage a folded scale could overflow the weight, so there it stays an f32 epilogue extra. A lone bias stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import Float32Type, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import ConstantOp, PrimitiveOp, is_primitive
from convjit.ir.types import shape_of
from convjit.passes.values import forward_of, source_of_broadcast, static_values


@dataclass(frozen=True, slots=True)
class _Link:
    """One op of the chain: `value <name> vector`."""

    op: PrimitiveOp
    name: str
    vector: SSAValue


def _chain(conv: GeneralOp, static: set[SSAValue]) -> list[_Link]:
    """The per-channel arithmetic behind a convolution, up to the last scaling and the additions behind that."""
    links: list[_Link] = []
    value: SSAValue = conv.result
    while True:
        uses = list(value.uses)
        if len(uses) != 1 or not is_primitive(uses[0].operation, "Add", "Subtract", "Multiply", "Divide"):
            break
        op = uses[0].operation
        assert isinstance(op, PrimitiveOp)
        name = op.primitive.data
        other = op.operands[1 - uses[0].index]
        if name in ("Subtract", "Divide") and uses[0].index != 0:
            break
        if other is value or not _is_channel_vector(other, conv, static):
            break
        links.append(_Link(op, name, other))
        value = op.results[0]
    return links if any(link.name in ("Multiply", "Divide") for link in links) else []


def _is_channel_vector(value: SSAValue, conv: GeneralOp, static: set[SSAValue]) -> bool:
    source = source_of_broadcast(value)
    if source not in static:
        return False
    *outer, last = (1, *shape_of(source.type))
    return all(n == 1 for n in outer) and last in (1, conv.geometry.out_channels)


class _Vectors:
    """Appends f32 ops on vectors of one element an output channel before `anchor`."""

    def __init__(self, anchor: Operation, channels: int):
        self._anchor = anchor
        self._channels = channels

    def op(self, name: str, operands: list[SSAValue], shape: tuple[int, ...], *arguments: object) -> SSAValue:
        result = TensorType(Float32Type(), shape)
        op = PrimitiveOp(name, operands, [result], arguments)
        block = self._anchor.parent_block()
        assert block is not None
        block.insert_op_before(op, self._anchor)
        return op.results[0]

    def combine(self, name: str, x: SSAValue, y: SSAValue) -> SSAValue:
        return self.op(name, [x, y], (self._channels,))

    def ones(self) -> SSAValue:
        one = ConstantOp(1.0, TensorType(Float32Type(), ()))
        block = self._anchor.parent_block()
        assert block is not None
        block.insert_op_before(one, self._anchor)
        return self.op("Broadcast", [one.output], (self._channels,), (self._channels,))

    def vector(self, value: SSAValue) -> SSAValue:
        """A broadcast channel vector or scalar as (O,)."""
        source = source_of_broadcast(value)
        size = 1 if not shape_of(source.type) else shape_of(source.type)[-1]
        if len(shape_of(source.type)) != 1:
            source = self.op("Reshape", [source], (size,), (size,))
        if size == self._channels:
            return source
        return self.op("Broadcast", [source], (self._channels,), (self._channels,))


def _fold(conv: GeneralOp, links: list[_Link]) -> None:
    channels = conv.geometry.out_channels
    last = links[-1].op
    vectors = _Vectors(last, channels)
    scale: SSAValue | None = None
    bias: SSAValue | None = None
    for link in links:
        vector = vectors.vector(link.vector)
        if link.name in ("Multiply", "Divide"):
            if scale is None and link.name == "Divide":
                scale = vectors.combine("Divide", vectors.ones(), vector)
            else:
                scale = vector if scale is None else vectors.combine(link.name, scale, vector)
            bias = None if bias is None else vectors.combine(link.name, bias, vector)
        elif bias is None:
            bias = vector if link.name == "Add" else vectors.op("Negative", [vector], (channels,))
        else:
            bias = vectors.combine(link.name, bias, vector)
    assert scale is not None
    weight_shape = shape_of(conv.weight.type)
    column = vectors.op(
        "Reshape", [scale], (channels, *(1 for _ in weight_shape[1:])), (channels,) + (1,) * (len(weight_shape) - 1)
    )
    wide = vectors.op("Broadcast", [column], weight_shape, weight_shape)
    weight = vectors.op("Multiply", [conv.weight, wide], weight_shape)
    new = GeneralOp(conv.input, weight, conv.window.data, conv.result.type, conv.layer)
    new.location = conv.location
    block = last.parent_block()
    assert block is not None
    block.insert_op_before(new, last)
    result: SSAValue = new.result
    if bias is not None:
        shape = shape_of(conv.result.type)
        result = vectors.op("Add", [result, vectors.op("Broadcast", [bias], shape, shape)], shape)
    last.results[0].replace_all_uses_with(result)
    for link in reversed(links):
        Rewriter.erase_op(link.op)
    Rewriter.erase_op(conv)


def _folds(function: FuncOp) -> list[tuple[GeneralOp, list[_Link]]]:
    static = static_values(function)
    found: list[tuple[GeneralOp, list[_Link]]] = []
    for op in function.body.block.ops:
        if isinstance(op, GeneralOp) and op.weight in static and _is_f32(op.result.type):
            links = _chain(op, static)
            if links:
                found.append((op, links))
    return found


def _is_f32(type_: Any) -> bool:
    return isinstance(type_.get_element_type(), Float32Type)


@dataclass(frozen=True)
class FoldScalePass(ModulePass):
    """See the module's docstring."""

    name = "fold-scale"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            for conv, links in _folds(function):
                _fold(conv, links)
