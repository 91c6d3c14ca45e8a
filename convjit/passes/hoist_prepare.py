"""`hoist-prepare`: what depends on parameters and constants alone moves into `@prepare`, run once a weight version.

    func.func @forward(%x {mlx.kind = "input"}, %w {mlx.kind = "parameter"}, %s {mlx.kind = "parameter"}) {
      %w2 = mlx.primitive "Multiply"(%w, %s)
      %p = conv.pack %w2 ...
      %y = conv.fused %x, %p ...
->
    func.func @prepare(%w {mlx.kind = "parameter"}, %s {mlx.kind = "parameter"}) {
      %w2 = mlx.primitive "Multiply"(%w, %s)
      %p = conv.pack %w2 ...
      func.return %p
    }
    func.func @forward(%x {mlx.kind = "input"}, %p {mlx.index = 0, mlx.kind = "prepared"}) {
      %y = conv.fused %x, %p ...

Every argument of both functions keeps its attributes (`mlx.index` counts the traced arguments); a prepared argument's
`mlx.index` is the number of the result of `@prepare`. Arguments of kind "state" are replaced by the program itself,
so nothing that reads them moves. A value much larger than the parameters it comes from, such as a bias broadcast to
an activation's shape, is computed in `@forward` rather than stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass

from convjit.ir.conv import weight_type
from convjit.ir.mlx import ConstantOp
from convjit.passes.values import forward_of, static_values

_SLACK = 4096
"""Elements that a prepared value may have beyond those of the parameters it comes from."""


def _elements(value: SSAValue) -> int:
    return prod(weight_type(value.type).get_shape())


def _hoistable(function: FuncOp) -> list[Operation]:
    """The ops to move, in program order."""
    static = static_values(function)
    weight: dict[SSAValue, int] = {v: _elements(v) for v in static if isinstance(v, BlockArgument)}
    small: list[Operation] = []
    for op in function.body.block.ops:
        if op.results and all(r in static for r in op.results) and not isinstance(op, ConstantOp):
            sources = sum(weight.get(v, 0) for v in op.operands)
            weight.update((r, sources) for r in op.results)
            small.append(op)
    # From the end: an op may only move if all who need it move too, or if its results are worth storing.
    moved: set[Operation] = set()
    for op in reversed(small):
        stays = [r for r in op.results if any(use.operation not in moved for use in r.uses)]
        if all(_elements(r) <= weight[r] + _SLACK and not _is_broadcast(op) for r in stays):
            moved.add(op)
    return [op for op in small if op in moved]


def _is_broadcast(op: Operation) -> bool:
    return "primitive" in op.properties and op.properties["primitive"] == StringAttr("Broadcast")


def _close_upwards(ops: list[Operation]) -> list[Operation]:
    """Drop ops that read a result which does not move."""
    moved: set[Operation] = set()
    kept: list[Operation] = []
    for op in ops:
        if all(
            isinstance(v.owner, ConstantOp) or isinstance(v, BlockArgument) or v.owner in moved for v in op.operands
        ):
            moved.add(op)
            kept.append(op)
    return kept


def _move(function: FuncOp, ops: list[Operation]) -> FuncOp:
    """Build `@prepare` from `ops`, and rewire `function` to read its results as arguments."""
    forward = function.body.block
    inside = set(ops)
    crossing = [r for op in ops for r in op.results if any(use.operation not in inside for use in r.uses)]
    arguments = list(dict.fromkeys(v for op in ops for v in op.operands if isinstance(v, BlockArgument)))
    assert function.arg_attrs is not None
    attributes = [function.arg_attrs.data[a.index] for a in arguments]
    prepare = FuncOp(
        "prepare",
        FunctionType.from_lists([a.type for a in arguments], [r.type for r in crossing]),
        arg_attrs=ArrayAttr(attributes),
    )
    body = prepare.body.block
    inner: dict[SSAValue, SSAValue] = dict(zip(arguments, body.args, strict=True))
    for old, new in inner.items():
        new.name_hint = old.name_hint
    for op in ops:
        for operand in op.operands:
            if isinstance(operand.owner, ConstantOp) and operand not in inner:
                twin = operand.owner.clone()
                body.add_op(twin)
                inner[operand] = twin.output
    first = len(forward.args)
    for number, result in enumerate(crossing):
        argument = forward.insert_arg(result.type, first + number)
        argument.name_hint = result.name_hint
        result.replace_uses_with_if(argument, lambda use: use.operation not in inside)
    for op in ops:
        op.detach()
        for index, operand in enumerate(op.operands):
            op.operands[index] = inner.get(operand, operand)
        body.add_op(op)
    body.add_op(ReturnOp(*crossing))
    return prepare


def _drop_unused_arguments(function: FuncOp, prepared: int) -> None:
    """Forget parameters that only `@prepare` reads, and write the arguments' attributes."""
    block = function.body.block
    assert function.arg_attrs is not None
    attributes = list(function.arg_attrs.data)
    attributes += [
        DictionaryAttr({"mlx.index": IntegerAttr(n, i64), "mlx.kind": StringAttr("prepared")}) for n in range(prepared)
    ]
    kept: list[DictionaryAttr] = []
    for argument, attribute in zip(list(block.args), attributes, strict=True):
        if attribute.data["mlx.kind"] != StringAttr("input") and not argument.uses:
            block.erase_arg(argument)
        else:
            kept.append(attribute)
    function.properties["arg_attrs"] = ArrayAttr(kept)
    function.properties["function_type"] = FunctionType.from_lists(
        [a.type for a in block.args], list(function.function_type.outputs)
    )


@dataclass(frozen=True)
class HoistPreparePass(ModulePass):
    """See the module's docstring."""

    name = "hoist-prepare"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in forward_of(op):
            if function.arg_attrs is None:
                continue
            ops = _close_upwards(_hoistable(function))
            prepared = 0
            if ops:
                prepare = _move(function, ops)
                prepared = len(prepare.function_type.outputs)
                op.body.block.insert_op_before(prepare, function)
            _drop_unused_arguments(function, prepared)
