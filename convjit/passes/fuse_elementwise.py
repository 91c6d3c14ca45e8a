"""`fuse-elementwise`: elementwise ops and sums of channels that no convolution took become kernels, too.

    %m = mlx.primitive "Broadcast"(%mean) [array<i64: 8, 32, 32, 16>]
    %c = mlx.primitive "Subtract"(%y, %m)
    %q = mlx.primitive "Square"(%c)
    %v = mlx.primitive "Reduce"(%q) [2 : i64, array<i64: 0, 1, 2>]       // a sum over all axes but the last
->
    %c, %v = conv.elementwise over <[8, 32, 32, 16]> sums <[1]> (%y, %mean) {
    ^bb0(%y1: f32, %mean1: f32):
      %d = arith.subf %y1, %mean1 : f32
      %q = arith.mulf %d, %d : f32
      conv.yield %d, %q : f32, f32
    } : (tensor<8x32x32x16xf32>, tensor<16xf32>) -> tensor<8x32x32x16xf32>, tensor<1x1x1x16xf32>

Normalisation, residuals, masks and updates of weights between convolutions run in one stretch with them; that is what
makes a train step one call of C. Clusters are maximal and convex, see `convjit.passes.clusters`. Only those beside a
kernel, another cluster beside one among them, are taken: what is far from any convolution stays as it is. So does what
`hoist-prepare` moves, since it runs only once.

Each kernel is named after its last op: `layer "elementwise.17"` ends with op 17 of what the pass reads. The option
`without` leaves out the clusters of the ops with these numbers: kernels that failed here, whose ops stay plain MLX.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, StringAttr, f32
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.ir.bodies import YieldOp
from convjit.ir.conv import KernelOp
from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import element_type
from convjit.passes.clusters import Clusters, is_sum_of_channels, shapes_of_candidates, source_of, sources
from convjit.passes.elementwise import Scalars, scalar_of
from convjit.passes.masks import read_maxima, separate_masks
from convjit.passes.moves import MOVES
from convjit.passes.recompute import Recomputation
from convjit.passes.values import constant_of, erase_dead_ops, forward_of, prepared_values, static_values, users

PREFIX = "elementwise."
"""What the name of a kernel begins with, ahead of the number of its last op."""


def _beside_kernels(block: Block, clusters: list[list[Operation]], moves: tuple[str, ...]) -> list[list[Operation]]:
    """The clusters that read what a kernel writes, or write what one reads; so do those beside them. Primitives
    of these names may lie between."""
    between: list[list[Operation]] = [[op] for op in block.ops if is_primitive(op, *moves)]
    waiting, kept = [*clusters, *between], list[list[Operation]]()
    inside: set[Operation] = set()
    candidates = {op for cluster in clusters for op in cluster}
    readers: dict[SSAValue, set[Operation]] = {}
    for op in block.ops:
        for value in sources(op) if op in candidates else op.operands:
            readers.setdefault(value, set()).add(op)

    def is_near(op: Operation) -> bool:
        ahead = {reader for result in op.results for reader in readers.get(result, ())}
        return any(isinstance(o, KernelOp) or o in inside for o in ahead | {v.owner for v in sources(op)})

    while near := [cluster for cluster in waiting if any(map(is_near, cluster))]:
        kept += near
        inside.update(op for cluster in near for op in cluster)
        waiting = [cluster for cluster in waiting if cluster not in near]
    return [cluster for cluster in kept if cluster not in between]


def _fused(ops: list[Operation], shape: tuple[int, ...], sums: set[Operation], name: str) -> ElementwiseOp:
    """One op for a cluster, whose ops read their sources."""
    inside = set(ops)
    made = {op.results[0] for op in ops}
    read = dict.fromkeys(v for op in ops for v in op.operands)
    inputs = [v for v in read if v not in made and constant_of(v) is None]
    outputs = [op.results[0] for op in ops if any(user not in inside for user in users(op.results[0]))]
    block = Block(arg_types=[element_type(v) for v in inputs])
    scalars = Scalars(block)
    known: dict[SSAValue, SSAValue] = {}
    for value, argument in zip(inputs, block.args, strict=True):
        argument.name_hint = value.name_hint
        known[value] = argument if argument.type == f32 else scalars.add_op(arith.ExtFOp(argument, f32))
    for op in ops:
        assert isinstance(op, PrimitiveOp)
        numbers = [constant_of(v) for v in op.operands]
        operands = [known[v] if n is None else scalars.constant(n) for v, n in zip(op.operands, numbers, strict=True)]
        known[op.results[0]] = operands[0] if op in sums else scalar_of(scalars, op, operands)
    block.add_op(YieldOp(*(scalars.stored(known[v], element_type(v)) for v in outputs)))
    erase_dead_ops(block)
    summed = [n for n, v in enumerate(outputs) if v.owner in sums]
    new = ElementwiseOp(inputs, shape, summed, Region(block), [v.type for v in outputs], StringAttr(name))
    new.attributes["fused"] = StringAttr(" ".join(op.primitive.data for op in ops if isinstance(op, PrimitiveOp)))
    return new


def _replace(block: Block, clusters: list[list[Operation]], shapes: dict[Operation, tuple[int, ...]]) -> None:
    numbers = {op: n for n, op in enumerate(block.ops)}
    sums = {op for op in shapes if is_sum_of_channels(op)}
    for op in (op for cluster in clusters for op in cluster if op not in sums):
        for index, value in enumerate(op.operands):
            if constant_of(value) is None:
                op.operands[index] = source_of(value)
    erase_dead_ops(block)
    clusters = Recomputation(block, clusters, shapes).run()
    position: dict[Operation, int] = {op: n for n, op in enumerate(block.ops)}
    made: list[ElementwiseOp] = []
    for cluster in clusters:
        last = max(numbers[op] for op in cluster if op in numbers)
        new = _fused(cluster, shapes[cluster[0]], sums, f"{PREFIX}{last}")
        position[new] = position[cluster[-1]]
        made.append(new)
    for cluster, new in zip(clusters, made, strict=True):
        inside = set(cluster)
        outputs = [op.results[0] for op in cluster if any(user not in inside for user in users(op.results[0]))]
        for old, result in zip(outputs, new.outputs, strict=True):
            result.name_hint = old.name_hint
            old.replace_uses_with_if(result, lambda use, inside=inside: use.operation not in inside)
    for cluster in clusters:
        for op in reversed(cluster):
            Rewriter.erase_op(op)
    _sort(block, made, position)


def _sort(block: Block, made: list[ElementwiseOp], position: dict[Operation, int]) -> None:
    """Put `made` where their last ops were, and whatever they read before them."""
    ops: list[Operation] = [*block.ops, *made]
    waits = {op: {v.owner for v in op.operands if isinstance(v.owner, Operation)} for op in ops}
    readers: dict[Operation | Block, list[Operation]] = {}
    for op, makers in waits.items():
        for maker in makers:
            readers.setdefault(maker, []).append(op)
    ready = [(position[op], op) for op in ops if not waits[op]]
    heapq.heapify(ready)
    for op in list(block.ops):
        op.detach()
    while ready:
        _, op = heapq.heappop(ready)
        block.add_op(op)
        for reader in readers.get(op, []):
            waits[reader].discard(op)
            if not waits[reader]:
                heapq.heappush(ready, (position[reader], reader))
    assert not any(waits.values()), "clusters wait for each other"


@dataclass(frozen=True)
class FuseElementwisePass(ModulePass):
    """See the module's docstring.

    Attributes:
        without: numbers of ops whose clusters are left out.
        across_moves: are clusters beside a kernel if ops that only move elements lie between? `raise-rearrange` makes
            them kernels.
    """

    name = "fuse-elementwise"

    without: tuple[int, ...] = ()
    across_moves: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            block = function.body.block
            if not any(isinstance(o, KernelOp) for o in block.ops):
                continue
            separate_masks(block)
            read_maxima(block)
            shapes = shapes_of_candidates(block, prepared_values(function, static_values(function)))
            left_out = {o for number, o in enumerate(block.ops) if number in self.without}
            clusters = [cluster for cluster in Clusters(block, shapes).found() if left_out.isdisjoint(cluster)]
            if clusters := _beside_kernels(block, clusters, MOVES if self.across_moves else ()):
                _replace(block, clusters, shapes)
