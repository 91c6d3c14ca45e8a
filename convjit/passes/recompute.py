"""Values that a cluster of `fuse-elementwise` computes again instead of reading what another one stored."""

from __future__ import annotations

from math import prod

from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import dtype_of, element_type
from convjit.passes.clusters import Shape, extents_of, is_sum_of_channels
from convjit.passes.elementwise import HALF_TYPES, STEPS
from convjit.passes.values import constant_of, erase_dead_ops, users

LEAST_ELEMENTS = 4096
"""Below that, memory is not what takes the time."""

MOST_OPS = 96
"""In a cluster with all that it computes again."""

Cluster = list[Operation]


class Recomputation:
    """Copies ops into the clusters that read their results, where that saves traffic to memory.

    A value is computed again from what its own cluster reads for it, if its reader then reads fewer arrays of its
    shape; or as many, and nobody but clusters reads the value, which need not be stored then. What a backward pass
    reads of a normalised array comes down to the array before, which it reads anyway.

    Two kernels may round one number differently. So what is stored anyway is read where the cluster compares it with
    more than constants: x == max(x) has to find the x of which MLX took the maximum.
    """

    def __init__(self, block: Block, clusters: list[Cluster], shapes: dict[Operation, Shape]):
        self._block = block
        self._clusters = clusters
        self._shapes = shapes
        self._home = {op: number for number, cluster in enumerate(clusters) for op in cluster}

    def run(self) -> list[Cluster]:
        """The clusters with their copies, which are in the block and in `shapes`, too, and without what is dead now."""
        for number, cluster in enumerate(self._clusters):
            if prod(self._shapes[cluster[0]]) >= LEAST_ELEMENTS:
                self._grow(number)
        erase_dead_ops(self._block)
        alive = set(self._block.ops)
        return [left for cluster in self._clusters if (left := [op for op in cluster if op in alive])]

    def _grow(self, number: int) -> None:
        members = dict.fromkeys(self._clusters[number])
        copies: dict[SSAValue, SSAValue] = {}
        while (found := self._worthwhile(number, members)) is not None:
            value, ops = found
            for op in ops:
                for copy in self._copies_of(op, copies):
                    self._shapes[copy], self._home[copy] = self._shapes[op], number
                    members[copy] = None
            value.replace_uses_with_if(copies[value], lambda use: use.operation in members)
        self._clusters[number] = [op for op in self._block.ops if op in members]

    def _copies_of(self, op: Operation, copies: dict[SSAValue, SSAValue]) -> list[Operation]:
        """The op again, unless `copies` has it; rounded, where others read it from an array of a half type."""
        result = op.results[0]
        if result in copies:
            return []
        made = [op.clone(copies)]
        if element_type(result) in HALF_TYPES and self._is_stored(result):
            made.append(PrimitiveOp("AsType", made[0].results, [result.type], [dtype_of(result.type)]))
        Rewriter.insert_op(made, InsertPoint.after(op))
        copies[result] = made[-1].results[0]
        return made

    def _worthwhile(self, number: int, members: dict[Operation, None]) -> tuple[SSAValue, Cluster] | None:
        """A value that the cluster should compute again, and the ops that do."""
        shape = self._shapes[self._clusters[number][0]]
        read = self._read(members, shape)
        for value in read:
            maker = value.owner
            if not isinstance(maker, Operation) or maker not in self._home or is_sum_of_channels(maker):
                continue
            ops = self._ops_behind(maker)
            after = (read.keys() - {value}) | self._read(dict.fromkeys(ops), shape).keys()
            if len(members) + len(ops) > MOST_OPS or len(after) >= len(read) + (not self._is_stored(value)):
                continue
            if not (any(self._is_stored(op.results[0]) for op in ops) and _is_compared(value, members)):
                return value, ops
        return None

    def _is_stored(self, value: SSAValue) -> bool:
        """Does something read it that is in no cluster?"""
        return any(user not in self._home for user in users(value))

    def _read(self, ops: dict[Operation, None], shape: Shape) -> dict[SSAValue, None]:
        """The arrays of this shape that `ops` read and do not make."""
        operands = dict.fromkeys(v for op in ops for v in op.operands if v.owner not in ops)
        return dict.fromkeys(v for v in operands if extents_of(v) == shape and constant_of(v) is None)

    def _ops_behind(self, last: Operation) -> Cluster:
        """The ops of its cluster that `last` depends on, and itself, in program order."""
        cluster = self._clusters[self._home[last]]
        needed = {last}
        for op in reversed(cluster):
            if op in needed:
                needed.update(v.owner for v in op.operands if isinstance(v.owner, Operation))
        return [op for op in cluster if op in needed]


def _is_compared(value: SSAValue, members: dict[Operation, None]) -> bool:
    """Does a step among `members` depend on `value`, and on something else that is no constant?"""
    found = [(value, False)]
    for given, is_mixed in found:
        for op in users(given) & members.keys():
            behind = is_mixed or any(v is not given and constant_of(v) is None for v in op.operands)
            if behind and is_primitive(op, *STEPS):
                return True
            if (op.results[0], behind) not in found:
                found.append((op.results[0], behind))
    return False
