"""`fuse-epilogue`: every convolution and every norm takes the maximal elementwise DAG behind it into its kernel.

    %y = conv.general %x, %w window <...>
    %s = mlx.primitive "Sigmoid"(%y)
    %z = mlx.primitive "Multiply"(%y, %s)
->
    %z = conv.fused %x, %w window <...> {
    ^bb0(%sum: f32):
      ... the sigmoid's scalar ops ...
      %z = arith.mulf %sum, %s : f32
      conv.yield %z : f32
    }

The first argument of a norm's region is what is normalised, in place of the sum. The DAG is convex: an op joins if its
other operands do not depend on the convolution, or norm, by a way outside the DAG (the gate of a squeeze-and-excite
does), so no kernel is duplicated and inner values may have many uses. A value that is needed outside becomes another
result. Operands that are broadcast are read through: a bias stays a vector. With half storage all arithmetic is f32,
rounded once at the store; a traced cast to a half type rounds where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, StringAttr, f32
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from convjit.ir.bodies import YieldOp
from convjit.ir.conv import FusedOp, GeneralOp, WeightGradientOp
from convjit.ir.norm import NormOp
from convjit.ir.types import element_type
from convjit.passes.dag import Dag, Root, maximal_dag
from convjit.passes.elementwise import Scalars, scalar_of
from convjit.passes.masks import read_maxima, separate_masks
from convjit.passes.values import constant_of, erase_dead_ops, forward_of, source_of_broadcast


def _region(dag: Dag, results: list[SSAValue]) -> Region:
    block = Block(arg_types=[f32, *(element_type(e) for e in dag.extras)])
    block.args[0].name_hint = "sum" if isinstance(dag.root, GeneralOp) else "normalised"
    scalars = Scalars(block)
    known: dict[SSAValue, SSAValue] = {dag.root.results[0]: block.args[0]}
    for extra, argument in zip(dag.extras, block.args[1:], strict=True):
        argument.name_hint = extra.name_hint
        known[extra] = argument if argument.type == f32 else scalars.add_op(arith.ExtFOp(argument, f32))

    def scalar(value: SSAValue) -> SSAValue:
        if value in known:
            return known[value]
        number = constant_of(value)
        return known[source_of_broadcast(value)] if number is None else scalars.constant(number)

    for op in dag.ops:
        known[op.results[0]] = scalar_of(scalars, op, [scalar(v) for v in op.operands])
    block.add_op(YieldOp(*(scalars.stored(known[r], element_type(r)) for r in results)))
    erase_dead_ops(block)
    return Region(block)


def _fuse(dag: Dag) -> None:
    root, block = dag.root, dag.root.parent_block()
    assert block is not None
    results = dag.results()
    body, types = _region(dag, results), [r.type for r in results]
    if isinstance(root, GeneralOp):
        new = FusedOp(root.input, root.weight, dag.extras, root.window.data, body, types, root.layer)
    else:
        new = NormOp.like(root, dag.extras, body, types)
    new.location = root.location
    last = dag.ops[-1] if dag.ops else root
    if dag.ops:
        new.attributes["fused"] = StringAttr(" ".join(op.primitive.data for op in dag.ops))
    block.insert_op_after(new, last)
    anchor: Operation = new
    for op in dag.moved:
        op.detach()
        block.insert_op_after(op, anchor)
        anchor = op
    for old, result in zip(results, new.outputs, strict=True):
        result.name_hint = old.name_hint
        old.replace_all_uses_with(result)
    for op in [*reversed(dag.ops), root]:
        Rewriter.erase_op(op)


def _is_bare(op: Operation) -> TypeGuard[Root]:
    return isinstance(op, GeneralOp) or (isinstance(op, NormOp) and op.is_bare)


@dataclass(frozen=True)
class FuseEpiloguePass(ModulePass):
    """See the module's docstring. Metal takes 31 buffers, hence the bounds.

    Beside weight gradients a kernel has one result: what a backward pass makes of it is mostly summed over all pixels
    right away, and never stored if `fuse-elementwise` takes it.

    Attributes:
        max_extras: arrays that one epilogue may read.
        max_results: arrays that one kernel may write.
    """

    name = "fuse-epilogue"

    max_extras: int = 8
    max_results: int = 4

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            erase_dead_ops(function.body.block)
            separate_masks(function.body.block)
            read_maxima(function.body.block)
            is_training = any(isinstance(o, WeightGradientOp) for o in function.body.block.ops)
            for root in [o for o in function.body.block.ops if _is_bare(o)]:
                _fuse(maximal_dag(root, self.max_extras, 1 if is_training else self.max_results))
            erase_dead_ops(function.body.block)
