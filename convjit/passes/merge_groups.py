"""`merge-groups`: convolutions of the parts of one input, put side by side again, become one grouped convolution.

    %x0, %x1 = Split(%x) [8], 4                                       along the channels
    %w0, %w1 = Split(%w) [12], 0                                      along the output channels
    %y0 = conv.general %x0, %w0 window <..., groups = 1>
    %y1 = conv.general %x1, %w1 window <..., groups = 1>
    %y = Concatenate(%y0, %y1) 4
->
    %y = conv.general %x, %w window <..., groups = 2>

MLX refuses grouped 3D convolutions, so this is how they are written, and how `convjit.nn` writes them. Slices are taken
as the parts of a split, too, and weights that are no parts of one array are concatenated, by `hoist-prepare` once a
version if they are parameters. The parts must be as many, as large and in the order of their results, and nothing else
may read these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.ir.conv import GeneralOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of, shape_of, tensor_type
from convjit.passes.values import erase_dead_ops, forward_of, insert_before


def _part(value: SSAValue) -> tuple[SSAValue, tuple[int, ...]] | None:
    """What `value` is a block of, and where the block begins, if a `Split` or a `Slice` of steps of 1 made it."""
    op = value.owner
    if not isinstance(value, OpResult) or not isinstance(op, PrimitiveOp):
        return None
    match op.primitive.data, op.python_arguments:
        case "Split", (indices, axis):
            begin = [0] * len(shape_of(value.type))
            begin[axis] = (0, *indices)[value.index]
        case "Slice", (begin, _, step) if set(step) == {1}:
            pass
        case _:
            return None
    return op.operands[0], tuple(begin)


def _whole(parts: Sequence[SSAValue], axis: int) -> SSAValue | None:
    """The array whose equal parts along `axis` these are: all of them, in order."""
    shape = shape_of(parts[0].type)
    blocks = [_part(part) for part in parts]
    whole = blocks[0][0] if blocks[0] else None
    if whole is None:
        return None
    size, axis = shape[axis], axis % len(shape)
    full = (*shape[:axis], size * len(parts), *shape[axis + 1 :])
    for number, (part, block) in enumerate(zip(parts, blocks, strict=True)):
        begin = (0,) * axis + (number * size,) + (0,) * (len(shape) - axis - 1)
        if block != (whole, begin) or shape_of(part.type) != shape:
            return None
    return whole if shape_of(whole.type) == full else None


def _convolutions(join: PrimitiveOp) -> list[GeneralOp] | None:
    """The convolutions that `join` puts side by side, if they are alike and it alone reads them."""
    convs = [v.owner for v in join.operands if isinstance(v.owner, GeneralOp)]
    if len(convs) < 2 or len(convs) < len(join.operands) or join.python_arguments != (convs[0].window.data.rank + 1,):
        return None
    first = convs[0]
    if first.window.data.rank == 0:  # a product with a matrix has no groups
        return None
    alike = all(c.window == first.window and c.weight.type == first.weight.type for c in convs)
    return convs if alike and all(c.result.has_one_use() for c in convs) else None


def _merge(join: PrimitiveOp) -> None:
    convs = _convolutions(join)
    x = _whole([c.input for c in convs], -1) if convs else None
    if not convs or x is None:
        return
    weights = [c.weight for c in convs]
    w = _whole(weights, 0)
    if w is None:
        outputs, *rest = shape_of(weights[0].type)
        type_ = tensor_type((outputs * len(convs), *rest), dtype_of(weights[0].type))
        concatenate = PrimitiveOp("Concatenate", weights, [type_], [0])
        w = insert_before(concatenate, join)
        w.name_hint = weights[0].name_hint
    window = replace(convs[0].window.data, groups=convs[0].window.data.groups * len(convs))
    merged = GeneralOp(x, w, window, join.results[0].type, convs[0].layer)
    merged.location = convs[0].location
    Rewriter.replace_op(join, merged)


@dataclass(frozen=True)
class MergeGroupsPass(ModulePass):
    """See the module's docstring."""

    name = "merge-groups"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            for join in list(function.body.block.ops):
                if is_primitive(join, "Concatenate"):
                    _merge(join)
            erase_dead_ops(function.body.block)
