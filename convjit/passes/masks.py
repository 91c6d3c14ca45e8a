"""Masks: what a backward pass multiplies with where a ReLU, or another step, passed on its input."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from xdsl.dialects.builtin import i1
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import element_type
from convjit.passes.clusters import is_sum_of_channels
from convjit.passes.elementwise import FLOAT_TYPES, is_elementwise
from convjit.passes.values import constant_of, erase_dead_ops, users


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
    """Give each elementwise op or sum of channels its own of the masks, and predicates behind them, that it reads.

    They are made where they are read, and no kernel stores a predicate. Those that no kernel can make, because behind
    them are predicates that are not elementwise, stay one for all that read them; so they do for MLX's own ops.
    """
    masks: dict[Operation, int] = {}
    for number, op in enumerate(block.ops):
        if _is_mask(op, masks):
            masks[op] = number
    for reader in list(block.ops):
        if reader in masks or not (is_elementwise(reader) or is_sum_of_channels(reader)):
            continue
        behind = _masks_behind(reader, masks)
        if all(users(op.results[0]) <= behind | {reader} for op in behind):
            continue
        copies: dict[SSAValue, SSAValue] = {}
        for op in sorted(behind, key=masks.__getitem__):
            Rewriter.insert_op(op.clone(copies), InsertPoint.before(op))
        for index, value in enumerate(reader.operands):
            reader.operands[index] = copies.get(value, value)
    erase_dead_ops(block)


def _is_mask(op: Operation, masks: Container[Operation | Block]) -> bool:
    """Is it a predicate, or one as a number, that is made of floats and of what is in `masks` alone?"""
    if not is_elementwise(op) or i1 not in (element_type(op.results[0]), element_type(op.operands[0])):
        return False
    predicates = (v for v in op.operands if element_type(v) == i1 and constant_of(v) is None)
    return not is_primitive(op, "Select") and all(v.owner in masks for v in predicates)


def _masks_behind(reader: Operation, masks: Container[Operation]) -> set[Operation]:
    behind: set[Operation] = set()
    found = [reader]
    while found:
        makers = {v.owner for v in found.pop().operands if isinstance(v.owner, Operation) and v.owner in masks}
        found += makers - behind
        behind |= makers
    return behind


def read_maxima(block: Block) -> None:
    """x > c becomes max(x, c) > c, where that was computed: a ReLU's result is stored anyway, its input is not.

    `gradients.partition` has the same rule for tapes, ahead of any IR. Here constants are the same if their numbers
    are, however they were made.
    """
    maxima: dict[tuple[SSAValue, float], SSAValue] = {}
    for op in block.ops:
        if not is_primitive(op, "Maximum", "Greater") or element_type(op.operands[0]) not in FLOAT_TYPES:
            continue
        if (bound := constant_of(op.operands[1])) is None:
            continue
        if is_primitive(op, "Maximum"):
            maxima[op.operands[0], bound] = op.results[0]
        else:
            op.operands[0] = maxima.get((op.operands[0], bound), op.operands[0])
