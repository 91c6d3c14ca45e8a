"""`fuse-epilogue`: every convolution takes the maximal elementwise DAG behind it into its kernel.

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

The DAG is convex: an op joins if its other operands do not depend on the convolution by a way outside the DAG (the
gate of a squeeze-and-excite does), so no kernel is duplicated and inner values may have many uses. A value that is
needed outside becomes another result. Operands that are broadcast are read through: a bias stays a vector. With half
storage all arithmetic is f32, rounded once at the store; a traced cast to a half type rounds where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType, f32, i1
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from convjit.ir.conv import FusedOp, GeneralOp, YieldOp
from convjit.ir.mlx import PrimitiveOp
from convjit.ir.types import shape_of
from convjit.passes.elementwise import FLOAT_TYPES, HALF_TYPES, LOWERINGS, Scalars, is_elementwise
from convjit.passes.values import constant_of, forward_of, source_of_broadcast


def _element(value: SSAValue) -> Attribute:
    assert isinstance(value.type, TensorType)
    return value.type.get_element_type()


@dataclass(slots=True)
class _Dag:
    """The elementwise ops that join a convolution.

    Attributes:
        ops: in program order.
        extras: what the epilogue reads besides the sum, narrow.
        moved: ops between the convolution and the DAG's end that depend on it by other ways.
    """

    conv: GeneralOp
    ops: list[PrimitiveOp] = field(default_factory=list[PrimitiveOp])
    extras: list[SSAValue] = field(default_factory=list[SSAValue])
    moved: list[Operation] = field(default_factory=list[Operation])

    def results(self) -> list[SSAValue]:
        """The values of the DAG that are needed outside, in program order."""
        inside: set[Operation] = set(self.ops)
        values = [self.conv.result, *(op.results[0] for op in self.ops)]
        return [v for v in values if not v.uses or any(use.operation not in inside for use in v.uses)]


def _grow(conv: GeneralOp, max_extras: int, max_results: int) -> _Dag:
    dag = _Dag(conv)
    shape = shape_of(conv.result.type)
    inside: set[SSAValue] = {conv.result}
    outside: set[SSAValue] = set()
    pending: list[Operation] = []
    op = conv.next_op
    while op is not None:
        if any(operand in outside for operand in op.operands):
            outside.update(op.results)
            pending.append(op)
        elif any(operand in inside for operand in op.operands):
            extras = _new_extras(op, inside, dag.extras, shape)
            if extras is None or len(dag.extras) + len(extras) > max_extras:
                outside.update(op.results)
                pending.append(op)
            else:
                assert isinstance(op, PrimitiveOp)
                dag.ops.append(op)
                dag.extras += extras
                inside.add(op.results[0])
                dag.moved += pending
                pending = []
        op = op.next_op
    _prune(dag, max_results)
    return dag


def _new_extras(
    op: Operation, inside: set[SSAValue], known: list[SSAValue], shape: tuple[int, ...]
) -> list[SSAValue] | None:
    """The operands that joining `op` would add to the extras, or None if it cannot join."""
    if not isinstance(op, PrimitiveOp) or len(op.results) != 1 or shape_of(op.results[0].type) != shape:
        return None
    elements = [_element(v) for v in op.operands]
    if not is_elementwise(op.primitive.data, op.python_arguments, elements, _element(op.results[0])):
        return None
    extras: list[SSAValue] = []
    for operand in op.operands:
        if operand in inside or constant_of(operand) is not None:
            continue
        source = source_of_broadcast(operand)
        if _element(source) not in FLOAT_TYPES:
            return None
        if source not in known and source not in extras:
            extras.append(source)
    return extras


def _prune(dag: _Dag, max_results: int) -> None:
    """Give back trailing ops until the DAG has few enough results, all of them floats."""
    while True:
        results = dag.results()
        if len(results) <= max_results and all(_element(r) in FLOAT_TYPES for r in results):
            break
        dag.moved.append(dag.ops.pop())
    used = {source_of_broadcast(v) for op in dag.ops for v in op.operands}
    dag.extras = [e for e in dag.extras if e in used]
    if dag.moved:
        position = {op: n for n, op in enumerate(_ops_behind(dag.conv))}
        dag.moved.sort(key=lambda op: position[op])


def _ops_behind(op: Operation) -> list[Operation]:
    ops: list[Operation] = []
    following = op.next_op
    while following is not None:
        ops.append(following)
        following = following.next_op
    return ops


def _region(dag: _Dag, results: list[SSAValue]) -> Region:
    block = Block(arg_types=[f32, *(_element(e) for e in dag.extras)])
    block.args[0].name_hint = "sum"
    scalars = Scalars(block)
    known: dict[SSAValue, SSAValue] = {dag.conv.result: block.args[0]}
    for extra, argument in zip(dag.extras, block.args[1:], strict=True):
        argument.name_hint = extra.name_hint
        known[extra] = argument if argument.type == f32 else scalars.add_op(arith.ExtFOp(argument, f32))

    def scalar(value: SSAValue) -> SSAValue:
        if value in known:
            return known[value]
        number = constant_of(value)
        return known[source_of_broadcast(value)] if number is None else scalars.constant(number)

    for op in dag.ops:
        operands = [scalar(v) for v in op.operands]
        if op.primitive.data == "AsType":
            result = _cast(scalars, operands[0], _element(op.results[0]))
        else:
            result = LOWERINGS[op.primitive.data](scalars, operands, op.python_arguments)
        known[op.results[0]] = result
    yielded = [
        known[r] if _element(r) == f32 else scalars.add_op(arith.TruncFOp(known[r], _element(r)))  # pyright: ignore
        for r in results
    ]
    block.add_op(YieldOp(*yielded))
    return Region(block)


def _cast(scalars: Scalars, value: SSAValue, target: Attribute) -> SSAValue:
    if value.type == i1:
        return value if target == i1 else scalars.to_float(value)
    if target == i1:
        return scalars.compare("une", value, scalars.constant(0.0))
    return scalars.rounded(value, target) if target in HALF_TYPES else value


def _fuse(dag: _Dag) -> None:
    conv, block = dag.conv, dag.conv.parent_block()
    assert block is not None
    results = dag.results()
    new = FusedOp(
        conv.input,
        conv.weight,
        dag.extras,
        conv.window.data,
        _region(dag, results),
        [r.type for r in results],
        conv.layer,
    )
    new.location = conv.location
    if dag.ops:
        new.attributes["fused"] = StringAttr(" ".join(op.primitive.data for op in dag.ops))
    last = dag.ops[-1] if dag.ops else conv
    block.insert_op_after(new, last)
    anchor: Operation = new
    for op in dag.moved:
        op.detach()
        block.insert_op_after(op, anchor)
        anchor = op
    for old, result in zip(results, new.outputs, strict=True):
        result.name_hint = old.name_hint
        old.replace_all_uses_with(result)
    for op in [*reversed(dag.ops), conv]:
        op.detach()
        op.erase()


def _without_dead_ops(module: ModuleOp) -> None:
    for function in forward_of(module):
        for op in reversed(list(function.body.block.ops)):
            if op.results and not any(r.uses for r in op.results):
                op.detach()
                op.erase()


@dataclass(frozen=True)
class FuseEpiloguePass(ModulePass):
    """See the module's docstring. Metal takes 31 buffers, hence the bounds.

    Attributes:
        max_extras: arrays that one epilogue may read.
        max_results: arrays that one kernel may write.
    """

    name = "fuse-epilogue"

    max_extras: int = 8
    max_results: int = 4

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _without_dead_ops(op)
        for function in forward_of(op):
            for conv in [o for o in function.body.block.ops if isinstance(o, GeneralOp)]:
                _fuse(_grow(conv, self.max_extras, self.max_results))
        _without_dead_ops(op)
