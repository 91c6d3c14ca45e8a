"""`fold-scale`: BatchNorm, and other per-channel scales and additions behind a convolution, move into weight and bias.

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
So does a division: sums of products with 1 / 0 would be NaN where the division of a sum by 0 is an infinity. A scale
that is infinite itself, or so large that its product with the weight is, folds, and gives NaN where MLX has infinities.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import Float32Type, ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import element_type, shape_of
from convjit.passes.values import forward_of, source_of_broadcast, static_values
from convjit.passes.vectors import Vectors


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
        if len(uses) != 1 or not is_primitive(op := uses[0].operation, "Add", "Subtract", "Multiply"):
            break
        name = op.primitive.data
        other = op.operands[1 - uses[0].index]
        if name == "Subtract" and uses[0].index != 0:
            break
        if other is value or not _is_channel_vector(other, conv, static):
            break
        links.append(_Link(op, name, other))
        value = op.results[0]
    return links if any(link.name == "Multiply" for link in links) else []


def _is_channel_vector(value: SSAValue, conv: GeneralOp, static: set[SSAValue]) -> bool:
    source = source_of_broadcast(value)
    if source not in static:
        return False
    *outer, last = (1, *shape_of(source.type))
    return all(n == 1 for n in outer) and last in (1, _out_channels(conv))


def _out_channels(conv: GeneralOp) -> int:
    return shape_of(conv.result.type)[-1]


def _scale_and_bias(links: list[_Link], vectors: Vectors) -> tuple[SSAValue, SSAValue | None]:
    """The chain as one multiplication and, perhaps, one addition."""
    scale: SSAValue | None = None
    bias: SSAValue | None = None
    for link in links:
        vector = vectors.of(link.vector)
        if link.name == "Multiply":
            bias = None if bias is None else vectors.combined("Multiply", bias, vector)
            scale = vector if scale is None else vectors.combined("Multiply", scale, vector)
        elif bias is None:
            bias = vector if link.name == "Add" else vectors.combined("Negative", vector)
        else:
            bias = vectors.combined(link.name, bias, vector)
    assert scale is not None
    return scale, bias


def _fold(conv: GeneralOp, links: list[_Link]) -> SSAValue:
    """Replace a convolution and its chain; returns the new end of the chain."""
    last = links[-1].op
    vectors = Vectors(last, _out_channels(conv))
    scale, bias = _scale_and_bias(links, vectors)
    weight = vectors.scaled_weight(conv.weight, scale)
    new = GeneralOp(conv.input, weight, conv.window.data, conv.result.type, conv.layer)
    new.location = conv.location
    result = vectors.insert(new)
    if bias is not None:
        if bias.name_hint is None and conv.weight.name_hint is not None:
            bias.name_hint = conv.weight.name_hint.replace("weight", "bias")
        shape = shape_of(result.type)
        wide = vectors.primitive("Broadcast", [bias], shape, shape)
        result = vectors.primitive("Add", [result, wide], shape)
    result.name_hint = last.results[0].name_hint
    last.results[0].replace_all_uses_with(result)
    for link in reversed(links):
        Rewriter.erase_op(link.op)
    Rewriter.erase_op(conv)
    return result


@dataclass(frozen=True)
class FoldScalePass(ModulePass):
    """See the module's docstring."""

    name = "fold-scale"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            static = static_values(function)
            for conv in [o for o in function.body.block.ops if isinstance(o, GeneralOp)]:
                is_one = conv.window.data.rank or len(shape_of(conv.weight.type)) == 2  # no matrix for each image
                if not is_one or conv.weight not in static or not isinstance(element_type(conv.result), Float32Type):
                    continue
                links = _chain(conv, static)
                if links:
                    of_parameters = conv.input in static
                    result = _fold(conv, links)
                    if of_parameters:
                        static.add(result)
