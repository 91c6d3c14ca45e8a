"""Masks: what a backward pass multiplies with where a ReLU, or another step, passed on its input."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import i1
from xdsl.ir import Block, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import element_type
from convjit.passes.elementwise import FLOAT_TYPES
from convjit.passes.values import constant_of


@dataclass(frozen=True, slots=True)
class Mask:
    """1 where `source` is greater than a constant, else 0, made by `ops` for one reader."""

    source: SSAValue
    ops: tuple[PrimitiveOp, ...]


def mask_of(value: SSAValue) -> Mask | None:
    """How `value` is made, if it is a mask with one reader."""
    cast = value.owner
    if not is_primitive(cast, "AsType"):
        return None
    compared = cast.operands[0].owner
    if not is_primitive(compared, "Greater"):
        return None
    source, bound = compared.operands
    if constant_of(bound) is None or not value.has_one_use() or not compared.results[0].has_one_use():
        return None
    return Mask(source, (compared, cast)) if element_type(source) in FLOAT_TYPES else None


def separate_masks(block: Block) -> None:
    """Give every reader of a predicate, or of a mask made from one, its own: they are made where they are read."""
    for op in reversed(list(block.ops)):
        is_mask = is_primitive(op, "AsType") and element_type(op.operands[0]) == i1
        if not isinstance(op, PrimitiveOp) or not (is_mask or element_type(op.results[0]) == i1):
            continue
        for use in list(op.results[0].uses)[1:]:
            copy = op.clone()
            Rewriter.insert_op(copy, InsertPoint.before(op))
            use.operation.operands[use.index] = copy.results[0]


def read_maxima(block: Block) -> None:
    """x > c becomes max(x, c) > c, where that was computed: a ReLU's result is stored anyway, its input is not.

    `gradients.partition` has the same rule for tapes, ahead of any IR. Here constants are the same if their numbers
    are, however they were made.
    """
    maxima: dict[tuple[SSAValue, float], SSAValue] = {}
    for op in block.ops:
        if not is_primitive(op, "Maximum", "Greater") or (bound := constant_of(op.operands[1])) is None:
            continue
        if is_primitive(op, "Maximum"):
            maxima[op.operands[0], bound] = op.results[0]
        else:
            op.operands[0] = maxima.get((op.operands[0], bound), op.operands[0])
